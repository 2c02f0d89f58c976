"""Where each question's record stands, in ten bytes a question, and reading it from there."""

from __future__ import annotations

import gzip
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from cof.errors import RunError
from cof.files import blamed, regular

PACKED_ENDING = ".gz"
AHEAD, LEAST = 64, 1 << 16
"""An index beyond `LEAST` and `AHEAD` times as many as there are has no room kept for it."""

Place = tuple[int, int]
"""Number of the file, and offset of the line in its (unpacked) bytes."""


class Places:
    """Question index -> `Place`; indexes are mostly 0, 1, ..., in any order.

    Attributes:
        files: the record files, in the order in which they were read.
    """

    def __init__(self) -> None:
        self.files: list[Path] = []
        self._file, self._start = array("H"), array("q")  # 0 in the first: no such question
        self._far: dict[int, Place] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, index: int) -> Place | None:
        """Where a question's record is, None where it has none."""
        if index < len(self._file) and self._file[index]:
            return self._file[index] - 1, self._start[index]
        return self._far.get(index)

    def file_of(self, index: int) -> Path:
        """The file of a question that has a record."""
        place = self.get(index)
        if place is None:
            raise KeyError(index)
        return self.files[place[0]]

    def put(self, index: int, start: int) -> None:
        """Note a record of a question that has none yet, in the last of `files`."""
        self._count += 1
        number = len(self.files) - 1
        if index >= max(LEAST, AHEAD * self._count) or number >= (1 << 16) - 1:
            self._far[index] = number, start
            return
        if index >= len(self._file):
            more = index + 1 - len(self._file)
            self._file.frombytes(bytes(more * self._file.itemsize))
            self._start.frombytes(bytes(more * self._start.itemsize))
        self._file[index], self._start[index] = number + 1, start

    def order(self) -> Sequence[int]:
        """The indexes that have a record, ascending."""
        near = len(self._file)
        if not self._far and self._count == near:
            return range(near)
        found = [index for index in range(near) if self._file[index]]
        return sorted([*found, *self._far]) if self._far else array("q", found)

    def lines(self, order: Iterable[int]) -> Iterator[bytes]:
        """The lines of these questions, each with its end.

        Raises:
            RunError: a file is not what it was when it was read.
        """
        with Reader(self.files) as reader:
            for index in order:
                place = self.get(index)
                if place is None:
                    raise KeyError(index)
                yield reader.line(place)


class Reader:
    """Reads lines from record files, each opened when it is first asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files, self._stack = files, ExitStack()
        self._open: dict[int, IO[bytes]] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def line(self, place: Place) -> bytes:
        """The line at a place.

        Raises:
            RunError: there is none any more.
        """
        number, start = place
        file = self._files[number]
        with blamed(file, "read"):
            if number not in self._open:
                self._open[number] = self._stack.enter_context(_opened(file))
            stream = self._open[number]
            if stream.tell() != start:
                stream.seek(start)
            line = stream.readline()
        if not line.endswith(b"\n"):
            raise RunError(f"{file}: was changed while it was read; start again")
        return line


def _opened(file: Path) -> IO[bytes]:
    """A record file, unpacked where it is packed."""
    opened: Any = gzip.open if file.suffix == PACKED_ENDING else open
    stream: IO[bytes] = opened(regular(file), "rb")
    return stream


class Indexes:
    """A set of question indexes, a bit each; those far beyond the others are kept one by one."""

    def __init__(self) -> None:
        self._bits, self._far, self._count = bytearray(LEAST // 8), set[int](), 0

    def __contains__(self, index: int) -> bool:
        place, bit = divmod(index, 8)
        near = place < len(self._bits) and bool(self._bits[place] >> bit & 1)
        return near or index in self._far

    def add(self, index: int) -> None:
        """Take an index in."""
        self._count += 1
        place, bit = divmod(index, 8)
        if index >= max(LEAST, AHEAD * self._count):
            self._far.add(index)
            return
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        self._bits[place] |= 1 << bit
