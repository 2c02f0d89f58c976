"""Files that benchmarks read and write: every error names the file, and the line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cof.bench.common.rows import Row
from cof.errors import DataError
from cof.files import DiskError, regular, whole, write_whole


def file_of(path: Path) -> Path:
    """The path, if it is a file and no device, pipe or folder, which might hang.

    Raises:
        DataError: it is not.
    """
    try:
        return regular(path)
    except DiskError as error:
        raise DataError(str(error)) from error


def read_text(path: Path) -> str:
    """A whole UTF-8 file, a byte-order mark dropped and line ends unified.

    Raises:
        DataError: not there, not readable, no file, or not UTF-8.
    """
    try:
        return file_of(path).read_text(encoding="utf-8-sig")
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
    rows = [Row.of(parse_json(line, where), where) for line, where in read_lines(path)]
    if not rows:
        raise DataError(f"{path}: empty, expected one JSON object a line")
    return rows


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: not JSON.
    """
    return parse_json(read_text(path), str(path))


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
    return [Row.of(item, f"{path}: item {number}") for number, item in enumerate(items, start=1)]


def parse_json(text: str, where: str) -> Any:
    """A JSON value; `where` goes into the error.

    Raises:
        DataError: not JSON, or nested deeper than anything that a benchmark holds.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    except RecursionError as error:
        raise DataError(f"{where}: not a benchmark's JSON (nested too deeply)") from error


def write_text(path: Path, text: str) -> Path:
    """UTF-8 with plain newlines, folders made where needed, whole or not at all; the path."""
    return write_whole(path, text)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON object a line, keys in the order given; returns the path."""
    with whole(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path
