"""Sections of a config that name a plug-in, and one dotted key changed in plain data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cof.config import plugins
from cof.config.build import DEPTH
from cof.config.general import SUBSET
from cof.config.yaml import parse_value
from cof.errors import ConfigError, shown

KINDS = {"model": "models", "bench": "bench", "locate": "locate", "refine": "refine"}
"""Section of a config -> the package whose plug-ins it may name."""

DEFAULT_NAMES = {"model": "llava", "locate": "prompt", "refine": "highlight"}
"""The paper's method on the paper's model; a benchmark has to be named."""


def plugin_config(section: str, name: str) -> type[Any]:
    """The `Config` dataclass of a section's plug-in."""
    module = plugins.load(KINDS[section], name)
    config: type[Any] = module.Config
    return config


def section_of(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A copy of one section, empty where the config has none.

    Raises:
        ConfigError: something else stands there.
    """
    value = data.get(key)
    if not isinstance(value, dict | None):
        raise ConfigError(f"{key}: needs keys of its own, such as {key}.name, not {shown(value)}")
    return dict(value or {})


def take_name(section: dict[str, Any], key: str) -> str:
    """The name of a section's plug-in, taken out of the section.

    Raises:
        ConfigError: no text, or none where there is no default.
    """
    name = section.pop("name", DEFAULT_NAMES.get(key))
    if not isinstance(name, str):
        exist = ", ".join(plugins.names(KINDS[key]))
        raise ConfigError(f"{key}.name: needs a name, not {shown(name)}; there is: {exist}")
    return name


def take_source(section: dict[str, Any], key: str, name: str) -> str:
    """The hash of a section's plug-in from outside this package, "" for our own.

    A config that a run has saved says it (`locate.sha256`); it is taken out of the section.

    Raises:
        ConfigError: the plug-in is another one now.
    """
    said = section.pop("sha256", "")
    found = plugins.source_hash(plugins.load(KINDS[key], name))
    if said and said != found:
        raise ConfigError(
            f"{key}.sha256: {name} has changed (it was {said!s:.12}, it is {found or 'ours':.12}); "
            f"take {key}.sha256 out of the config to go on with the new one"
        )
    return found


def parse_override(text: str) -> tuple[str, Any]:
    """`refine.weight=2` as a dotted key and a value; the value is YAML.

    Raises:
        ConfigError: no `key=value`, or no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key or not key.isprintable() or key.count(".") > DEPTH:
        raise ConfigError(f"{shown(text)} is no override; write key=value, as in refine.weight=2")
    return key, parse_value(value, key)


def changed(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of plain data with one dotted key set.

    Another plug-in's name takes away those keys of its section that the new plug-in does not have.

    Raises:
        ConfigError: a part of the key's path that has no keys of its own, or an unknown plug-in.
    """
    copied = copy.deepcopy(dict(data))
    *path, last = key.split(".")
    place = copied
    for part in path:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(f"{key}: {part!r} has no keys of its own, it is {shown(place)}")
    section = key.removesuffix(".name")
    if section in KINDS and isinstance(value, str) and place.get("name") != value:
        _keep_shared(place, section, value)
    place[last] = value
    return copied


def _keep_shared(place: dict[str, Any], section: str, name: str) -> None:
    kept = {*SUBSET, *(field.name for field in fields(plugin_config(section, name)))}
    for key in [key for key in place if key not in kept]:
        del place[key]
