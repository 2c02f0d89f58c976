"""Plain data -> a frozen dataclass, strictly: unknown keys and wrong types are errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cof.errors import ConfigError, cut, shown

_T = TypeVar("_T")

DEPTH = 16
"""Deepest nesting of what anybody means to write."""

LARGEST = 2**63 - 1
"""Largest whole number that seeds, sizes and counts may have."""

_BRANCHES = ("int",)
"""Parts of pydantic's path to an error that name a branch of a union and no key."""


def build(kind: type[_T], data: Mapping[str, Any], section: str, known: Sequence[str] = ()) -> _T:
    """An instance of a dataclass; nothing is converted but int to float and list to tuple.

    Args:
        kind: the dataclass; a ValueError of its `__post_init__` is the user's error too.
        data: a value for each key; what is left out has its default.
        section: prefix of the keys in messages, "" for none.
        known: further keys that exist in the section, for messages.

    Raises:
        ConfigError: the first thing that is wrong, with its dotted key, its value and the fix;
            in every dataclass a number that is not finite or beyond `LARGEST`, a text with a NUL
            byte, and data nested deeper than `DEPTH`.
    """
    check_values(data, section)
    try:
        text = json.dumps(data, default=str)
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        names = sorted([*known, *(field.name for field in fields(kind))])  # type: ignore[arg-type]
        raise ConfigError(_explain(error, section, names)) from None


def check_values(value: Any, key: str, depth: int = 0) -> None:
    """Raise ConfigError for what no config can hold, whatever the type of its key; see `build`."""
    where = key or "config"
    if depth > DEPTH:
        raise ConfigError(f"{cut(where)}: nested deeper than {DEPTH}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is no finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{where}: a number beyond {LARGEST}")
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{where}: the key {shown(name)} is no text")
            _check_text(name, where)
            check_values(one, f"{key}.{name}" if key else name, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for place, one in enumerate(value):
            check_values(one, f"{key}.{place}", depth + 1)


def _check_text(text: str, where: str) -> None:
    if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ConfigError(f"{where}: {shown(text)} holds a NUL byte or half a character")


def _explain(error: ValidationError, section: str, names: Sequence[str]) -> str:
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"] if part not in _BRANCHES]
    key = cut(".".join([section, *where] if section else where))
    given = shown(first["input"])
    if first["type"] == "unexpected_keyword_argument":
        return f"{key}: unknown key (value {given}); there is: {', '.join(names)}"
    if first["type"] == "missing":
        return f"{key}: has no default, so give a value"
    if first["type"] == "value_error":
        return f"{key or 'config'}: {cut(str(first['ctx']['error']), 300)}"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {given}"
