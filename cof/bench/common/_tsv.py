"""TSV tables: text cells, pictures as base64 in the column `image`, or as another row's `index`."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cof.bench.common.files import file_of
from cof.bench.common.tables import Entry, suffix_of
from cof.errors import DataError, cut, shown
from cof.files import Member

_LONGEST_CELL = 2**31 - 1
"""Characters; what a C long holds on every system (64 bits are too many on Windows)."""

_REFERENCE = 64
"""Most characters of a cell that names another row, as VLMEvalKit has it; pictures are longer."""


class _Line(NamedTuple):
    """A row without its picture's cell, of which there is its text if short, its begin, a mark of
    its content, and where it is in the file.
    """

    cells: dict[str, str]
    where: str
    short: str
    head: str
    mark: bytes
    start: int
    length: int


def tsv_entries(path: Path) -> Iterator[Entry]:
    """See `cof.bench.common.tables.entries`."""
    lines = list(_lines(path))
    owners: dict[str, _Line] = {}
    for line in lines:
        if owners.setdefault(line.cells.get("index", line.where), line) is not line:
            raise DataError(f"{line.where}: index {shown(line.cells['index'])} occurs twice")
    for line in lines:
        owner = owners.get(line.short, line) if line.short else line
        name = line.cells.get("index") or line.where.rpartition(":")[2]
        read = partial(_picture, path, owner.start, owner.length, name)
        member = Member(f"{path}: image of {name}", read) if owner.length else None
        yield Entry(line.cells, line.where, member, owner.mark, _suffix(owner.head))


def _suffix(head: str) -> str:
    try:
        return suffix_of(base64.b64decode(head))
    except ValueError:
        return suffix_of(b"")


def _lines(path: Path) -> Iterator[_Line]:
    """Rows of a file, of which no more than one is in memory with its picture."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with file_of(path).open("rb") as file:
            taken = _Taken(file)
            reader = csv.reader(taken, delimiter="\t")
            header: Sequence[str] = next(reader, [])
            taken.clear()
            for row in reader:
                if row:
                    yield _line(header, row, f"{path}:{reader.line_num}", taken)
                taken.clear()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    finally:
        csv.field_size_limit(limit)


class _Taken:
    """The lines of a file as text, with those bytes that were taken since `clear`."""

    def __init__(self, file: Iterator[bytes]) -> None:
        self._file, self._start, self._raw = file, 0, b""

    def __iter__(self) -> Iterator[str]:
        for raw in self._file:
            text = raw.decode("utf-8-sig" if not self._start and not self._raw else "utf-8")
            self._raw += raw
            yield text

    def clear(self) -> None:
        self._start, self._raw = self._start + len(self._raw), b""

    def place(self, cell: str) -> int:
        """Where in the file a cell of these lines is."""
        return self._start + self._raw.rfind(cell.encode())


def _line(header: Sequence[str], row: Sequence[str], where: str, taken: _Taken) -> _Line:
    if len(row) != len(header):
        raise DataError(f"{where}: {len(row)} cells, the header has {len(header)}")
    cells = dict(zip(header, row, strict=True))
    cell = cells.pop("image", "")
    mark = hashlib.blake2b(cell.encode(), digest_size=16).digest()
    short = cell if len(cell) <= _REFERENCE else ""
    return _Line(cells, where, short, cell[:8], mark, taken.place(cell), len(cell.encode()))


def _picture(path: Path, start: int, length: int, name: str) -> bytes:
    """The bytes of a picture.

    Raises:
        DataError: the file is gone, or the cell is not base64.
    """
    try:
        with file_of(path).open("rb") as file:
            file.seek(start)
            return base64.b64decode(b"".join(file.read(length).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{path}: image of {name} is not base64 ({cut(str(error))})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
