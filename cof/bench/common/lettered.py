"""What multiple-choice benchmarks share: lettered questions, accuracies, answer files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cof.bench.common.answers import Answers, Given, Said, llava_answer, match_answers, need_truth
from cof.bench.common.choice import LETTERS, UNRESOLVED, Extract, ask, disputed, extract
from cof.bench.common.files import read_json_rows, write_jsonl
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Mark, Part, Tally
from cof.errors import DataError, shown
from cof.types import Question


def options_of(row: Entry, names: Sequence[str] = LETTERS) -> list[str]:
    """The options in some columns, up to the first that is empty."""
    found: list[str] = []
    for name in names:
        option = row.text(name)
        if not option or option.lower() in ("nan", "none"):
            break
        found.append(option)
    return found


def letter_of(answer: str, options: Sequence[str], where: str) -> str:
    """The letter of a right answer as files write it: `B`, `(B)`, `(b)`.

    Raises:
        DataError: it is none of the options', or there are fewer than two.
    """
    letter = answer.strip().strip("()").upper()
    if len(options) < 2 or letter not in LETTERS[: len(options)]:
        raise DataError(f"{where}: answer {shown(answer)} of the options {shown(list(options))}")
    return letter


def lettered(question: Question, options: Sequence[str], hint: str = "") -> Question:
    """The question with its options and the request for a letter behind it, a hint before it."""
    stem = f"{hint}\n{question.text}" if hint else question.text
    core = question.text if hint else ""
    return replace(question, text=ask(stem, options), options=tuple(options), core=core)


def credit(question: Question, answer: Said, config: Any = None) -> float:
    """1.0 where the answer names the right option, by `config.extract`, else 0.0."""
    return float(extract(answer, question.options, rule_of(config)) == question.reference)


def rule_of(config: Any) -> Extract:
    """How letters are read."""
    rule: Extract = config.extract if config is not None else "vlmevalkit"
    return rule


class LetterTally(Tally):
    """Marks are (category, right, unresolved, disputed).

    Args:
        config: the benchmark's Config, None for its defaults.
        name: of the benchmark.
        version: of the benchmark.
    """

    def __init__(self, config: Any, name: str, version: str) -> None:
        super().__init__(config)
        self._name, self._version = name, version

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        """See the class."""
        rule = rule_of(self.config)
        said = extract(answer, question.options, rule)
        right = said == question.reference
        split = disputed(answer, question.options)
        return float(right), (question.category, right, said == UNRESOLVED, split)

    def total(self, part: Part) -> dict[str, Any]:
        """The scores' head, and accuracies of parts."""
        return {**self.head(part), **self.parts(part)}

    def head(self, part: Part) -> dict[str, Any]:
        """What every benchmark's scores begin with."""
        return {
            "benchmark": self._name,
            "version": self._version,
            "extract": rule_of(self.config),
            "unresolved": part.where(lambda mark: mark[2]),
            "disputed": part.where(lambda mark: mark[3]),
            **accuracy(part),
        }

    def parts(self, part: Part) -> dict[str, Any]:
        """Accuracies of the categories."""
        return {"categories": by_category(part, lambda category: category)}


def accuracy(part: Part, true: Callable[[str], bool] = lambda category: True) -> dict[str, Any]:
    """N and accuracy of the answers of whose category something is true; 0 of none."""
    n = part.where(lambda mark: true(mark[0]))
    right = part.where(lambda mark: true(mark[0]) and mark[1])
    return {"n": n, "accuracy": right / n if n else 0.0}


def by_category(part: Part, name_of: Callable[[str], str]) -> dict[str, Any]:
    """Accuracies of the categories that are given one name."""
    return {
        name: accuracy(part, partial(_is, name_of, name))
        for name in sorted({name_of(mark[0]) for mark in part.counts})
    }


def _is(name_of: Callable[[str], str], name: str, category: str) -> bool:
    return name_of(category) == name


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: accuracy of all, then of each category; in percent."""
    parts = {"accuracy": scores, **scores["categories"]}
    return [(name, 100 * part["accuracy"], part["n"]) for name, part in parts.items()]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Any = None,
) -> list[Path]:
    """Write the answers in LLaVA's form, with the options as they were shown."""
    rows = (
        {**llava_answer(q.id, q, answer), "options": list(q.options)}
        for q, answer in zip(questions, answers, strict=True)
    )
    return [write_jsonl(folder / "answers.jsonl", rows)]


def given_answers(
    path: Path,
    config: Any,
    read: Callable[[Any], list[Question]],
    what: str,
    allow_missing: bool,
    names: tuple[str, str] = ("question_id", "text"),
) -> Answers:
    """Answers of JSON lines or an array, by their questions' ids.

    Args:
        path: the file.
        config: the benchmark's Config.
        read: the benchmark's.
        what: `config.root` should name, which holds the right answers.
        allow_missing: see `match_answers`.
        names: keys of id and answer in another published form; LLaVA's are taken too.

    Raises:
        DataError: as `match_answers`; no root; options in another order than the questions'.
    """
    need_truth(path, config.root, what)
    questions = read(config)
    known = {question.id: list(question.options) for question in questions}
    given = []
    for row in read_json_rows(path):
        key, text = names if names[1] in row.values else ("question_id", "text")
        name = row.key(key)
        there = row.texts("options") if row.values.get("options") is not None else None
        if there is not None and there != known.get(name, there):
            raise DataError(
                f"{row.where}: options {shown(there)} of {name}, here {shown(known[name])}"
            )
        given.append(Given(name, row.text(text), row.where))
    return match_answers(questions, [one.id for one in questions], given, path, allow_missing)
