"""What a run is made of: settings, weights, dataset, each by its contents and never by its place.

`made` is short enough to stand in every record:

    config     of the settings that can change results (`cof.config.identity.counting`)
    weights    the checkpoint's revision
    dataset    of the questions, and of the boxes that the coarse stage reads from a file

Image bytes are not in it: a mended image may be asked about again within a run (--retry-failed);
the manifest has their hash. Equal contents in two places have one origin, so have folders that
moved. Records of older runs have no `made`; the manifest beside them speaks for them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cof.config import plugins
from cof.config.identity import content_hash
from cof.config.schema import RunConfig
from cof.errors import RunError
from cof.store.launch import Ranks
from cof.store.manifest_check import latest

Made = dict[str, str]
DIGITS = 12


def identify(config: RunConfig) -> dict[str, str]:
    """`weights`, `dtype` and `device` that a run would have now, without loading the model.

    Raises:
        ModelError: no such checkpoint, an unknown device or dtype.
    """
    Ranks.here().take_gpu(config.model.device)
    found: dict[str, str] = plugins.load("models", config.names["model"]).identify(config.model)
    return found


def regions(config: RunConfig) -> dict[str, str]:
    """`regions`: the hash of the boxes that the coarse stage reads, where it reads a file.

    Raises:
        DataError, RunError: the file cannot be read.
    """
    source = getattr(plugins.load("locate", config.names["locate"]), "source", None)
    found = source(config.locate) if source is not None else ""
    return {"regions": found} if found else {}


def made(
    resolved: Mapping[str, Any], identity: Mapping[str, str], dataset: Mapping[str, Any]
) -> Made:
    """The origin of a run's records.

    Args:
        resolved: the config.
        identity: see `identify`.
        dataset: hashes of `questions`, and of `regions` where a file of boxes is read.
    """
    asked = f"{dataset['questions']} {dataset.get('regions', '')}"
    return {
        "config": content_hash(resolved, identity)[:DIGITS],
        "weights": identity.get("weights", ""),
        "dataset": hashlib.sha256(asked.encode()).hexdigest()[:DIGITS],
    }


def made_of(resolved: Mapping[str, Any], manifest: Mapping[str, Any]) -> Made:
    """The origin of what a run folder holds, from its config.yaml and its manifest."""
    return made(resolved, identity_of(manifest), latest(manifest)["dataset"])


def identity_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What `identify` said when a run was made; of an older run, what its model's entry says."""
    if "identity" in manifest:
        return dict(manifest["identity"])
    model = latest(manifest)["model"]
    named = {"weights": "revision", "dtype": "dtype", "device": "device"}
    found = {key: str(model[name]) for key, name in named.items() if name in model}
    return {
        key: value.partition(":")[0] if key == "device" else value for key, value in found.items()
    }


def run_name(config: RunConfig, kind: str, digits: str) -> str:
    """`<bench>-<model>-<kind>-<digits>`, the same for the same settings, weights and questions.

    Args:
        config: names benchmark and model.
        kind: of the run: its fine stage; of several runs what they are together.
        digits: what tells it from others, see `digest`.
    """
    model = Path(str(config.model.path)).name
    parts = [plugins.label(config.names["bench"]), model, plugins.label(kind), digits]
    return "-".join(re.sub(r"[^\w.-]", "_", part) for part in parts)


def digest(made: Made) -> str:
    """Eight hex digits for a run, for names and figures."""
    text = " ".join(made[key] for key in ("config", "weights", "dataset"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check(where: str, there: Made | None, here: Made, way_out: str) -> None:
    """Refuse records of another origin; None, in older records, says nothing.

    Raises:
        RunError: names the first part that differs, there and here.
    """
    for key in here if there is not None else ():
        if there and there.get(key) != here[key]:
            raise RunError(
                f"{where}: made with other {_NAMES[key]} ({key}: {there.get(key)} there, "
                f"{here[key]} here); {way_out}"
            )


_NAMES = {"config": "settings", "weights": "weights", "dataset": "questions or regions"}
