"""SEED-Bench, arXiv 2307.16125: multiple choice of twelve kinds, of which nine are about images.

Read are the questions about images (14233 in the release; VLMEvalKit's table has one less); those
about videos are left out. The authors rank the options by likelihood; LLaVA, whose published
SEED-Bench number is for images, asks for a letter and wants it alone; `extract=llava` also takes
`B. two`. Letters are read by `bench.extract`. Accuracy of all questions and of each kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common import lettered
from cof.bench.common.answers import Answers, Said
from cof.bench.common.choice import Extract
from cof.bench.common.containers import Found, Held, Reader, held, id_boxes
from cof.bench.common.files import read_json, write_jsonl
from cof.bench.common.finding import tables
from cof.bench.common.lettered import credit as credit  # the module's own
from cof.bench.common.lettered import table as table
from cof.bench.common.rows import Row, inside
from cof.bench.common.tables import Entry, Names
from cof.bench.common.tally import Tally, scored
from cof.errors import DataError
from cof.files import Folder
from cof.types import Question

VERSION = "1"
SOURCE = "huggingface.co/datasets/AILab-CVC/SEED-Bench (SEED-Bench.json, SEED-Bench-image.zip)"
KNOWN_MD5 = {"SEEDBench_IMG.tsv": ("68017231464752261a2526d6ca3a10c0",)}
FILE = "SEED-Bench.json"
KINDS = (
    *("Scene Understanding", "Instance Identity", "Instance Attributes", "Instance Location"),
    *("Instances Counting", "Spatial Relation", "Instance Interaction", "Visual Reasoning"),
    "Text Understanding",
)
"""Of the release's `question_type_id` 1 to 9, those about images."""

_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")


@dataclass(frozen=True)
class Config:
    """Where SEED-Bench is and how letters are read.

    Attributes:
        root: folder of SEED-Bench.json; lmms-lab's parquet files, or their folder; or VLMEvalKit's
            SEEDBench_IMG.tsv.
        images: folder of the release's images.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    images: str = "SEED-Bench-image"
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every question about an image, in the order of the file.

    Raises:
        DataError: no such file, or a question without options, their right letter, or its image.
    """
    file = Path(config.root) / FILE
    if file.is_file():
        rows = Row.of(read_json(file), str(file)).parts("questions")
        entries = [Entry(row.values, row.where) for row in rows]
        found = [question for question, _ in _released(entries, config)]
    else:
        found = list(_held(config).questions)
    if not found:
        raise DataError(f"{file}: no questions about images")
    return id_boxes(found, config.root)


def pictures(config: Config) -> Folder:
    """Where the images are: beside the questions, or in a table."""
    own = (Path(config.root) / FILE).is_file()
    return Path(config.root) if own else _held(config).pictures


def _held(config: Config) -> Held:
    looked = f"{FILE}, *.parquet, SEEDBench_IMG.tsv"
    found = tables("seedbench", config.root, looked, [r"(^|/)test$"])
    return held(_HUB if found[0].suffix == ".parquet" else _TSV, config, found)


def _released(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Of the release's keys, which lmms-lab has as columns."""
    for row in rows:
        if row.text("data_type") == "image":
            kind, name = _kind(row), row.text("data_id")
            options = lettered.options_of(row, _CHOICES)
            yield _question(row, row.text("question_id"), name, kind, options, config), row.picture


def _from_tsv(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Of VLMEvalKit's columns."""
    names = Names()
    for row in rows:
        kind, name = row.text("category"), f"{names.of(row)}{row.suffix}"
        options = lettered.options_of(row)
        yield _question(row, row.text("index"), name, kind, options, config), row.picture


_HUB = Reader("seedbench", _released, ("question_id", "data_type", "data_id", "choice_a", "answer"))
_TSV = Reader("seedbench", _from_tsv, ("index", "question", "A", "B", "answer", "category"))


def _question(
    row: Entry, name: str, image: str, kind: str, options: Sequence[str], config: Config
) -> Question:
    bare = Question(
        id=name,
        image=f"{config.images}/{inside(image, row.where)}",
        text=row.row.asked("question"),
        category=kind,
        reference=lettered.letter_of(row.text("answer"), options, row.where),
    )
    return lettered.lettered(bare, options)


def _kind(row: Entry) -> str:
    number = row.row.number("question_type_id")
    if not 1 <= number <= len(KINDS):
        raise DataError(f"{row.where}: question_type_id {number} of a question about an image")
    return KINDS[number - 1]


def expected(config: Config) -> Mapping[str, tuple[int, ...]]:
    """The published numbers of questions about images."""
    return {"": (14233, 14232)}


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Accuracy of all questions and of each kind; shares in [0, 1]."""
    return scored(tally(config), questions, answers)


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return lettered.LetterTally(config, "seedbench", VERSION)


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer form, and the submission that its convert_seed_for_submission.py makes:
    question_id and the letter, by `bench.extract`.
    """
    rule = lettered.rule_of(config)
    rows = [
        {"question_id": q.id, "prediction": lettered.extract(answer, q.options, rule)}
        for q, answer in zip(questions, answers, strict=True)
    ]
    own = lettered.export(questions, answers, folder, config)
    return [*own, write_jsonl(folder / "seedbench_submission.jsonl", rows)]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form, or a submission (`prediction`).

    Raises:
        DataError: as `match_answers`; no question file.
    """
    what = f"the folder of {FILE}"
    names = ("question_id", "prediction")
    return lettered.given_answers(path, config, read, what, allow_missing, names)
