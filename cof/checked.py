"""Plain data -> a frozen dataclass, strictly: unknown keys and wrong types are errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cof.errors import ConfigError

_T = TypeVar("_T")

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
        ConfigError: the first thing that is wrong, with its dotted key, its value and the fix.
    """
    try:
        text = json.dumps(data, default=str)
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        names = sorted([*known, *(field.name for field in fields(kind))])  # type: ignore[arg-type]
        raise ConfigError(_explain(error, section, names)) from None


def _explain(error: ValidationError, section: str, names: Sequence[str]) -> str:
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"] if part not in _BRANCHES]
    key = ".".join([section, *where] if section else where)
    if first["type"] == "unexpected_keyword_argument":
        return f"{key}: unknown key (value {first['input']!r}); there is: {', '.join(names)}"
    if first["type"] == "missing":
        return f"{key}: has no default, so give a value"
    if first["type"] == "value_error":
        return f"{key or 'config'}: {first['ctx']['error']}"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
