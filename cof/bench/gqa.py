"""GQA (testdev-balanced, arXiv 1902.09506): short answers about scenes, scored by exact match.

An answer is lower-cased and loses full stops at its end, as LLaVA's converter does, and must then
equal the annotated one. Beside accuracy, the official split into binary and open questions and by
structural and semantic type. Consistency, validity, plausibility and distribution need files that
testdev does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common.answers import (
    Answers,
    Given,
    Said,
    llava_answer,
    match_answers,
    need_truth,
    unique,
)
from cof.bench.common.containers import Found, Held, Reader, held
from cof.bench.common.files import read_json, read_json_rows, read_jsonl, write_jsonl, write_text
from cof.bench.common.finding import shards, unknown, with_llava
from cof.bench.common.rows import Row, inside
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Mark, Part, Tally, scored
from cof.errors import DataError, cut, shown
from cof.files import Folder, Member
from cof.prompts import SHORT_ANSWER
from cof.types import Question

VERSION = "1"
SOURCE = "cs.stanford.edu/people/dorarad/gqa (questions1.2.zip, images.zip)"


@dataclass(frozen=True)
class Config:
    """Where GQA is.

    Attributes:
        root: folder of the question file; lmms-lab's folder, with its parquet files of questions
            (testdev_balanced_instructions) and of images; or LLaVA's question file, the official
            one beside it.
        questions: LLaVA's llava_gqa_testdev_balanced.jsonl, or "" for the question file's order.
        file: the official question file, relative to `root`.
        images: folder of the images, relative to `root`.
    """

    root: str
    questions: str = ""
    file: str = "testdev_balanced_questions.json"
    images: str = "images"


def read(config: Config) -> list[Question]:
    """Every question of the question file, or of LLaVA's in its order.

    Raises:
        DataError: not such a file, a question outside the balanced set, or one that LLaVA's file
            asks and the question file does not know or words otherwise.
    """
    config = with_llava(config)
    known = _known(config)
    if not config.questions:
        return list(known.values())
    rows = read_jsonl(Path(config.questions))
    unique([row.key("question_id") for row in rows], config.questions)
    return [_asked(row, known) for row in rows]


def pictures(config: Config) -> Folder:
    """Where the images are: beside the question file, or in a table."""
    config = with_llava(config)
    own = (Path(config.root) / config.file).exists()
    return Path(config.root) if own else _held(config).pictures


def _known(config: Config) -> dict[str, Question]:
    path = Path(config.root) / config.file
    if not path.exists():
        return {question.id: question for question in _held(config).questions}
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected one object, question id -> question")
    return {
        name: _question(name, Row.of(item, f"{path}: {cut(name)}"), config.images)
        for name, item in content.items()
    }


def _held(config: Config) -> Held:
    """What lmms-lab's two tables hold: of questions, and of images."""
    asked = shards("gqa", config.root, r"testdev_balanced_instructions")
    if not asked:
        looked = f"{config.file}, testdev_balanced_instructions/*.parquet"
        raise unknown("gqa", config.root, looked)
    images = shards("gqa", config.root, r"testdev_balanced_images")
    return held(_READER, config, [*dict.fromkeys([*images, *asked])])


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Questions of the one table, with pictures of the other, which comes first."""
    images: dict[str, Member | None] = {}
    for row in rows:
        if "question" not in row.cells:
            images[row.row.text("id")] = row.picture
        else:
            asked = _question(row.row.key("id"), row.row, config.images)
            yield asked, row.picture or images.get(row.row.text("imageId"))


_READER = Reader("gqa", _from_rows, ("id",))


def plain(answer: str) -> str:
    """What LLaVA's converter hands to the official scorer."""
    return answer.rstrip(".").lower()


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of questions a category, "" for all."""
    return {"": (12578,)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 for the annotated answer, else 0.0."""
    return float(answer is not None and plain(answer) == question.reference)


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Accuracies in [0, 1]: of all, of binary and open questions, and a type."""
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (`structural/semantic` type, right)."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        right = credit(question, answer)
        return right, (question.category, right)

    def total(self, part: Part) -> dict[str, Any]:
        return {
            "benchmark": "gqa",
            "version": VERSION,
            "all": _accuracy(part.counts),
            "answer_types": _split(part, lambda kind: "open" if kind[0] == "query" else "binary"),
            "structural": _split(part, lambda kind: kind[0]),
            "semantic": _split(part, lambda kind: kind[1]),
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: accuracy of all, then of each part; in percent."""
    parts = {"accuracy": scores["all"]}
    for kind in ("answer_types", "structural", "semantic"):
        parts |= {
            f"{name} ({kind})" if kind == "semantic" else name: part
            for name, part in scores[kind].items()
        }
    return [(name, 100 * part["accuracy"], part["n"]) for name, part in parts.items()]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer file and the predictions that the official script reads."""
    pairs = list(zip(questions, answers, strict=True))
    sent = [{"questionId": q.id, "prediction": plain(answer)} for q, answer in pairs]
    return [
        write_jsonl(
            folder / "llava_gqa_answers.jsonl", (llava_answer(q.id, q, a) for q, a in pairs)
        ),
        write_text(folder / "testdev_balanced_predictions.json", json.dumps(sent) + "\n"),
    ]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """LLaVA's answers, or the predictions that its converter writes.

    Raises:
        DataError: as `match_answers`; no question file.
    """
    need_truth(path, config.root, f"the folder of {config.file}")
    questions = read(config)
    rows = read_json_rows(path)
    names = ("questionId", "prediction")
    names = names if names[0] in rows[0].values else ("question_id", "text")
    given = [Given(row.key(names[0]), row.text(names[1]), row.where) for row in rows]
    return match_answers(
        questions, [question.id for question in questions], given, path, allow_missing
    )


def _accuracy(counts: Mapping[Mark, int]) -> dict[str, Any]:
    n = sum(counts.values())
    return {"n": n, "accuracy": sum(count for mark, count in counts.items() if mark[1]) / n}


def _split(part: Part, name_of: Callable[[list[str]], str]) -> dict[str, Any]:
    """Accuracies of the questions that `name_of` their `structural/semantic` gives one name."""
    groups: dict[str, dict[Mark, int]] = {}
    for mark, count in part.counts.items():
        groups.setdefault(name_of(mark[0].split("/")), {})[mark] = count
    return {name: _accuracy(groups[name]) for name in sorted(groups) if name}


def _question(name: str, row: Row, images: str) -> Question:
    """One annotated question."""
    if row.values.get("isBalanced", True) is not True:
        raise DataError(f"{row.where}: not of the balanced set, which alone is scored")
    types = Row.of(row.values.get("types") or {}, f"{row.where}: types")
    kinds = [
        types.text(kind) if types.values.get(kind) else "" for kind in ("structural", "semantic")
    ]
    return Question(
        id=name,
        image=f"{images}/{inside(row.text('imageId'), row.where)}.jpg",
        text=row.asked("question") + SHORT_ANSWER,
        category="/".join(kinds),
        reference=row.text("answer"),
    )


def _asked(row: Row, known: dict[str, Question]) -> Question:
    """The question that a row of LLaVA's file asks."""
    name = row.key("question_id")
    if name not in known:
        raise DataError(f"{row.where}: asks {cut(name)}, which the question file does not have")
    if row.text("text") != known[name].text:
        raise DataError(
            f"{row.where}: asks {shown(row.text('text'))}, the question file has "
            f"{shown(known[name].text)}"
        )
    return known[name]
