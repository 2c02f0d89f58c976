"""MMBench's tables (TSV, and the submission's xlsx) and the images inside them."""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cof.bench.common.answers import unique
from cof.bench.common.choice import LETTERS
from cof.bench.common.files import file_of
from cof.bench.common.rows import whole_number
from cof.errors import DataError, cut
from cof.files import DiskError, whole, write_whole

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
    """

    index: int
    cells: Mapping[str, str]
    where: str

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


def read_table(path: Path) -> list[TableLine]:
    """Rows of a .tsv or .xlsx in their order.

    Raises:
        DataError: no column `index`, an index that is no number or occurs twice, no rows.
    """
    table = list(_sheet(path) if path.suffix == ".xlsx" else _tsv(path))
    if len(table) < 2 or "index" not in table[0][0]:
        raise DataError(f"{path}: not an MMBench table; expected a header with `index`, then rows")
    header = table[0][0]
    lines = [_line(header, row, where) for row, where in table[1:]]
    unique([line.index for line in lines], path)
    return lines


def _line(header: Sequence[str], row: Sequence[str], where: str) -> TableLine:
    if len(row) != len(header):
        raise DataError(f"{where}: {len(row)} cells, the header has {len(header)}")
    cells = {
        name: cell
        for name, cell in zip(header, row, strict=True)
        if cell not in _EMPTY or (name == "prediction" and cell)
    }
    return TableLine(whole_number(cells.get("index", ""), "index", where), cells, where)


_LONGEST_CELL = 2**31 - 1
"""Characters; what a C long holds on every system (64 bits are too many on Windows)."""


def _tsv(path: Path) -> Iterator[tuple[list[str], str]]:
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with file_of(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            yield from ((row, f"{path}:{reader.line_num}") for row in reader if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _sheet(path: Path) -> Iterator[tuple[list[str], str]]:
    from openpyxl import load_workbook

    try:
        sheet = load_workbook(file_of(path), read_only=True).worksheets[0]
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = ["" if cell is None else str(cell) for cell in row]
            if any(cells):
                yield cells, f"{path}:{number}"
    except DataError:
        raise
    except Exception as error:  # openpyxl raises whatever its zip and XML parsers raise
        raise DataError(f"{path}: not an xlsx file ({cut(str(error))})") from error


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


_DIGITS = 19
"""Of an index, fewer; longer cells are images, and may be long digits by chance."""


def extract_images(lines: Sequence[TableLine], folder: Path) -> dict[int, str]:
    """Write each distinct image once; index -> file name inside `folder`.

    A cell is base64, or the index of the row that holds the image. A file that is there already is
    left alone.

    Raises:
        DataError: a row without an image, base64 that is broken, or data that is no image.
    """
    cells = {line.index: line.cells.get("image", "") for line in lines}
    names: dict[int, str] = {}
    first: dict[str, int] = {}
    for line in lines:
        cell = cells[line.index]
        if len(cell) < _DIGITS and cell.isdecimal() and int(cell) in cells:
            cell = cells[int(cell)]
        owner = first.setdefault(cell, line.index)
        if owner == line.index:
            names[owner] = _write_image(cell, folder / str(owner), line)
        names[line.index] = names[owner]
    return names


def _write_image(cell: str, stem: Path, line: TableLine) -> str:
    """Decode one image into a file; returns its name."""
    if not cell:
        raise DataError(f"{line.where}: row {line.index} has no image")
    try:
        data = base64.b64decode("".join(cell.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            f"{line.where}: image of {line.index} is not base64 ({cut(str(error))})"
        ) from error
    suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
    file = stem.with_name(stem.name + suffix)
    try:
        if not file.is_file() or file.read_bytes() != data:
            _check_image(data, line)
            write_whole(file, data)
    except DiskError as error:
        raise DataError(f"{error}; name a folder that can, images=FOLDER") from error
    return file.name


def _check_image(data: bytes, line: TableLine) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise DataError(
            f"{line.where}: image of {line.index} is broken ({cut(str(error))})"
        ) from error
