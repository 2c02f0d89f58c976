"""Under what a run was made, and whether a run that goes on is still the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cof import plugins
from cof.config import RunConfig, differences
from cof.errors import RunError
from cof.runs.environment import commit, hardware, versions
from cof.runs.folder import MANIFEST, WAY_OUT, RunFolder

if TYPE_CHECKING:
    from cof.models.base import Model

log = logging.getLogger(__name__)


def describe(
    config: RunConfig, dataset: Mapping[str, Any], model: Model, command: str
) -> dict[str, Any]:
    """A new run's manifest. It holds no time of day: equal runs have equal manifests.

    `resumed` lists what was different when a stopped run went on: the number of records then, and
    the new value of each key that changed.
    """
    bench = plugins.load("bench", config.names["bench"])
    return {
        "config_hash": config.hash,
        "dataset": dict(dataset),
        "bench": {"name": config.names["bench"], "version": bench.VERSION},
        "model": model.describe(),
        "code": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "seeds": {"sampling": config.limits.seed, "statistics": config.general.seed},
        "command": command,
        "resumed": [],
    }


def latest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with what changed when the run went on in its place; empty stays empty."""
    current = dict(manifest)
    for change in manifest.get("resumed", []):
        current |= change
    return current


def write(folder: RunFolder, fresh: dict[str, Any], done: int) -> None:
    """Write the manifest of a start; of a resume, add what is different and warn of it.

    Args:
        folder: the run, locked.
        fresh: what `describe` says now.
        done: number of records there are.

    Raises:
        RunError: the model is another one (its weights, device, dtype); a run never mixes two.
    """
    there = folder.read_json(MANIFEST)
    if not there:
        folder.write_json(MANIFEST, fresh)
        return
    current = latest(there)
    other = differences({"model": current["model"]}, {"model": fresh["model"]})
    if other and done:
        raise RunError(f"{folder.path}: made with another model ({'; '.join(other)}); {WAY_OUT}")
    compared = [key for key in fresh if key not in ("command", "resumed")]
    changed = {key: fresh[key] for key in compared if fresh[key] != current.get(key)}
    if changed:
        log.warning("%s goes on with another %s", folder.path, ", ".join(changed))
        there["resumed"].append({"records": done, **changed})
        folder.write_json(MANIFEST, there)


def batch_size(folder: RunFolder) -> int | None:
    """What `batch_size: auto` came down to so far; None where it is fixed or not yet known."""
    return folder.read_json(MANIFEST).get("batch_size")


def write_batch_size(folder: RunFolder, size: int) -> None:
    """Record what `batch_size: auto` came down to, of several processes in the first."""
    if folder.ranks.leads:
        folder.write_json(MANIFEST, {**folder.read_json(MANIFEST), "batch_size": size})


def dataset_changes(
    folder: RunFolder, dataset: Mapping[str, Any], mended: bool = False
) -> list[str]:
    """What keeps `dataset` from being the run's own; other image bytes pass where `mended`.

    A key that the run's manifest lacks (`regions`, in one of an older version) says nothing.
    """
    there = latest(folder.read_json(MANIFEST)).get("dataset", dataset)
    changed = [key for key in dataset if dataset[key] != there.get(key, dataset[key])]
    return [
        f"{key}: {there.get(key)!s:.12} there, {dataset[key]!s:.12} here"
        for key in changed
        if not (mended and key == "images")
    ]
