"""Waiting for the other processes of a launch: it says for whom, and ends when nobody can come.

A process that a launcher started becomes another one's child when the launcher is gone. Then the
others are gone too, or soon will be, and whoever waits gives up after a minute. Processes that were
started by hand have no launcher to lose.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cof.errors import RunError

log = logging.getLogger(__name__)

PATIENCE = 3600.0
"""Seconds that processes wait for each other at the start; loading a large model takes minutes."""
SILENT, ORPHANED = 30.0, 60.0
"""Seconds after which a wait is spoken of, and how long it goes on without a launcher."""
LONGEST_PAUSE = 0.5

LAUNCHERS = {
    "TORCHELASTIC_RUN_ID": "torchrun (or accelerate)",
    "SLURM_STEP_ID": "srun",
    "OMPI_COMM_WORLD_RANK": "mpirun",
}
"""What a launcher leaves in the environment of its processes -> its name."""


@dataclass(frozen=True)
class Launcher:
    """The process that started this one.

    Attributes:
        name: "" where no launcher did.
        process: its id.
    """

    name: str
    process: int

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Launcher:
        """The launcher of this process."""
        names = (name for key, name in LAUNCHERS.items() if key in environment)
        return cls(next(names, ""), os.getppid())

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return bool(self.name) and os.getppid() != self.process

    def __str__(self) -> str:
        return f"{self.name}, process {self.process},"


HERE = Launcher.here()


@dataclass
class Wait:
    """One wait of one process.

    Attributes:
        rank: who waits.
        launcher: who started it.
        clock: seconds, of whatever beginning.
        sleep: of some seconds.
    """

    rank: int
    launcher: Launcher = field(default_factory=lambda: HERE)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, absent: Callable[[], Sequence[int]]) -> None:
        """Wait until no rank is `absent`.

        Raises:
            RunError: the launcher is gone for a minute, or somebody is absent for an hour.
        """
        start, spoken, alone, pause = self.clock(), False, None, 0.01
        while ranks := absent():
            now = self.clock()
            alone = (now if alone is None else alone) if self.launcher.gone else None
            if alone is not None and now - alone >= ORPHANED:
                raise RunError(self.orphaned(ranks))
            if now - start >= PATIENCE:
                raise RunError(f"{self._told(ranks)} for {PATIENCE / 60:.0f} minutes; {AGAIN}")
            if now - start >= SILENT and not spoken:
                log.warning("%s", self._told(ranks))
                spoken = True
            self.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)

    def orphaned(self, ranks: Sequence[int]) -> str:
        """What is said when there is no launcher any more."""
        return f"{self._told(ranks)}, but {self.launcher} is gone; {AGAIN}"

    def _told(self, ranks: Sequence[int]) -> str:
        return f"rank {self.rank} waits for {named(ranks)}"


AGAIN = "start the launch again, it goes on from the records that there are"


def named(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 2 and 3`; of many the first ones."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown, more = list(map(str, ranks[:SHOWN])), len(ranks) - SHOWN
    last = f"{more} more" if more > 0 else shown.pop()
    return f"ranks {', '.join(shown)} and {last}"


SHOWN = 8
"""Most ranks that are named one by one."""


class Background:
    """Something that blocks without end, in a thread that dies with the process."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work, self._found = work, None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """What it gave; its error is raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found
