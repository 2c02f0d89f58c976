"""Find a plug-in: by the name of its file here, by a module's name, or by a file's path.

    locate: {name: prompt}              cof/locate/prompt.py
    locate: {name: my_lab.zoom}         any module that can be imported (a name with a dot)
    locate: {name: stages/zoom.py}      any file (a path that ends in .py)

A plug-in is one module. It owns a frozen dataclass `Config` and the functions of its kind, as the
kind's package says in `Contract` and `MayHave`. Nothing is registered anywhere.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from cof.config.general import SUBSET
from cof.errors import ConfigError, cut, shown
from cof.files import DiskError, regular

_SHARED = ("base", "common")
"""Modules of a kind's package that are no plug-ins."""


def names(kind: str) -> list[str]:
    """Names of this package's own plug-ins (`locate`, `refine`, `bench`, `models`), sorted."""
    package = importlib.import_module(f"cof.{kind}")
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if name not in _SHARED and name[0] != "_")


def load(kind: str, name: str) -> ModuleType:
    """The module of a plug-in, held against the contract of its kind.

    Raises:
        ConfigError: no such plug-in, with a list of what exists; one that cannot be imported; or
            parts of it are missing or take other arguments.
    """
    if name.endswith(".py"):
        module = _file(kind, name)
    elif "." in name:
        module = _module(kind, name)
    elif name in names(kind):
        module = importlib.import_module(f"cof.{kind}.{name}")
    else:
        raise ConfigError(
            f"{kind}: unknown name {shown(name)}; there is: {', '.join(names(kind))}; your own "
            "is named by its module (my_lab.zoom) or its file (stages/zoom.py)"
        )
    _hold(kind, module)
    return module


def owner(kind: str, config: Any) -> ModuleType:
    """The plug-in that a config belongs to: the module, or package, that has its class as `Config`.

    Raises:
        ConfigError: there is none.
    """
    return _owner(kind, type(config))  # type: ignore[arg-type]


@cache
def _owner(kind: str, config: type[Any]) -> ModuleType:
    name, refused = config.__module__, None
    while name:
        module = importlib.import_module(name)
        if getattr(module, "Config", None) is config:
            try:
                _hold(kind, module)
            except ConfigError as error:  # the package around it may be the plug-in
                refused = refused or error
            else:
                return module
        name = name.rpartition(".")[0]
    raise refused or ConfigError(
        f"{kind}: {config.__name__} is no Config of a plug-in; a plug-in is a module that has its "
        "own class of that name"
    )


def source_hash(module: ModuleType) -> str:
    """Hex SHA-256 of a plug-in as it was loaded; "" for this package's own, which have its version.

    It is of the plug-in's file and of all that this imports of its own package, or of its folder.
    """
    if module.__name__.partition(".")[0] == "cof":
        return ""
    return _hashes(module)


@cache
def _hashes(module: ModuleType) -> str:
    whole = hashlib.sha256()
    for file in _files(module):
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def _files(module: ModuleType) -> list[Path]:
    """A plug-in's file, then what it imports that lies beside it or in its package, by name."""
    first = Path(str(module.__file__)).resolve()
    depth = module.__name__.count(".") + (first.name == "__init__.py")
    root = first.parents[max(depth, 1) - 1]  # the folder that its imports begin in
    found, waiting = {first}, [first]
    while waiting:
        file = waiting.pop()
        for other in _imported(file, root) - found:
            found.add(other)
            waiting.append(other)
    return [first, *sorted(found - {first})]


def _imported(file: Path, root: Path) -> set[Path]:
    """Files below `root` that a Python file imports, wherever in it."""
    names: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {root.joinpath(*alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else root
            base = start.joinpath(*(node.module or "").split("."))
            names |= {base, *(base / alias.name for alias in node.names)}
    kinds = [(path.with_name(f"{path.name}.py"), path / "__init__.py") for path in names]
    return {one.resolve() for pair in kinds for one in pair if one.is_file()}


def identity(module: ModuleType) -> str:
    """What tells a plug-in from others, wherever it lies: its name, and its hash."""
    digest = source_hash(module)
    return f"{label(module.__name__)} {digest}" if digest else module.__name__


def label(name: str) -> str:
    """A plug-in's short name: of a file its stem, of a module its last part."""
    return Path(name).stem if name.endswith(".py") else name.partition("@")[0].rpartition(".")[2]


def _module(kind: str, name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
        source_hash(module)  # of what is loaded now, whatever becomes of the file
        return module
    except Exception as error:
        where = "" if not isinstance(error, ModuleNotFoundError) else "; is it on PYTHONPATH?"
        raise ConfigError(
            f"{kind}: {shown(name)} cannot be imported ({_said(error)}){where}"
        ) from error


def _file(kind: str, name: str) -> ModuleType:
    """A file as a module of its own; read anew once its content is another."""
    try:
        source = regular(Path(name)).read_bytes()
    except (OSError, DiskError) as error:
        raise ConfigError(f"{kind}: {cut(str(error), 300)}") from error
    stem = re.sub(r"\W", "_", Path(name).stem)
    known = f"{stem}@{hashlib.sha256(str(Path(name).resolve()).encode() + source).hexdigest()[:12]}"
    if known in sys.modules:
        return sys.modules[known]
    module = ModuleType(known)
    module.__file__ = name
    sys.modules[known] = module  # dataclasses and annotations look themselves up here
    sys.path.insert(0, str(Path(name).resolve().parent))  # what lies beside it can be imported
    try:
        exec(compile(source, name, "exec"), module.__dict__)  # no bytecode: these bytes are hashed
        source_hash(module)
    except Exception as error:
        del sys.modules[known]
        raise ConfigError(f"{kind}: {name} cannot be imported ({_said(error)})") from error
    finally:
        sys.path.pop(0)
    return module


def _said(error: Exception) -> str:
    return cut(f"{type(error).__name__}: {error}", 200)


@cache
def _hold(kind: str, module: ModuleType) -> None:
    """Hold a plug-in against the contract of its kind."""
    package = importlib.import_module(f"cof.{kind}")
    wanted, optional = dict(_parts(package.Contract)), dict(_parts(package.MayHave))
    if getattr(module, "CACHEABLE", False):
        wanted["read_reply"] = optional["read_reply"]
    lacking = [name for name in wanted if not hasattr(module, name)]
    wrong = [
        f"{name}{_arguments(getattr(module, name))} (needs {_arguments(part)})"
        for name, part in {**wanted, **optional}.items()
        if callable(part) and hasattr(module, name) and not _takes(getattr(module, name), part)
    ]
    if lacking or wrong:
        said = f"lacks {', '.join(lacking)}" if lacking else f"has {'; '.join(wrong)}"
        raise ConfigError(
            f"{kind}: {label(module.__name__)} ({module.__file__}) {said}; "
            f"cof/{kind}/__init__.py says what a plug-in has to have"
        )
    problem = _config_problem(kind, module)
    if problem:
        raise ConfigError(f"{kind}: {label(module.__name__)} ({module.__file__}): {problem}")


_RESERVED = {"name", "sha256", *SUBSET}
"""Keys of a section that are not the plug-in's."""


def _config_problem(kind: str, module: ModuleType) -> str:
    """What is wrong with a plug-in's `Config`, "" for nothing."""
    config = module.Config
    if not isinstance(config, type) or not is_dataclass(config) or config.__hash__ is None:
        return "Config is no frozen dataclass (write @dataclass(frozen=True) above it)"
    reserved = sorted(_RESERVED & {field.name for field in fields(config)})
    if reserved:
        return f"Config has {', '.join(reserved)}, which stand for other things in a config"
    inside = f"{config.__module__}.".startswith(f"{module.__name__}.")
    if kind in ("locate", "refine") and not inside:
        return (
            f"Config is that of {config.__module__}, which would be run in its place; write "
            "`class Config(TheirConfig)` as a frozen dataclass of your own"
        )
    return ""


def _parts(protocol: type[Any]) -> Iterator[tuple[str, Callable[..., Any] | None]]:
    """Names that a protocol asks for; of functions with one, which has a `self` in front."""
    for name in {**vars(protocol).get("__annotations__", {}), **vars(protocol)}:
        if not name.startswith("_"):
            part = vars(protocol).get(name)
            yield name, part if inspect.isfunction(part) else None


def _takes(given: Any, part: Callable[..., Any]) -> bool:
    """Whether a function can be called as the protocol calls it, by position."""
    try:
        inspect.signature(given).bind(*range(len(inspect.signature(part).parameters) - 1))
    except (TypeError, ValueError):
        return False
    return True


def _arguments(function: Any) -> str:
    try:
        names = [name for name in inspect.signature(function).parameters if name != "self"]
    except (TypeError, ValueError):
        return ", no function"
    return f"({', '.join(names)})"
