"""Coarse-to-fine image understanding for multi-modal LLMs (arXiv 2412.16869).

The public names are loaded when they are first used, so that `import cof` and `cof --help` are
quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CoF": "cof.pipeline",
    "Settings": "cof.config.settings",
    "highlighted": "cof.attention",
    "Highlight": "cof.regions.bias",
    "Box": "cof.types",
    "Question": "cof.types",
    "Region": "cof.types",
    "Answer": "cof.types",
    "load_run": "cof.store.run",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cof' has no attribute {name!r}; there is: {__all__}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
