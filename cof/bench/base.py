"""What benchmarks share: files with line numbers in every error, and answers put to questions."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cof.errors import DataError
from cof.types import Question


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


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file, with the place it came from.

    Attributes:
        values: the object.
        where: `file:line`, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def text(self, name: str) -> str:
        """A string of the row.

        Raises:
            DataError: the key is absent or holds something else.
        """
        if name not in self.values:
            raise DataError(f"{self.where}: no {name!r}; there is: {', '.join(self.values)}")
        value = self.values[name]
        if not isinstance(value, str):
            raise DataError(f"{self.where}: {name!r} is {value!r}, expected text")
        return value

    def key(self, name: str) -> str:
        """An identifier of the row, which files write as a string or as an integer.

        Raises:
            DataError: the key is absent or holds something else.
        """
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)


def read_text(path: Path) -> str:
    """A whole UTF-8 file, a byte-order mark dropped and line ends unified.

    Raises:
        DataError: not there, not readable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, unstripped, with its `file:line`.

    Only newline characters end a line: answers may hold other separators that `splitlines` cuts.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield line, f"{path}:{number}"


def read_jsonl(path: Path) -> list[Row]:
    """The objects of a JSON-lines file.

    Raises:
        DataError: a line is not a JSON object, or there is none at all.
    """
    rows = [Row(parse_object(line, where), where) for line, where in read_lines(path)]
    if not rows:
        raise DataError(f"{path}: empty, expected one JSON object a line")
    return rows


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: not JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def read_json_rows(path: Path) -> list[Row]:
    """The objects of a file that is JSON lines or one JSON array, whatever its name says.

    Raises:
        DataError: neither, an item that is no object, or none at all.
    """
    if not read_text(path).lstrip().startswith("["):
        return read_jsonl(path)
    items = read_json(path)
    if not items:
        raise DataError(f"{path}: an empty array, expected JSON objects")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise DataError(f"{path}: item {number} is a {type(item).__name__}, expected an object")
    return [Row(item, f"{path}: item {number}") for number, item in enumerate(items, start=1)]


def parse_object(text: str, where: str) -> dict[str, Any]:
    """One JSON object; `where` goes into the error."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def write_text(path: Path, text: str) -> Path:
    """UTF-8 with plain newlines, folders made where needed; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON object a line, keys in the order given; returns the path."""
    return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


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


def align(
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
    return " ".join(repr(part) for part in key) if isinstance(key, tuple) else repr(key)
