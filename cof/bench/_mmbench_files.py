"""MMBench: from table rows to questions and LLaVA's answer rows, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cof.bench._mmbench_table import TableLine, read_table
from cof.bench.common.answers import Answers, Given, llava_answer, match_answers
from cof.bench.common.choice import LETTERS, ask
from cof.bench.common.files import read_jsonl
from cof.bench.common.finding import mmbench_tsvs, owner, shards, unknown
from cof.bench.common.rows import Row
from cof.errors import DataError, shown
from cof.prompts import OPTION_LETTER, OPTION_LETTER_CN
from cof.types import Question

_TRUTH = ("answer", "label", "gt", "gt_answer", "ground_truth", "reference")
"""Names under which an answer file may carry the right letter itself."""


def tables(root: str, file: str = "") -> list[Path]:
    """The files of one table: `root` itself, `file` inside it, or the newest there.

    The newest is English before Chinese, of the dev split before others, V1.1 before the tables of
    20231003 (VLMEvalKit's, too, which have no date) and 20230712; then lmms-lab's parquet files.

    Raises:
        DataError: there is none.
    """
    path = Path(root)
    if path.is_file() and owner(path) in ("", "mmbench"):
        return [path]
    if path.is_dir() and (path / file).is_file():
        return [path / file]
    there = mmbench_tsvs(path) if not file else []
    if there:
        return [max(there, key=_newness)]
    wanted = f"(^|/){re.escape(file) if file else 'en/dev'}$"
    found = shards("mmbench", root, wanted, "(^|/)dev$")
    if not found:
        looked = file or "mmbench*.tsv, MMBench_*.tsv, en/dev-*.parquet"
        raise unknown("mmbench", root, looked)
    return found


def _newness(path: Path) -> tuple[bool, bool, bool, str]:
    name = path.stem.lower()
    date = re.search(r"\d{8}", name)
    dev, english = "dev" in name, not _OTHER_LANGUAGE.search(name)
    return english, dev, "v11" in name, date[0] if date else "20231003"


_CHINESE_NAME = re.compile(r"(?<![a-z])cn(?![a-z])|ccbench", re.IGNORECASE)
_OTHER_LANGUAGE = re.compile(r"(?<![a-z])(cn|ar|pt|ru|tr)(?![a-z])|ccbench")
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


def is_chinese(path: Path, lines: Sequence[TableLine]) -> bool:
    """Whether a table asks in Chinese, by its name or by most of its questions."""
    name = f"{path.parent.name}/{path.stem}" if path.suffix == ".parquet" else path.stem
    asked = [line.cells.get("question", "") for line in lines]
    count = sum(_CHINESE.search(text) is not None for text in asked)
    return _CHINESE_NAME.search(name) is not None or 2 * count > len(asked)


def questions(
    line: TableLine, image: str, rotate: bool, chinese: bool = False
) -> Iterator[Question]:
    """The question of one row; with `rotate` one for each rotation of its options.

    Under a hint the question has a `core`: the published rule, a text's first line, would ask the
    coarse stage about the hint.

    Raises:
        DataError: no question, fewer than two options, or an answer that is no option's letter.
    """
    if "question" not in line.cells or len(line.options) < 2:
        raise DataError(f"{line.where}: row {line.index} lacks its question or options")
    stem = "\n".join(line.cells[name] for name in ("hint", "question") if name in line.cells)
    suffix = OPTION_LETTER_CN if chinese else OPTION_LETTER
    for turn in range(len(line.options) if rotate else 1):
        bare = _bare(line, turn, line.options)
        core = line.cells["question"] if "hint" in line.cells else ""
        yield replace(bare, image=image, text=ask(stem, bare.options, suffix), core=core)


def _bare(line: TableLine, turn: int, options: Sequence[str]) -> Question:
    """Id, category, reference and options of a row, its options rotated `turn` places."""
    answer = line.cells.get("answer", "")
    if answer and answer not in LETTERS[: len(options)]:
        raise DataError(
            f"{line.where}: answer {shown(answer)} is none of the {len(options)} options"
        )
    place = (LETTERS.index(answer) - turn) % len(options) if answer else 0
    groups = [line.cells.get(name, "") for name in ("l2-category", "category")]
    return Question(
        id=str(line.index) if turn == 0 else f"{line.index}r{turn}",
        image="",
        text="",
        category="/".join(groups) if any(groups) else "",
        reference=LETTERS[place] if answer else "",
        options=(*options[turn:], *options[:turn]),
    )


def index_of(question: Question) -> int:
    """The table's index of a question, whichever rotation of its row it is."""
    return int(question.id.partition("r")[0])


def llava_row(question: Question, answer: str) -> dict[str, Any]:
    """A row as model_vqa_mmbench.py writes it; its prompt has no instruction."""
    turn = int(question.id.partition("r")[2] or 0)
    row = llava_answer(index_of(question), question, answer)
    prompt = question.text.removesuffix(OPTION_LETTER).removesuffix(OPTION_LETTER_CN)
    letters = LETTERS[: len(question.options)]
    head = {"question_id": row.pop("question_id"), "round_id": turn, "prompt": prompt}
    middle = {
        "text": answer,
        "options": list(question.options),
        "option_char": [*letters[turn:], *letters[:turn]],
    }
    return {**head, **middle, **{key: row[key] for key in ("answer_id", "model_id", "metadata")}}


def read_answers(path: Path, root: str, file: str, allow_missing: bool) -> Answers:
    """See `cof.bench.mmbench.read_answers`."""
    rows = _sheet_rows(path) if path.suffix in (".xlsx", ".tsv") else read_jsonl(path)
    given = [Given(_key(row), row.text("text"), row.where) for row in rows]
    if not root and all(any(key in row.values for key in _TRUTH) for row in rows):
        asked = [_own_question(row) for row in rows]
        return match_answers(asked, [_key(row) for row in rows], given, path, allow_missing)
    lines = read_table(*(tables(root, file) if root else [_nearby_table(path)]))
    by_key = {_key(row): row for row in rows}
    turns = 1 + max(_turn(row) for row in rows)
    asked = []
    for line in lines:
        options = line.options or _options(by_key.get((line.index, 0)))
        if "answer" not in line.cells:
            raise DataError(f"{line.where}: row {line.index} has no answer to score against")
        asked += [_bare(line, turn, options) for turn in range(len(options) if turns > 1 else 1)]
    keys = [(index_of(question), int(question.id.partition("r")[2] or 0)) for question in asked]
    for key, question in zip(keys, asked, strict=True):
        _same_options(by_key.get(key), question)
    return match_answers(asked, keys, given, path, allow_missing)


def _turn(row: Row) -> int:
    """LLaVA's round_id, 0 where there is none."""
    return row.number("round_id") if "round_id" in row.values else 0


def _key(row: Row) -> tuple[int, int]:
    """(index, rotation) of an answer row."""
    return row.number("question_id"), _turn(row)


def _options(row: Row | None) -> tuple[str, ...]:
    """Options that an answer row repeats, in the table's order; four where it has none."""
    found = row.values.get("options") if row else None
    return tuple(map(_cell, found)) if isinstance(found, list) else tuple("????")


def _own_question(row: Row) -> Question:
    """The question of an answer row that carries its right letter."""
    letter = next(row.text(key) for key in _TRUTH if key in row.values)
    index, turn = _key(row)
    groups = {key: _cell(row.values.get(key, "")) for key in ("l2-category", "category")}
    line = TableLine(index, {"answer": letter, **groups}, row.where)
    options = _options(row)
    if not options:
        raise DataError(f"{row.where}: no options")
    back = (len(options) - turn) % len(options)
    return _bare(line, turn, (*options[back:], *options[:back]))


def _same_options(row: Row | None, question: Question) -> None:
    """Refuse answers that were given to other options than the table's."""
    found = row.values.get("options") if row else None
    if (
        row
        and isinstance(found, list)
        and [_plain(o) for o in found] != [_plain(option) for option in question.options]
    ):
        raise DataError(
            f"{row.where}: options {shown(found)} of {question.id}, the table has "
            f"{shown(list(question.options))}; these are answers to another version of MMBench"
        )


def _plain(option: object) -> str:
    return " ".join(_cell(option).split())


def _cell(value: object) -> str:
    """A value that a row repeats from the table, which may have become a number on the way."""
    return str(value) if isinstance(value, str | int | float) else shown(value)


def _sheet_rows(path: Path) -> list[Row]:
    """A sheet's rows in the shape of LLaVA's answer rows."""
    rows = []
    for line in read_table(path):
        if "prediction" not in line.cells:
            raise DataError(f"{line.where}: row {line.index} has no prediction")
        options = {"options": list(line.options)} if line.options else {}
        kept = {
            key: line.cells[key]
            for key in ("answer", "category", "l2-category")
            if key in line.cells
        }
        row = {"question_id": line.index, "text": line.cells["prediction"], **options, **kept}
        rows.append(Row(row, line.where))
    return rows


def _nearby_table(path: Path) -> Path:
    """The TSV of LLaVA's layout: mmbench/<split>.tsv for mmbench/answers/<split>/<model>.jsonl."""
    for folder in path.resolve().parents[:3]:
        named = folder / f"{path.resolve().parent.name}.tsv"
        found = [named] if named.is_file() else sorted(folder.glob("*mmbench*.tsv"))
        if len(found) == 1:
            return found[0]
    raise DataError(f"{path}: holds no right answers; give --tsv, the MMBench table it answers")
