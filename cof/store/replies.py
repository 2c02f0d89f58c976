"""Coarse replies on disk, so that settings that do not change stage 1 do not run it again.

One SQLite file; several processes may read and write it at the same time. The key is everything
that a reply depends on: the model's `identity`, the image's pixels, the question, and the
coarse stage with its config. Only raw replies are kept, with what the stage noted about them: boxes
are parsed anew every time. A reply that failed is not kept.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cof.config import plugins
from cof.config.schema import LATER
from cof.errors import RunError
from cof.files import blamed, regular

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.batch import Batch
    from cof.models.base import Model
    from cof.types import Question, Region

_TABLE = """CREATE TABLE IF NOT EXISTS replies
(key TEXT PRIMARY KEY, model TEXT, stage TEXT, question TEXT, reply TEXT)"""
_NOTES = "CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, notes TEXT)"
_PATIENCE = 60.0


class ReplyCache:
    """A file of coarse replies.

    Args:
        file: created, with its folder, where it does not exist.

    Raises:
        RunError: the file is no SQLite database, or cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.hits = self.misses = 0
        self._digests: dict[int, tuple[weakref.ref[Image], str]] = {}

    def regions(self, batch: Batch, stage: ModuleType, config: Any) -> list[Region]:
        """The coarse stage's regions: read from the file, the stage run for what is missing.

        Args:
            batch: B questions; its model is asked for the missing replies.
            stage: a coarse stage with `CACHEABLE` and `read_reply`.
            config: the stage's config.
        """
        pairs = zip(batch.questions, batch.images, strict=True)
        keys = [self.key(batch.model, stage, config, *pair) for pair in pairs]
        known = self._read(keys)
        missing = [row for row, key in enumerate(keys) if key not in known]
        self.hits, self.misses = self.hits + len(keys) - len(missing), self.misses + len(missing)
        found = {
            row: _noted(
                stage.read_reply(batch.model, known[key][0], batch.views[row]), known[key][1]
            )
            for row, key in enumerate(keys)
            if key in known
        }
        if missing:
            fresh = stage.locate(batch.take(missing), config)
            found |= dict(zip(missing, fresh, strict=True))
            said = [i for i in missing if not found[i].error]
            rows = [(keys[i], batch.questions[i].text, found[i].reply) for i in said]
            notes = {keys[i]: json.dumps(dict(found[i].notes)) for i in said if found[i].notes}
            self._write(batch.model, stage, rows, notes)
        return [found[row] for row in range(len(batch))]

    def key(
        self, model: Model, stage: ModuleType, config: Any, question: Question, image: Image
    ) -> str:
        """Hash of everything that the reply to one question depends on."""
        parts = {
            "model": model.identity(),
            "stage": plugins.identity(stage),
            "config": _counting(asdict(config)),
            "question": question.text,
            **({"core": question.core} if question.core else {}),
            "image": self.digest(image),
        }
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def rows(self) -> list[tuple[str, str, int]]:
        """What the file holds: (model, coarse stage, number of replies)."""
        if not self.file.exists():
            return []
        with self._open() as base:
            counts = (
                "SELECT model, stage, COUNT(*) FROM replies GROUP BY model, stage ORDER BY 1, 2"
            )
            return list(base.execute(counts))

    def clear(self, model: str | None = None) -> int:
        """Forget every reply, or those of one model; returns how many."""
        if not self.file.exists():
            return 0
        with self._open() as base:
            where, values = ("", ()) if model is None else (" WHERE model = ?", (model,))
            gone = int(base.execute(f"DELETE FROM replies{where}", values).rowcount)
            base.execute("DELETE FROM notes WHERE key NOT IN (SELECT key FROM replies)")
            return gone

    def digest(self, image: Image) -> str:
        """Hash of the pixels, remembered as long as the image lives; threads may share this."""
        place = id(image)
        known = self._digests.get(place)
        if known is None or known[0]() is not image:
            seen = hashlib.sha256(f"{image.mode}{image.size}".encode())
            seen.update(image.tobytes())
            gone = weakref.ref(image, partial(self._forget, place))
            known = self._digests[place] = (gone, seen.hexdigest())
        return known[1]

    def _forget(self, place: int, gone: weakref.ref[Image]) -> None:
        """Drop what was remembered of an image, unless another one lies in its place by now."""
        if self._digests.get(place, (None, ""))[0] is gone:
            self._digests.pop(place, None)

    def _read(self, keys: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """Key -> reply and notes, of those keys that are there."""
        marks = ",".join("?" * len(keys))
        with self._open() as base:
            query = (
                "SELECT key, reply, notes FROM replies LEFT JOIN notes USING (key) "
                f"WHERE key IN ({marks})"
            )
            rows = base.execute(query, keys).fetchall()
        try:
            found = {key: (reply, json.loads(notes or "{}")) for key, reply, notes in rows}
        except (TypeError, ValueError) as error:
            raise RunError(f"{self.file}: holds notes that are no JSON; delete the file") from error
        if not all(isinstance(a, str) and isinstance(b, dict) for a, b in found.values()):
            raise RunError(f"{self.file}: holds a reply that is no text; delete the file")
        return found

    def _write(
        self,
        model: Model,
        stage: ModuleType,
        rows: Sequence[tuple[str, str, str]],
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Keep (key, question, reply) rows, and the notes of some keys."""
        name = plugins.label(stage.__name__)
        values = [(key, model.name, name, question, reply) for key, question, reply in rows]
        with self._open() as base:
            base.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", values)
            base.executemany("INSERT OR IGNORE INTO notes VALUES (?, ?)", (notes or {}).items())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction; waits for other writers."""
        with blamed(self.file, "written"):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.file.exists():
                regular(self.file)
        try:
            with closing(sqlite3.connect(self.file, timeout=_PATIENCE)) as base, base:
                base.execute(_TABLE)
                base.execute(_NOTES)
                yield base
        except sqlite3.Error as error:
            raise RunError(
                f"{self.file}: cannot be used as a cache of replies ({error})"
            ) from error


def _counting(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's config without later keys at the value of replies kept before them (`LATER`)."""
    return {
        key: value
        for key, value in config.items()
        if f"locate.{key}" not in LATER or value != LATER[f"locate.{key}"]
    }


def _noted(region: Region, notes: Mapping[str, Any]) -> Region:
    return replace(region, notes=notes) if notes else region
