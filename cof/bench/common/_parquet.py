"""Parquet tables of the Hub: pictures in a column, {bytes, path} or base64, read in pieces."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cof.bench.common.files import file_of
from cof.bench.common.tables import Entry, suffix_of
from cof.errors import DataError, cut
from cof.files import Member

_COLUMNS = ("image", "images", "decoded_image", "bytes")
"""Where copies of benchmarks keep their pictures."""

_ROWS = 16
"""Of a piece: what is decoded at once. A row group may be a whole file of some gigabytes."""

_KEPT = 4
"""Pieces in memory, of all files together: those that the model is fed from, and one that is being
hashed."""


_GOING = 2
"""Of these, the newest ones behind which reading can go on: each keeps what it has decompressed."""


class _Piece(NamedTuple):
    """Pictures of some rows, and the reading that goes on behind them, until somebody takes it."""

    pictures: Any
    rest: list[Iterator[Any]]


_HELD: OrderedDict[tuple[_Table, int, int], _Piece] = OrderedDict()
"""Pieces that were asked for last, by file, row group and number."""

_LOCK = threading.Lock()
"""Of `_HELD`."""


def parquet_entries(path: Path, look: bool) -> Iterator[Entry]:
    """See `cof.bench.common.tables.entries`."""
    table = _Table(path)
    for group in range(table.groups):
        for row, (cells, there) in enumerate(table.rows(group)):
            where = f"{path}: row {table.first(group) + row}"
            member = Member(where, partial(table.read, group, row)) if there else None
            if member is None or not look:
                yield Entry(cells, where, member)
            else:
                data = member.read()
                mark = hashlib.blake2b(data, digest_size=16).digest()
                yield Entry(cells, where, member, mark, suffix_of(data))


class _Table:
    """An open parquet file; several threads may ask for pictures."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise DataError(f"{path}: needs the package pyarrow: pip install pyarrow") from error
        with _blamed(path):
            self._file = pyarrow.parquet.ParquetFile(file_of(path))
            names = self._file.schema_arrow.names
            self.groups = self._file.num_row_groups
        self.picture = next((name for name in _COLUMNS if name in names), "")
        self._others = [name for name in names if name != self.picture]

    def first(self, group: int) -> int:
        """The number of a group's first row, from 1."""
        meta = self._file.metadata
        return 1 + sum(meta.row_group(before).num_rows for before in range(group))

    def rows(self, group: int) -> Iterator[tuple[dict[str, Any], bool]]:
        """The rows of a group without their pictures, and whether each has one."""
        light = self._light()
        with self._lock, _blamed(self._path):
            cells = self._file.read_row_group(group, columns=[*self._others, *light]).to_pylist()
            there = None if light or not self.picture else self._there(group)
        for place, row in enumerate(cells):
            yield row, there[place] if there else row.pop(self.picture, None) not in (None, [])

    def _light(self) -> list[str]:
        """The parts of the picture's column that are not the picture, where it has such."""
        leaves = [column.path for column in self._file.schema]
        inside = [leaf for leaf in leaves if leaf.startswith(f"{self.picture}.")]
        return [leaf for leaf in inside if not leaf.endswith(".bytes")]

    def _there(self, group: int) -> Sequence[bool]:
        """Which rows have a picture, of a column that is nothing else."""
        meta = self._file.metadata.row_group(group)
        columns = [meta.column(number) for number in range(meta.num_columns)]
        names = [one.path_in_schema.split(".")[0] for one in columns]
        found = columns[names.index(self.picture)]
        if found.statistics is not None and found.statistics.null_count == 0:
            return [True] * meta.num_rows
        return [there for piece in self._pieces(group) for there in piece.is_valid().to_pylist()]

    def _pieces(self, group: int) -> Iterator[Any]:
        """The pictures of a group, some rows at a time."""
        batches = self._file.iter_batches(
            _ROWS, row_groups=[group], columns=[self.picture], use_threads=False
        )
        rows = self._file.metadata.row_group(group).num_rows
        for number, batch in enumerate(batches):
            if len(batch) != min(_ROWS, rows - number * _ROWS):  # pyarrow may give fewer
                raise ValueError(f"{len(batch)} rows at once, not {_ROWS}")
            yield batch.column(0)

    def _piece(self, group: int, number: int) -> Any:
        """One of them; reading goes on from the nearest one before it that is held."""
        with self._lock, _blamed(self._path):
            with _LOCK:
                held = {key[2]: one for key, one in _HELD.items() if key[:2] == (self, group)}
            if number in held:
                pictures, rest = held[number]
            else:
                before = [place for place, one in held.items() if place < number and one.rest]
                start = max(before, default=-1)
                going = held[start].rest.pop() if before else self._pieces(group)
                pictures = next(islice(going, number - start - 1, None))
                rest = [going]
        with _LOCK:
            _HELD[self, group, number] = _Piece(pictures, rest)
            _HELD.move_to_end((self, group, number))
            while len(_HELD) > _KEPT:
                _HELD.popitem(last=False)
            for piece in [*_HELD.values()][:-_GOING]:
                piece.rest.clear()
        return pictures

    def read(self, group: int, row: int) -> bytes:
        """One picture."""
        where = f"{self._path}: row {self.first(group) + row}"
        number, place = divmod(row, _ROWS)
        return _bytes(self._piece(group, number)[place].as_py(), where)


def _bytes(value: Any, where: str) -> bytes:
    value = value[0] if isinstance(value, list) else value
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"{where}: image is not base64 ({cut(str(error))})") from error
    if not isinstance(data, bytes):
        raise DataError(f"{where}: holds no bytes of its picture")
    return data


@contextlib.contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Inside the block whatever pyarrow raises becomes a DataError that names the file."""
    try:
        yield
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({cut(str(error), 200)})") from error
