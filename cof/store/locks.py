"""Keeps two launches from writing to one run folder, and lets rank 0 see when the others ended.

Rank 0 holds `.lock`, each other process of a launch `.lock-<rank>`. The system frees the lock of a
process that was killed, so nobody waits for the dead. Files of the second kind are gone once a
run is finished; those of a launch that ended early stay, and do no harm.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from cof.files import refuse_kind
from cof.store.launch import Ranks


def acquire(folder: Path, ranks: Ranks) -> IO[str]:
    """Take the lock of this process, held until the file is closed.

    Raises:
        BlockingIOError: another launch is writing, or a process is left of one.
        OSError: the lock file cannot be made.
        DiskError: something that is no file has its name.
    """
    lock = _open(_file(folder, ranks.rank))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if ranks.leads:
            own = {_file(folder, rank) for rank in range(ranks.size)}
            for other in set(folder.glob(".lock-*")) - own:
                _wait(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        lock.close()
        raise
    return lock


def join(folder: Path, ranks: Ranks) -> None:
    """Rank 0 waits until each other process let go of its lock; the others wait for rank 0."""
    for rank in range(1, ranks.size) if ranks.leads else [0]:
        _wait(_file(folder, rank), fcntl.LOCK_SH)


def tidy(folder: Path) -> None:
    """Rank 0, with its lock held and all others free: delete the other processes' lock files."""
    for file in folder.glob(".lock-*"):
        file.unlink(missing_ok=True)


def _file(folder: Path, rank: int) -> Path:
    return folder / (f".lock-{rank}" if rank else ".lock")


def _wait(file: Path, how: int) -> None:
    with _open(file) as lock:
        fcntl.flock(lock, how)


def _open(file: Path) -> IO[str]:
    """A lock file, made where there is none; never what a link points to, never truncated."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    number = os.open(file, flags, 0o666)
    try:
        refuse_kind(file, os.fstat(number).st_mode)
    except BaseException:
        os.close(number)
        raise
    return os.fdopen(number, "r+")
