"""A run on disk, `<out>/<name>/`, written so that a kill at any moment loses no finished question.

    config.yaml     the resolved config; a folder with another one is refused
    manifest.json   hashes, commit, command, versions, device, attention mechanism, seeds
    records.jsonl   one line a question, appended and flushed per batch (see cof.runs.records);
                    of several processes one records-<rank>.jsonl each, until all are finished
    scores.json     written when every question has a record
    answers/        then too: plain/ and cof/ in the benchmark's published answer formats

config.yaml and manifest.json appear whole or not at all. A torn last line of records is cut off
when the run goes on. Locks keep two launches from writing to one folder, see `cof.runs.locks`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from cof.errors import RunError
from cof.runs import locks, shards
from cof.runs.ranks import Ranks
from cof.runs.records import from_record
from cof.runs.shards import RECORDS
from cof.types import Result

CONFIG, MANIFEST, SCORES = "config.yaml", "manifest.json", "scores.json"
ANSWERS = "answers"
FILES = (CONFIG, MANIFEST, RECORDS, SCORES)
WAY_OUT = "choose another name= or out=, or start anew with --overwrite"
"""What to do about a folder that belongs to another run; the end of a message."""


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk, finished or not.

    Attributes:
        path: its folder.
        config: the resolved config, as plain data (`cof.config.resolve` checks it).
        manifest: under what it was made; empty where the run was stopped before its first batch.
        results: one per finished question, in dataset order.
        scores: see `cof.runs.scores.summary`; empty where the run is not finished.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: tuple[Result, ...]
    scores: dict[str, Any]

    @property
    def failed(self) -> tuple[Result, ...]:
        """Results without an answer; their `error` says why."""
        return tuple(result for result in self.results if result.error)


def load_run(path: str | Path) -> Run:
    """Read a run folder, also one that is still being written.

    Raises:
        RunError: no run folder, or a file in it that is damaged.
    """
    folder = RunFolder(Path(path))
    if not (folder.path / CONFIG).is_file():
        raise RunError(f"{path}: not a run folder (no {CONFIG})")
    results = {line.record["index"]: from_record(line.record) for line in shards.read(folder.path)}
    return Run(
        path=folder.path,
        config=folder.config() or {},
        manifest=folder.read_json(MANIFEST),
        results=tuple(results[index] for index in sorted(results)),
        scores=folder.read_json(SCORES),
    )


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Writing needs the lock, see `locked`.

    Attributes:
        path: the folder.
        ranks: which process of a launch is writing.
    """

    path: Path
    ranks: Ranks = field(default_factory=Ranks)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep every other launch out of it; the system frees the lock
        of a process that was killed.

        Raises:
            RunError: somebody else is writing, it holds other files, or it cannot be made.
        """
        with self._lock():
            yield

    def _lock(self) -> IO[str]:
        """The open lock file; only what happens here is blamed on the folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strangers = [name for name in os.listdir(self.path) if not name.startswith(".")]
            if strangers and not (self.path / CONFIG).exists():
                raise RunError(f"{self.path}: holds {strangers[0]!r} but no run; choose a new name")
            if shards.PACKED in strangers:
                raise RunError(
                    f"{self.path}: a packed run is only read; gzip -d {self.path / shards.PACKED}"
                )
            return locks.acquire(self.path, self.ranks)
        except BlockingIOError:
            raise RunError(f"{self.path}: another process is writing this run") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error}") from None

    def join(self) -> None:
        """Rank 0 waits until the other processes of its launch are done or dead; they, for it."""
        locks.join(self.path, self.ranks)

    def tidy(self) -> None:
        """Rank 0, behind `join`: delete the other processes' lock files."""
        locks.tidy(self.path)

    def clear(self) -> None:
        """Delete the run's own files and nothing else."""
        for file in [*(self.path / name for name in FILES), *shards.files(self.path)]:
            file.unlink(missing_ok=True)
        shutil.rmtree(self.path / ANSWERS, ignore_errors=True)

    def config(self) -> dict[str, Any] | None:
        """The resolved config, None where the run has not begun."""
        try:
            data = yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (yaml.YAMLError, UnicodeDecodeError):
            data = None
        if not isinstance(data, dict):
            raise RunError(f"{self.path / CONFIG}: damaged")
        return data

    def write_config(self, resolved: Mapping[str, Any]) -> None:
        """Write config.yaml, whole or not at all."""
        self._replace(CONFIG, yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True))

    def read_json(self, name: str) -> dict[str, Any]:
        """manifest.json or scores.json, empty where there is none."""
        try:
            data: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise RunError(f"{self.path / name}: damaged; delete it") from None
        return data

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write manifest.json or scores.json, whole or not at all."""
        self._replace(name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """Finished questions, one by one; a torn last line does not count.

        Raises:
            RunError: a line before the last is damaged, or a question has two records.
        """
        return (line.record for line in shards.read(self.path))

    def indexes(self) -> set[int]:
        """Indexes of the finished questions."""
        return {record["index"] for record in self.records()}

    def repair(self) -> None:
        """Cut torn last lines off."""
        shards.repair(self.path)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add lines to this process's file and see them to the disk."""
        name = shards.shard_name(self.ranks.rank, self.ranks.size)
        with (self.path / name).open("ab") as file:
            file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def drop(self, indexes: Container[int]) -> None:
        """Forget some questions, so that they are asked again."""
        shards.drop(self.path, indexes)

    def merge(self, total: int) -> None:
        """Bring the records of `total` questions into dataset order and one file.

        Raises:
            RunError: a question has no record, or two.
        """
        shards.merge(self.path, total)

    def _replace(self, name: str, text: str) -> None:
        fresh = self.path / f".{name}.new"
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / name)
