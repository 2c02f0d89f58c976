"""Images of the next batches are opened, and made ready, while the model works on this one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cof.errors import DataError, RunError
from cof.files import Folder, Member
from cof.store.dataset import PlannedBatch

_T = TypeVar("_T")
"""An image, or a batch of them, as `load` gives it."""

_S = TypeVar("_S")

_Pending = dict[str, Future[Any]]


def feed(
    batches: Sequence[PlannedBatch], root: Folder, workers: int, load: Callable[[Path | Member], _T]
) -> Generator[tuple[PlannedBatch, list[_T | DataError]], None, None]:
    """Batches in their order, each with one image a question, or why it cannot be opened or shown.

    An image is loaded once for a batch and the next. Threads do, since decoding, padding, resizing
    and hashing release Python's lock. Loaded ahead: one batch, or as many small ones as keep the
    workers busy.

    Args:
        batches: what is going to be asked.
        root: folder of the image names.
        workers: number of threads, at least 1.
        load: from a file to an image, ready for the model; or DataError.

    Raises:
        RunError: an image does not fit into memory; it may be whole, so the run stops, resumable.
        DiskError: as `load` does, likewise.
    """
    ahead = math.ceil(workers / max(map(len, batches), default=1))
    waiting: deque[tuple[PlannedBatch, _Pending]] = deque()
    pending: _Pending = {}
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        for batch in batches:
            names = dict.fromkeys(question.image for _, question in batch)
            known = pending
            pending = {name: known.get(name) or pool.submit(load, root / name) for name in names}
            waiting.append((batch, pending))
            if len(waiting) > ahead:
                yield _opened(*waiting.popleft())
        while waiting:
            yield _opened(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(batches: Iterable[_S], load: Callable[[_S], _T]) -> Generator[tuple[_S, _T]]:
    """Each batch with what is loaded for it, in order; one thread loads the next meanwhile."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="images")
    waiting: deque[tuple[_S, Future[_T]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(load, batch)))
            if len(waiting) > 1:
                first, loaded = waiting.popleft()
                yield first, loaded.result()
        for last, loaded in waiting:
            yield last, loaded.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _opened(batch: PlannedBatch, pending: _Pending) -> tuple[PlannedBatch, list[Any]]:
    found = {name: _result(future) for name, future in pending.items()}
    return batch, [found[question.image] for _, question in batch]


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except DataError as error:
        return error
    except MemoryError as error:
        raise RunError(f"{error}; set workers to 1, or batch_size to less") from error
