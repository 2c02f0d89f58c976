"""A run folder before its run begins or goes on; of several processes rank 0 does this alone."""

from __future__ import annotations

from collections.abc import Sequence

from cof import config as configs
from cof.errors import RunError
from cof.runs import manifest
from cof.runs.answering import Cell
from cof.runs.folder import WAY_OUT
from cof.runs.plan import plan_batches
from cof.types import Question


def prepare(
    cell: Cell,
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
    resolved = config.as_dict()
    begun = any(True for _ in folder.records())
    there = folder.config()
    if there is None or not begun:
        folder.write_config(resolved)
    elif configs.content_hash(there) != config.hash:
        keys = "; ".join(configs.differences(there, resolved))
        raise RunError(f"{folder.path}: made with another config ({keys}); {WAY_OUT}")
    changes = manifest.dataset_changes(folder, cell.dataset, retry_failed)
    if changes and begun:
        way = f"--retry-failed asks again about mended images; or {WAY_OUT}"
        only_images = all(change.startswith("images:") for change in changes)
        raise RunError(
            f"{folder.path}: made with another dataset ({'; '.join(changes)}); "
            f"{way if only_images else WAY_OUT}"
        )
    folder.repair()
    if retry_failed:
        _drop_failed(cell, questions)


def _drop_failed(cell: Cell, questions: Sequence[Question]) -> None:
    """Drop the whole batches of failed questions: the others in them were answered without."""
    failed = {record["index"] for record in cell.folder.records() if record["error"]}
    batches = plan_batches(questions, cell.config.general.batch_size)
    grouped = [{index for index, _ in batch} for batch in batches]
    cell.folder.drop(set().union(*(group for group in grouped if group & failed)))
