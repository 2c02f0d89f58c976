"""Several processes of one launch (`torchrun`, `accelerate launch`): which one is this, and when
they wait for each other.

Answering needs no communication: whole batches are dealt by number. Only the start is agreed on,
through the launcher's key-value store. At the end rank 0 waits for the others' file locks, which
the system frees also for a process that was killed (`RunFolder.join`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from cof.errors import RunError
from cof.store.waiting import PATIENCE, Background, Wait, named

_T = TypeVar("_T")
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Ranks:
    """One process of a launch.

    Attributes:
        rank: its number, from 0; rank 0 prepares the folders, merges and scores.
        size: number of processes of the launch, on all machines.
        local: its number on its own machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Ranks:
        """From RANK, WORLD_SIZE and LOCAL_RANK; one process where they are not set.

        Raises:
            RunError: they are no such numbers.
        """
        keys = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        found = {key: os.environ.get(key, value) for key, value in keys.items()}
        try:
            rank, size, local = (int(value) for value in found.values())
        except ValueError:
            rank, size, local = -1, 0, 0
        if not (0 <= rank < size and local >= 0):
            said = ", ".join(f"{key}={value}" for key, value in found.items())
            raise RunError(f"{said}: no process of a launch; use torchrun, or unset them")
        return cls(rank, size, local)

    @property
    def leads(self) -> bool:
        """True for rank 0."""
        return self.rank == 0

    def deal(self, batches: Sequence[_T]) -> Sequence[_T]:
        """The part of all batches that this process answers."""
        return batches[self.rank :: self.size]

    def take_gpu(self, device: str) -> None:
        """Make the GPU with this process's local number the one that `auto` and `cuda` mean.

        Raises:
            RunError: there are fewer GPUs than processes on this machine.
        """
        if self.size == 1 or device not in ("auto", "cuda"):
            return
        import torch

        count = torch.cuda.device_count()
        if count and self.local >= count:
            raise RunError(f"LOCAL_RANK={self.local}: there are {count} GPUs; launch {count} here")
        if count:
            torch.cuda.set_device(self.local)


class Meeting:
    """Where the processes of a launch wait for each other; nothing happens in a single one.

    Every process has to make its meetings in the same order: they are told apart by number. Who
    waits long says for whom, see `cof.store.waiting`.

    Raises:
        RunError: the launcher's store cannot be reached, or nobody can come any more.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._store: Any = _store(ranks) if ranks.size > 1 else None
        self._number = next(_NUMBERS)

    def gather(self, name: str) -> None:
        """Every process comes here; rank 0 waits until all did."""
        if self._store is not None:
            self._store.set(f"cof-{self._number}-{name}-{self._ranks.rank}", "")
            if self._ranks.leads:
                self._wait({rank: f"{name}-{rank}" for rank in range(1, self._ranks.size)})

    def release(self, name: str) -> None:
        """Rank 0 goes through; the others wait until it did."""
        if self._store is not None and self._ranks.leads:
            self._store.set(f"cof-{self._number}-{name}", "")
        elif self._store is not None:
            self._wait({0: name})

    def _wait(self, names: dict[int, str]) -> None:
        """Wait for what each of these ranks leaves in the store."""
        absent, wait = dict(names), Wait(self._ranks.rank)

        def still() -> list[int]:
            for rank, name in list(absent.items()):
                if self._store.check([f"cof-{self._number}-{name}"]):
                    del absent[rank]
            return list(absent)

        try:
            wait.until(still)
        except RuntimeError as error:
            if wait.launcher.gone:
                raise RunError(wait.orphaned(list(absent))) from error
            whom = f"rank {self._ranks.rank} waits for {named(list(absent))}"
            raise RunError(f"{whom}, but the launch has ended ({_line(error)})") from error


@cache
def _store(ranks: Ranks) -> Any:
    """The key-value store that the launcher set up."""
    from torch.distributed import rendezvous

    patience = timedelta(seconds=PATIENCE)
    meeting = Background(
        lambda: next(iter(rendezvous("env://", ranks.rank, ranks.size, timeout=patience)))[0]
    )
    others = list(range(1, ranks.size)) if ranks.leads else [0]
    Wait(ranks.rank).until(lambda: [] if meeting.done else others)
    try:
        return meeting.result()
    except (RuntimeError, ValueError) as error:
        raise RunError(f"RANK={ranks.rank}: no launcher ({_line(error)}); use torchrun") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
