"""TextVQA (validation, arXiv 1904.08920): questions about text in images.

Scored by the soft accuracy of the VQA challenge: an answer's credit is min(1, matches / 3), where
matches are counted among nine of the ten human answers, averaged over the ten ways to leave one
out, after EvalAI's normalisation. With LLaVA's question file the prompt holds OCR tokens, which is
worth about ten points, so the scores say whether it did.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cof.bench.common.answers import (
    Answers,
    Given,
    Said,
    llava_answer,
    match_answers,
    need_truth,
    reworded,
)
from cof.bench.common.containers import Found, Held, Reader, held
from cof.bench.common.files import read_json, read_json_rows, read_jsonl, write_jsonl, write_text
from cof.bench.common.finding import tables, with_llava
from cof.bench.common.rows import Row, inside
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Mark, Part, Tally, added, scored
from cof.bench.common.vqa_words import soft_accuracy
from cof.errors import DataError, shown
from cof.files import Folder
from cof.prompts import SHORT_ANSWER
from cof.types import Question

VERSION = "2"  # 1 asked the coarse stage about the OCR line, where it stood first
SOURCE = "textvqa.org (TextVQA_0.5.1_val.json, train_val_images.zip)"

_OCR = "Reference OCR token: "


@dataclass(frozen=True)
class Config:
    """Where TextVQA is.

    Attributes:
        root: folder of the annotation file; lmms-lab's parquet files, or their folder; or LLaVA's
            question file, the annotation file beside it.
        questions: LLaVA's llava_textvqa_val_v051_ocr.jsonl (prompts with OCR tokens), or "".
        file: the annotation file.
        images: folder of the images, relative to `root`.
    """

    root: str
    questions: str = ""
    file: str = "TextVQA_0.5.1_val.json"
    images: str = "train_images"


def read(config: Config) -> list[Question]:
    """Every question of the annotation file, or of LLaVA's question file in its order.

    Raises:
        DataError: not such a file, other than ten answers, or a question that is not annotated.
    """
    config = with_llava(config)
    annotated = _annotated(config)
    if not config.questions:
        return annotated
    rows = read_jsonl(Path(config.questions))
    asked = [Given(_row_key(row, "text"), row.asked("text"), row.where) for row in rows]
    return [_with_core(one) for one in reworded(annotated, _keys(annotated), asked)]


def pictures(config: Config) -> Folder:
    """Where the images are: below the annotation file, or in a table."""
    config = with_llava(config)
    own = (Path(config.root) / config.file).exists()
    return Path(config.root) if own else _held(config).pictures


def sizes(config: Config) -> dict[str, tuple[int, int]]:
    """Width and height in pixels that the annotation has of a picture, by its name."""
    config = with_llava(config)
    own = (Path(config.root) / config.file).exists()
    rows = _rows(config) if own else (row.row for row in _READER.rows(_tables(config)))
    found = {}
    for row in rows:
        width, height = (row.values.get(f"image_{edge}") for edge in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int):
            found[_image(row, config.images)] = (width, height)
    return found


def _annotated(config: Config) -> list[Question]:
    if not (Path(config.root) / config.file).exists():
        return list(_held(config).questions)
    return [_question(row, config.images) for row in _rows(config)]


def _rows(config: Config) -> list[Row]:
    path = Path(config.root) / config.file
    rows = Row.of(read_json(path), str(path)).parts("data")
    if not rows:
        raise DataError(f"{path}: `data` has no questions")
    return rows


def _held(config: Config) -> Held:
    return held(_READER, config, _tables(config))


def _tables(config: Config) -> list[Path]:
    looked = f"{config.file}, *.parquet"
    return tables("textvqa", config.root, looked, [r"(^|/)val(idation)?$"])


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """The questions of lmms-lab's table, whose columns are the annotation file's keys."""
    for row in rows:
        yield _question(row.row, config.images), row.picture


_READER = Reader("textvqa", _from_rows, ("question_id", "image_id", "question"))


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of questions a category, "" for all."""
    return {"": (5000,)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """The soft accuracy of one answer, in [0, 1]."""
    if not question.reference or answer is None:
        return 0.0
    return soft_accuracy(answer, json.loads(question.reference))


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Mean soft accuracy in [0, 1]; None for a test split, which has no answers or empty ones."""
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (whether there are right answers, whether the prompt held OCR tokens)."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        return credit(question, answer), (bool(question.reference), _OCR in question.text)

    def total(self, part: Part) -> dict[str, Any]:
        n, with_tokens = len(part), part.where(lambda mark: mark[1])
        labelled = part.where(lambda mark: mark[0]) == n
        return {
            "benchmark": "textvqa",
            "version": VERSION,
            "ocr": {0: "without", n: "with"}.get(with_tokens, "mixed"),
            "n": n,
            "accuracy": added(part.credits) / n if labelled else None,
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """One row: accuracy in percent, and whether the prompts held OCR tokens."""
    if scores["accuracy"] is None:
        return []
    return [(f"accuracy, {scores['ocr']} OCR tokens", 100 * scores["accuracy"], scores["n"])]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer file and EvalAI's submission."""
    pairs = list(zip(questions, answers, strict=True))
    rows = [llava_answer(PurePosixPath(q.image).stem, q, answer) for q, answer in pairs]
    sent = [{"question_id": int(q.id), "answer": answer} for q, answer in pairs]
    return [
        write_jsonl(folder / "llava_textvqa_answers.jsonl", rows),
        write_text(folder / "textvqa_submission.json", json.dumps(sent, indent=1) + "\n"),
    ]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """LLaVA's answers (question_id is the image, the prompt tells the question) or a submission.

    Raises:
        DataError: as `match_answers`; no annotation file.
    """
    need_truth(path, config.root, f"the folder of {config.file}")
    questions = read(config)
    rows = read_json_rows(path)
    if "prompt" not in rows[0].values:
        given = [Given(row.key("question_id"), row.text("answer"), row.where) for row in rows]
        return match_answers(questions, [q.id for q in questions], given, path, allow_missing)
    given = [Given(_row_key(row, "prompt"), row.text("text"), row.where) for row in rows]
    found = match_answers(questions, _keys(questions), given, path, allow_missing)
    prompts = {_row_key(row, "prompt"): row.text("prompt") for row in rows}
    asked = [
        _with_core(replace(question, text=prompts[key]))
        for question, key in zip(found.questions, _keys(found.questions), strict=True)
    ]
    return found._replace(questions=asked)


def _question(row: Row, images: str) -> Question:
    """One annotated question, asked without OCR tokens."""
    answers = row.texts("answers") if row.values.get("answers") is not None else []
    if len(answers) not in (0, 10):
        raise DataError(f"{row.where}: answers {shown(answers)}, expected ten")
    return Question(
        id=str(row.number("question_id")),
        image=_image(row, images),
        text=row.asked("question") + SHORT_ANSWER,
        reference=json.dumps(answers) if any(map(str.strip, answers)) else "",
    )


def _image(row: Row, images: str) -> str:
    return f"{images}/{inside(row.text('image_id'), row.where)}.jpg"


def _with_core(question: Question) -> Question:
    """Under a first line of OCR tokens the coarse stage is asked about the question."""
    core = _first_line(question.text)
    return question if question.text.startswith(core) else replace(question, core=core)


def _first_line(text: str) -> str:
    """The question of a prompt: its first line, or its second after a line of OCR tokens."""
    lines = text.split("\n")
    return lines[1] if lines[0].startswith(_OCR.rstrip()) and len(lines) > 1 else lines[0]


def _keys(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """(image, lower-cased question) of each."""
    return [(PurePosixPath(q.image).stem, _first_line(q.text).lower()) for q in questions]


def _row_key(row: Row, name: str) -> tuple[str, str]:
    return row.key("question_id"), _first_line(row.text(name)).lower()
