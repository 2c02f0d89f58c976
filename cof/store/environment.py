"""Under what a run was made: versions, commit, command; read from the machine, never guessed."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cof

PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers", "sentencepiece", "safetensors"),
    *("numpy", "pillow", "scipy"),
)


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of those that results depend on; None is absent."""
    found = {"python": platform.python_version(), "cof": cof.__version__}
    return found | {name: _version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """The processor's architecture, and the names of the GPUs that torch sees, if it is loaded."""
    torch = sys.modules.get("torch")
    count = torch.cuda.device_count() if torch else 0
    names = [torch.cuda.get_device_name(number) for number in range(count)] if torch else []
    return {"machine": platform.machine(), "gpus": names}


def commit() -> dict[str, Any]:
    """`{commit, dirty}` of the checkout that holds this package, both None when installed."""
    package = Path(cof.__file__).resolve().parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "dirty": None}
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(package, "rev-parse", "HEAD"), "dirty": bool(changed)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
