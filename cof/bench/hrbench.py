"""HR-Bench, arXiv 2408.15556: small things in pictures of 4K or 8K, multiple choice.

Two categories, `single` (fine-grained single-instance perception, FSP) and `cross` (fine-grained
cross-instance, FCP). The table has each question four times, its options cyclically permuted;
published numbers are the mean over all rows, of each category and of both, as VLMEvalKit has it.
`circular`, right in every permutation, is ours. Letters are read without a judge (`bench.extract`).

Asked as LLaVA asks multiple choice; VLMEvalKit's own prompt for a model may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.bench.common import lettered
from cof.bench.common.answers import Answers, Said
from cof.bench.common.choice import Extract
from cof.bench.common.containers import Found, Held, Reader, held, id_boxes
from cof.bench.common.finding import shards, tsv, unknown
from cof.bench.common.lettered import credit as credit  # the module's own
from cof.bench.common.lettered import export as export
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Part, Tally, all_right, left_out, number_of, scored
from cof.files import Folder
from cof.types import Question

VERSION = "1"
SOURCE = "huggingface.co/datasets/DreamMr/HR-Bench (hr_bench_4k.tsv, hr_bench_8k.tsv, or parquet)"
KNOWN_MD5 = {
    "hr_bench_4k.tsv": ("f6b041b03d49543494b8a56d2e35be65",),
    "hr_bench_8k.tsv": ("274c9c7f89329b804a4723178a00219c",),
    "HRBench4K.tsv": ("f6b041b03d49543494b8a56d2e35be65",),
    "HRBench8K.tsv": ("274c9c7f89329b804a4723178a00219c",),
}


@dataclass(frozen=True)
class Config:
    """Where HR-Bench is and how letters are read.

    Attributes:
        root: the table, TSV or parquet, or its folder, where 4K comes before 8K.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every row of the table in its order; the permutations of a question share its image.

    Raises:
        DataError: no such table, or a row without image, question, options or their right letter.
    """
    return id_boxes(_held(config).questions, config.root)


def pictures(config: Config) -> Folder:
    """Where the images are: in the table."""
    return _held(config).pictures


def _held(config: Config) -> Held:
    patterns = (r"(^|/)hr_bench_4k$", r"(^|/)hr_bench_8k$")
    tables = tsv("hrbench", config.root) or shards("hrbench", config.root, *patterns)
    if not tables:
        looked = "hr_bench_4k.tsv, HRBench4K.tsv, hr_bench_4k.parquet, or those of 8k"
        raise unknown("hrbench", config.root, looked)
    return held(_READER, config, tables)


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Rows of one question have its text and options, each with another `cycle_category`; where a
    question occurs again, its k-th rows of each cycle belong together.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], str] = {}
    for row in rows:
        options, text = lettered.options_of(row), row.row.asked("question")
        key = (row.text("category"), text, *sorted(options))
        cycle = (*key, row.text("cycle_category"))
        seen[cycle] += 1
        base = first.setdefault((*key, str(seen[cycle])), row.text("index"))
        bare = Question(
            id=f"{base}/{row.text('index')}",
            image=f"images/{base}.jpg",
            text=text,
            category=row.text("category"),
            reference=lettered.letter_of(row.text("answer"), options, row.where),
        )
        yield lettered.lettered(bare, options), row.picture


_NEEDS = ("index", "question", "A", "B", "answer", "category", "cycle_category")
_READER = Reader("hrbench", _from_rows, _NEEDS)


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of rows: 200 questions in four permutations."""
    return {"": (800,)}


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Accuracy over all rows, of each category, and over questions that are right in all rows.

    A question has a row for each of its options; `circular` leaves out those that lack one
    (`incomplete`), and is None where all do.
    """
    return scored(tally(config), questions, answers)


class _Tally(lettered.LetterTally):
    """Groups are the permutations of a question, as many as `number`: its options."""

    def group(self, question: Question) -> int:
        return number_of(question.id.rpartition("/")[0])

    def number(self, question: Question, answer: Said) -> float:
        return float(len(question.options))

    def parts(self, part: Part) -> dict[str, Any]:
        right, lost = all_right(part.group_numbers, part.credits, part.numbers)
        return {"circular": right, **super().parts(part), **left_out(circular=lost)}


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config, "hrbench", VERSION)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: accuracy of all, of each category, and circular accuracy; in percent."""
    rows, share = lettered.table(scores), scores["circular"]
    return rows if share is None else [*rows, ("circular", 100 * share, scores["n"])]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form.

    Raises:
        DataError: as `match_answers`; no table.
    """
    what = "the table"
    return lettered.given_answers(path, config, read, what, allow_missing)
