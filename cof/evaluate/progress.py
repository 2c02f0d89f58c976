"""How far a long command is: a bar on a terminal, a line now and then in a log, nothing if quiet.

A bar redraws itself with carriage returns; in a log file those are one endless line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

EVERY = 30.0
"""Seconds between two lines of a log."""

_QUIET: ContextVar[bool] = ContextVar("cof_quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress inside the block; warnings stay."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def drawn() -> bool:
    """Whether bars are drawn here and now."""
    return sys.stderr.isatty() and not _QUIET.get()


@contextmanager
def progress(
    total: int | None, unit: str, name: str, done: int = 0, shown: bool = True
) -> Iterator[Any]:
    """Show progress on stderr.

    Args:
        total: how many there are; None is not known.
        unit: of what, in the singular.
        name: of what is going on.
        done: how many were done before.
        shown: false shows nothing, as in all but the first of several processes.

    Yields:
        What is told by `update(more)`, and renamed by `set_description(name)`.
    """
    if not shown or _QUIET.get():
        yield _Lines(total, unit, name, done, every=float("inf"))
    elif drawn():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, unit=f" {unit}", desc=name, mininterval=0.5) as bar:
            yield bar
    else:
        lines = _Lines(total, unit, name, done)
        yield lines
        lines.close()


def duration(seconds: float) -> str:
    """A time for people: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class _Lines:
    """Whole lines for a log."""

    def __init__(
        self, total: int | None, unit: str, name: str, done: int, every: float = EVERY
    ) -> None:
        self._total, self._unit, self._name, self._every = total, unit, name, every
        self._before = self._done = done
        self._began = self._said = time.monotonic()

    def set_description(self, name: str) -> None:
        """Call what is going on by another name."""
        self._name = name

    def update(self, more: int = 1) -> None:
        """So many more are done."""
        self._done += more
        now = time.monotonic()
        if now - self._said >= self._every:
            self._said = now
            self._say(f", about {duration(self._left(now))} left" if self._total else "")

    def close(self) -> None:
        """Say how it ended, where anything was done."""
        if self._done > self._before:
            self._say(f" in {duration(time.monotonic() - self._began)}")

    def _left(self, now: float) -> float:
        done = max(self._done - self._before, 1)
        return (now - self._began) / done * ((self._total or 0) - self._done)

    def _say(self, end: str) -> None:
        whole = "" if self._total is None else f" of {self._total}"
        plural = "" if (self._total or self._done) == 1 else "s"
        line = f"{self._name}: {self._done}{whole} {self._unit}{plural}{end}"
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
