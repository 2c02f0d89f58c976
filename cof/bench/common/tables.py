"""Tables that hold a benchmark: TSV as VLMEvalKit has them, parquet as on the Hugging Face Hub.

Questions are read at once, pictures one by one when they are wanted, out of the table itself:
nothing is unpacked, and a table of any size takes the memory of one row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common.rows import Row
from cof.files import Member


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table.

    Attributes:
        cells: column -> value, of a TSV text; without the picture.
        where: file and line or row, for messages.
        picture: its picture, where it has one.
        mark: equal for two rows with the same picture.
        suffix: of the picture's format: `.png`, else `.jpg`.
    """

    cells: Mapping[str, Any]
    where: str
    picture: Member | None = None
    mark: bytes = b""
    suffix: str = ".jpg"

    @property
    def row(self) -> Row:
        """The cells, to be asked for what they should hold."""
        return Row(self.cells, self.where)

    def text(self, *names: str) -> str:
        """The first of some columns that has a value, as text; "" where none has."""
        values = (self.cells.get(name) for name in names)
        return next((str(value) for value in values if value not in (None, "")), "")


def entries(path: Path, look: bool = False) -> Iterator[Entry]:
    """The rows of a table in their order.

    Args:
        path: a .tsv or .parquet file.
        look: say of each picture its mark and format, for which a parquet file is read through.

    Raises:
        DataError: not such a file, or one that is damaged; a .parquet without pyarrow installed.
    """
    if path.suffix == ".parquet":
        from cof.bench.common._parquet import parquet_entries

        yield from parquet_entries(path, look)
    else:
        from cof.bench.common._tsv import tsv_entries

        yield from tsv_entries(path)


def suffix_of(head: bytes) -> str:
    """The file suffix for a picture that begins so."""
    return ".png" if head.startswith(b"\x89PNG") else ".jpg"
