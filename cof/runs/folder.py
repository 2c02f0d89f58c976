"""A run on disk, `<out>/<name>/`, written so that a kill at any moment loses no finished question.

    config.yaml     the resolved config; a folder with another one is refused
    manifest.json   hashes, commit, command, versions, device, attention mechanism, seeds
    records.jsonl   one line a question, appended and flushed per batch (see cof.runs.records)
    scores.json     written when every question has a record
    answers/        then too: plain/ and cof/ in the benchmark's published answer formats

config.yaml and manifest.json appear whole or not at all. A torn last line of records.jsonl is cut
off when the run goes on. A lock keeps two processes from writing to one folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from cof.errors import RunError
from cof.runs.records import from_record
from cof.types import Result

CONFIG, MANIFEST, RECORDS, SCORES = "config.yaml", "manifest.json", "records.jsonl", "scores.json"
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
    records = folder.records()
    return Run(
        path=folder.path,
        config=folder.config() or {},
        manifest=folder.read_json(MANIFEST),
        results=tuple(from_record(records[index]) for index in sorted(records)),
        scores=folder.read_json(SCORES),
    )


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Writing needs the lock, see `locked`."""

    path: Path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep every other process out of it; the system frees the lock
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
            lock = (self.path / ".lock").open("w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunError(f"{self.path}: another process is writing this run") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error}") from None
        return lock

    def clear(self) -> None:
        """Delete the run's own files and nothing else."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
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

    def records(self) -> dict[int, dict[str, Any]]:
        """Finished questions by their index; a torn last line does not count.

        Raises:
            RunError: a line before the last is damaged, or two lines have one index.
        """
        return {record["index"]: record for record in self._parse()[0]}

    def repair(self) -> None:
        """Cut a torn last line off records.jsonl, if there is one."""
        file = self.path / RECORDS
        size = self._parse()[1]
        if file.exists() and size < file.stat().st_size:
            os.truncate(file, size)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add lines and see them to the disk."""
        with (self.path / RECORDS).open("ab") as file:
            file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def drop(self, indexes: Container[int]) -> None:
        """Forget some questions, so that they are asked again."""
        kept = [record for record in self._parse()[0] if record["index"] not in indexes]
        self._replace(RECORDS, "".join(json.dumps(record) + "\n" for record in kept))

    def _parse(self) -> tuple[list[dict[str, Any]], int]:
        """The whole records, and the number of bytes that they take."""
        file = self.path / RECORDS
        data = file.read_bytes() if file.exists() else b""
        records: list[dict[str, Any]] = []
        seen: set[int] = set()
        size = 0
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            record = _record(line)
            if record is None and size + len(line) == len(data):
                break
            if record is None or record["index"] in seen:
                raise RunError(f"{file}: line {number} is damaged or a repetition; delete it")
            records.append(record)
            seen.add(record["index"])
            size += len(line)
        return records, size

    def _replace(self, name: str, text: str) -> None:
        fresh = self.path / f".{name}.new"
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / name)


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("index"), int) else None
