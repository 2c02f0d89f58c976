"""MMBench, arXiv 2307.06281: multiple choice, each question with its options in every rotation.

The published TSV holds the rotations as rows of their own (index k * 1,000,000 + i). `circular`,
the published number, counts a question as right only if every row of it is right; `vanilla` counts
the unrotated rows alone. Options are extracted by matching, without a judge and without chance
(`extract`, two rules in `cof.bench.common.choice`): an answer that names no single option is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cof.bench import _mmbench_files, _mmbench_table
from cof.bench._mmbench_table import COLUMNS as COLUMNS  # for those who write such a table
from cof.bench._mmbench_table import ROTATION
from cof.bench.common.answers import Answers, Said, with_boxes
from cof.bench.common.choice import UNRESOLVED, Extract, disputed, extract
from cof.bench.common.containers import Found, Held, Reader, held
from cof.bench.common.files import write_jsonl
from cof.bench.common.finding import folder_of
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Mark, Part, Tally, scored
from cof.errors import ConfigError
from cof.files import Folder
from cof.types import Question

if TYPE_CHECKING:
    import numpy as np

VERSION = "3"
"""1 asked the coarse stage about the hint, where there is one; 2 took the option A of a sentence
for an article, and knew a Chinese table by `_cn` in its name alone."""
KNOWN_MD5 = {
    "MMBench_DEV_EN.tsv": "b6caf1133a01c6bb705cf753bb527ed8",
    "MMBench_DEV_EN_V11.tsv": "30c05be8f2f347a50be25aa067248184",
}
SOURCE = "download.openmmlab.com/mmclassification/datasets/mmbench/<file> (one TSV, images inside)"
IMAGES = "mmbench_dev_20230712_images"
"""Stands in the names of images, whatever the table: so a dataset has one hash in all of them, and
runs on the first table, which was unpacked into a folder of that name, go on."""

SHEET = ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
"""Columns of the submission, in the order of LLaVA's converter."""


@dataclass(frozen=True)
class Config:
    """Where MMBench is and how it is asked.

    Attributes:
        root: folder of the TSV, or of lmms-lab's parquet files; or such a file. For scoring alone
            its images may be left out.
        file: name of the TSV, or `language/split` of parquet files; "" is the newest table there.
        images: folder that stands in the names of images, "" is `IMAGES`; nothing is written there.
        lang: of the instruction: `en`, `cn`, or `auto`: `cn` where `cn` is a word of the file's
            name, in any case, or part of CCBench, or where most questions hold Chinese characters.
        rotate: also ask every rotation of each row's options, for a TSV that holds none.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    file: str = ""
    images: str = ""
    lang: Literal["auto", "en", "cn"] = "auto"
    rotate: bool = False
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every row of the table in its order.

    Raises:
        DataError: no such table, a row without question, options or image.
    """
    questions = _held(config).questions
    bases = [str(_mmbench_files.index_of(question) % ROTATION) for question in questions]
    return with_boxes(questions, folder_of(config.root), bases, lambda row: row.key("index"))


def pictures(config: Config) -> Folder:
    """Where the images are: in the table."""
    return _held(config).pictures


def _held(config: Config) -> Held:
    tables = _mmbench_files.tables(config.root, config.file)
    return held(_READER, replace(config, file=str(tables[0])), tables)


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Questions in the order of the rows; rows with one image share its name."""
    path, folder = Path(config.file), config.images or IMAGES
    lines = _mmbench_table.table_lines(list(rows), path)
    names = _mmbench_table.images(lines)
    chinese = config.lang == "cn" or (
        config.lang == "auto" and _mmbench_files.is_chinese(path, lines)
    )
    for line in lines:
        image = f"{folder}/{names[line.index]}"
        for question in _mmbench_files.questions(line, image, config.rotate, chinese):
            yield question, line.picture


_READER = Reader("mmbench", _from_rows, ("index", "question", "A", "B"), look=True)


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of rows, where it is known."""
    tables = _mmbench_files.tables(config.root, config.file)
    return {"": (4377,)} if tables[0].name == "mmbench_dev_20230712.tsv" else {}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 where the answer names the right option of this row, else 0.0."""
    return float(extract(answer, question.options, _rule(config)) == question.reference)


def _rule(config: Config | None) -> Extract:
    return config.extract if config else "vlmevalkit"


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Circular and vanilla accuracy, in all and a category; shares in [0, 1].

    Metrics are None where the table holds no answers (the test splits). `disputed` counts answers
    that the two rules of extraction read differently.
    """
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (category, has a right answer, row of its own, unresolved, disputed); groups are
    the rows that rotate one question.
    """

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        option = extract(answer, question.options, _rule(self.config))
        own = question.id.isdecimal() and int(question.id) < ROTATION
        lost, split = option == UNRESOLVED, disputed(answer, question.options)
        mark = (question.category, bool(question.reference), own, lost, split)
        return float(option == question.reference), mark

    def group(self, question: Question) -> int:
        return _mmbench_files.index_of(question) % ROTATION

    def total(self, part: Part) -> dict[str, Any]:
        labelled = part.where(lambda mark: mark[1]) == len(part)
        groups = _Groups.of(part, self.marks)
        return {
            "benchmark": "mmbench",
            "version": VERSION,
            "rows": len(part),
            "extract": _rule(self.config),
            "unresolved": part.where(lambda mark: mark[3]),
            "disputed": part.where(lambda mark: mark[4]),
            **groups.accuracy(labelled),
            "l2_categories": groups.by_category(labelled, 0),
            "categories": groups.by_category(labelled, 2),
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: circular and vanilla accuracy, then circular accuracy a category; in percent."""
    if scores["circular"] is None:
        return []
    rows = [("circular", 100 * scores["circular"], scores["groups"])]
    if scores["vanilla"] is not None:
        rows.append(("vanilla", 100 * scores["vanilla"], scores["base_rows"]))
    for kind in ("l2_categories", "categories"):
        rows += [
            (name, 100 * part["circular"], part["groups"]) for name, part in scores[kind].items()
        ]
    return rows


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer file and the submission sheet, all rows of the TSV in its order.

    Raises:
        ConfigError: no config; the sheet repeats columns of the TSV that questions do not keep.
    """
    if config is None:
        raise ConfigError("mmbench: the submission sheet needs the config that was read")
    pairs = list(zip(questions, answers, strict=True))
    written = [
        write_jsonl(
            folder / "llava_mmbench_answers.jsonl",
            (_mmbench_files.llava_row(*p) for p in pairs),
        )
    ]
    given = {q.id: answer for q, answer in pairs}
    lines = _mmbench_table.read_table(*_mmbench_files.tables(config.root, config.file))
    columns = [name for name in SHEET if name != "answer" or "answer" in lines[0].cells]
    rows: list[list[str | int | None]] = [list(columns)]
    for line in lines:
        known = {**line.cells, "index": line.index, "prediction": given.get(str(line.index))}
        rows.append([known.get(name) for name in columns])
    return [*written, _mmbench_table.write_sheet(folder / "mmbench_submission.xlsx", rows)]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """LLaVA's answers (.jsonl), or a sheet with a column `prediction` (.xlsx, .tsv).

    Right answers come from `config.root` (the TSV or its folder); else from the file itself, whose
    rows may carry them; else from the TSV that LLaVA's layout puts into a folder above it.

    Raises:
        DataError: as `match_answers`; no right answers; options that are not the table's.
    """
    return _mmbench_files.read_answers(path, config.root, config.file, allow_missing)


@dataclass(frozen=True)
class _Groups:
    """Rows that rotate one question, a group each.

    Attributes:
        names: the categories there are.
        category: of each group, that of its first row: its place in `names`.
        circular: 1 where every row of the group is right.
        base: how many of its rows are unrotated.
        vanilla: how many of those are right.
    """

    names: tuple[str, ...]
    category: np.ndarray
    circular: np.ndarray
    base: np.ndarray
    vanilla: np.ndarray

    @classmethod
    def of(cls, part: Part, marks: Sequence[Mark]) -> _Groups:
        """The groups of some answers."""
        import numpy as np

        names = tuple(dict.fromkeys(mark[0] for mark in marks))
        order, starts = part.groups()
        category = part.of_marks([names.index(mark[0]) for mark in marks])[order][starts]
        own = part.of_marks([float(mark[2]) for mark in marks])[order]
        right = part.credits[order]
        found = (np.minimum.reduceat(right, starts), *_sums((own, own * right), starts))
        return cls(names, category, *found)

    def accuracy(self, labelled: bool, chosen: Any = slice(None)) -> dict[str, Any]:
        """Both accuracies of all groups, or of those that are `chosen`."""
        circular = int(self.circular[chosen].sum())
        base, vanilla = (int(one[chosen].sum()) for one in (self.base, self.vanilla))
        count = len(self.circular[chosen])
        return {
            "groups": count,
            "circular_right": circular if labelled else None,
            "circular": circular / count if labelled else None,
            "base_rows": base,
            "vanilla": vanilla / base if labelled and base else None,
        }

    def by_category(self, labelled: bool, part: int) -> dict[str, Any]:
        """Accuracies a category; `part` 0 is the broad one, 2 the fine one, of `broad/fine`."""
        import numpy as np

        present = set(np.unique(self.category).tolist())
        members: dict[str, list[int]] = {}
        for number in sorted(present):
            members.setdefault(self.names[number].rpartition("/")[part], []).append(number)
        return {
            name: self.accuracy(labelled, np.isin(self.category, members[name]))
            for name in sorted(members)
            if name
        }


def _sums(columns: Sequence[np.ndarray], starts: np.ndarray) -> list[np.ndarray]:
    """Sums of each group."""
    import numpy as np

    return [np.add.reduceat(column, starts) for column in columns]
