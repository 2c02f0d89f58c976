"""Parquet tables of the Hub: pictures as {bytes, path} in a column, read by row groups."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cof.bench.common.files import file_of
from cof.bench.common.tables import Entry, suffix_of
from cof.errors import DataError, cut
from cof.files import Member

_COLUMNS = ("image", "images", "decoded_image", "bytes")
"""Where copies of benchmarks keep their pictures."""

_KEPT = 3
"""Row groups in memory, of all files together: one that the model is fed from and the next, and one
that is being hashed."""

_HELD: OrderedDict[tuple[_Table, int], Any] = OrderedDict()
"""Pictures of the row groups that were asked for last."""

_LOCK = threading.Lock()
"""Of `_HELD`."""


def parquet_entries(path: Path, look: bool) -> Iterator[Entry]:
    """See `cof.bench.common.tables.entries`."""
    table = _Table(path)
    for group in range(table.groups):
        pictures = table.column(group) if look and table.picture else None
        for row, cells in enumerate(table.cells(group)):
            there = table.picture is not None and cells.pop(table.picture) not in (None, [])
            where = f"{path}: row {table.first(group) + row}"
            member = Member(where, partial(table.read, group, row)) if there else None
            if member is None or pictures is None:
                yield Entry(cells, where, member)
            else:
                data = _bytes(pictures[row].as_py(), where)
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
        self.picture = next((name for name in _COLUMNS if name in names), None)
        others = [name for name in names if name != self.picture]
        self._columns = [*others, *self._light()]

    def _light(self) -> list[str]:
        """The parts of the picture's column that are not the picture, where it has such."""
        leaves = [column.path for column in self._file.schema]
        inside = [leaf for leaf in leaves if leaf.startswith(f"{self.picture}.")]
        light = [leaf for leaf in inside if not leaf.endswith(".bytes")]
        return light or ([self.picture] if self.picture else [])

    def first(self, group: int) -> int:
        """The number of a group's first row, from 1."""
        meta = self._file.metadata
        return 1 + sum(meta.row_group(before).num_rows for before in range(group))

    def cells(self, group: int) -> Iterator[dict[str, Any]]:
        """The rows of a group; of a picture only what tells whether there is one."""
        with self._lock, _blamed(self._path):
            rows = self._file.read_row_group(group, columns=self._columns).to_pylist()
        yield from rows

    def column(self, group: int) -> Any:
        """The pictures of a group, by row."""
        with self._lock, _blamed(self._path):
            with _LOCK:
                found = _HELD.get((self, group))
            if found is None:
                found = self._file.read_row_group(group, columns=[self.picture]).column(0)
        with _LOCK:
            _HELD[self, group] = found
            _HELD.move_to_end((self, group))
            while len(_HELD) > _KEPT:
                _HELD.popitem(last=False)
        return found

    def read(self, group: int, row: int) -> bytes:
        """One picture."""
        where = f"{self._path}: row {self.first(group) + row}"
        return _bytes(self.column(group)[row].as_py(), where)


def _bytes(value: Any, where: str) -> bytes:
    value = value[0] if isinstance(value, list) else value
    data = value.get("bytes") if isinstance(value, dict) else value
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
