"""Find a plug-in by the name of its file: `locate: {name: prompt}` is `cof/locate/prompt.py`.

A plug-in is one module. It owns a frozen dataclass `Config` and the functions of its kind, which
the package's `__init__` describes. Nothing is registered anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from cof.errors import ConfigError


def names(kind: str) -> list[str]:
    """Names that exist for a kind (`locate`, `refine`, `bench`, `models`), sorted."""
    package = importlib.import_module(f"cof.{kind}")
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """The module of a plug-in.

    Raises:
        ConfigError: no file of that name; the message lists what exists.
    """
    if name not in names(kind):
        raise ConfigError(f"{kind}: unknown name {name!r}; there is: {', '.join(names(kind))}")
    return importlib.import_module(f"cof.{kind}.{name}")
