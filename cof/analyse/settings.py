"""What tells runs apart: the keys in which their configs differ, under the names of `cof sweep`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cof.config.identity import NOT_RESULTS, flatten
from cof.config.sections import KINDS

SHORT = {
    "weight": "refine.weight",
    "scope": "refine.scope",
    "layers": "refine.layers",
    "heads": "refine.heads",
    "perturb": "refine.perturb",
    "expand": "boxes.expand",
    "square": "boxes.square",
    "rules": "boxes.rules",
    "locate": "locate.name",
    "refine": "refine.name",
    "model": "model.path",
    "gate": "gate.threshold",
}
"""Short name of a setting -> its dotted key; every other key is written in full."""

SIGNS = {"weight": "λ", "expand": "α"}
"""The paper's letters, for tables and figures."""

_ABSENT = object()


def short(key: str) -> str:
    """The short name of a dotted key, the key itself where it has none."""
    return next((name for name, dotted in SHORT.items() if dotted == key), key)


def sign(key: str) -> str:
    """What a table or a figure calls a dotted key."""
    return SIGNS.get(short(key), short(key))


def show(key: str, value: Any) -> str:
    """A value as one word: `4.5`, `0-15` for a run of integers, `0+3+7`, `2.1+0.3` for pairs.

    None is `all` layers or heads, else `none`.
    """
    if value is None:
        return "all" if short(key) in ("layers", "heads") else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        numbers = all(type(one) is int for one in value)
        if numbers and len(value) > 2 and list(value) == list(range(value[0], value[-1] + 1)):
            return f"{value[0]}-{value[-1]}"
        return "+".join(_inner(key, one) for one in value)
    return str(value)


def _inner(key: str, value: Any) -> str:
    """A value in a list; of a pair its parts with a dot between."""
    inside = value if isinstance(value, list | tuple) else [value]
    return ".".join(show(key, one) for one in inside)


def as_file_name(parts: Mapping[str, Any]) -> str:
    """`weight=4.5,expand=1`: settings as a folder's name."""
    words = (f"{name}={show(name, value)}" for name, value in parts.items())
    return ",".join(re.sub(r"[^\w.=+-]", "_", word) for word in words)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys in which resolved configs differ, in the configs' order.

    Keys that say where things are do not count, nor what chose a setting that counts itself, nor
    those of a plug-in that only some use, as long as they agree.
    """
    flats = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    told = (*NOT_RESULTS, "locate.chosen_on")
    found = [key for key in keys if key not in told and _differs(flats, key)]
    named = {key.removesuffix(".name") for key in found if key.endswith(".name")} & KINDS.keys()
    return [
        key
        for key in found
        if key.partition(".")[0] not in named
        or key.endswith(".name")
        or _differs([flat for flat in flats if key in flat], key)
    ]


def _differs(flats: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({repr(flat.get(key, _ABSENT)) for flat in flats}) > 1


def values(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> shown value, "" where the config has no such key.

    Of any stage's layers and heads None is `all`.
    """
    flat = flatten(config)
    last = {key: key.rpartition(".")[2] for key in keys if key.endswith((".layers", ".heads"))}
    return {key: show(last.get(key, key), flat[key]) if key in flat else "" for key in keys}
