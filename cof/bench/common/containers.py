"""The questions and pictures of tables.

A benchmark's own layout comes first. Where it is not, tables are looked for
(`cof.bench.common.finding`): TSV as VLMEvalKit has them, parquet as on the Hugging Face Hub. `held`
reads them, and what it says of a question is what the benchmark's own files say, so that a dataset
has one hash in whatever container it lies.

Questions are read at once, pictures one by one when they are wanted, out of the table itself:
nothing is unpacked. Of a parquet file a few dozen pictures are in memory, and what pyarrow has read
of their row groups: some of one where pictures are asked for in order, else up to all of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from cof.bench.common._parquet import parquet_entries
from cof.bench.common._tsv import tsv_entries
from cof.bench.common.answers import unique, with_boxes
from cof.bench.common.finding import folder_of, missed
from cof.bench.common.tables import Entry
from cof.errors import DataError, cut
from cof.files import Folder, Member, Packed
from cof.types import Question

Found = tuple[Question, Member | None]
"""A question of a table, and its picture."""


@dataclass(frozen=True)
class Reader:
    """How a benchmark reads tables.

    Attributes:
        name: of the benchmark.
        ask: from the rows of a table and the benchmark's Config to questions.
        needs: columns, each or one of several joined by `|`; a table without one is another's.
        look: see `entries`.
    """

    name: str
    ask: Callable[[Iterable[Entry], Any], Iterator[Found]]
    needs: tuple[str, ...]
    look: bool = False

    def rows(self, files: Iterable[Path]) -> Iterator[Entry]:
        """The rows of several tables, one behind the other.

        Raises:
            DataError: a table that cannot be read, or lacks a column.
        """
        for file in files:
            for number, row in enumerate(entries(file, self.look)):
                if number == 0:
                    self._check(file, row)
                yield row

    def _check(self, file: Path, row: Entry) -> None:
        if all(any(name in row.cells for name in need.split("|")) for need in self.needs):
            return
        there = cut(", ".join(map(str, row.cells)))
        looked = ", ".join(need.replace("|", " or ") for need in self.needs)
        raise missed(file, f"has the columns {there}", self.name, looked)


@dataclass(frozen=True)
class Held:
    """What tables hold: questions, and where each picture is, by its name in the questions."""

    questions: tuple[Question, ...]
    pictures: Packed


def held(reader: Reader, config: Any, files: Sequence[Path]) -> Held:
    """Read tables; asked again about files that have not changed, it answers at once.

    Args:
        reader: the benchmark's.
        config: the benchmark's, with a `root`.
        files: the tables, in their order.

    Raises:
        DataError: a table that cannot be read, no question in any, or two with one id.
    """
    return _held(reader, config, tuple((file, *_stamp(file)) for file in files))


@lru_cache(maxsize=4)
def _held(reader: Reader, config: Any, files: tuple[tuple[Path, int, int], ...]) -> Held:
    questions: list[Question] = []
    members: dict[str, Member] = {}
    for question, picture in reader.ask(reader.rows(file for file, *_ in files), config):
        questions.append(question)
        if picture is not None:
            members.setdefault(question.image, picture)
    if not questions:
        raise DataError(f"{files[0][0]}: no questions")
    unique([question.id for question in questions], files[0][0])
    return Held(tuple(questions), Packed(folder_of(config.root), members))


def entries(path: Path, look: bool = False) -> Iterator[Entry]:
    """The rows of a table in their order.

    Args:
        path: a .tsv or .parquet file.
        look: say of each picture its mark and format, for which a parquet file is read through.

    Raises:
        DataError: not such a file, or one that is damaged; a .parquet without pyarrow installed.
    """
    return parquet_entries(path, look) if path.suffix == ".parquet" else tsv_entries(path)


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return status.st_size, status.st_mtime_ns


def places(bench: ModuleType, config: Any) -> Folder:
    """Where the pictures of a benchmark's questions are, by their names.

    Raises:
        DataError: a table that holds them is gone or damaged.
    """
    if not hasattr(bench, "pictures") or not Path(config.root).exists():
        return Path(config.root)
    found: Folder = bench.pictures(config)
    return found


def id_boxes(questions: Sequence[Question], root: str) -> list[Question]:
    """The questions with the boxes of a regions.jsonl (`id`, `boxes`), where there is one.

    Raises:
        DataError: as `with_boxes`.
    """
    ids = [question.id for question in questions]
    return with_boxes(questions, folder_of(root), ids, lambda row: row.key("id"))
