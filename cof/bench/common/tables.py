"""A row of a table that holds a benchmark, whatever the table's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


class Names:
    """Names for pictures of a table that has none: the `index` of the first row that has it."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def of(self, row: Entry) -> str:
        """The name; rows whose `mark` is not known have each their own."""
        name = row.text("index")
        return self._known.setdefault(row.mark, name) if row.mark else name


def suffix_of(head: bytes) -> str:
    """The file suffix for a picture that begins so."""
    return ".png" if head.startswith(b"\x89PNG") else ".jpg"
