"""Files that benchmarks read and write: every error names the file, and the line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.errors import DataError
from cof.files import write_whole


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file, with the place it came from.

    Attributes:
        values: the object.
        where: `file:line`, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def text(self, name: str) -> str:
        """A string of the row.

        Raises:
            DataError: the key is absent or holds something else.
        """
        if name not in self.values:
            raise DataError(f"{self.where}: no {name!r}; there is: {', '.join(self.values)}")
        value = self.values[name]
        if not isinstance(value, str):
            raise DataError(f"{self.where}: {name!r} is {value!r}, expected text")
        return value

    def key(self, name: str) -> str:
        """An identifier of the row, which files write as a string or as an integer.

        Raises:
            DataError: the key is absent or holds something else.
        """
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)


def read_text(path: Path) -> str:
    """A whole UTF-8 file, a byte-order mark dropped and line ends unified.

    Raises:
        DataError: not there, not readable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, unstripped, with its `file:line`.

    Only newline characters end a line: answers may hold other separators that `splitlines` cuts.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield line, f"{path}:{number}"


def read_jsonl(path: Path) -> list[Row]:
    """The objects of a JSON-lines file.

    Raises:
        DataError: a line is not a JSON object, or there is none at all.
    """
    rows = [Row(parse_object(line, where), where) for line, where in read_lines(path)]
    if not rows:
        raise DataError(f"{path}: empty, expected one JSON object a line")
    return rows


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: not JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def read_json_rows(path: Path) -> list[Row]:
    """The objects of a file that is JSON lines or one JSON array, whatever its name says.

    Raises:
        DataError: neither, an item that is no object, or none at all.
    """
    if not read_text(path).lstrip().startswith("["):
        return read_jsonl(path)
    items = read_json(path)
    if not items:
        raise DataError(f"{path}: an empty array, expected JSON objects")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise DataError(f"{path}: item {number} is a {type(item).__name__}, expected an object")
    return [Row(item, f"{path}: item {number}") for number, item in enumerate(items, start=1)]


def parse_object(text: str, where: str) -> dict[str, Any]:
    """One JSON object; `where` goes into the error."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def write_text(path: Path, text: str) -> Path:
    """UTF-8 with plain newlines, folders made where needed; returns the path."""
    return write_whole(path, text)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON object a line, keys in the order given; returns the path."""
    return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
