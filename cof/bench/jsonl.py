"""Your own questions: a file of JSON lines and a folder of images.

    {"image": "a.jpg", "question": "Is the light on?", "answer": "yes"}
    {"image": "b.jpg", "question": "What colour is it?", "answer": "B", "options": ["red", "blue"]}
    {"image": "b.jpg", "question": "What does it say?", "answer": ["stop", "STOP sign"], "id": "s1"}

`image` and `question` have to be there. `answer` is a text, a number or a list of texts, of a
question with `options` the letter of the right one or its text; either all questions have one, or
none, and then there is nothing to score (`cof answer`). `boxes` are true regions as fractions of
the image, [[x0, y0, x1, y1], ...]; `category` is a group with an accuracy of its own; `id` is the
line's number unless it is given. Other keys are left alone.

How an answer is scored (`bench.score`; `auto` takes the first that a question fits):

- `choice`, of questions with options: the option that it names (`cof.bench.common.choice`);
- `yes_no`, of answers yes or no: VLMEvalKit's rule, one of the two words occurs;
- `vqa`, of ten answers: the VQA challenge's soft accuracy, as in TextVQA;
- `exact`: equal to an accepted answer, in any case, blanks and full stops at the ends aside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cof.bench.common import lettered
from cof.bench.common.answers import (
    Answers,
    Given,
    Said,
    boxes_in,
    llava_answer,
    match_answers,
    need_truth,
    unique,
)
from cof.bench.common.choice import LETTERS, UNRESOLVED, Extract, ask, extract
from cof.bench.common.files import read_jsonl, write_jsonl
from cof.bench.common.finding import folder_of, unknown
from cof.bench.common.rows import Row, spelled
from cof.bench.common.tally import Mark, Part, Tally, added, scored
from cof.bench.common.vqa_words import soft_accuracy
from cof.bench.common.yes_no import parse_word
from cof.errors import DataError, shown
from cof.files import Folder
from cof.prompts import OPTION_LETTER, SHORT_ANSWER
from cof.types import Question

VERSION = "1"
SOURCE = "your own: docs/benchmarks.md says how to write it"
FILE = "questions.jsonl"

Rule = Literal["choice", "yes_no", "vqa", "exact"]


@dataclass(frozen=True)
class Config:
    """Where the questions are and how they are asked and scored.

    Attributes:
        root: the file, or its folder, where it is called questions.jsonl.
        images: folder of the images, relative to the file's; absolute paths are taken as they are.
        suffix: `llava` asks for a word, or a letter, as LLaVA does; `none` asks as written.
        score: how answers are scored, see above.
        extract: how letters are read from answers.
    """

    root: str
    images: str = ""
    suffix: Literal["llava", "none"] = "llava"
    score: Literal["auto", "choice", "yes_no", "vqa", "exact"] = "auto"
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every question, in the file's order.

    Raises:
        DataError: no such file, a line without image or question, two with one id, an answer that
            its rule cannot score or that names two options, or answers to some questions only.
    """
    file = Path(config.root)
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise unknown("jsonl", config.root, f"a .jsonl file, or a folder with {FILE}")
    rows = read_jsonl(file)
    questions = [_question(row, number, config) for number, row in enumerate(rows, start=1)]
    unique([question.id for question in questions], file)
    lacking = sum(not question.reference for question in questions)
    if lacking not in (0, len(questions)):
        raise DataError(
            f"{file}: {lacking} of {len(questions)} questions have no answer; give all or none"
        )
    return questions


def pictures(config: Config) -> Folder:
    """The folder of the images."""
    return folder_of(config.root) / config.images


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Nothing is published."""
    return {}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """The answer's score, in [0, 1]; 0.0 of a question without a right answer."""
    if answer is None or not question.reference:
        return 0.0
    rule, truths = _rule(question, config), json.loads(question.reference)
    if rule == "choice":
        return float(_letter(question, answer, config) == truths[0])
    if rule == "vqa":
        return soft_accuracy(answer, truths)
    said = parse_word(answer) if rule == "yes_no" else plain(answer)
    return float(said in map(plain, truths))


def plain(text: str) -> str:
    """What `exact` compares."""
    return text.strip().rstrip(".").strip().casefold()


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Mean score of all and of each category, in [0, 1]; None where there are no right answers.

    `rules` counts questions by how they were scored, `unresolved` answers that name no option, or
    neither yes nor no.
    """
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (category, rule, has a right answer, unresolved)."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        rule = _rule(question, self.config)
        lost = rule == "choice" and _letter(question, answer, self.config) == UNRESOLVED
        lost = lost or (rule == "yes_no" and parse_word(answer or "") == "other")
        mark = (question.category, rule, bool(question.reference), lost)
        return credit(question, answer, self.config), mark

    def total(self, part: Part) -> dict[str, Any]:
        labelled = part.where(lambda mark: mark[2]) == len(part)
        categories = sorted({mark[0] for mark in part.counts} - {""})
        kinds = part.of_marks([mark[0] for mark in self.marks])
        return {
            "benchmark": "jsonl",
            "version": VERSION,
            "rules": {
                rule: count
                for rule in ("choice", "yes_no", "vqa", "exact")
                if (count := part.where(lambda mark, rule=rule: mark[1] == rule))  # type: ignore[misc]
            },
            "unresolved": part.where(lambda mark: mark[3]),
            **_mean(part, labelled),
            "categories": {name: _mean(part, labelled, kinds == name) for name in categories},
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: accuracy of all, then of each category; in percent."""
    return [] if scores["accuracy"] is None else lettered.table(scores)


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write the answers in LLaVA's form."""
    rows = (llava_answer(q.id, q, a) for q, a in zip(questions, answers, strict=True))
    return [write_jsonl(folder / "answers.jsonl", rows)]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form (question_id, text), or as `cof answer` writes them (id, text).

    Raises:
        DataError: as `match_answers`; no question file, or one without right answers.
    """
    need_truth(path, config.root, "the file of the questions")
    questions = read(config)
    if not questions[0].reference:
        raise DataError(f"{config.root}: its questions have no answers, so none can be scored")
    rows = read_jsonl(path)
    name = "question_id" if "question_id" in rows[0].values else "id"
    said = [row for row in rows if row.value("text") is not None]  # None: the question failed
    given = [Given(row.key(name), row.text("text"), row.where) for row in said]
    return match_answers(questions, [one.id for one in questions], given, path, allow_missing)


def _mean(part: Part, labelled: bool, chosen: Any = slice(None)) -> dict[str, Any]:
    credits = part.credits[chosen]
    return {"n": len(credits), "accuracy": added(credits) / len(credits) if labelled else None}


def _rule(question: Question, config: Config | None) -> Rule:
    """How a question's answers are scored."""
    if config is not None and config.score != "auto":
        return config.score
    if question.options:
        return "choice"
    truths = json.loads(question.reference or "[]")
    if truths and all(plain(truth) in ("yes", "no") for truth in truths):
        return "yes_no"
    return "vqa" if len(truths) == 10 else "exact"


def _letter(question: Question, answer: Said, config: Config | None) -> str:
    return extract(answer, question.options, config.extract if config else "vlmevalkit")


def _question(row: Row, number: int, config: Config) -> Question:
    options = _options(row.texts("options"), row) if row.values.get("options") else []
    text = row.asked("question")
    truths = [] if row.values.get("answer") in (None, "", []) else _truths(row, options)
    suffix = {"none": "", "llava": OPTION_LETTER if options else SHORT_ANSWER}[config.suffix]
    question = Question(
        id=row.key("id") if "id" in row.values else str(number),
        image=row.inside("image"),
        text=ask(text, options, suffix) if options else text + suffix,
        category=row.text("category") if "category" in row.values else "",
        reference=json.dumps(truths) if truths else "",
        boxes=boxes_in(row.values.get("boxes") or [], row.where),
        options=tuple(options),
    )
    _check_rule(question, row, config)
    return question


def _options(options: list[str], row: Row) -> list[str]:
    if not 2 <= len({*options}) == len(options) <= len(LETTERS):
        raise DataError(
            f"{row.where}: options {shown(list(options))}, expected two or more different texts, "
            f"at most {len(LETTERS)}"
        )
    return options


def _truths(row: Row, options: Sequence[str]) -> list[str]:
    """The accepted answers; of a question with options the right letter."""
    value = row.value("answer")
    truths = row.texts("answer") if isinstance(value, list) else [spelled(value)]
    if not all(truth.strip() for truth in truths):
        raise DataError(
            f"{row.where}: answer {shown(value)}, expected a text, a number or a list of texts, "
            "none of them blank; leave the key out where nobody knows the answer"
        )
    if not options:
        return truths
    pairs = zip(LETTERS, options, strict=False)
    named = [pair[0] for pair in pairs if len(truths) == 1 and truths[0] in pair]
    if len(named) == 1:
        return named
    said = f"{row.where}: answer {shown(truths)}"
    if not named:
        raise DataError(f"{said} names none of the {len(options)} options")
    raise DataError(
        f"{said} is one option's letter and another one's text in {shown(list(options))}; "
        "give options texts that are no letters, such as 'point A'"
    )


def _check_rule(question: Question, row: Row, config: Config) -> None:
    """Refuse an answer that the rule of the config cannot score."""
    if config.score == "auto" or not question.reference:
        return
    truths = json.loads(question.reference)
    fits = {
        "choice": bool(question.options),
        "yes_no": all(plain(truth) in ("yes", "no") for truth in truths),
        "vqa": len(truths) == 10,
        "exact": not question.options,
    }
    if not fits[config.score]:
        raise DataError(
            f"{row.where}: score={config.score} cannot score the answer {shown(truths)}; it needs "
            + _NEEDS[config.score]
        )


_NEEDS = {
    "choice": "options",
    "yes_no": "yes or no",
    "vqa": "ten answers",
    "exact": "a question without options",
}
