"""ScienceQA-IMG, arXiv 2209.09513: school questions, those of the test split with an image (2017).

Asked as lmms-eval does: a hint as `Context: ...`, the question, lettered options, LLaVA's request
for a letter; the coarse stage is asked about the question alone. Scored as LLaVA's
eval_science_qa.py does: `extract=llava`, the default. LLaVA's published number is of all 4241
questions of the split, with and without image; its script prints that of questions with image as
IMG-Accuracy, which is what this is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common import lettered
from cof.bench.common.answers import Answers, Said
from cof.bench.common.choice import LETTERS, Extract
from cof.bench.common.containers import Found, Held, Reader, held, id_boxes
from cof.bench.common.files import read_json
from cof.bench.common.finding import tables
from cof.bench.common.lettered import export as export  # the module's own
from cof.bench.common.lettered import table as table
from cof.bench.common.rows import Row, inside
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Tally, scored
from cof.errors import DataError, shown
from cof.files import Folder
from cof.types import Question

VERSION = "1"
SOURCE = "github.com/lupantech/ScienceQA (problems.json, pid_splits.json, images/test)"
KNOWN_MD5 = {
    "ScienceQA_TEST.tsv": ("e42e9e00f9c59a80d8a5db35bc32b71f",),
    "ScienceQA_VAL.tsv": ("96320d05e142e585e7204e72affd29f3",),
}
FILES = ("problems.json", "pid_splits.json")


@dataclass(frozen=True)
class Config:
    """Where ScienceQA is and how letters are read.

    Attributes:
        root: folder of problems.json and pid_splits.json; lmms-lab's parquet files, or their
            folder (ScienceQA-IMG); or VLMEvalKit's ScienceQA_TEST.tsv. Tables know no problem's
            number, so that their questions' ids are other ones.
        images: folder of the release's images, which holds <split>/<number>/image.png.
        split: of the release, or of parquet files.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    images: str = "images"
    split: str = "test"
    extract: Extract = "llava"


def read(config: Config) -> list[Question]:
    """Every question with an image of the split, in its order.

    Raises:
        DataError: no such files or split, or a problem without options or the right one's place.
    """
    if (Path(config.root) / FILES[0]).is_file():
        found = [question for question, _ in _from_rows(_problems(config), config)]
    else:
        found = list(_held(config).questions)
    if not found:
        raise DataError(f"{config.root}: no questions with an image in the split {config.split!r}")
    return id_boxes(found, config.root)


def pictures(config: Config) -> Folder:
    """Where the images are: below the release, or in a table."""
    own = (Path(config.root) / FILES[0]).is_file()
    return Path(config.root) if own else _held(config).pictures


def _problems(config: Config) -> Iterator[Entry]:
    """The problems of a split that have an image."""
    problems, splits = (
        Row.of(read_json(Path(config.root) / name), str(Path(config.root) / name)) for name in FILES
    )
    for name in splits.texts(config.split):
        row = Row.of(problems.value(name), f"{problems.where}: {shown(name)}")
        if row.values.get("image"):
            image = f"{config.split}/{name}/{row.text('image')}"
            yield Entry({**row.values, "id": name, "path": image}, row.where)


def _held(config: Config) -> Held:
    split = re.escape(config.split)
    named = f"ScienceQA_{config.split.upper().removesuffix('IDATION')}"  # TEST, VAL
    looked = f"{FILES[0]}, *.parquet, {named}.tsv"
    wanted = (rf"ScienceQA-IMG/{split}$", rf"(^|/){split}$")
    return held(_READER, config, tables("scienceqa", config.root, looked, wanted, named))


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Of the release's keys, which lmms-lab has as columns, or of VLMEvalKit's columns."""
    for number, row in enumerate(rows):
        if row.picture is None and "path" not in row.cells:
            continue
        name = row.text("id", "index") or str(number)
        options, letter = _answered(row)
        bare = Question(
            id=name,
            image=f"{config.images}/{inside(row.text('path') or f'{name}.png', row.where)}",
            text=row.row.asked("question"),
            category=row.text("subject", "category"),
            reference=letter,
        )
        hint = row.text("hint")
        context = f"Context: {hint}" if hint and hint != "nan" else ""
        yield lettered.lettered(bare, options, context), row.picture


_READER = Reader("scienceqa", _from_rows, ("question", "choices|A", "answer"))


def _answered(row: Entry) -> tuple[list[str], str]:
    """Options and the right one's letter; the release has its place, from 0."""
    if "choices" not in row.cells:
        options = lettered.options_of(row)
        return options, lettered.letter_of(row.text("answer"), options, row.where)
    options, place = row.row.texts("choices"), row.row.number("answer")
    letter = LETTERS[place] if place < len(LETTERS) else ""
    return options, lettered.letter_of(letter, options, row.where)


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of questions with an image."""
    return {"": (2017,)} if config.split == "test" else {}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 where the answer names the right option, else 0.0."""
    return lettered.credit(question, answer, config or Config(""))


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Accuracy of all questions and of each subject; shares in [0, 1]."""
    return scored(tally(config), questions, answers)


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return lettered.LetterTally(config or Config(""), "scienceqa", VERSION)


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form, to the questions with an image.

    Raises:
        DataError: as `match_answers`; no problems.
    """
    what = f"the folder of {FILES[0]}"
    return lettered.given_answers(path, config, read, what, allow_missing)
