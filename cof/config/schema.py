"""A run's config: YAML plus dotted overrides -> checked frozen dataclasses, and a content hash.

Each section with a `name` is a plug-in: `refine: {name: highlight, weight: 4.5}` is read into
`cof.refine.highlight.Config`. What is left out has its default; what is unknown, of another type
or out of range is a `ConfigError` that names the dotted key, the value, and what exists.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from cof.config import plugins
from cof.config.build import DEPTH, build, check_values
from cof.config.yaml import parse_value, parse_yaml
from cof.errors import ConfigError, shown
from cof.exif import Exif
from cof.models import base
from cof.regions.boxes import BoxConfig

KINDS = {"model": "models", "bench": "bench", "locate": "locate", "refine": "refine"}
"""Section of a config -> the package whose plug-ins it may name."""

DEFAULT_NAMES = {"model": "llava", "locate": "prompt", "refine": "highlight"}
"""The paper's method on the paper's model; a benchmark has to be named."""

_OTHER_KEYS = {"bench": ("limit",), "locate": (), "refine": (), "model": ()}
"""Sections in the order in which they are read, the model's heavy module last."""

NOT_RESULTS = ("name", "out", "cache", "workers", "bench.root")
"""Keys that tell no two runs apart: where things are, how images are fed."""

PLACES = ("model.path", "locate.of", "locate.path", "bench.questions", "bench.images", "bench.file")
"""Keys that name a place with contents. The place does not count; the contents do, by hashes of
their own: weights, regions, questions (`cof.store.origin`)."""

LATER: dict[str, Any] = {
    "images.exif": "apply",
    "bench.unit": "pixels",
    "bench.extract": "vlmevalkit",
}
"""Keys that older configs lack -> the value that stands for how those runs were made. At that value
a key does not count, so that a new key changes no run's identity; every new key has a line here.
(Runs made before `images.exif` turned their pictures; letters are read anew by every scoring.)"""

LONGEST_NAME = 200
"""Most bytes of a run's folder name; file systems take 255."""


@dataclass(frozen=True)
class General:
    """The keys outside any section.

    Attributes:
        name: folder of the run inside `out`; None derives one from the config and the dataset.
        out: folder that holds run folders, relative to where the command is called.
        plain: also answer every question without the highlight, for the comparison.
        batch_size: most questions in a batch, or `auto`: what fits into memory, 64 at most. In
            half precision part of the hash, since padding rounds; in float32 answers do not
            depend on it unless they are sampled, and a run may go on with another.
        seed: of the permutation test; sampling has `limits.seed`.
        cache: file of coarse replies that runs share (`cof.store.replies`); None asks anew.
        workers: threads of each process that decode images ahead of the model.
    """

    name: str | None = None
    out: str = "runs"
    plain: bool = True
    batch_size: int | Literal["auto"] = 1
    seed: int = 0
    cache: str | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        if self.batch_size != "auto" and not 1 <= self.batch_size <= 65536:
            raise ValueError(
                f"batch_size={self.batch_size} must be at least 1, at most 65536, or auto"
            )
        if not 1 <= self.workers <= 256:
            raise ValueError(f"workers={self.workers} must be at least 1, at most 256")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.name is not None and not plain_name(self.name):
            raise ValueError(
                f"name={shown(self.name)} must be a plain folder name; `out` is a path"
            )


def plain_name(name: str) -> bool:
    """Whether a text can be a run's folder: one visible part of a path on every system."""
    fits = 0 < len(name.encode(errors="replace")) <= LONGEST_NAME
    return fits and name.isprintable() and name[0] != "." and not set(name) & set("/\\")


@dataclass(frozen=True)
class Subset:
    """`bench.limit`: only the first so many images, with all their questions; None is all."""

    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit} must be at least 1, or null for all images")


@dataclass(frozen=True)
class Images:
    """`images`: how the benchmark's pictures are opened.

    Attributes:
        exif: `ignore` shows a picture as it is stored, as published; `apply` turns it upright, as
            its EXIF tag says, and its ground-truth boxes with it.
    """

    exif: Exif = "ignore"


@dataclass(frozen=True)
class RunConfig:
    """A whole run, checked. Each plug-in's part is an instance of the plug-in's own `Config`.

    Attributes:
        names: section -> plug-in, for `model`, `bench`, `locate` and `refine`.
        limits: how the fine stage and the plain pass decode.
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

    def as_dict(self) -> dict[str, Any]:
        """The resolved config, every default spelled out; `resolve` reads it back unchanged."""
        parts = {key: {"name": self.names[key], **asdict(getattr(self, key))} for key in KINDS}
        parts["bench"] |= asdict(self.subset)
        parts |= {key: asdict(getattr(self, key)) for key in ("images", "boxes", "limits")}
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self.general), **parts}))
        return plain


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config and apply `key=value` overrides (`refine.weight=2`) in their order.

    A value is YAML. Naming another plug-in (`refine.name=plain`) keeps those of the file's keys
    in that section that the new plug-in has, and drops the others.

    Raises:
        ConfigError: no such file, not a YAML mapping, or a key or value that `resolve` refuses.
    """
    data = parse_yaml(Path(path))
    for override in overrides:
        data = _override(data, override)
    return resolve(data)


def resolve(data: Mapping[str, Any]) -> RunConfig:
    """Check nested plain data against the dataclasses.

    Raises:
        ConfigError: an unknown key or plug-in, a wrong type, or an impossible value.
    """
    for key in data:
        if not isinstance(key, str):
            raise ConfigError(f"config: the key {shown(key)} is no text")
    sections = [*KINDS, "images", "boxes", "limits"]
    rest = {key: value for key, value in data.items() if key not in sections}
    general = build(General, rest, "", known=sections)
    parts = {key: _section(data, key) for key in sections}
    names = {key: _plugin_name(parts[key], key) for key in KINDS}
    limit = {"limit": parts["bench"].pop("limit")} if "limit" in parts["bench"] else {}
    subset = build(Subset, limit, "bench")
    images = build(Images, parts["images"], "images")
    boxes = build(BoxConfig, parts["boxes"], "boxes")
    limits = build(base.Limits, parts["limits"], "limits")
    configs = {
        key: build(plugin_config(key, names[key]), parts[key], key, known=("name", *known))
        for key, known in _OTHER_KEYS.items()
    }
    if boxes.rules == "reference" and getattr(configs["locate"], "stop", None) == "boxes":
        raise ConfigError(
            "locate.stop: 'boxes' may end a reply before the box that boxes.rules=reference reads; "
            "set locate.stop to first or never"
        )
    return RunConfig(
        general=general,
        names=names,
        subset=subset,
        images=images,
        boxes=boxes,
        limits=limits,
        **configs,
    )


def check_saved(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a run's config.yaml, if every part that its readers use is there.

    No plug-in is imported, so that a run can be read where its model cannot.

    Raises:
        ConfigError: a key that is missing or has another type.
    """
    check_values(data, "")
    known = {field.name for field in fields(General)}
    build(General, {key: value for key, value in data.items() if key in known}, "")
    for key in known - data.keys():
        raise ConfigError(f"{key} is missing")
    for key in KINDS:
        _plugin_name(_section(data, key), key)
    root = data["bench"].get("root")
    if not isinstance(root, str):
        raise ConfigError(f"bench.root: needs text, not {shown(root)}")
    return data


def plugin_config(section: str, name: str) -> type[Any]:
    """The `Config` dataclass of a section's plug-in."""
    module = plugins.load(KINDS[section], name)
    config: type[Any] = module.Config
    return config


def exif_of(resolved: Mapping[str, Any]) -> Exif:
    """How a run showed its pictures; one made before `images.exif` existed turned them."""
    rule: Exif = resolved.get("images", {"exif": "apply"})["exif"]
    return rule


def counting(resolved: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Of a resolved config what can change results, by dotted key.

    Not `NOT_RESULTS`, no `PLACES`, no key of `LATER` at its old value, and in float32 not
    `batch_size`. `model.device` and `model.dtype` are what they came down to, where that is known:
    kernels round differently on another kind of device (which is why `device_map` and `compile`
    count too), but cuda:0 and cuda:1 are one kind.

    Args:
        resolved: the config.
        model: `dtype` and `device` as the model came to have them; empty where that is unknown.
    """
    kept = {
        key: value
        for key, value in flatten(resolved).items()
        if key not in (*NOT_RESULTS, *PLACES) and not (key in LATER and value == LATER[key])
    }
    kept |= {f"model.{key}": model[key] for key in ("dtype", "device") if key in model}
    if kept.get("model.dtype") == "float32" and not kept.get("limits.temperature"):
        kept.pop("batch_size", None)  # of a sampled answer the draws depend on the batch
    return kept


def content_hash(resolved: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the canonical JSON of what is `counting` of a resolved config."""
    return hashlib.sha256(
        json.dumps(counting(resolved, model), sort_keys=True).encode()
    ).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Where two mappings differ, as `key: value there, value here`; nested ones by dotted keys."""
    old, new = flatten(there), flatten(here)
    rows = [(key, old.get(key, "absent"), new.get(key, "absent")) for key in sorted({*old, *new})]
    return [f"{key}: {shown(a)} there, {shown(b)} here" for key, a, b in rows if a != b]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping from dotted keys to values."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _section(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict | None):
        raise ConfigError(f"{key}: needs keys of its own, such as {key}.name, not {shown(value)}")
    return dict(value or {})


def _plugin_name(part: dict[str, Any], key: str) -> str:
    name = part.pop("name", DEFAULT_NAMES.get(key))
    if not isinstance(name, str):
        exist = ", ".join(plugins.names(KINDS[key]))
        raise ConfigError(f"{key}.name: needs a name, not {shown(name)}; there is: {exist}")
    return name


def _override(data: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    *path, last = key.split(".")
    if not equals or not key or not key.isprintable() or len(path) > DEPTH:
        raise ConfigError(
            f"{shown(override)} is no override; write key=value, as in refine.weight=2"
        )
    changed = copy.deepcopy(data)
    place = changed
    for part in path:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(f"{key}: {part!r} has no keys of its own, it is {shown(place)}")
    value = parse_value(text, key)
    section = key.removesuffix(".name")
    if section in KINDS and isinstance(value, str) and place.get("name") != value:
        _keep_shared(place, section, value)
    place[last] = value
    return changed


def _keep_shared(place: dict[str, Any], section: str, name: str) -> None:
    kept = {"limit", *(field.name for field in fields(plugin_config(section, name)))}
    for key in [key for key in place if key not in kept]:
        del place[key]
