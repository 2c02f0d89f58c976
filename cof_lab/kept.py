"""Records that stay: what they are of, and CSV files that are whole or not there."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cof.errors import DataError
from cof.files import whole, write_whole


def pin(path: Path, told: Mapping[str, Any]) -> None:
    """Write what a folder's records are of, or check that they are of the same.

    Args:
        path: a JSON file in the folder.
        told: weights and settings, as JSON has them.

    Raises:
        DataError: the folder holds records of something else.
    """
    told = json.loads(json.dumps(told))
    if not path.exists():
        write_whole(path, json.dumps(told, indent=1) + "\n")
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    wrong = [key for key in told if there.get(key) != told[key]]
    if wrong:
        key = wrong[0]
        raise DataError(
            f"{path.parent}: holds records with {key} {there.get(key)!r}, not {told[key]!r}; "
            "choose another folder"
        )


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A CSV file, whole or not at all, packed if its name ends in .gz; no time of day in it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    if path.suffix != ".gz":
        write_whole(path, file.getvalue())
        return
    with whole(path) as fresh:
        fresh.write_bytes(gzip.compress(file.getvalue().encode(), mtime=0))
