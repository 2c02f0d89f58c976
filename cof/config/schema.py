"""A run's config: YAML plus dotted overrides -> checked frozen dataclasses.

Each section with a `name` is a plug-in: `refine: {name: highlight, weight: 4.5}` is read into
`cof.refine.highlight.Config`. What is left out has its default; what is unknown, of another type
or out of range is a `ConfigError` that names the dotted key, the value, and what exists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cof.config.build import build, check_values
from cof.config.general import SUBSET, Gate, General, Images, Subset
from cof.config.sections import (
    KINDS,
    changed,
    parse_override,
    plugin_config,
    section_of,
    take_name,
    take_source,
)
from cof.config.yaml import parse_yaml
from cof.errors import ConfigError, shown
from cof.exif import Exif
from cof.models import base
from cof.regions.boxes import BoxConfig

_OTHER_KEYS = {"bench": SUBSET, "locate": (), "refine": (), "model": ()}
"""Sections in the order in which they are read, the model's heavy module last."""


@dataclass(frozen=True)
class Gone:
    """A key that a plug-in once had: the plug-in's name, the value that is left, the way out."""

    name: str
    value: Any
    instead: str


LATER: dict[str, Any] = {
    "deterministic": False,
    "images.exif": "apply",
    "bench.unit": "pixels",
    "bench.extract": "vlmevalkit",
    "model.decode": "auto",
    "model.quantization": None,
    "model.suffix": None,
    "locate.decode": "free",
    "locate.chosen_on": "",
    **{f"refine.{part}text": "" for part in ("", "first.", "second.")},
    **{f"refine.{part}beside": False for part in ("", "first.", "second.")},
    "bench.limit_first": None,
    "bench.limit_seed": 0,
}
"""Keys that older configs lack -> the value that stands for how those runs were made. At that value
a key does not count (`cof.config.identity`), so that a new key changes no run's identity; every new
key has a line here. (Runs made before `images.exif` turned their pictures; letters are read anew
by every scoring; `bench.limit` meant what `limit_first` does.)"""

GONE: dict[str, Gone] = {
    "model.compile": Gone("llava", False, "model.decode: graph (the default on CUDA) replaced it"),
}
"""Keys that older configs have -> what became of them. At the value that stands for how every run
is made now a key is dropped, and still counts as it did, so that no run's identity changes."""


@dataclass(frozen=True)
class RunConfig:
    """A whole run, checked. Each plug-in's part is an instance of the plug-in's own `Config`.

    Attributes:
        names: section -> plug-in, for `model`, `bench`, `locate` and `refine`.
        limits: how the fine stage and the plain pass decode.
        sources: section -> hash of its plug-in's file, for those from outside this package.
        gate: which questions are located and refined; None, which is not written down, is all.
    """

    general: General
    names: Mapping[str, str]
    model: Any
    bench: Any
    subset: Subset
    images: Images
    locate: Any
    boxes: BoxConfig
    refine: Any
    limits: base.Limits
    sources: Mapping[str, str] = field(default_factory=dict)
    gate: Gate | None = None

    def as_dict(self) -> dict[str, Any]:
        """The resolved config, every default spelled out; `resolve` reads it back unchanged."""
        parts = {
            key: {"name": self.names[key], **self._source(key), **asdict(getattr(self, key))}
            for key in KINDS
        }
        parts["bench"] |= asdict(self.subset)
        parts |= {key: asdict(getattr(self, key)) for key in ("images", "boxes", "limits")}
        parts |= {"gate": asdict(self.gate)} if self.gate else {}
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self.general), **parts}))
        return plain

    def _source(self, key: str) -> dict[str, str]:
        return {"sha256": self.sources[key]} if self.sources.get(key) else {}

    def with_(self, changes: Mapping[str, Any]) -> RunConfig:
        """The same config but for some dotted keys: `{"refine.weight": 2, "locate": "oracle"}`.

        Another plug-in has its own defaults, and keeps what was chosen of the keys that it shares
        with the one before it. Plug-ins are named before their keys are set, in any order given.

        Raises:
            ConfigError: as `resolve`.
        """
        named = {
            f"{key}.name" if key in KINDS and isinstance(value, str) else key: value
            for key, value in changes.items()
        }
        data = self.as_dict()
        for key in sorted(named, key=lambda key: not key.endswith(".name")):
            section = key.removesuffix(".name")
            if section in KINDS and named[key] != self.names[section]:
                data[section] = self._chosen(section, data[section])
            data = changed(data, key, named[key])
        return resolve(data)

    def _chosen(self, section: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Of a plug-in's section what is not its default."""
        config = getattr(self, section)
        at_default = {
            one.name for one in fields(config) if getattr(config, one.name) == one.default
        }
        return {key: value for key, value in data.items() if key not in at_default}


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config and apply `key=value` overrides (`refine.weight=2`) in their order.

    A value is YAML. Naming another plug-in (`refine.name=plain`) keeps those of the file's keys
    in that section that the new plug-in has, and drops the others.

    Raises:
        ConfigError: no such file, not a YAML mapping, or a key or value that `resolve` refuses.
    """
    data = parse_yaml(Path(path))
    for override in overrides:
        data = changed(data, *parse_override(override))
    return resolve(data)


def resolve(data: Mapping[str, Any]) -> RunConfig:
    """Check nested plain data against the dataclasses.

    Raises:
        ConfigError: an unknown key or plug-in, a wrong type, or an impossible value.
    """
    for key in data:
        if not isinstance(key, str):
            raise ConfigError(f"config: the key {shown(key)} is no text")
    sections = [*KINDS, "images", "boxes", "limits", "gate"]
    rest = {key: value for key, value in data.items() if key not in sections}
    general = build(General, rest, "", known=sections)
    parts = {key: section_of(data, key) for key in sections}
    names = {key: take_name(parts[key], key) for key in KINDS}
    _drop_gone(parts, names)
    sources = {key: take_source(parts[key], key, names[key]) for key in KINDS}
    kept = {key: parts["bench"].pop(key) for key in SUBSET if key in parts["bench"]}
    subset = build(Subset, kept, "bench")
    images = build(Images, parts["images"], "images")
    boxes = build(BoxConfig, parts["boxes"], "boxes")
    limits = build(base.Limits, parts["limits"], "limits")
    gate = None if data.get("gate") is None else build(Gate, parts["gate"], "gate")
    configs = {
        key: build(plugin_config(key, names[key]), parts[key], key, known=("name", *known))
        for key, known in _OTHER_KEYS.items()
    }
    asked = configs["locate"]
    free = getattr(asked, "decode", "free") == "free"
    if boxes.rules == "reference" and free and getattr(asked, "stop", None) == "boxes":
        raise ConfigError(
            "locate.stop: 'boxes' may end a reply before the box that boxes.rules=reference reads; "
            "set locate.stop to first or never"
        )
    return RunConfig(
        general=general,
        names=names,
        sources=sources,
        subset=subset,
        images=images,
        boxes=boxes,
        limits=limits,
        gate=gate,
        **configs,
    )


def _drop_gone(parts: Mapping[str, dict[str, Any]], names: Mapping[str, str]) -> None:
    """Take keys out that are gone, if they say what holds anyway."""
    for dotted, gone in GONE.items():
        section, _, key = dotted.partition(".")
        if names[section] != gone.name or key not in parts[section]:
            continue
        if (value := parts[section].pop(key)) != gone.value:
            raise ConfigError(f"{dotted}: {shown(value)} is no more; {gone.instead}")


def check_saved(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a run's config.yaml, if every part that its readers use is there.

    No plug-in is imported, so that a run can be read where its model cannot.

    Raises:
        ConfigError: a key that is missing or has another type.
    """
    check_values(data, "")
    known = {field.name for field in fields(General)}
    build(General, {key: value for key, value in data.items() if key in known}, "")
    for key in known - data.keys() - LATER.keys():
        raise ConfigError(f"{key} is missing")
    for key in KINDS:
        take_name(section_of(data, key), key)
    root = data["bench"].get("root")
    if not isinstance(root, str):
        raise ConfigError(f"bench.root: needs text, not {shown(root)}")
    return data


def exif_of(resolved: Mapping[str, Any]) -> Exif:
    """How a run showed its pictures; one made before `images.exif` existed turned them."""
    rule: Exif = resolved.get("images", {"exif": LATER["images.exif"]})["exif"]
    return rule
