"""Under what a run was made, and whether a run that goes on is still the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cof.config import plugins
from cof.config.identity import content_hash, differences
from cof.config.schema import RunConfig
from cof.errors import RunError
from cof.store.environment import commit, hardware, versions
from cof.store.folder import MANIFEST, WAY_OUT, RunFolder
from cof.store.hashing import PENDING
from cof.store.manifest_check import latest

if TYPE_CHECKING:
    from cof.models.base import Model

log = logging.getLogger(__name__)


def describe(
    config: RunConfig,
    dataset: Mapping[str, Any],
    identity: Mapping[str, str],
    model: Model,
    command: str,
) -> dict[str, Any]:
    """A new run's manifest. It holds no time of day: equal runs have equal manifests.

    `identity` is what `cof.store.origin.identify` said before the model was loaded. `resumed` lists
    what was different when a stopped run went on: the number of records then, and the new value
    of each key that changed.

    Raises:
        RunError: the loaded weights are not those that were identified.
    """
    bench, described = plugins.load("bench", config.names["bench"]), model.describe()
    if described.get("revision", identity["weights"]) != identity["weights"]:
        raise RunError(f"{config.model.path}: its files changed while it was loaded; start again")
    return {
        "config_hash": content_hash(config.as_dict(), identity),
        "identity": dict(identity),
        "dataset": dict(dataset),
        "bench": {"name": config.names["bench"], "version": bench.VERSION},
        "model": described,
        "code": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "seeds": {"sampling": config.limits.seed, "statistics": config.general.seed},
        "command": command,
        "resumed": [],
    }


def write(folder: RunFolder, fresh: dict[str, Any], done: int) -> None:
    """Write the manifest of a start; of a resume, add what is different and warn of it.

    Args:
        folder: the run, locked.
        fresh: what `describe` says now.
        done: number of records there are.

    Raises:
        RunError: the model is another one (its weights, dtype, kind of device); a run never mixes
            two. Or the manifest is damaged.
    """
    if not done:
        folder.write_json(MANIFEST, fresh)
        return
    there = folder.manifest(begun=True)
    current = latest(there)
    other = differences(_model(current), _model(fresh))
    if other:
        raise RunError(f"{folder.path}: made with another model ({'; '.join(other)}); {WAY_OUT}")
    compared = [key for key in fresh if key not in _CHECKED]
    changed = {key: fresh[key] for key in compared if fresh[key] != current.get(key)}
    if changed:
        log.warning("%s goes on with another %s", folder.path, ", ".join(changed))
        there["resumed"].append({"records": done, **changed})
        folder.write_json(MANIFEST, there)


_CHECKED = ("command", "resumed", "config_hash", "identity")
"""Keys of a manifest that a resume leaves as they are: `cof.evaluate.prepare` has compared them."""


def _model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What tells models apart; cuda:0 and cuda:1 are one kind of device, a name is a place.

    How replies are decoded is no part of the model; where it counts, the config's hash has it. Nor
    is a chat template that came with it where prompts follow `conv`.
    """
    ways = (
        "name",
        "compile",
        "decode",
        *(["chat_template"] if "conv" in manifest["model"] else []),
    )
    kept = {key: value for key, value in manifest["model"].items() if key not in ways}
    if isinstance(kept.get("device"), str):
        kept["device"] = kept["device"].partition(":")[0]
    return {"model": kept}


def note_batch_size(folder: RunFolder, size: int | str) -> None:
    """Record that a run goes on with another `batch_size` than its config.yaml says."""
    there = folder.manifest(begun=True)
    before = latest(there).get("batch_size") or (folder.config() or {})["batch_size"]
    if isinstance(size, int) and size != before:
        done = len(folder.indexes())
        log.warning("%s goes on with batch_size %s, not %s", folder.path, size, before)
        there["resumed"].append({"records": done, "batch_size": size})
        folder.write_json(MANIFEST, there)


def batch_size(folder: RunFolder) -> int | None:
    """What `batch_size: auto` came down to so far; None where it is fixed or not yet known."""
    return folder.read_json(MANIFEST).get("batch_size")


def write_batch_size(folder: RunFolder, size: int) -> None:
    """Record what `batch_size: auto` came down to, of several processes in the first."""
    if folder.ranks.leads:
        folder.write_json(MANIFEST, {**folder.read_json(MANIFEST), "batch_size": size})


def write_images(folder: RunFolder, images: str) -> None:
    """Write the hash of the images into the manifest of a start, which could not wait for it."""
    there = folder.read_json(MANIFEST)
    if there["dataset"]["images"] == PENDING:
        there["dataset"]["images"] = images
        folder.write_json(MANIFEST, there)


def write_failed_images(folder: RunFolder, files: Mapping[str, str]) -> None:
    """Record the images all of whose questions failed, each with its hash: those may be mended."""
    there = folder.read_json(MANIFEST)
    found = {"images": latest(there)["dataset"]["images"], "files": dict(files)}
    if files or "failed_images" in there:
        folder.write_json(MANIFEST, {**there, "failed_images": found})


def failed_images(folder: RunFolder) -> Mapping[str, str] | None:
    """What `write_failed_images` recorded; None of a run that did not come to its end since."""
    there = folder.manifest(begun=True)
    found = there.get("failed_images", {})
    same = found.get("images") == latest(there)["dataset"]["images"]
    return found["files"] if same else None


def dataset_changes(folder: RunFolder, dataset: Mapping[str, Any]) -> list[str]:
    """What keeps `dataset` from being the run's own, as `key: value there, value here`.

    A key that the run's manifest lacks (`regions`, in one of an older version) says nothing.
    """
    there = latest(folder.manifest(begun=False)).get("dataset", dataset)
    changed = [key for key in dataset if dataset[key] != there.get(key, dataset[key])]
    return [f"{key}: {there.get(key)!s:.12} there, {dataset[key]!s:.12} here" for key in changed]
