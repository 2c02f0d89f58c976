"""YAML as configs need it: duplicate keys are errors, `1e-3` is a number, and nothing explodes.

A file of a few lines can stand for billions of values (aliases of aliases), for itself, or for
brackets deeper than Python's stack; all of that is refused before anything is built from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cof.config.build import DEPTH
from cof.errors import ConfigError, cut, shown
from cof.files import DiskError, regular

LONGEST = 1 << 16
"""Most characters of a config or a value."""

MOST = 5000
"""Most values in a config, each alias counted as what it stands for."""


class _Loader(yaml.SafeLoader):
    """SafeLoader of YAML 1.1 with YAML 1.2's floats, which refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping with string keys; an empty file is an empty mapping.

    Raises:
        ConfigError: not readable, no file, not YAML, too large, or something else than a mapping.
    """
    try:
        data = _load(regular(path).read_text(encoding="utf-8"))
    except DiskError as error:
        raise ConfigError(f"config {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path}: cannot be read: {error}") from None
    except ValueError as error:
        raise ConfigError(f"config {path}: not YAML: {error}") from None
    if not isinstance(data, dict | None) or not all(isinstance(key, str) for key in data or {}):
        raise ConfigError(f"config {path}: needs `key: value` lines, not {type(data).__name__}")
    return data or {}


def parse_value(text: str, key: str) -> Any:
    """The value of an override, as YAML: `2`, `true`, `null`, `[a, b]`, `some text`.

    Raises:
        ConfigError: not YAML, or too large.
    """
    try:
        return _load(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {shown(text)} is not YAML: {error}") from None


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)


def _load(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: why there is none, on one line.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters, more than {LONGEST}")
    try:
        data = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except Exception as error:  # PyYAML trips over `!!int ''`, `!!bool x`, 2001-99-99 in many ways
        raise ValueError(cut(str(error), 300)) from None
    for count, (depth, _) in enumerate(_values(data), 1):
        if count > MOST or depth > DEPTH:
            raise ValueError(f"holds more than {MOST} values, or nests deeper than {DEPTH}")
    return data


def _values(data: Any, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Everything in nested data with its depth, one after another; endless where it is."""
    waiting = [(depth, data)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple | set):
            waiting += [(depth + 1, one) for one in inner]
