"""Packaging: ranges of the dependencies, the `cof` command, and the embedded checkpoint as data."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("cof/__init__.py").read_text())

setup(
    name="cof",
    version=VERSION.group(1) if VERSION else None,
    description="Coarse to fine-grained image understanding for multi-modal LLMs",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["cof", "cof.*", "cof_lab", "cof_lab.*", "cof_speed"]),
        "cof.base_models",
    ],
    package_dir={"cof": "cof", "cof.base_models": "base_models"},
    package_data={"cof.base_models": ["cof-tiny/*", "cof-tiny/*/*"]},
    install_requires=[
        "torch>=2.10,<2.14",
        "transformers>=5.20,<6",
        "accelerate>=1.10",
        "safetensors>=0.5",
        "sentencepiece>=0.2",
        "protobuf>=5",
        "tokenizers>=0.22",
        "numpy>=2.0",
        "pillow>=11",
        "scipy>=1.15",
        "matplotlib>=3.9",
        "pydantic>=2.12,<3",
        "PyYAML>=6.0",
        "click>=8.1",
        "tabulate>=0.9",
        "tqdm>=4.66",
        "huggingface_hub>=1.0",
        "openpyxl>=3.1",
        "pyarrow>=17",
    ],
    extras_require={
        "app": ["gradio>=6.31,<7"],  # cof app
        "hub": ["datasets>=4.2"],  # cof data fetch
        "pandas": ["pandas>=2.2"],  # load_run(...).to_pandas()
        "lmms-eval": ["lmms-eval>=0.5"],  # lmms-eval --model cof
    },
    entry_points={
        "console_scripts": ["cof = cof.cli:main"],
        "lmms_eval.models": ["cof = cof.harness.lmms_eval:manifest"],
    },
)
