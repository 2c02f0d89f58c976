"""CV-Bench (Cambrian-1, arXiv 2406.16860): counting and relations in 2D, depth and distance in 3D.

2638 questions on pictures of ADE20K, COCO and Omni3D. Published are three numbers: 2D is the mean
of the accuracies on ADE20K and on COCO, 3D the accuracy on Omni3D, and the overall one the mean of
2D and 3D. Letters are read without a judge (`bench.extract`); the authors' own matching may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common import lettered
from cof.bench.common.answers import Answers, Said
from cof.bench.common.choice import Extract
from cof.bench.common.containers import Found, Held, Reader, held, id_boxes
from cof.bench.common.finding import tables
from cof.bench.common.lettered import credit as credit  # the module's own
from cof.bench.common.lettered import export as export
from cof.bench.common.rows import inside
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Part, Tally, scored
from cof.errors import DataError, shown
from cof.files import Folder
from cof.types import Question

VERSION = "1"
SOURCE = "huggingface.co/datasets/nyu-visionx/CV-Bench (test_2d.parquet, test_3d.parquet)"
SOURCES = {"2D": ("ADE20K", "COCO"), "3D": ("Omni3D",)}


@dataclass(frozen=True)
class Config:
    """Where CV-Bench is and how letters are read.

    Attributes:
        root: the folder of test_2d.parquet and test_3d.parquet, or one of them.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every question, in the order of the files.

    Raises:
        DataError: no such file, or a row without question, choices, answer, type or source.
    """
    return id_boxes(_held(config).questions, config.root)


def pictures(config: Config) -> Folder:
    """Where the images are: in the tables."""
    return _held(config).pictures


def _held(config: Config) -> Held:
    wanted = (r"(^|/)test_[23]d$", r"(^|/)test$")
    looked = "test_2d.parquet, test_3d.parquet"
    return held(_READER, config, tables("cvbench", config.root, looked, wanted))


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    for number, row in enumerate(rows):
        kind, source = row.text("type"), row.text("source")
        if source not in SOURCES.get(kind, ()):
            raise DataError(f"{row.where}: type {shown(kind)} of the source {shown(source)}")
        options, name = row.row.texts("choices"), row.text("idx") or str(number)
        bare = Question(
            id=f"{kind}/{name}",
            image=inside(row.text("filename") or f"{kind}/{name}.png", row.where),
            text=row.row.asked("question"),
            category=f"{kind}/{row.text('task')}/{source}",
            reference=lettered.letter_of(row.text("answer"), options, row.where),
        )
        yield lettered.lettered(bare, options), row.picture


_READER = Reader("cvbench", _from_rows, ("question", "choices", "answer", "type", "source", "task"))


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of questions."""
    return {"": (2638,)}


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """The published three numbers, and accuracies of each source and task; shares in [0, 1].

    A number is None where a source that it needs was not asked; `accuracy` is of all questions.
    """
    return scored(tally(config), questions, answers)


class _Tally(lettered.LetterTally):
    """Categories are `type/task/source`."""

    def parts(self, part: Part) -> dict[str, Any]:
        sources = lettered.by_category(part, lambda category: category.split("/")[2])
        parts = {kind: _mean(sources, names) for kind, names in SOURCES.items()}
        both = [value for value in parts.values() if value is not None]
        return {
            "overall": sum(both) / 2 if len(both) == 2 else None,
            **parts,
            "sources": sources,
            "tasks": lettered.by_category(part, lambda category: category.split("/")[1]),
        }


def _mean(sources: dict[str, Any], names: Sequence[str]) -> float | None:
    if not all(name in sources for name in names):
        return None
    return sum(float(sources[name]["accuracy"]) for name in names) / len(names)


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config, "cvbench", VERSION)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: overall, 2D and 3D, where they are, all questions, each source, each task."""
    names = [name for name in ("overall", *SOURCES) if scores[name] is not None]
    rows = [(name, 100 * scores[name], scores["n"]) for name in names]
    parts = {"all questions": scores, **scores["sources"], **scores["tasks"]}
    return rows + [(name, 100 * part["accuracy"], part["n"]) for name, part in parts.items()]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form.

    Raises:
        DataError: as `match_answers`; no table.
    """
    what = "the folder of test_2d.parquet and test_3d.parquet"
    return lettered.given_answers(path, config, read, what, allow_missing)
