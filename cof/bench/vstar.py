"""V*Bench, arXiv 2312.14135: small things in large images; colour or relative position.

In the files the first option is always right. `generate` (how models that chat are compared) shows
the options with letters, in an order drawn from a recorded seed, and reads the letter back;
`likelihood` (the official rule) shows none and takes the option whose tokens are likeliest on
average, which no order can change: where two are equally likely, none is taken (unresolved). The
target's boxes come with the questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cof.bench import _vstar_files
from cof.bench.common.answers import Answers, Given, Said, llava_answer, match_answers, need_truth
from cof.bench.common.choice import LETTERS, UNRESOLVED, Extract, ask, disputed, extract
from cof.bench.common.files import read_json, read_jsonl, write_jsonl
from cof.bench.common.finding import unknown
from cof.bench.common.rows import Row
from cof.bench.common.tally import Mark, Part, Tally, scored
from cof.errors import DataError, shown
from cof.types import Box, Question

VERSION = "2"  # 1 took the option A of a sentence for an article
TYPES = ("direct_attributes", "relative_position")
SOURCE = (
    "huggingface.co/datasets/craigwu/vstar_bench (folders direct_attributes, relative_position)"
)


@dataclass(frozen=True)
class Config:
    """Where V*Bench is and how its options are chosen.

    Attributes:
        root: folder with `direct_attributes/` and `relative_position/`.
        mode: `generate` (letters, shuffled options) or `likelihood` (the official rule).
        shuffle: seed of the options' order in `generate`.
        extract: how letters are read from answers in `generate`, see `cof.bench.common.choice`.
    """

    root: str
    mode: Literal["generate", "likelihood"] = "generate"
    shuffle: int = 0
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every question of both types, by file name.

    Raises:
        DataError: not such a folder, an image without its .json, a .json without its image, or one
            that lacks question, options or boxes.
    """
    root = Path(config.root)
    present = [name for name in TYPES if (root / name).is_dir()]
    if not present:
        raise unknown("vstar", config.root, f"the folders {' and '.join(TYPES)}")
    found = [(kind, *pair) for kind in present for pair in _vstar_files.noted(root / kind)]
    boxes = _vstar_files.boxes([(row, image) for _, row, image in found])
    return [
        _question(row, image, kind, config, on)
        for (kind, row, image), on in zip(found, boxes, strict=True)
    ]


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of questions a category, "" for all."""
    return {"direct_attributes": (115,), "relative_position": (76,)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 for the right option, else 0.0."""
    return float(chosen(question, answer, config) == question.reference)


def chosen(question: Question, answer: Said, config: Config | None = None) -> str:
    """The option that an answer names: its letter where letters were shown, else its text."""
    if not question.choose:
        return extract(answer, question.options, config.extract if config else "vlmevalkit")
    return answer if answer is not None and answer in question.options else UNRESOLVED


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Accuracy of both types and of all questions (micro); shares in [0, 1]."""
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (type, whether options were chosen, right, unresolved, disputed)."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        option = chosen(question, answer, self.config)
        right = option == question.reference
        split = not question.choose and disputed(answer, question.options)
        mark = (question.category, question.choose, right, option == UNRESOLVED, split)
        return float(right), mark

    def total(self, part: Part) -> dict[str, Any]:
        config, present = self.config, {mark[0] for mark in part.counts}
        lettered = {not mark[1] for mark in part.counts} == {True}
        return {
            "benchmark": "vstar",
            "version": VERSION,
            "mode": "generate" if lettered else "likelihood",
            "shuffle": config.shuffle if config and lettered else None,
            "extract": (config.extract if config else "vlmevalkit") if lettered else None,
            "disputed": part.where(lambda mark: mark[4]),
            "overall": _accuracy(part, TYPES, everything=True),
            "types": {kind: _accuracy(part, (kind,)) for kind in TYPES if kind in present},
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: overall accuracy, then both types; in percent."""
    parts = {"overall": scores["overall"], **scores["types"]}
    return [(name, 100 * part["accuracy"], part["n"]) for name, part in parts.items()]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write the answers in LLaVA's form, with the options as they were shown."""
    rows = [
        {**llava_answer(q.id, q, answer), "options": list(q.options)}
        for q, answer in zip(questions, answers, strict=True)
    ]
    return [write_jsonl(folder / "llava_vstar_answers.jsonl", rows)]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form, or the result file of the official script (`option_chosen`).

    Raises:
        DataError: as `match_answers`; options in another order than `shuffle` gives.
    """
    need_truth(path, config.root, "the V*Bench folder")
    questions = read(config)
    if path.suffix == ".json":
        given = list(_official(path, questions))
    else:
        asked = {question.id: question for question in questions}
        given = [_given(row, asked) for row in read_jsonl(path)]
    return match_answers(
        questions, [question.id for question in questions], given, path, allow_missing
    )


def _accuracy(part: Part, kinds: Sequence[str], everything: bool = False) -> dict[str, Any]:
    """Of the questions of some types, or of `everything`."""
    counts = [(m, count) for m, count in part.counts.items() if everything or m[0] in kinds]
    n = sum(count for _, count in counts)
    right, lost = (sum(count for mark, count in counts if mark[place]) for place in (2, 3))
    return {"n": n, "accuracy": right / n, "unresolved": lost}


def _question(row: Row, image: Path, kind: str, config: Config, boxes: tuple[Box, ...]) -> Question:
    """One question, its options shuffled by the seed and its id, or left in place."""
    name = f"{kind}/{image.stem}"
    options = row.texts("options")
    different = 2 <= len({*options}) == len(options) <= len(LETTERS)
    if not different or not all(map(str.strip, options)):  # an unresolved answer is empty
        raise DataError(
            f"{row.where}: options {shown(options)}, expected two or more different texts, at most "
            f"{len(LETTERS)}"
        )
    asked = Question(
        id=name,
        image=f"{kind}/{image.name}",
        text=row.asked("question"),
        category=kind,
        reference=options[0],
        boxes=boxes,
        options=tuple(options),
        choose=True,
    )
    if config.mode == "likelihood":
        return asked
    order = random.Random(f"{config.shuffle} {name}").sample(options, len(options))
    letter, text = LETTERS[order.index(options[0])], ask(asked.text, order)
    return replace(asked, text=text, reference=letter, options=tuple(order), choose=False)


def _given(row: Row, asked: dict[str, Question]) -> Given:
    """One answer of a file in LLaVA's form."""
    key = row.key("question_id")
    shuffled = row.texts("options") if row.values.get("options") is not None else None
    if shuffled is not None and key in asked and tuple(shuffled) != asked[key].options:
        raise DataError(
            f"{row.where}: options {shown(shuffled)} of {key}, here "
            f"{shown(list(asked[key].options))}; give the shuffle=SEED and mode=MODE of the run"
        )
    return Given(key, row.text("text"), row.where)


def _official(path: Path, questions: Sequence[Question]) -> Iterator[Given]:
    """Answers of vstar_bench_eval.py: for each type a list with image, options, option_chosen."""
    by_image = {question.image: question for question in questions}
    results = Row.of(read_json(path), str(path))
    for kind in TYPES:
        for row in results.parts(kind) if kind in results.values else []:
            question = by_image.get(f"{kind}/{row.text('image')}")
            key = question.id if question else f"{kind}/{row.text('image')}"
            options, place = row.texts("options"), row.number("option_chosen")
            if place >= len(options):
                raise DataError(f"{row.where}: option_chosen {place} of {len(options)} options")
            letters = question is not None and not question.choose
            there = question.options if question else ()
            option = options[place]
            text = LETTERS[there.index(option)] if letters and option in there else option
            yield Given(key, text, row.where)
