"""A run on disk, `<out>/<name>/`, written so that a kill at any moment loses no finished question.

    config.yaml     the resolved config; a folder with another one is refused
    manifest.json   hashes, commit, command, versions, device, attention mechanism, seeds
    records.jsonl   one line a question, appended and flushed per batch (see cof.store.records);
                    of several processes one records-<rank>.jsonl each, until all are finished
    scores.json     written when every question has a record
    answers/        then too: plain/ and cof/ in the benchmark's published answer formats

config.yaml and manifest.json appear whole or not at all. A manifest may say that the hash of the
images is pending (see cof.store.hashing); then there is no record yet. A torn last line of records
is cut off when the run goes on. Locks keep two launches from writing to one folder, see
`cof.store.locks`.
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

from cof.config.schema import check_saved
from cof.config.yaml import dump_yaml, parse_yaml
from cof.errors import ConfigError, RunError
from cof.files import blamed, reason, regular, write_whole
from cof.store import locks, manifest_check, record_files
from cof.store.launch import Ranks
from cof.store.record_files import RECORDS

CONFIG, MANIFEST, SCORES = "config.yaml", "manifest.json", "scores.json"
ANSWERS = "answers"
FLIPS = "flips.json"
FILES = (CONFIG, MANIFEST, RECORDS, SCORES)
WAY_OUT = "choose another name= or out=, or start anew with --overwrite"
"""What to do about a folder that belongs to another run; the end of a message."""
MIXED = "config.yaml, manifest.json and records do not belong together; bring the right ones back"


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
            if record_files.PACKED in strangers:
                packed = self.path / record_files.PACKED
                raise RunError(f"{self.path}: a packed run is only read; gzip -d {packed}")
            return locks.acquire(self.path, self.ranks)
        except BlockingIOError:
            raise RunError(f"{self.path}: another process is writing this run") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in its name
            why = reason(error) if isinstance(error, OSError) else error
            raise RunError(f"{self.path}: cannot be written: {why}") from None

    def join(self) -> None:
        """Rank 0 waits until the other processes of its launch are done or dead; they, for it."""
        locks.join(self.path, self.ranks)

    def tidy(self) -> None:
        """Rank 0, behind `join`: delete the other processes' lock files."""
        locks.tidy(self.path)

    def clear(self) -> None:
        """Delete the run's own files and nothing else; what says whose they are goes last."""
        names = [self.path / name for name in (SCORES, MANIFEST, CONFIG)]
        for file in [*record_files.files(self.path), *names]:
            with blamed(file, "deleted"):
                file.unlink(missing_ok=True)
        shutil.rmtree(self.path / ANSWERS, ignore_errors=True)

    def config(self) -> dict[str, Any] | None:
        """The resolved config, None where the run has not begun.

        Raises:
            RunError: damaged, or no config of a run.
        """
        file = self.path / CONFIG
        if not file.exists():
            return None
        try:
            return check_saved(parse_yaml(file))
        except ConfigError as error:
            told = str(error).removeprefix(f"config {file}: ")
            raise RunError(f"{file}: damaged ({told}); bring it back") from None

    def write_config(self, resolved: Mapping[str, Any]) -> None:
        """Write config.yaml, whole or not at all."""
        text = dump_yaml(resolved)
        write_whole(self.path / CONFIG, text)

    def manifest(self, begun: bool) -> dict[str, Any]:
        """The manifest, empty where there is none.

        Args:
            begun: there are records, so that there has to be one.

        Raises:
            RunError: it is damaged, or missing beside records.
        """
        file = self.path / MANIFEST
        data = self.read_json(MANIFEST)
        if data or file.exists():
            return manifest_check.checked(data, file)
        if begun:
            raise RunError(f"{self.path}: records but no {MANIFEST}; {manifest_check.LOST}")
        return {}

    def read_json(self, name: str) -> dict[str, Any]:
        """manifest.json or scores.json as it is, empty where there is none.

        Raises:
            RunError: not a JSON object; the message says what to do.
        """
        file = self.path / name
        if not file.exists():
            return {}
        try:
            with blamed(file, "read"):
                data = json.loads(regular(file).read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            way = "delete it, the records give it anew" if name == SCORES else manifest_check.LOST
            raise RunError(f"{file}: damaged; {way}")
        return data

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write manifest.json or scores.json, whole or not at all."""
        write_whole(self.path / name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """Finished questions, one by one; a torn last line does not count.

        Raises:
            RunError: a line before the last is damaged, or a question has two records.
        """
        return (line.record for line in record_files.read(self.path))

    def indexes(self) -> set[int]:
        """Indexes of the finished questions."""
        return {record["index"] for record in self.records()}

    def repair(self) -> None:
        """Cut torn last lines off."""
        record_files.repair(self.path)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add lines to this process's file and see them to the disk."""
        path = self.path / record_files.shard_name(self.ranks.rank, self.ranks.size)
        with blamed(path, "written"), path.open("ab") as file:
            file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def drop(self, indexes: Container[int]) -> None:
        """Forget some questions, so that they are asked again."""
        record_files.drop(self.path, indexes)

    def merge(self, total: int) -> None:
        """Bring the records of `total` questions into dataset order and one file.

        Raises:
            RunError: a question has no record, or two.
        """
        record_files.merge(self.path, total)
