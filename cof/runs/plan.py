"""What is asked, in which batches, and a fingerprint of it: all from the dataset's order alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cof import plugins, prompts
from cof.config import RunConfig
from cof.errors import DataError
from cof.types import Question

Batch = tuple[tuple[int, Question], ...]
"""Questions of one batch, each with its index in the dataset."""

AUTO = 64
"""Most questions in a batch of `batch_size: auto`, before memory limits it."""


def read_questions(config: RunConfig) -> list[Question]:
    """The benchmark's questions, cut to the first `bench.limit` images.

    Raises:
        DataError: not such a benchmark, no questions, a blank one, or two with one id.
    """
    questions: list[Question] = plugins.load("bench", config.names["bench"]).read(config.bench)
    ids = [question.id for question in questions]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(f"{config.bench.root}: two questions have the id {twice!r}")
    blank = next((question for question in questions if _is_blank(question)), None)
    if blank is not None:
        raise DataError(f"{config.bench.root}: the question {blank.id!r} is empty")
    kept = set(images_of(questions)[: config.subset.limit])
    questions = [question for question in questions if question.image in kept]
    if not questions:
        raise DataError(f"{config.bench.root}: no questions")
    return questions


def _is_blank(question: Question) -> bool:
    """Whether nothing is asked: what benchmarks put around a question, its options included, is not
    asking.
    """
    asked = question.core or question.text
    for suffix in prompts.SUFFIXES:
        asked = asked.removesuffix(suffix)
    if question.options and not question.choose:
        asked = asked.partition("\nA. ")[0]
    before, after = prompts.DESCRIBED.split("{text}")
    if asked.startswith(before) and asked.endswith(after):
        asked = asked[len(before) : -len(after)]
    return not asked.strip()


def images_of(questions: Sequence[Question]) -> list[str]:
    """Image names without repeats, in order of first appearance."""
    return list(dict.fromkeys(question.image for question in questions))


def batch_limit(size: int | Literal["auto"]) -> int:
    """Most questions of a planned batch; `auto` asks them in pieces where they do not fit."""
    return AUTO if size == "auto" else size


def plan_batches(questions: Sequence[Question], size: int | Literal["auto"]) -> list[Batch]:
    """Batches of at most `size` questions; questions of one image stand together.

    Depends on the order of the dataset and `size` only, so that a resumed run, or one on several
    processes, computes the very batches of an undisturbed run.
    """
    size = batch_limit(size)
    place = {image: rank for rank, image in enumerate(images_of(questions))}
    rows = sorted(enumerate(questions), key=lambda row: place[row[1].image])
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


def fingerprint(questions: Sequence[Question], root: Path) -> dict[str, Any]:
    """Counts and hashes of a dataset, for a manifest.

    `questions` hashes everything asked and its reference, `images` the bytes of every image file
    (a missing file counts as such), both hex SHA-256 and independent of where the root is.
    """
    names = images_of(questions)
    pictures = hashlib.sha256()
    for name in names:
        pictures.update(f"{name} {_file_hash(root / name)}\n".encode())
    return {
        "questions": questions_hash(questions),
        "images": pictures.hexdigest(),
        "question_count": len(questions),
        "image_count": len(names),
    }


def questions_hash(questions: Sequence[Question]) -> str:
    """Hex SHA-256 of everything asked, references and true boxes included.

    An empty `core` is left out, so that runs made before there was one go on.
    """
    rows = [asdict(question) for question in questions]
    kept = [{key: value for key, value in row.items() if key != "core" or value} for row in rows]
    asked = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def short_hash(config: str, questions: str) -> str:
    """Eight hex digits for a run, from the hashes of its config and of its questions."""
    return hashlib.sha256(f"{config} {questions}".encode()).hexdigest()[:8]


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return type(error).__name__
