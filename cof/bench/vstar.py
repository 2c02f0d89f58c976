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
from typing import Any, Literal, TypeGuard

from cof.bench._answers import Answers, Given, Said, align, llava_answer
from cof.bench._choice import LETTERS, UNRESOLVED, ask, extract
from cof.bench.base import Row, read_json, read_jsonl, write_jsonl
from cof.errors import DataError
from cof.types import Box, Question

VERSION = "1"
TYPES = ("direct_attributes", "relative_position")
SOURCE = (
    "huggingface.co/datasets/craigwu/vstar_bench (folders direct_attributes, relative_position)"
)

_IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Config:
    """Where V*Bench is and how its options are chosen.

    Attributes:
        root: folder with `direct_attributes/` and `relative_position/`.
        mode: `generate` (letters, shuffled options) or `likelihood` (the official rule).
        shuffle: seed of the options' order in `generate`.
    """

    root: str
    mode: Literal["generate", "likelihood"] = "generate"
    shuffle: int = 0


def read(config: Config) -> list[Question]:
    """Every question of both types, by file name.

    Raises:
        DataError: not such a folder, an image without its .json, a .json without its image, or one
            that lacks question, options or boxes.
    """
    root = Path(config.root)
    present = [name for name in TYPES if (root / name).is_dir()]
    if not present:
        raise DataError(f"{root}: no V*Bench; expected the folders {' and '.join(TYPES)}")
    return [
        _question(row, image, kind, config)
        for kind in present
        for row, image in _files(root / kind)
    ]


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of questions a category, "" for all."""
    return {"direct_attributes": (115,), "relative_position": (76,)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 for the right option, else 0.0."""
    return float(chosen(question, answer) == question.reference)


def chosen(question: Question, answer: Said) -> str:
    """The option that an answer names: its letter where letters were shown, else its text."""
    if not question.choose:
        return extract(answer, question.options)
    return answer if answer is not None and answer in question.options else UNRESOLVED


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Accuracy of both types and of all questions (micro); shares in [0, 1]."""
    pairs = list(zip(questions, answers, strict=True))
    types = {
        kind: _accuracy([pair for pair in pairs if pair[0].category == kind])
        for kind in TYPES
        if any(question.category == kind for question in questions)
    }
    lettered = {not question.choose for question in questions}
    return {
        "benchmark": "vstar",
        "version": VERSION,
        "mode": "generate" if lettered == {True} else "likelihood",
        "shuffle": config.shuffle if config and lettered == {True} else None,
        "overall": _accuracy(pairs),
        "types": types,
    }


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
        DataError: as `cof.bench.base.align`; options in another order than `shuffle` gives.
    """
    if not config.root:
        raise DataError(f"{path}: needs --ground-truth, the V*Bench folder")
    questions = read(config)
    if path.suffix == ".json":
        given = list(_official(path, questions))
    else:
        asked = {question.id: question for question in questions}
        given = [_given(row, asked) for row in read_jsonl(path)]
    return align(questions, [question.id for question in questions], given, path, allow_missing)


def _accuracy(pairs: Sequence[tuple[Question, Said]]) -> dict[str, Any]:
    right = sum(credit(question, answer) for question, answer in pairs)
    lost = sum(chosen(question, answer) == UNRESOLVED for question, answer in pairs)
    return {"n": len(pairs), "accuracy": right / len(pairs), "unresolved": lost}


def _files(folder: Path) -> Iterator[tuple[Row, Path]]:
    """The annotation of each image, with the image; all of them, or an error."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    notes = {file.stem: file for file in files if file.suffix == ".json"}
    images = {file.stem: file for file in files if file.suffix.lower() in _IMAGES}
    for stem in sorted(notes.keys() ^ images.keys()):
        found = notes.get(stem) or images[stem]
        raise DataError(f"{found}: has no {'image' if stem in notes else '.json'} beside it")
    for stem, file in notes.items():
        values = read_json(file)
        if not isinstance(values, dict):
            raise DataError(f"{file}: expected a JSON object")
        yield Row(values, str(file)), images[stem]


def _question(row: Row, image: Path, kind: str, config: Config) -> Question:
    """One question, its options shuffled by the seed and its id, or left in place."""
    name = f"{kind}/{image.stem}"
    options = row.values.get("options")
    if not _are_options(options):
        raise DataError(f"{row.where}: options {options!r}, expected two or more different ones")
    asked = Question(
        id=name,
        image=f"{kind}/{image.name}",
        text=row.text("question"),
        category=kind,
        reference=options[0],
        boxes=_boxes(row, image),
        options=tuple(options),
        choose=True,
    )
    if config.mode == "likelihood":
        return asked
    shown = random.Random(f"{config.shuffle} {name}").sample(options, len(options))
    letter, text = LETTERS[shown.index(options[0])], ask(asked.text, shown)
    return replace(asked, text=text, reference=letter, options=tuple(shown), choose=False)


def _are_options(options: Any) -> TypeGuard[list[str]]:
    """Two or more different texts; none is empty, which is what an unresolved answer is."""
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        return False
    return len(options) >= 2 and len(set(options)) == len(options) and all(map(str.strip, options))


def _boxes(row: Row, image: Path) -> tuple[Box, ...]:
    """The targets' boxes (x, y, w, h in pixels) as fractions of the image, clipped to it."""
    from PIL import Image

    try:
        with Image.open(image) as opened:
            width, height = opened.size
    except OSError as error:
        raise DataError(f"{image}: not an image ({error})") from error
    boxes = []
    for corner in row.values.get("bbox") or []:
        try:
            x, y, w, h = (float(number) for number in corner)
            x0, x1 = max(x / width, 0.0), min((x + w) / width, 1.0)
            y0, y1 = max(y / height, 0.0), min((y + h) / height, 1.0)
            boxes.append(Box(x0, y0, x1, y1))
        except (TypeError, ValueError) as error:
            raise DataError(f"{row.where}: bbox {corner!r} of {image.name} ({error})") from error
    return tuple(boxes)


def _given(row: Row, asked: dict[str, Question]) -> Given:
    """One answer of a file in LLaVA's form."""
    key = row.key("question_id")
    shown = row.values.get("options")
    if shown is not None and key in asked and tuple(shown) != asked[key].options:
        raise DataError(
            f"{row.where}: options {shown!r} of {key}, here {list(asked[key].options)!r}; "
            "give the shuffle=SEED and mode=MODE of the run"
        )
    return Given(key, row.text("text"), row.where)


def _official(path: Path, questions: Sequence[Question]) -> Iterator[Given]:
    """Answers of vstar_bench_eval.py: for each type a list with image, options, option_chosen."""
    by_image = {question.image: question for question in questions}
    results = read_json(path)
    for kind in TYPES:
        for number, values in enumerate(results.get(kind, []), start=1):
            row = Row(values, f"{path}: {kind} {number}")
            question = by_image.get(f"{kind}/{row.text('image')}")
            key = question.id if question else f"{kind}/{row.text('image')}"
            option = values["options"][values["option_chosen"]]
            letters = question is not None and not question.choose
            shown = question.options if question else ()
            text = LETTERS[shown.index(option)] if letters and option in shown else option
            yield Given(key, text, row.where)
