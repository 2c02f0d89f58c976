"""Find a plug-in by the name of its file: `locate: {name: prompt}` is `cof/locate/prompt.py`.

A plug-in is one module. It owns a frozen dataclass `Config` and the functions of its kind, which
the package's `__init__` describes. Nothing is registered anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from cof.errors import ConfigError

CONTRACTS = {
    "bench": "Config VERSION SOURCE read expected credit score table export read_answers",
    "locate": "Config locate",
    "refine": "Config refine",
    "models": "Config load",
}
"""Kind -> what its plug-ins must have; see each package's `__init__`."""


def names(kind: str) -> list[str]:
    """Names that exist for a kind (`locate`, `refine`, `bench`, `models`), sorted."""
    package = importlib.import_module(f"cof.{kind}")
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if name not in ("base", "common") and name[0] != "_")


def load(kind: str, name: str) -> ModuleType:
    """The module of a plug-in, checked against the contract of its kind.

    Raises:
        ConfigError: no file of that name, with a list of what exists; or parts of it are missing.
    """
    if name not in names(kind):
        raise ConfigError(f"{kind}: unknown name {name!r}; there is: {', '.join(names(kind))}")
    module = importlib.import_module(f"cof.{kind}.{name}")
    lacking = [part for part in CONTRACTS[kind].split() if not hasattr(module, part)]
    if lacking:
        raise ConfigError(
            f"{kind}: {name} ({module.__file__}) lacks {', '.join(lacking)}; "
            f"cof/{kind}/__init__.py says what a plug-in has to have"
        )
    return module
