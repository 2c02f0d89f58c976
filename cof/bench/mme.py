"""MME: fourteen yes/no subtasks, two questions an image (arXiv 2306.13394).

Reads the release (one folder a subtask; images beside their texts, or in `images/` and
`questions_answers_YN/`) and asks as LLaVA does: the question without "Please answer yes or no.",
then LLaVA's line. Scores as the release's `calculation.py` does: a subtask scores 100 times the
share of right answers plus 100 times the share of images with both answers right; perception and
cognition are plain sums over their subtasks.

Two deviations from the published tools, neither of which changes a score: questions are paired by
their image (published: consecutive lines), and a TAB or newline in an answer becomes a space when
it is exported (published: the converter writes a file that the scorer then rejects).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cof.bench import _mme_files
from cof.bench._mme_files import COGNITION, PERCEPTION, RELEASE_SUFFIX, SUBTASKS
from cof.bench.common.answers import (
    Answers,
    Given,
    Said,
    add_up,
    llava_answer,
    match_answers,
    need_truth,
)
from cof.bench.common.containers import Held, held
from cof.bench.common.files import read_jsonl, write_jsonl, write_text
from cof.bench.common.finding import folder_of, with_llava
from cof.bench.common.tally import Mark, Part, Tally, number_of, scored
from cof.files import Folder
from cof.prompts import SHORT_ANSWER
from cof.types import Question

VERSION = "1"
SOURCE = "github.com/BradyFU/Awesome-Multimodal-Large-Language-Models (Evaluation, MME)"
KNOWN_MD5 = {"MME.tsv": ("b36b43c3f09801f5d368627fb92187c3",)}


@dataclass(frozen=True)
class Config:
    """Where MME is.

    Attributes:
        root: the release folder; lmms-lab's parquet files, or their folder; VLMEvalKit's MME.tsv;
            or LLaVA's llava_mme.jsonl, the release beside it. For scoring alone also the official
            template folder (lines of image, question, Yes|No), or a release without its images.
        questions: LLaVA's llava_mme.jsonl, or "" for the release's own questions and order.
    """

    root: str
    questions: str = ""


def read(config: Config) -> list[Question]:
    """Every question of a release, by subtask in the published order, then by file name.

    A release with some of the subtasks is read as it is; with `questions`, the questions and the
    order of that file.

    Raises:
        DataError: neither release nor table, an image without its text, a text without its image,
            a line that is not question TAB Yes|No, an odd number of questions.
    """
    config = _located(config)
    root, tables = Path(config.root), _held(config)
    if tables is None:
        folder = _mme_files.release_root(root) or root
        found = list(_mme_files.release(folder, root, strict=True))
    else:
        found = list(tables.questions)
    questions = _mme_files.with_regions(found, folder_of(config.root))
    return _mme_files.as_llava(Path(config.questions), questions) if config.questions else questions


def pictures(config: Config) -> Folder:
    """Where the images are: the release, or a table."""
    config = _located(config)
    tables = _held(config)
    return tables.pictures if tables else Path(config.root)


def _located(config: Config) -> Config:
    """Where LLaVA's question file is given, the release beside it."""
    named = with_llava(config)
    if named is config:
        return config
    return replace(named, root=str(_mme_files.release_root(Path(named.root)) or named.root))


def _held(config: Config) -> Held | None:
    """What tables hold, None where there is a release."""
    if _mme_files.release_root(Path(config.root)):
        return None
    return held(_mme_files.READER, config, _mme_files.tables(config.root))


def label(answer: Said) -> str:
    """`yes`, `no` or `other`, as published: lower-cased, not stripped, first four characters."""
    start = (answer or "").lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def yes_no(answer: Said, config: Config | None = None) -> str:
    """`label`; there is one rule."""
    return label(answer)


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of questions a subtask."""
    counts = (60, 60, 60, 60, 294, 340, 400, 400, 400, 40, 140, 40, 40, 40)
    return {name: (count,) for name, count in zip(SUBTASKS, counts, strict=True)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 for the right answer, else 0.0; `other` is wrong."""
    return float(label(answer) == question.reference.lower())


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """The published metrics over the subtasks that are present.

    `acc` and `acc_plus` are shares in [0, 1], `score` is 100 * acc + 100 * acc_plus, `other`
    counts answers that are neither yes nor no. A sum with none of its subtasks is None.
    """
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (subtask, whether neither yes nor no); groups are the two questions of an image."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        return credit(question, answer), (question.category, label(answer) == "other")

    def group(self, question: Question) -> int:
        image, number = _pair(question)
        return number_of(question.category, image, str(number))

    def total(self, part: Part) -> dict[str, Any]:
        present = {subtask for subtask, _ in part.counts}
        rows = _Rows.of(part, [subtask for subtask, _ in self.marks])
        tasks = {name: _subtask(part, rows, name) for name in SUBTASKS if name in present}
        return {
            "benchmark": "mme",
            "version": VERSION,
            "perception": _sum(tasks, PERCEPTION),
            "cognition": _sum(tasks, COGNITION),
            "subtasks": tasks,
            "missing_subtasks": [name for name in SUBTASKS if name not in tasks],
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


class _Rows(NamedTuple):
    """Of all subtasks: right answers, pairs, and pairs that are right."""

    right: Counter[str]
    pairs: Counter[str]
    both: Counter[str]

    @classmethod
    def of(cls, part: Part, subtasks: Sequence[str]) -> _Rows:
        """Count them; `subtasks` are those of the marks."""
        import numpy as np

        names = [*dict.fromkeys(subtasks)]
        order, starts = part.groups()
        task = part.of_marks([names.index(name) for name in subtasks])[order]
        right = part.credits[order]
        if not len(order):
            return cls(Counter(), Counter(), Counter())
        sizes, worst = np.diff([*starts, len(order)]), np.minimum.reduceat(right, starts)
        whole = (task[starts][sizes == 2], worst[sizes == 2])
        counts = (np.bincount(task, right), np.bincount(whole[0]), np.bincount(*whole))
        return cls(*(Counter(dict(zip(names, map(int, one), strict=False))) for one in counts))


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows (name, score, questions): both sums, then the subtasks."""
    tasks = scores["subtasks"]
    rows = []
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if scores[name] is not None:
            rows.append((name, scores[name], sum(tasks[m]["n"] for m in members if m in tasks)))
    return rows + [(name, task["score"], task["n"]) for name, task in tasks.items()]


def ranges(scores: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Bounds of each row of `table`: 0 and 200 points for each subtask that is present."""
    tasks = scores["subtasks"]
    sums = {"perception": PERCEPTION, "cognition": COGNITION} | {name: (name,) for name in tasks}
    return {name: (0.0, 200.0 * sum(one in tasks for one in parts)) for name, parts in sums.items()}


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer file and, in `eval_tool/`, one text a subtask for calculation.py."""
    pairs = list(zip(questions, answers, strict=True))
    rows = [llava_answer(_mme_files.release_path(q), q, a) for q, a in pairs]
    written = [write_jsonl(folder / "llava_mme_answers.jsonl", rows)]
    for name in SUBTASKS:
        lines = [_result_line(q, a) for q, a in _paired(pairs) if q.category == name]
        if lines:
            written.append(write_text(folder / "eval_tool" / f"{name}.txt", "".join(lines)))
    return written


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers of LLaVA (a .jsonl) or of calculation.py (a folder with one text a subtask).

    The first needs ground truth in `config.root`. The second holds its own and is taken as it is,
    lines paired consecutively, unless `config.root` is given too.

    Raises:
        DataError: as `match_answers`, or a file that is neither; names file and line.
    """
    given = list(_mme_files.result_folder(path)) if path.is_dir() else []
    if path.is_dir() and not config.root:
        return Answers([question for question, _, _ in given], [text for _, text, _ in given])
    need_truth(path, config.root, "the MME release or its template folder")
    questions = _mme_files.ground_truth(config.root)
    if config.questions:
        questions = _mme_files.as_llava(Path(config.questions), questions)
    if path.is_dir():
        answers = [
            Given(_mme_files.key(q.category, q.image, q.text), text, at) for q, text, at in given
        ]
    else:
        rows = read_jsonl(path)
        answers = [
            Given(_mme_files.row_key(row, "prompt"), row.text("text"), row.where) for row in rows
        ]
    keys = [_mme_files.key(q.category, q.image, q.text) for q in questions]
    return match_answers(questions, keys, answers, path, allow_missing)


def _subtask(part: Part, rows: _Rows, name: str) -> dict[str, Any]:
    """acc, acc_plus and score of one subtask."""
    n = part.where(lambda mark: mark[0] == name)
    acc = rows.right[name] / n
    acc_plus = rows.both[name] / rows.pairs[name] if rows.pairs[name] else 0.0
    return {
        "n": n,
        "acc": acc,
        "acc_plus": acc_plus,
        "score": 100 * acc + 100 * acc_plus,
        "other": part.counts[name, True],
    }


def _sum(tasks: dict[str, dict[str, Any]], members: Sequence[str]) -> float | None:
    """Sum over the members that are present."""
    present = [tasks[name]["score"] for name in members if name in tasks]
    return add_up(present) if present else None


def _pair(question: Question) -> tuple[str, int]:
    """Which two questions belong together: those of an image, two by two."""
    image, _, number = question.id.rpartition("#")
    return image, (int(number) - 1) // 2


def _paired(rows: Sequence[tuple[Question, str]]) -> list[tuple[Question, str]]:
    """The rows with pairs adjacent, in the order in which pairs first appear."""
    pairs: dict[tuple[str, int], list[tuple[Question, str]]] = defaultdict(list)
    for question, answer in rows:
        pairs[_pair(question)].append((question, answer))
    return [row for pair in pairs.values() for row in pair]


def _result_line(question: Question, answer: str) -> str:
    """Image TAB original question TAB truth TAB answer, separators in the answer made spaces."""
    original = question.text.removesuffix(SHORT_ANSWER) + RELEASE_SUFFIX
    clean = "".join(" " if char in "\t\r\n" else char for char in answer)
    image = PurePosixPath(question.image).name
    return f"{image}\t{original}\t{question.reference}\t{clean}\n"
