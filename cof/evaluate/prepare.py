"""A run folder before its run begins or goes on, and what a later one has to know of this one.

Of several processes rank 0 does this alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cof.config import identity
from cof.errors import RunError
from cof.evaluate.answering import RunSetting
from cof.store import manifest, origin, record_files
from cof.store.dataset import plan_batches
from cof.store.folder import WAY_OUT
from cof.types import Question

log = logging.getLogger(__name__)


def prepare(
    cell: RunSetting,
    questions: Sequence[Question],
    overwrite: bool,
    retry_failed: bool,
) -> None:
    """Make the folder this run's own, or find that it is; drop what a kill left half-written.

    Raises:
        RunError: it belongs to another config or dataset, or a file in it is damaged.
    """
    folder, config = cell.folder, cell.config
    if overwrite:
        folder.clear()
    first = next(folder.records(), None)
    if first is None:
        folder.write_config(config.as_dict())
    else:
        some_failed = retry_failed and any(record["error"] for record in folder.records())
        _check_same(cell, some_failed)
        origin.check(str(folder.path), first.get(record_files.MADE), cell.made, WAY_OUT)
        manifest.note_batch_size(folder, config.general.batch_size)
    folder.repair()
    if retry_failed:
        _drop_failed(cell, questions)


def _check_same(cell: RunSetting, mended: bool) -> None:
    """Refuse to go on with other settings, weights or data; the message has the first difference.

    Args:
        cell: what is about to be asked, in whose folder there are records.
        mended: images all of whose questions failed may have other bytes than they had.
    """
    folder = cell.folder
    there, kept = folder.config() or {}, folder.manifest(begun=True)
    before = origin.identity_of(kept)
    sides = ((there, before), (cell.config.as_dict(), cell.identity))
    keys = identity.differences(*(identity.named(identity.counting(*side)) for side in sides))
    if keys:
        way = _older_limit(there, cell) or WAY_OUT
        raise RunError(f"{folder.path}: made with another config ({'; '.join(keys)}); {way}")
    cell.images.wait()
    changes = manifest.dataset_changes(folder, cell.dataset)
    only_images = all(change.startswith("images:") for change in changes)
    if changes and not (mended and only_images and _only_mended(cell)):
        way = f"--retry-failed asks again about mended images; or {WAY_OUT}"
        if mended and only_images:
            way = f"others than those of failed questions were changed; {WAY_OUT}"
        raise RunError(
            f"{folder.path}: made with another dataset ({'; '.join(changes)}); "
            f"{way if only_images else WAY_OUT}"
        )
    if before.get("weights") not in (None, cell.identity["weights"]):
        raise RunError(
            f"{folder.path}: made with other weights ({before['weights']} there, "
            f"{cell.identity['weights']} here); {WAY_OUT}"
        )


def _only_mended(cell: RunSetting) -> bool:
    """Whether all images are what they were but those all of whose questions failed."""
    before = manifest.failed_images(cell.folder)
    if before is None:
        log.warning("%s: it is not known which images changed since it was made", cell.folder.path)
        return True
    kept = manifest.latest(cell.folder.manifest(begun=True))["dataset"]["images"]
    return cell.images.as_if(before) == kept


def _older_limit(there: Mapping[str, Any], cell: RunSetting) -> str:
    """How to go on with an older run whose `limit` this config has copied, "" if it has not."""
    bench = there.get("bench", {})
    first = bench.get("limit")
    if "limit_first" in bench or first is None or cell.config.subset.limit != first:
        return ""
    return (
        f"what older runs call bench.limit is bench.limit_first now, so give bench.limit=null "
        f"bench.limit_first={first}; or {WAY_OUT}"
    )


def _drop_failed(cell: RunSetting, questions: Sequence[Question]) -> None:
    """Drop the whole batches of failed questions: the others in them were answered without."""
    failed = {record["index"] for record in cell.folder.records() if record["error"]}
    batches = plan_batches(questions, cell.config.general.batch_size)
    grouped = [{index for index, _ in batch} for batch in batches]
    cell.folder.drop(set().union(*(group for group in grouped if group & failed)))


def note_failed(cell: RunSetting, questions: Sequence[Question]) -> None:
    """Record the images of which nothing was answered, so that they alone may be mended."""
    failed = {record["index"] for record in cell.folder.records() if record["error"]}
    answered = {one.image for index, one in enumerate(questions) if index not in failed}
    names = sorted({questions[index].image for index in failed} - answered)
    manifest.write_failed_images(cell.folder, cell.images.of(names))
