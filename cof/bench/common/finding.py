"""Which files of `bench.root` hold a benchmark: tables are told by their names and splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cof.errors import DataError, cut

_Config = TypeVar("_Config")

TSV_NAMES: Mapping[str, tuple[str, ...]] = {
    "mme": ("MME",),
    "pope": ("POPE",),
    "hallusionbench": ("HallusionBench",),
    "mmvp": ("MMVP",),
    "hrbench": ("hr_bench_4k", "HRBench4K", "hr_bench_8k", "HRBench8K"),
    "seedbench": ("SEEDBench_IMG",),
    "scienceqa": ("ScienceQA_TEST", "ScienceQA_VAL"),
    "cvbench": ("CV-Bench-2D", "CV-Bench-3D"),
}
"""Benchmark -> how VLMEvalKit and the authors call its tables, the most wanted first; MMBench's
have `_MMBENCH` in their names. CV-Bench's are known so as not to be taken for another one's."""

_MMBENCH = re.compile("mmbench|ccbench", re.IGNORECASE)
_SHARD = re.compile(r"(-\d{5}-of-\d{5}.*|^\d+)$")
_PART = re.compile(r"-(\d{5})-of-(\d{5})")
_SHOWN = 6


def owner(file: Path) -> str:
    """The benchmark whose table has this name, "" where it may be anybody's.

    Multiple-choice tables have the same columns, so that one would be taken for the other.
    """
    if _MMBENCH.search(file.stem):
        return "mmbench"
    stem = file.stem.lower().removesuffix("_local")
    names = ((bench, name.lower()) for bench, names in TSV_NAMES.items() for name in names)
    return next((bench for bench, name in names if name == stem), "")


def folder_of(root: str) -> Path:
    """The folder that `bench.root` names, or that the file is in that it names."""
    return Path(root).parent if Path(root).is_file() else Path(root)


def tables(name: str, root: str, looked: str, wanted: Sequence[str], *names: str) -> list[Path]:
    """The parquet files of one table, else the TSV.

    Args:
        name: of the benchmark.
        root: a file or folder.
        looked: see `unknown`.
        wanted: see `shards`.
        names: see `tsv`.

    Raises:
        DataError: neither is there, or some of the parquet files are missing.
    """
    found = shards(name, root, *wanted) or tsv(name, root, *names)
    if not found:
        raise unknown(name, root, looked)
    return found


def tsv(name: str, root: str, *names: str) -> list[Path]:
    """One TSV: `root` itself, or in it the first of some names in any case.

    Args:
        name: of the benchmark; a table that is another one's by its name is not taken.
        root: a file, which may have a name of its own, or a folder.
        names: of the table, without its suffix; none stands for those of `TSV_NAMES`.
    """
    path = Path(root)
    if path.is_file() and path.suffix == ".tsv" and not owner(path):
        return [path]
    there = [path] if path.is_file() else sorted(_snapshot(path).glob("*.tsv"))
    for stem in names or TSV_NAMES.get(name, ()):
        hits = [file for file in there if file.name.lower() == f"{stem}.tsv".lower()]
        if hits:
            return hits[:1]
    return []


def mmbench_tsvs(folder: Path) -> list[Path]:
    """All TSVs in a folder that are MMBench's by their names."""
    return [file for file in sorted(folder.glob("*.tsv")) if owner(file) == "mmbench"]


def shards(name: str, root: str, *wanted: str) -> list[Path]:
    """The parquet files of one table: `root` itself, or those below it of the split that is wanted.

    Args:
        name: of the benchmark; a file that is another one's by its name is not taken.
        root: a file or folder, that of the Hub's cache too.
        wanted: patterns for `config/split`, the most wanted first, as `en/dev`. Files that are all
            of one split are taken whatever it is called.

    Raises:
        DataError: some of the files that a table is cut into are missing.
    """
    path = Path(root)
    if path.is_file():
        return [path] if path.suffix == ".parquet" and owner(path) in ("", name) else []
    path = _snapshot(path)
    splits: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        if owner(file) in ("", name):
            splits.setdefault(_split(file.relative_to(path)), []).append(file)
    for pattern in wanted:
        hits = [files for split, files in splits.items() if re.search(pattern, split)]
        if hits:
            return _whole(sorted(file for files in hits for file in files))
    return _whole(next(iter(splits.values()))) if len(splits) == 1 else []


def _split(file: Path) -> str:
    """`config/split` of a parquet file's path, without the number of the shard."""
    stem = _SHARD.sub("", file.stem)
    return "/".join([*file.parts[:-1], *([stem] if stem else [])])


def _whole(files: Sequence[Path]) -> list[Path]:
    """Files, none of which is missing that their names count."""
    parts: dict[tuple[Path, int], set[int]] = defaultdict(set)
    for file in files:
        found = _PART.search(file.stem)
        if found:
            parts[file.with_name(file.stem[: found.start()]), int(found[2])].add(int(found[1]))
    for (table, count), there in parts.items():
        lost = sorted({*range(count)} - there)
        if lost:
            raise DataError(
                f"{table}-*.parquet: {len(lost)} of {count} files are missing, the first is "
                f"{table.name}-{lost[0]:05d}-of-{count:05d}; fetch it, or name one file"
            )
    return list(files)


def _snapshot(path: Path) -> Path:
    """The snapshot of a repository's folder in the Hub's cache; any other folder as it is.

    Raises:
        DataError: it has several, and none is said to be the main one.
    """
    if not (path / "snapshots").is_dir():
        return path
    there = sorted(one for one in (path / "snapshots").iterdir() if one.is_dir())
    main = path / "refs" / "main"
    named = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    chosen = [one for one in there if one.name == named] or there
    if len(chosen) != 1:
        names = _listed(one.name for one in there)
        raise DataError(f"{path / 'snapshots'}: holds {names}; name one of them")
    return chosen[0]


def with_llava(config: _Config) -> _Config:
    """A config whose `root` is LLaVA's question file: the folder around it, and that file."""
    given: Any = config
    if not (given.root.endswith(".jsonl") and Path(given.root).is_file()):
        return config
    named: _Config = replace(
        given, root=str(Path(given.root).parent), questions=given.questions or given.root
    )
    return named


def unknown(name: str, root: str, looked: str) -> DataError:
    """What to raise where `root` holds nothing of a benchmark that is known.

    Args:
        name: of the benchmark.
        root: as it was given.
        looked: for what, in a few words.
    """
    path = Path(root)
    if path.is_dir():
        there = sorted(f"{one.name}/" if one.is_dir() else one.name for one in path.iterdir())
        state = f"holds {_listed(there)}"
    elif path.is_file():
        other = "another table" if owner(path) == name else "a table"
        state = f"is {other} of {owner(path)}" if owner(path) else "is no such table"
    else:
        state = "no such folder or file"
    mini = path.name.startswith("Mini")  # as `cof data mini` names them
    draws = f"`cof data mini {path.parent} --only {path.name}` draws it"
    return missed(root, state, name, looked, draws if mini else "")


def missed(place: object, state: str, name: str, looked: str, way: str = "") -> DataError:
    """One line: what is there, what was looked for, and what helps."""
    way = way or f"`cof data fetch {name} FOLDER` gets it"
    return DataError(f"{place}: {state}; looked for {looked}; {way}")


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(map(cut, found[:_SHOWN])) or "nothing") + more
