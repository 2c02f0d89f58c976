"""Boxes kept on disk, by question id: what the coarse stages file, random and shuffled read.

Either a run folder (packed or unfinished too) or its records.jsonl, whose coarse boxes or ground
truth are taken, or JSON lines `{"id": "...", "boxes": [[x0, y0, x1, y1], ...]}`, and `"image"`
where boxes are shuffled; a box is fractions of the original image, x right, y down.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cof.bench.common.answers import boxes_in
from cof.bench.common.files import read_jsonl
from cof.bench.common.rows import Row
from cof.errors import DataError
from cof.store import record_files
from cof.types import Box, Question


@dataclass(frozen=True, slots=True)
class Kept:
    """One question's boxes, and the image that they lie on ("" where the file does not say)."""

    image: str
    boxes: tuple[Box, ...]


def boxes_of(path: str, truth: bool, question: Question) -> tuple[Box, ...]:
    """The boxes of one question.

    Raises:
        DataError: as `read_boxes`, or nothing about the question.
    """
    kept = read_boxes(path, truth)
    if question.id not in kept:
        raise DataError(f"{path}: no boxes for question {question.id!r}")
    return kept[question.id].boxes


def check_ids(path: str, truth: bool, questions: Sequence[Question]) -> None:
    """Refuse a file that lacks some of the questions; the error counts them."""
    kept = read_boxes(path, truth)
    missing = [question.id for question in questions if question.id not in kept]
    if missing:
        raise DataError(
            f"{path}: no boxes for {len(missing)} of {len(questions)} questions, "
            f"the first is {missing[0]!r}"
        )


def read_boxes(path: str, truth: bool) -> dict[str, Kept]:
    """Everything a file holds, by question id; read once while the file stays as it is.

    Args:
        path: a JSON-lines file or a run folder.
        truth: of a run folder the ground-truth boxes, not those of its coarse stage.

    Raises:
        DataError: no such file, a line that is none of the above, or a run whose gate kept plain
            answers: those questions were never located.
        RunError: the records of a run folder are damaged.
    """
    place = Path(path)
    files = (
        [file for file in record_files.kept(place) if file.exists()] if place.is_dir() else [place]
    )
    if not files:
        raise DataError(f"{place}: a folder without records; name a run folder or a file of boxes")
    return _read(place, truth, tuple(_stamp(file) for file in files))


def content(path: str, truth: bool) -> str:
    """Hex SHA-256 of what a file says: ids, images and boxes, not the timings beside them."""
    kept = read_boxes(path, truth)
    rows = [[name, one.image, [b.as_tuple() for b in one.boxes]] for name, one in kept.items()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@functools.lru_cache(maxsize=8)
def _read(place: Path, truth: bool, _stamps: tuple[tuple[int, int], ...]) -> dict[str, Kept]:
    kept: dict[str, Kept] = {}
    sure = 0
    for row in _records(place) if place.is_dir() else read_jsonl(place):
        name = row.text("id")
        if name in kept:
            raise DataError(f"{row.where}: question {name!r} occurs twice")
        image = row.text("image") if "image" in row.values else ""
        kept[name] = Kept(image, _boxes(row, truth))
        sure += _was_sure(row)
    if sure and not truth:
        raise DataError(
            f"{place}: a gate kept the plain answers of {sure} of its {len(kept)} questions, which "
            "have no boxes; give a run without a gate, or with gate.threshold=null"
        )
    return kept


def _was_sure(row: Row) -> bool:
    """Whether it is a record of a question that was not located, since the gate was closed."""
    gate = row.values.get("gate")
    return "region" in row.values and isinstance(gate, dict) and gate.get("asked") is False


def _stamp(file: Path) -> tuple[int, int]:
    try:
        stamp = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return stamp.st_mtime_ns, stamp.st_size


def _records(folder: Path) -> list[Row]:
    """What a run has answered, in dataset order."""
    lines = sorted(record_files.read(folder), key=lambda line: line.record["index"])
    return [Row(line.record, f"{line.file}: record {line.record['index']}") for line in lines]


def _boxes(row: Row, truth: bool) -> tuple[Box, ...]:
    is_record = "region" in row.values
    if truth and not is_record:
        raise DataError(f"{row.where}: truth is only kept by a run's records; leave truth out")
    if truth:
        return boxes_in(row.value("truth"), row.where)
    if is_record and row.values["region"] is None:
        return ()  # a question that failed
    found = Row.of(row.values["region"], row.where) if is_record else row
    return boxes_in(found.value("boxes"), row.where)
