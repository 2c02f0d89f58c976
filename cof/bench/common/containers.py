"""Which files of `bench.root` hold a benchmark, and the questions and pictures of tables.

A benchmark's own layout comes first. Where it is not, tables are looked for: TSV as VLMEvalKit has
them, parquet as on the Hugging Face Hub. `held` reads them, and what it says of a question is what
the benchmark's own files say, so that a dataset has one hash in whatever container it lies.

Questions are read at once, pictures one by one when they are wanted, out of the table itself:
nothing is unpacked, and parquet files take the memory of three of their row groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from cof.bench.common._parquet import parquet_entries
from cof.bench.common._tsv import tsv_entries
from cof.bench.common.answers import with_boxes
from cof.bench.common.tables import Entry
from cof.errors import DataError, cut
from cof.files import Folder, Member, Packed
from cof.types import Question

Found = tuple[Question, Member | None]
"""A question of a table, and its picture."""

Ask = Callable[[Iterable[Entry], Any], Iterator[Found]]
"""A benchmark's way from the rows of a table and its Config to questions."""

_Config = TypeVar("_Config")
_SHARD = re.compile(r"(-\d{5}-of-\d{5}.*|^\d+)$")


@dataclass(frozen=True)
class Held:
    """What tables hold: questions, and where each picture is, by its name in the questions."""

    questions: tuple[Question, ...]
    pictures: Packed


def held(ask: Ask, config: Any, files: Sequence[Path], look: bool = False) -> Held:
    """Read tables; asked again about files that have not changed, it answers at once.

    Args:
        ask: the benchmark's rule.
        config: the benchmark's, with a `root`.
        files: the tables, in their order.
        look: see `entries`.

    Raises:
        DataError: a table that cannot be read, or no question in any.
    """
    return _held(ask, config, tuple((file, *_stamp(file)) for file in files), look)


@lru_cache(maxsize=4)
def _held(ask: Ask, config: Any, files: tuple[tuple[Path, int, int], ...], look: bool) -> Held:
    questions: list[Question] = []
    members: dict[str, Member] = {}
    for question, picture in ask(rows_of([file for file, *_ in files], look), config):
        questions.append(question)
        if picture is not None:
            members.setdefault(question.image, picture)
    if not questions:
        raise DataError(f"{files[0][0]}: no questions")
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


def rows_of(files: Iterable[Path], look: bool = False) -> Iterator[Entry]:
    """The rows of several tables, one behind the other."""
    return (entry for file in files for entry in entries(file, look))


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return status.st_size, status.st_mtime_ns


def folder_of(root: str) -> Path:
    """The folder that `bench.root` names, or that the file is in that it names."""
    return Path(root).parent if Path(root).is_file() else Path(root)


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


def shards(root: str, *wanted: str) -> list[Path]:
    """The parquet files of one table: `root` itself, or those below it of the split that is wanted.

    Args:
        root: a file or folder.
        wanted: patterns for `config/split`, the most wanted first, as `en/dev`. Files that are all
            of one split are taken whatever it is called.
    """
    path = Path(root)
    if path.suffix == ".parquet" and path.is_file():
        return [path]
    splits: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else []:
        splits.setdefault(_split(file.relative_to(path)), []).append(file)
    for pattern in wanted:
        hits = [files for name, files in splits.items() if re.search(pattern, name)]
        if hits:
            return sorted(file for files in hits for file in files)
    return next(iter(splits.values())) if len(splits) == 1 else []


def _split(file: Path) -> str:
    """`config/split` of a parquet file's path, without the number of the shard."""
    stem = _SHARD.sub("", file.stem)
    return "/".join([*file.parts[:-1], *([stem] if stem else [])])


def tsv(root: str, *names: str) -> list[Path]:
    """One TSV: `root` itself, or in it the first of some names in any case, or the only one."""
    path = Path(root)
    if path.suffix == ".tsv" and path.is_file():
        return [path]
    there = sorted(path.glob("*.tsv")) if path.is_dir() else []
    for name in names:
        hits = [file for file in there if file.stem.lower() == name.lower()]
        if hits:
            return hits[:1]
    return there if len(there) == 1 else []


def with_llava(config: _Config) -> _Config:
    """A config whose `root` is LLaVA's question file: the folder around it, and that file."""
    given: Any = config
    if not (given.root.endswith(".jsonl") and Path(given.root).is_file()):
        return config
    named: _Config = replace(
        given, root=str(Path(given.root).parent), questions=given.questions or given.root
    )
    return named


_SHOWN = 6


def unknown(name: str, root: str, looked: str) -> DataError:
    """What to raise where `root` holds nothing of a benchmark that is known.

    Args:
        name: of the benchmark.
        root: as it was given.
        looked: for what, in a few words.
    """
    path = Path(root)
    if not path.is_dir():
        state = "is no such table" if path.is_file() else "no such folder or file"
    else:
        names = sorted(f"{one.name}/" if one.is_dir() else one.name for one in path.iterdir())
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        state = f"holds {', '.join(map(cut, names[:_SHOWN])) or 'nothing'}{more}"
    mini = path.name.startswith("Mini")  # as `cof data mini` names them
    draws = f"`cof data mini {path.parent} --only {path.name}` draws it"
    way = draws if mini else f"`cof data fetch {name} FOLDER` gets it"
    return DataError(f"{root}: {state}; looked for {looked}; {way}")
