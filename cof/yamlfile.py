"""YAML as configs need it: duplicate keys are errors and `1e-3` is a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cof.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """SafeLoader of YAML 1.1 with YAML 1.2's floats, which refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping with string keys; an empty file is an empty mapping.

    Raises:
        ConfigError: not readable, not YAML, or something else than a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: not YAML: {_one_line(error)}") from None
    if not isinstance(data, dict | None) or not all(isinstance(key, str) for key in data or {}):
        raise ConfigError(f"config {path}: needs `key: value` lines, not {type(data).__name__}")
    return data or {}


def parse_value(text: str, key: str) -> Any:
    """The value of an override, as YAML: `2`, `true`, `null`, `[a, b]`, `some text`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is not YAML: {_one_line(error)}") from None


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
