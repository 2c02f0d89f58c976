"""The record files of a run: one a process while it answers, a single one when it is finished.

A run of one process appends to records.jsonl, process r of several to records-<r>.jsonl. Whoever
reads takes them all, so that a run may go on with another number of processes. `merge` writes one
records.jsonl in dataset order. A packed run (`cof pack`) has records.jsonl.gz instead, and is only
read. Nothing here holds the records themselves in memory.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cof.errors import RunError, shown
from cof.files import DiskError, blamed, regular, sweep, whole
from cof.store.places import Indexes, Places

RECORDS = "records.jsonl"
PACKED = "records.jsonl.gz"
_SHARDS = "records-*.jsonl"
MADE = "made"
"""Key of a record: the origin of its run, see `cof.store.origin`."""


def shard_name(rank: int, size: int) -> str:
    """The file that process `rank` of `size` appends to."""
    return RECORDS if size == 1 else f"records-{rank}.jsonl"


def files(folder: Path) -> list[Path]:
    """All files that records are added to; records.jsonl last: a merge meanwhile hides nothing."""
    return [*sorted(folder.glob(_SHARDS)), folder / RECORDS]


def kept(folder: Path) -> list[Path]:
    """All files that records are read from: `files`, and that of a packed run."""
    return [*files(folder), folder / PACKED]


@dataclass(frozen=True, slots=True)
class RecordLine:
    """One whole line: where it stands, in bytes and lines (from 1), and what it says."""

    file: Path
    number: int
    start: int
    length: int
    record: dict[str, Any]


def read(folder: Path, places: Places | None = None) -> Iterator[RecordLine]:
    """Every record once; a torn last line of a file does not count.

    A record that records.jsonl repeats to the byte counts once: a merge was killed.

    Args:
        folder: of the run.
        places: an empty one, to be told where each record stands.

    Raises:
        RunError: a line before the last is damaged, a question has two records, or two records
            were made with different settings, weights or datasets.
        DiskError: a file cannot be read, or is none.
    """
    places = Places() if places is None else places
    first: RecordLine | None = None
    for file in kept(folder):
        places.files.append(file)
        for line, data in _whole_lines(file):
            index = line.record["index"]
            if MADE in line.record:
                first = first or line
                _same_origin(first, line)
            if places.get(index) is None:
                places.put(index, line.start)
                yield line
            elif file.name != RECORDS or _line_of(places, index) not in (data, None):
                both = f"{places.file_of(index).name} and {file.name}"
                raise RunError(f"{folder}: question {index} has records in {both}; delete one")


def _line_of(places: Places, index: int) -> bytes | None:
    """A question's line; None where a merge has deleted its file meanwhile."""
    try:
        return next(places.lines([index]))
    except DiskError:
        if places.file_of(index).exists():
            raise
        return None


def _same_origin(one: RecordLine, other: RecordLine) -> None:
    there, here = one.record[MADE], other.record[MADE]
    if there != here:
        key = next(key for key in {**there, **here} if there.get(key) != here.get(key))
        raise RunError(
            f"{other.file}: line {other.number}: made with another {key} than line {one.number} of "
            f"{one.file.name} ({shown(here.get(key))}, {shown(there.get(key))}); "
            "records of two runs are mixed here: take those of one of them away"
        )


def repair(folder: Path) -> None:
    """Cut torn last lines off, and delete what killed writers left."""
    sweep(folder)
    for file in files(folder):
        end = max((line.start + line.length for line, _ in _whole_lines(file)), default=0)
        if file.exists() and end < file.stat().st_size:
            os.truncate(file, end)


def drop(folder: Path, indexes: Container[int]) -> None:
    """Forget some questions, so that they are asked again."""
    for file in files(folder):
        if any(line.record["index"] in indexes for line, _ in _whole_lines(file)):
            lines = _whole_lines(file)
            _copy((data for line, data in lines if line.record["index"] not in indexes), file)


def merge(folder: Path, total: int) -> None:
    """One records.jsonl in dataset order, whole or not at all, and no shards.

    Args:
        folder: of the run; nobody else is writing.
        total: number of questions; their indexes are 0, 1, ... total - 1.

    Raises:
        RunError: a question has no record or two, or there is a record of no question.
    """
    places, last, ordered = Places(), -1, True
    for line in read(folder, places):
        last, ordered = line.record["index"], ordered and last < line.record["index"]
    lost = next((index for index in range(total) if places.get(index) is None), None)
    if lost is not None:
        raise RunError(
            f"{folder}: question {lost} has no record ({len(places)} of {total} have): "
            "a process ended early; the same command goes on from here"
        )
    if len(places) > total:
        highest = places.order()[-1]
        raise RunError(f"{folder}: a record of question {highest}, but there are {total}")
    shards = files(folder)[:-1]
    if shards or not ordered:
        _copy(places.lines(range(total)), folder / RECORDS)
    for shard in shards:
        shard.unlink()


def write_in_order(folder: Path, out: IO[bytes]) -> None:
    """Write every record of a run that is not packed, merged or not, in dataset order."""
    places = Places()
    for _ in read(folder, places):
        pass
    out.writelines(places.lines(places.order()))


def _copy(lines: Iterable[bytes], target: Path) -> None:
    """Write lines as they are into a new `target`, seen to the disk before it takes its place."""
    with whole(target) as fresh, fresh.open("wb") as out:
        out.writelines(lines)


def _whole_lines(file: Path) -> Iterator[tuple[RecordLine, bytes]]:
    """The whole lines of a file, each with its bytes."""
    packed, stream = file.suffix == ".gz", _opened(file)
    if stream is None:
        return
    with stream, blamed(file, "read"):
        size, start = os.fstat(stream.fileno()).st_size, 0
        seen = Indexes()
        for number, data in enumerate(_unpacked(stream, file) if packed else stream, 1):
            record = _record(data)
            if record is None and not packed and start + len(data) >= size:
                return
            if record is None or record["index"] in seen:
                raise RunError(f"{file}: line {number} is damaged or a repetition; delete it")
            yield RecordLine(file, number, start, len(data), record), data
            seen.add(record["index"])
            start += len(data)


def _opened(file: Path) -> IO[bytes] | None:
    """None where there is no such file, any more or yet."""
    try:
        with blamed(file, "read"):
            return regular(file).open("rb")
    except DiskError:
        if file.exists():
            raise
        return None


def _unpacked(stream: IO[bytes], file: Path) -> Iterator[bytes]:
    """The lines of a packed file."""
    try:
        with gzip.open(stream) as unpacked:
            yield from unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RunError(f"{file}: damaged ({error})") from error


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: brackets in brackets in brackets
        return None
    index = record.get("index") if isinstance(record, dict) else None
    whole = isinstance(index, int) and not isinstance(index, bool) and index >= 0
    made = record.get(MADE, {}) if whole else None
    return record if isinstance(made, dict) else None
