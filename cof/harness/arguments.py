"""Options of another tool's command line -> a run's config.

    pretrained=cof-tiny,weight=2,expand=1.5,locate=oracle     by the names of fields
    config=my.yaml,refine.layers=[0,1]                        by the keys of a config

`pretrained` is `model.path`; a name without a dot is a general key (`plain`, `cache`, ...), or a
field of the model's `Config`, the fine stage's, `BoxConfig`, `Limits`, or else the coarse stage's;
`family`, `locate` and `refine` name plug-ins. The other tool has the questions: there is no bench.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cof.config import schema
from cof.config.general import General
from cof.config.routing import PLUGINS
from cof.config.sections import DEFAULT_NAMES, changed, plugin_config, section_of
from cof.config.yaml import parse_value, parse_yaml
from cof.errors import ConfigError
from cof.models.base import Limits
from cof.regions.boxes import BoxConfig

NO_BENCH = {"name": "mme", "root": "."}
"""`schema.resolve` wants a benchmark; the session leaves it out of everything that it writes."""

_ELSEWHERE = {
    "bench": "the other tool chooses the questions",
    "images": "the other tool opens the pictures",
    "seed": "the other tool has the statistics",
    "workers": "the other tool opens the pictures",
}


def read_arguments(given: Mapping[str, Any]) -> schema.RunConfig:
    """The config that options stand for; `plain` is off unless it is asked for.

    Args:
        given: option -> value; a text is read as YAML, as in `cof eval`.

    Raises:
        ConfigError: an unknown option or value, or one that has no effect here.
    """
    values = {key: _value(key, value) for key, value in given.items()}
    file = values.pop("config", None)
    data: dict[str, Any] = {"plain": False, **(parse_yaml(Path(file)) if file else {})}
    # plug-ins first, since they decide which fields there are
    for key in sorted(values, key=lambda key: key not in PLUGINS and not key.endswith(".name")):
        data = changed(data, _dotted(key, data), values[key])
    return schema.resolve({**data, "bench": NO_BENCH})


def _value(key: str, value: Any) -> Any:
    """A value as YAML has it: other tools make a float of `-1` and a text of `null`."""
    if key in ("pretrained", "config"):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return parse_value(value, key) if isinstance(value, str) else value


def _dotted(key: str, data: Mapping[str, Any]) -> str:
    """The key of a config that an option stands for."""
    if key.partition(".")[0] in _ELSEWHERE:
        raise ConfigError(f"{key}: has no effect here, {_ELSEWHERE[key.partition('.')[0]]}")
    if "." in key:
        return key
    if key == "pretrained":
        return "model.path"
    if key in PLUGINS:
        return f"{PLUGINS[key]}.name"
    parts: dict[str, type[Any]] = {"boxes": BoxConfig, "limits": Limits}
    for section, default in DEFAULT_NAMES.items():
        parts[section] = plugin_config(section, section_of(data, section).get("name", default))
    has = [section for section, kind in parts.items() if key in _names(kind)]
    found = [section for section in has if section != "locate"] or has
    if key in _names(General):
        return key
    if len(found) == 1:
        return f"{found[0]}.{key}"
    if found:
        raise ConfigError(f"{key}: say which, {' or '.join(f'{one}.{key}' for one in found)}")
    there = "; ".join(f"{section}: {', '.join(_names(kind))}" for section, kind in parts.items())
    raise ConfigError(f"{key}: no such option; there is pretrained, config, plain, {there}")


def _names(kind: type[Any]) -> list[str]:
    return [one.name for one in fields(kind)]
