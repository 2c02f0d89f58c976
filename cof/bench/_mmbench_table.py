"""MMBench's tables: TSV, lmms-lab's parquet, and the submission's xlsx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cof.bench.common.answers import unique
from cof.bench.common.choice import LETTERS
from cof.bench.common.containers import entries
from cof.bench.common.files import file_of
from cof.bench.common.rows import whole_number
from cof.bench.common.tables import Entry
from cof.errors import DataError, cut, shown
from cof.files import Member, whole

COLUMNS = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "source"),
    *("l2-category", "comment", "split", "image"),
)
"""Columns of the published TSV."""

ROTATION = 1_000_000
"""A rotated copy of question i has index k * ROTATION + i."""

_EMPTY = frozenset(
    [
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    ]
)
"""What pandas reads as no value; LLaVA's prompts were made with it, so an option `NA` is none."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """One row of a table; a cell without a value is absent from `cells`.

    Attributes:
        index: the question's number, rotated copies included.
        cells: column -> text.
        where: file:line, for messages.
        picture: the image in the table, where it has any.
        mark: equal for two rows with one image.
        suffix: of the image's format.
    """

    index: int
    cells: Mapping[str, str]
    where: str
    picture: Member | None = None
    mark: bytes = b""
    suffix: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """Columns A, B, ... up to the first that is empty, as LLaVA cuts them."""
        found = []
        for letter in LETTERS:
            option = self.cells.get(letter, "")
            if not option or option.lower() in ("nan", "none"):
                break
            found.append(option)
        return tuple(found)


def read_table(*paths: Path) -> list[TableLine]:
    """Rows of a .tsv or .xlsx, or of the .parquet files of one table, in their order.

    Raises:
        DataError: no column `index`, an index that is no number or occurs twice, or that is not in
            the group that newer tables say (`g_index`), no rows.
    """
    rows: list[Entry] = []
    for path in paths:
        rows += _sheet(path) if path.suffix == ".xlsx" else entries(path, look=True)
    return table_lines(rows, paths[0])


def table_lines(rows: Sequence[Entry], path: Path) -> list[TableLine]:
    """As `read_table`, of rows that were read from `path`."""
    if not rows or "index" not in rows[0].cells:
        raise DataError(f"{path}: not an MMBench table; expected a header with `index`, then rows")
    lines = [_line(row) for row in rows]
    unique([line.index for line in lines], path)
    return lines


def _line(row: Entry) -> TableLine:
    texts = {
        _LONG.get(name, name): "" if value is None else str(value)
        for name, value in row.cells.items()
    }
    cells = {
        name: cell
        for name, cell in texts.items()
        if cell not in _EMPTY or (name == "prediction" and cell)
    }
    index = whole_number(cells.get("index", ""), "index", row.where)
    if cells.get("g_index", str(index % ROTATION)) != str(index % ROTATION):
        raise DataError(
            f"{row.where}: index {index} with g_index {shown(cells['g_index'])}, expected "
            f"k * {ROTATION} + g_index"
        )
    return TableLine(index, cells, row.where, row.picture, row.mark, row.suffix)


_LONG = {"L2-category": "l2-category"}
"""A column of lmms-lab's copy -> the published one."""


def _sheet(path: Path) -> Iterator[Entry]:
    from openpyxl import load_workbook

    try:
        sheet = load_workbook(file_of(path), read_only=True).worksheets[0]
        header: list[str] = []
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = ["" if cell is None else str(cell) for cell in row]
            if any(cells) and not header:
                header = cells
            elif any(cells):
                yield Entry(_named(header, cells, f"{path}:{number}"), f"{path}:{number}")
    except DataError:
        raise
    except Exception as error:  # openpyxl raises whatever its zip and XML parsers raise
        raise DataError(f"{path}: not an xlsx file ({cut(str(error))})") from error


def _named(header: Sequence[str], row: Sequence[str], where: str) -> dict[str, str]:
    if len(row) != len(header):
        raise DataError(f"{where}: {len(row)} cells, the header has {len(header)}")
    return dict(zip(header, row, strict=True))


def write_sheet(path: Path, rows: Sequence[Sequence[str | int | None]]) -> Path:
    """An xlsx with one sheet; text stays text, control characters that xlsx cannot hold go."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    for row in rows:
        cells = []
        for value in row:
            text = ILLEGAL_CHARACTERS_RE.sub("", value) if isinstance(value, str) else value
            cells.append(WriteOnlyCell(sheet, value=text))
            if isinstance(text, str):
                cells[-1].data_type = "s"  # else "=..." becomes a formula
        sheet.append(cells)
    with whole(path) as fresh:
        book.save(fresh)
    return path


def images(lines: Sequence[TableLine]) -> dict[int, str]:
    """Index -> file name: `<index>.jpg` or .png, of the first row that has the same image.

    Raises:
        DataError: a row without an image.
    """
    names: dict[int, str] = {}
    first: dict[bytes, str] = {}
    for line in lines:
        if line.picture is None:
            raise DataError(f"{line.where}: row {line.index} has no image")
        names[line.index] = first.setdefault(line.mark, f"{line.index}{line.suffix}")
    return names
