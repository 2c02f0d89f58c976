"""POPE's label files and LLaVA's question file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cof.bench.common import finding
from cof.bench.common.containers import Found, Reader
from cof.bench.common.files import read_json_rows, read_jsonl
from cof.bench.common.rows import Row, inside
from cof.bench.common.tables import Entry, Names
from cof.errors import DataError, cut, shown
from cof.files import Member
from cof.prompts import SHORT_ANSWER
from cof.types import Question

SETTINGS = ("random", "popular", "adversarial")
"""In the paper's order, which is the order of summation: the last digit of a mean depends on it."""

FIRST_ID = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
"""LLaVA's question_id is this plus the row of the label file, counted from 1; in its order."""


def llava_id(question: Question) -> int:
    """LLaVA's number of a question."""
    return FIRST_ID[question.category] + int(question.id.rpartition("/")[2])


def labelled(root: Path, source: str, images: str) -> dict[str, list[Question]] | None:
    """The label files' questions, a setting; None without such a file."""
    names = {name: f"{source}_pope_{name}.json" for name in FIRST_ID}
    for folder in (root, root / source, root / "output" / source):
        found = {name: folder / file for name, file in names.items() if (folder / file).is_file()}
        if found:
            return {
                name: [
                    _question(name, number, row, images)
                    for number, row in enumerate(read_json_rows(file), start=1)
                ]
                for name, file in found.items()
            }
    return None


def tables(root: str, source: str) -> list[Path]:
    """The parquet files or the TSV that hold POPE.

    Raises:
        DataError: neither, nor label files, which the caller has looked for.
    """
    looked = f"label files ({source}_pope_random.json, ...)"
    if source != "coco":  # the only one that tables are known of
        raise finding.unknown("pope", root, looked)
    wanted = (rf"(^|/)({'|'.join(SETTINGS)})$", r"(^|/)test$")
    return finding.tables("pope", root, f"{looked}, *.parquet, POPE.tsv", wanted)


def from_rows(rows: Iterable[Entry], config: Any) -> Iterator[Found]:
    """The questions of a table, by setting in LLaVA's order, then in the table's.

    A row's setting is its category, else the name of its file; VLMEvalKit's table has one row for
    a question of several settings, their names joined by commas. Its order within a setting need
    not be that of the label files, nor so the ids.
    """
    settings: dict[str, list[tuple[Row, Member | None]]] = {name: [] for name in FIRST_ID}
    names = Names()
    for row in rows:
        label = _as_label(row, names)
        named = row.text("category") or Path(row.where.partition(": ")[0]).stem.partition("-")[0]
        for name in named.split(","):
            if name.strip() not in settings:
                raise DataError(f"{row.where}: {shown(named)} is no setting of POPE")
            settings[name.strip()].append((label, row.picture))
    for name, asked in settings.items():
        for number, (label, picture) in enumerate(asked, start=1):
            yield _question(name, number, label, config.images), picture


_PICTURE = ("image_source", "image_path", "image_name")
"""Columns that name it, in one copy or another."""

READER = Reader("pope", from_rows, ("question", "answer", "|".join([*_PICTURE, "index"])))


def _as_label(row: Entry, names: Names) -> Row:
    """A table's row as a label file has it."""
    named = row.text(*_PICTURE) or names.of(row)
    image = f"{PurePosixPath(inside(named, row.where)).name.removesuffix('.jpg')}.jpg"
    text, label = row.row.asked("question"), row.text("answer").lower()
    return Row({"image": image, "text": text, "label": label}, row.where)


def _question(setting: str, number: int, row: Row, images: str) -> Question:
    """Row `number` (from 1) of a label file."""
    if row.text("label") not in ("yes", "no"):
        raise DataError(f"{row.where}: label {shown(row.text('label'))}, expected 'yes' or 'no'")
    return Question(
        id=f"{setting}/{number}",
        image=f"{images}/{row.inside('image')}",
        text=row.asked("text") + SHORT_ANSWER,
        category=setting,
        reference=row.text("label"),
    )


def bare(text: str) -> str:
    """The question without suffix and article, which versions of the files differ in."""
    return re.sub(r"\b(a|an|the)\b\s*", "", text.removesuffix(SHORT_ANSWER).lower()).strip()


def as_llava(file: Path, labels: dict[str, list[Question]]) -> list[Question]:
    """The questions of llava_pope_test.jsonl in its order, with the labels of their rows.

    A setting's k-th question belongs to row k of its label file; image and object are compared.
    """
    questions: list[Question] = []
    used = dict.fromkeys(labels, 0)
    for row in read_jsonl(file):
        name = row.text("category")
        if name not in labels:
            raise DataError(f"{row.where}: category {shown(name)} has no label file")
        place = used[name]
        if place == len(labels[name]):
            raise DataError(f"{row.where}: more {name} questions than its {place} labels")
        label = labels[name][place]
        asked = (row.text("image"), bare(row.text("text")))
        if asked != (label.image.rpartition("/")[2], bare(label.text)):
            raise DataError(
                f"{row.where}: asks {shown(asked[1])} of {cut(asked[0])}, {name} label "
                f"{place + 1} is for {shown(bare(label.text))} of {cut(label.image)}; "
                "mixed versions of POPE"
            )
        questions.append(label)
        used[name] += 1
    for name, rows in labels.items():
        if used[name] != len(rows):
            raise DataError(
                f"{file}: {used[name]} {name} questions for {len(rows)} labels; mixed versions"
            )
    return questions
