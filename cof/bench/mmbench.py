"""MMBench, arXiv 2307.06281: multiple choice, each question with its options in every rotation.

The published TSV holds the rotations as rows of their own (index k * 1,000,000 + i). `circular`,
the published number, counts a question as right only if every row of it is right; `vanilla` counts
the unrotated rows alone. Options are extracted by matching, without a judge and without chance
(`extract`, two rules in `cof.bench.common.choice`): an answer that names no single option is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cof.bench import _mmbench_files, _mmbench_table
from cof.bench._mmbench_table import COLUMNS as COLUMNS  # for those who write such a table
from cof.bench._mmbench_table import ROTATION
from cof.bench.common.answers import Answers, Said, with_boxes
from cof.bench.common.choice import UNRESOLVED, Extract, disputed, extract
from cof.bench.common.files import write_jsonl
from cof.errors import ConfigError
from cof.types import Question

VERSION = "3"
"""1 asked the coarse stage about the hint, where there is one; 2 took the option A of a sentence
for an article, and knew a Chinese table by `_cn` in its name alone."""
KNOWN_MD5 = {
    "MMBench_DEV_EN.tsv": "b6caf1133a01c6bb705cf753bb527ed8",
    "MMBench_DEV_EN_V11.tsv": "30c05be8f2f347a50be25aa067248184",
}
SOURCE = "download.openmmlab.com/mmclassification/datasets/mmbench/<file> (one TSV, images inside)"
SHEET = ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
"""Columns of the submission, in the order of LLaVA's converter."""


@dataclass(frozen=True)
class Config:
    """Where MMBench is and how it is asked.

    Attributes:
        root: folder of the TSV. For scoring alone also the TSV itself, its images left out or not.
        file: name of the TSV.
        images: folder, inside `root` or absolute, for the images of the TSV; "" is `<file>_images`.
        lang: of the instruction: `en`, `cn`, or `auto`: `cn` where `cn` is a word of the file's
            name, in any case, or part of CCBench, or where most questions hold Chinese characters.
        rotate: also ask every rotation of each row's options, for a TSV that holds none.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    file: str = "mmbench_dev_20230712.tsv"
    images: str = ""
    lang: Literal["auto", "en", "cn"] = "auto"
    rotate: bool = False
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every row of the TSV in its order; images are written beside it the first time.

    Raises:
        DataError: no such table, a row without question or options, or a broken image.
    """
    path = _mmbench_files.table_path(config.root, config.file)
    folder = Path(config.images or f"{Path(config.file).stem}_images")
    lines = _mmbench_table.read_table(path)
    names = _mmbench_table.extract_images(lines, Path(config.root) / folder)
    chinese = config.lang == "cn" or (
        config.lang == "auto" and _mmbench_files.is_chinese(path, lines)
    )
    questions = [
        question
        for line in lines
        for question in _mmbench_files.questions(
            line, (folder / names[line.index]).as_posix(), config.rotate, chinese
        )
    ]
    bases = [str(_mmbench_files.index_of(question) % ROTATION) for question in questions]
    return with_boxes(questions, Path(config.root), bases, lambda row: row.key("index"))


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of rows, where it is known."""
    return {"": (4377,)} if config.file == "mmbench_dev_20230712.tsv" else {}


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
    pairs = list(zip(questions, answers, strict=True))
    rows: dict[int, list[tuple[Question, float]]] = defaultdict(list)
    for question, answer in pairs:
        right = credit(question, answer, config)
        rows[_mmbench_files.index_of(question) % ROTATION].append((question, right))
    groups = [rows[base] for base in sorted(rows)]
    labelled = all(question.reference for question in questions)
    return {
        "benchmark": "mmbench",
        "version": VERSION,
        "rows": len(questions),
        "extract": _rule(config),
        "unresolved": sum(extract(a, q.options, _rule(config)) == UNRESOLVED for q, a in pairs),
        "disputed": sum(disputed(answer, question.options) for question, answer in pairs),
        **_accuracy(groups, labelled),
        "l2_categories": _by_category(groups, labelled, 0),
        "categories": _by_category(groups, labelled, 2),
    }


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
    lines = _mmbench_table.read_table(_mmbench_files.table_path(config.root, config.file))
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


def _accuracy(groups: Sequence[Sequence[tuple[Question, float]]], labelled: bool) -> dict[str, Any]:
    """Both accuracies of groups of rows that rotate one question."""
    base = [
        right
        for group in groups
        for question, right in group
        if question.id.isdecimal() and int(question.id) < ROTATION
    ]
    circular = sum(min(right for _, right in group) for group in groups)
    return {
        "groups": len(groups),
        "circular_right": int(circular) if labelled else None,
        "circular": circular / len(groups) if labelled else None,
        "base_rows": len(base),
        "vanilla": sum(base) / len(base) if labelled and base else None,
    }


def _by_category(
    groups: Sequence[Sequence[tuple[Question, float]]], labelled: bool, part: int
) -> dict[str, Any]:
    """Accuracies a category; `part` 0 is the broad one, 2 the fine one, of `broad/fine`."""
    members: dict[str, list[Sequence[tuple[Question, float]]]] = defaultdict(list)
    for group in groups:
        members[group[0][0].category.rpartition("/")[part]].append(group)
    names = sorted(name for name in members if name)
    return {name: _accuracy(members[name], labelled) for name in names}
