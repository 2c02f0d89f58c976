"""MMVP, arXiv 2401.06209: 150 pairs of pictures that CLIP takes for one another.

The questions of a pair are alike, their right answers are not. A pair counts where both answers
are right: the published number is the share of such pairs. The authors ask with the options behind
the question, `(a) ... (b) ...`, and let GPT-4 judge; here the two options are lettered and asked
as LLaVA asks multiple choice, and letters are read without a judge (`bench.extract`). VLMEvalKit's
scorer and the authors' pair two by two in the order of the index.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common import lettered
from cof.bench.common.answers import Answers, Said, unique
from cof.bench.common.choice import LETTERS, Extract
from cof.bench.common.containers import Found, Held, Reader, held, id_boxes
from cof.bench.common.files import read_text, write_jsonl
from cof.bench.common.finding import tables
from cof.bench.common.lettered import credit as credit  # the module's own
from cof.bench.common.rows import whole_number
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Part, Tally, all_right, left_out, number_of, scored
from cof.errors import DataError, shown
from cof.files import Folder
from cof.types import Question

VERSION = "1"
SOURCE = "huggingface.co/datasets/MMVP/MMVP (Questions.csv, MMVP Images/)"
KNOWN_MD5 = {"MMVP.tsv": ("8cb732b141a0cba5b42159df2839e557",)}
FILE = "Questions.csv"

_OPTION = re.compile(r"\(([a-e])\)\s*(.*?)\s*(?=\([a-e]\)|$)", re.DOTALL)


@dataclass(frozen=True)
class Config:
    """Where MMVP is and how letters are read.

    Attributes:
        root: the release, Questions.csv and the folder of images; parquet files of the same columns
            and an image (lmms-lab-eval/MMVP, which corrects labels, lmms-eval#1018; the authors'
            own parquet has images alone); or VLMEvalKit's MMVP.tsv.
        images: folder of the release's images.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    images: str = "MMVP Images"
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every question, pair by pair.

    Raises:
        DataError: neither file, no rows, a row without index, question, two options or the right
            one's letter, an index twice, or a question without the other one of its pair.
    """
    file = Path(config.root) / FILE
    if file.is_file():
        questions = [_released(entry, config.images) for entry in _csv(file)]
    else:
        questions = list(_held(config).questions)
    if not questions:
        raise DataError(f"{config.root}: no questions")
    unique([question.id for question in questions], config.root)
    for pair, count in Counter(map(together, questions)).items():
        if count != 2:
            raise DataError(f"{config.root}: pair {pair} has {count} question, expected two")
    return id_boxes(questions, config.root)


def pictures(config: Config) -> Folder:
    """Where the images are: beside the questions, or in a table."""
    own = (Path(config.root) / FILE).is_file()
    return Path(config.root) if own else _held(config).pictures


def _held(config: Config) -> Held:
    looked = f"{FILE}, *.parquet, MMVP.tsv"
    found = tables("mmvp", config.root, looked, ["test$", "train$"])
    return held(_HUB if found[0].suffix == ".parquet" else _TSV, config, found)


def _csv(file: Path) -> Iterator[Entry]:
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
    for row in reader:
        if None in row or None in row.values():
            raise DataError(f"{file}:{reader.line_num}: not as many cells as the header has")
        yield Entry(row, f"{file}:{reader.line_num}")


def _released(row: Entry, images: str) -> Question:
    """A row of the release: Index (from 1), Question, Options, Correct Answer."""
    number = whole_number(row.text("Index"), "Index", row.where)
    options = [text for _, text in _OPTION.findall(row.text("Options"))]
    return _question(row, "Question", number, options, row.text("Correct Answer"), images)


def _from_hub(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    for row in rows:
        yield _released(row, config.images), row.picture


def _from_tsv(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Two by two in the order of their `index`, as VLMEvalKit's `report_acc_MMVP` pairs them, which
    also wants one question of both.
    """
    order = sorted(rows, key=lambda row: whole_number(row.text("index"), "index", row.where))
    for first, second in zip(order[::2], order[1::2], strict=False):
        if first.text("question") != second.text("question"):
            raise DataError(f"{second.where}: asks another question than its pair's first row")
    for number, row in enumerate(order, start=1):
        options, answer = lettered.options_of(row), row.text("answer")
        if len(options) != 2:
            raise DataError(f"{row.where}: options {shown(options)}, expected two")
        yield _question(row, "question", number, options, answer, config.images), row.picture


_HUB = Reader("mmvp", _from_hub, ("Index", "Question", "Options", "Correct Answer"))
_TSV = Reader("mmvp", _from_tsv, ("index", "question", "A", "B", "answer"))


def _question(
    row: Entry, name: str, number: int, options: Sequence[str], answer: str, images: str
) -> Question:
    if number < 1:
        raise DataError(f"{row.where}: index {shown(number)}, expected one from 1")
    letter = lettered.letter_of(answer, options, row.where)
    bare = Question(
        id=f"{(number + 1) // 2}/{number}",
        image=f"{images}/{number}.jpg",
        text=row.row.asked(name),
        reference=letter,
    )
    return lettered.lettered(bare, options)


def together(question: Question) -> str:
    """The pair, by its number."""
    return question.id.partition("/")[0]


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of questions."""
    return {"": (300,)}


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Share of pairs with both answers right, and accuracy over single questions.

    `pairs` is None where no pair has both questions; `incomplete` counts pairs that lack one.
    """
    return scored(tally(config), questions, answers)


class _Tally(lettered.LetterTally):
    """Groups are pairs."""

    def group(self, question: Question) -> int:
        return number_of(together(question))

    def parts(self, part: Part) -> dict[str, Any]:
        pairs, lost = all_right(part.group_numbers, part.credits, 2)
        return {"pairs": pairs, **left_out(pairs=lost)}


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config, "mmvp", VERSION)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: pairs, then single questions; in percent."""
    names = {"pairs": "pairs", "accuracy": "single questions"}
    there = {key: name for key, name in names.items() if scores[key] is not None}
    return [(name, 100 * scores[key], scores["n"]) for key, name in there.items()]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer form, and the file that the authors' gpt_grader.py judges."""
    rows = [
        {
            **{"question_id": int(q.id.partition("/")[2]), "prompt": q.text.partition("\n")[0]},
            **{"answer": f"({q.reference.lower()})", "response": _spelt(q, answer)},
            **{"answer_id": q.id, "model_id": "cof"},
        }
        for q, answer in zip(questions, answers, strict=True)
    ]
    own = lettered.export(questions, answers, folder, config)
    return [*own, write_jsonl(folder / "mmvp_answers.jsonl", rows)]


def _spelt(question: Question, answer: str) -> str:
    """A bare letter as the judge knows options, `(a)`; any other answer as it is."""
    letters = LETTERS[: len(question.options)]
    return f"({answer.lower()})" if answer in letters else answer


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form.

    Raises:
        DataError: as `match_answers`; no question file.
    """
    what = f"the folder of {FILE}"
    return lettered.given_answers(path, config, read, what, allow_missing)
