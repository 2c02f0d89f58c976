"""Which keys tell two runs apart: the hash of a config, and where two configs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cof.config import plugins
from cof.config.schema import GONE, LATER
from cof.errors import shown

NOT_RESULTS = ("name", "out", "cache", "workers", "bench.root", "gate.chosen_on")
"""Keys that tell no two runs apart: where things are, how images are fed, who chose a value."""

PLACES = ("model.path", "locate.of", "locate.path", "bench.questions", "bench.images", "bench.file")
"""Keys that name a place with contents. The place does not count; the contents do, by hashes of
their own: weights, regions, questions (`cof.store.origin`). In a section of a plug-in from outside
such keys count as they are."""


def counting(resolved: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Of a resolved config what can change results, by dotted key.

    Not `NOT_RESULTS`, no `PLACES`, no key of `LATER` at its old value, and in float32 not
    `batch_size`. `model.device` and `model.dtype` are what they came down to, where that is known:
    kernels round differently on another kind of device (which is why `device_map` and `decode`
    count too), but cuda:0 and cuda:1 are one kind. A key of `GONE` counts as it did, and
    `bench.limit_first` as the `bench.limit` that it was in older runs.

    Args:
        resolved: the config.
        model: `dtype` and `device` as the model came to have them; empty where that is unknown.
    """
    kept = {
        key: value
        for key, value in flatten(resolved).items()
        if key not in NOT_RESULTS and not (key in LATER and value == LATER[key])
    }
    first = kept.pop("bench.limit_first", None)
    if "limit_first" in resolved.get("bench", {}):  # older runs have the first under `limit`
        spread = kept.pop("bench.limit", None)
        kept |= {"bench.limit": first} | ({"bench.limit_spread": spread} if spread else {})
    sections = [key.removesuffix(".sha256") for key in kept if key.endswith(".sha256")]
    ours = [key for key in PLACES if key.partition(".")[0] not in sections]
    kept = {key: value for key, value in kept.items() if key not in ours}
    for section in sections:  # of a plug-in from outside the content, not the place
        kept[f"{section}.name"] = plugins.label(kept[f"{section}.name"])
    for key, gone in GONE.items():
        if kept.get(f"{key.partition('.')[0]}.name") == gone.name:
            kept.setdefault(key, gone.value)
    kept |= {f"model.{key}": model[key] for key in ("dtype", "device") if key in model}
    if kept.get("model.dtype") == "float32" and not kept.get("limits.temperature"):
        kept.pop("batch_size", None)  # of a sampled answer the draws depend on the batch
    return kept


_NAMED = {"bench.limit": "bench.limit_first", "bench.limit_spread": "bench.limit"}


def named(counted: Mapping[str, Any]) -> dict[str, Any]:
    """What is `counting`, for people: under the keys that a config has today."""
    return {_NAMED.get(key, key): value for key, value in counted.items()}


def renamed(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run's saved config in today's keys: an older `bench.limit` is `bench.limit_first` now."""
    bench = saved["bench"]
    if "limit_first" in bench or bench.get("limit") is None:
        return saved
    return {**saved, "bench": {**bench, "limit": None, "limit_first": bench["limit"]}}


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
