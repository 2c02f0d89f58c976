"""Keeps two launches from writing to one run folder, and lets rank 0 see when the others ended.

Rank 0 holds `.lock`, each other process of a launch `.lock-<rank>`. The system frees the lock of a
process that was killed, so nobody waits for the dead. Files of the second kind are gone once a
run is finished; those of a launch that ended early stay, and do no harm.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from cof.runs.ranks import Ranks


def acquire(folder: Path, ranks: Ranks) -> IO[str]:
    """Take the lock of this process, held until the file is closed.

    Raises:
        BlockingIOError: another launch is writing, or a process is left of one.
        OSError: the lock file cannot be made.
    """
    lock = _file(folder, ranks.rank).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if ranks.leads:
            own = {_file(folder, rank) for rank in range(ranks.size)}
            for other in set(folder.glob(".lock-*")) - own:
                _wait(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
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
    with file.open("a") as lock:
        fcntl.flock(lock, how)
