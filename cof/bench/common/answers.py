"""Answers put to questions: matching, the shape of LLaVA's answer rows, and sums."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cof.bench.common.files import read_jsonl
from cof.bench.common.rows import Row, numbers
from cof.errors import DataError, cut, shown
from cof.types import Box, Question

Said = str | None
"""An answer as benchmarks get it. None: the question failed and there is no answer, which is wrong
under every rule of every benchmark, while an empty answer is a `yes` to POPE's published parser."""


class Answers(NamedTuple):
    """Answers beside their questions; `missing` are the ids of questions without one."""

    questions: list[Question]
    texts: list[str]
    missing: tuple[str, ...] = ()


class Given(NamedTuple):
    """One answer of a file: which question it names, the raw text, and its file:line."""

    key: Hashable
    text: str
    where: str


def match_answers(
    questions: Sequence[Question],
    keys: Sequence[Hashable],
    given: Iterable[Given],
    source: Path,
    allow_missing: bool = False,
) -> Answers:
    """Put each answer to its question, in the order of the questions.

    Args:
        questions: everything that was asked.
        keys: how an answer names each question, same length; where k questions share a key, the
            first k answers with that key are theirs in order.
        given: the answers.
        source: the file they came from, for messages.
        allow_missing: leave out questions without an answer, and name them in `missing`.

    Raises:
        DataError: an answer to an unknown question, one answer too many, or one too few.
    """
    given = list(given)
    texts = {place: item.text for place, item in zip(claim(keys, given), given, strict=True)}
    missing = tuple(q.id for place, q in enumerate(questions) if place not in texts)
    if missing and not (allow_missing and texts):
        raise DataError(
            f"{source}: {len(missing)} of {len(questions)} questions have no answer, the first is "
            f"{missing[0]}" + ("; --allow-missing scores the others" if texts else "")
        )
    order = sorted(texts)
    return Answers([questions[i] for i in order], [texts[i] for i in order], missing)


def need_truth(path: Path, root: str, what: str) -> None:
    """Refuse to score answers where no ground truth is named.

    Args:
        path: the answers.
        root: of the ground truth; "" where none was given.
        what: what it is, in a few words.

    Raises:
        DataError: there is none.
    """
    if not root:
        raise DataError(f"{path}: needs --ground-truth, {what}")


def claim(keys: Sequence[Hashable], given: Iterable[Given]) -> list[int]:
    """For each item the place in `keys` that it names; the k-th of a shared key takes its k-th.

    Raises:
        DataError: an item names no key, or one that earlier items have used up.
    """
    places: dict[Hashable, list[int]] = {}
    for place, key in reversed(list(enumerate(keys))):
        places.setdefault(key, []).append(place)
    claimed = []
    for key, _, where in given:
        if key not in places:
            raise DataError(f"{where}: {_show(key)} is not among the questions")
        if not places[key]:
            raise DataError(f"{where}: {_show(key)} occurs once too often")
        claimed.append(places[key].pop())
    return claimed


def reworded(
    questions: Sequence[Question], keys: Sequence[Hashable], given: Sequence[Given]
) -> list[Question]:
    """The questions that a question file names, in its order and wording (`Given.text`).

    Raises:
        DataError: as `claim`.
    """
    places = claim(keys, given)
    return [
        replace(questions[place], text=item.text) for place, item in zip(places, given, strict=True)
    ]


def with_boxes(
    questions: Sequence[Question],
    root: Path,
    keys: Sequence[Hashable],
    row_key: Callable[[Row], Hashable],
) -> list[Question]:
    """The questions with their ground-truth regions, where `root` has a regions.jsonl.

    Published benchmarks have none; a file of one's own (as `cof data mini` writes) has a line a
    question with `boxes`: [x0, y0, x1, y1] in fractions of the original image.

    Args:
        questions: without boxes.
        root: the benchmark's folder.
        keys: how a line names each question, same length; rotated copies share a key.
        row_key: the key of a line.

    Raises:
        DataError: a question that the file does not have, or a box that is none.
    """
    file = root / "regions.jsonl"
    if not file.is_file():
        return list(questions)
    known = {row_key(row): boxes_in(row.value("boxes"), row.where) for row in read_jsonl(file)}
    for key, question in zip(keys, questions, strict=True):
        if key not in known:
            raise DataError(f"{file}: no line for question {question.id} ({_show(key)})")
    return [replace(q, boxes=known[key]) for key, q in zip(keys, questions, strict=True)]


def boxes_in(value: Any, where: str) -> tuple[Box, ...]:
    """Boxes as our own files hold them: [[x0, y0, x1, y1], ...] in fractions of the image.

    Raises:
        DataError: something else; pixels, thousandths and percent are named as what they look like.
    """
    if not isinstance(value, list):
        raise DataError(f"{where}: boxes {shown(value)}, expected [[x0, y0, x1, y1], ...]")
    return tuple(_box(numbers(one, "box", "[x0, y0, x1, y1]", where), where) for one in value)


def _box(corners: Sequence[float], where: str) -> Box:
    try:
        return Box(*corners)
    except ValueError as error:
        looks = "; these look like pixels, or like fractions times 100 or 1000"
        looks = looks if max(corners) > 1.5 else ""
        raise DataError(f"{where}: {cut(str(error), 200)}{looks}") from error


def unique(keys: Sequence[Hashable], source: str | Path) -> None:
    """Refuse a key that occurs twice.

    Raises:
        DataError: names the file and the key.
    """
    seen: set[Hashable] = set()
    for key in keys:
        if key in seen:
            raise DataError(f"{source}: {_show(key)} occurs twice")
        seen.add(key)


def _show(key: Hashable) -> str:
    """A key in a message: its parts, readable."""
    return " ".join(shown(part) for part in (key if isinstance(key, tuple) else (key,)))


def llava_answer(question_id: str | int, question: Question, answer: str) -> dict[str, Any]:
    """A row of LLaVA's answer files; the published random answer_id is our stable id."""
    return {
        "question_id": question_id,
        "prompt": question.text,
        "text": answer,
        "answer_id": question.id,
        "model_id": "cof",
        "metadata": {},
    }


def add_up(values: Iterable[float]) -> float:
    """Sum from left to right, as the published scripts do.

    `sum` is not used for floats: since Python 3.12 it compensates, and last digits differ.
    """
    return functools.reduce(operator.add, values, 0.0)
