"""HallusionBench, arXiv 2310.14566: yes/no questions in which figure and knowledge mislead.

Each question is asked of several versions of a figure, each figure several questions. Three
accuracies: `aAcc` of all answers; `qAcc` of questions, right about every version of the figure;
`fAcc` of figures, all of whose questions are right. As VLMEvalKit scores it without a judge: an
answer says yes or no if one of the two words occurs (`bench.parser`), else it is wrong. The
authors' own script has GPT-4 judge answers, and the 178 questions without an image count in its
`aAcc` and `qAcc`; VLMEvalKit leaves them out, and so do we, since nothing can be located.

The published scripts ask the bare question; LLaVA's line for short answers behind it is ours.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from cof.bench.common.answers import Answers, Given, Said, llava_answer, match_answers, need_truth
from cof.bench.common.containers import Found, Held, Reader, held, id_boxes
from cof.bench.common.files import read_json_rows, write_jsonl, write_text
from cof.bench.common.finding import tables
from cof.bench.common.rows import Row
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Mark, Part, Tally, all_right, left_out, number_of, scored, sizes
from cof.bench.common.yes_no import PARSERS, blank_yes
from cof.errors import DataError, shown
from cof.files import Folder
from cof.prompts import SHORT_ANSWER
from cof.types import Question

VERSION = "1"
SOURCE = "github.com/tianyi-lab/HallusionBench (HallusionBench.json, hallusion_bench.zip)"
KNOWN_MD5 = {"HallusionBench.tsv": ("0c23ac0dc9ef46832d7a24504f2a0c7c",)}
FILE = "HallusionBench.json"

_PARTS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
"""Of a question's id, joined by `_`: VLMEvalKit's index."""


@dataclass(frozen=True)
class Config:
    """Where HallusionBench is and how its answers are read.

    Attributes:
        root: folder of HallusionBench.json and of the images (VD/, VS/, or hallusion_bench/ around
            them); lmms-lab's parquet files, or their folder; or VLMEvalKit's HallusionBench.tsv.
        parser: `word` (VLMEvalKit), `llava` or `strict` (`cof.bench.common.yes_no`).
    """

    root: str
    parser: Literal["word", "llava", "strict"] = "word"


def read(config: Config) -> list[Question]:
    """Every question about an image, in the order of the files.

    Raises:
        DataError: no such file, or a row without question, answer or one of its numbers.
    """
    file = Path(config.root) / FILE
    if file.is_file():
        rows = read_json_rows(file)
        questions = [_question(row) for row in rows if row.values.get("filename")]
    else:
        questions = list(_held(config).questions)
    return id_boxes(questions, config.root)


def pictures(config: Config) -> Folder:
    """Where the images are: around VD/ and VS/, or in a table."""
    root = Path(config.root)
    if not (root / FILE).is_file():
        return _held(config).pictures
    return root / "hallusion_bench" if (root / "hallusion_bench").is_dir() else root


def _held(config: Config) -> Held:
    looked = f"{FILE}, image-*.parquet, HallusionBench.tsv"
    return held(_READER, config, tables("hallusionbench", config.root, looked, [r"(^|/)image$"]))


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Of the release's columns, or of VLMEvalKit's, which has them in its index."""
    for row in rows:
        cells = dict(row.cells)
        if "set_id" not in cells:
            parts = row.text("index").split("_")
            if len(parts) != len(_PARTS):
                raise DataError(f"{row.where}: index {shown('_'.join(parts))}, expected six parts")
            cells |= dict(zip(_PARTS, parts, strict=True))
        cells.setdefault("gt_answer", cells.get("answer"))
        if str(cells.get("visual_input")) != "0":
            yield _question(Row(cells, row.where)), row.picture


_READER = Reader("hallusionbench", _from_rows, ("set_id|index", "question", "gt_answer|answer"))


def _question(row: Row) -> Question:
    truth = _TRUTHS.get(str(row.value("gt_answer")).lower())
    if truth is None:
        raise DataError(f"{row.where}: answer {shown(row.value('gt_answer'))}, expected 0 or 1")
    parts = [row.key(name) for name in _PARTS]
    if any("_" in part for part in parts):
        raise DataError(f"{row.where}: {shown(parts)} cannot be joined by _")
    kind, subject, _, subset, figure, _ = parts
    return Question(
        id="_".join(parts),
        image=_image(row) or f"{kind}/{subject}/{subset}_{figure}.png",
        text=row.asked("question") + SHORT_ANSWER,
        category=f"{kind}/{subject}",
        reference=truth,
    )


def _image(row: Row) -> str:
    """The release's `filename` from VD/ or VS/ on; VLMEvalKit's table has none, but the numbers."""
    name = row.inside("filename") if row.values.get("filename") else ""
    return name.removeprefix("./").removeprefix("hallusion_bench/")


_TRUTHS = {"0": "no", "1": "yes", "no": "no", "yes": "yes"}
_BITS = {"no": "0", "yes": "1"}


def together(question: Question) -> str:
    """The set: its questions are asked of each of its figures."""
    kind, subject, _, subset, _, _ = question.id.split("_")
    return f"{kind}_{subject}_{subset}"


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of questions about an image."""
    return {"": (951,)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 for the right answer, else 0.0."""
    return float(_said(answer, config) == question.reference)


def _said(answer: Said, config: Config | None) -> str:
    return "other" if answer is None else PARSERS[config.parser if config else "word"](answer)


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """The three accuracies, in all and a category and subcategory; shares in [0, 1].

    `fAcc` and `qAcc` leave out figures and questions of which not all is there (`incomplete`), and
    are None where none is left. How much there should be is known from `config.root`; of a folder
    that cannot be read (`unchecked_groups`) every group is taken for complete.
    """
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (`category/subcategory`, unreadable, an empty yes); the group is the figure, the
    number the question of a set, as one that a float holds. Of both it knows how many there are.
    """

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._figures, self._asked = array("i"), array("i")

    @cached_property
    def _whole(self) -> Counter[float] | None:
        """Of each group and number how many the folder has; None where it cannot be read."""
        try:
            questions = read(self.config) if self.config.root else []
        except DataError:
            return None
        pairs = [(self.group(one), self.number(one, None)) for one in questions]
        return Counter(number for pair in pairs for number in pair)

    def add(self, question: Question, answer: Said) -> None:
        super().add(question, answer)
        whole = (self._whole if self.config else None) or Counter()
        self._figures.append(whole[self.group(question)])
        self._asked.append(whole[self.number(question, answer)])

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        lost = _said(answer, self.config) == "other"
        blank = blank_yes(answer, partial(_said, config=self.config))
        return credit(question, answer, self.config), (question.category, lost, blank)

    def group(self, question: Question) -> int:
        kind, subject, _, subset, figure, _ = question.id.split("_")
        return number_of(kind, subject, subset, figure)

    def number(self, question: Question, answer: Said) -> float:
        kind, subject, _, subset, _, asked = question.id.split("_")
        return float(number_of(kind, subject, subset, asked) >> 12)

    def total(self, part: Part) -> dict[str, Any]:
        import numpy as np

        figures = np.maximum(sizes(self.grouped()), self._figures)
        asked = np.maximum(sizes(np.asarray(self.numbers)), self._asked)
        whole = (part.of_answers(figures), part.of_answers(asked))
        kinds = part.of_marks([mark[0] for mark in self.marks])
        broad = part.of_marks([mark[0].partition("/")[0] for mark in self.marks])
        return {
            "benchmark": "hallusionbench",
            "version": VERSION,
            "parser": self.config.parser if self.config else "word",
            "other": part.where(lambda mark: mark[1]),
            **_accuracies(part, whole),
            "categories": _by(part, whole, broad),
            "subcategories": _by(part, whole, kinds),
            **({"unchecked_groups": True} if self.config and self._whole is None else {}),
            **({"blank_yes": blank} if (blank := part.where(lambda mark: mark[2])) else {}),
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def _by(part: Part, whole: Sequence[Any], names: Any) -> dict[str, Any]:
    return {name: _accuracies(part, whole, names == name) for name in sorted({*names.tolist()})}


def _accuracies(part: Part, whole: Sequence[Any], chosen: Any = slice(None)) -> dict[str, Any]:
    """The accuracies of the answers that are `chosen`; `whole` has the sizes of both groups."""
    right = part.credits[chosen]
    figures, asked = (
        all_right(groups[chosen], right, size[chosen])
        for groups, size in zip((part.group_numbers, part.numbers), whole, strict=True)
    )
    return {
        "n": len(right),
        "aAcc": float(right.mean()) if len(right) else 0.0,
        "fAcc": figures.share,
        "qAcc": asked.share,
        **left_out(fAcc=figures.incomplete, qAcc=asked.incomplete),
    }


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: the three accuracies of all, then of each subcategory; in percent."""
    names = ("aAcc", "fAcc", "qAcc")
    parts = {"": scores} | {f"{kind} ": part for kind, part in scores["subcategories"].items()}
    return [
        (kind + name, 100 * part[name], part["n"])
        for kind, part in parts.items()
        for name in names
        if part[name] is not None
    ]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer form, and HallusionBench_result.json, which the authors' script judges
    (`model_prediction`).
    """
    pairs = list(zip(questions, answers, strict=True))
    results = [
        dict(zip(_PARTS, q.id.split("_"), strict=True))
        | {"question": q.text.removesuffix(SHORT_ANSWER), "gt_answer": _BITS[q.reference]}
        | {"filename": f"./hallusion_bench/{q.image}", "model_prediction": answer}
        for q, answer in pairs
    ]
    return [
        write_jsonl(folder / "answers.jsonl", (llava_answer(q.id, q, a) for q, a in pairs)),
        write_text(folder / "HallusionBench_result.json", json.dumps(results, indent=1) + "\n"),
    ]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Answers in LLaVA's form, or a HallusionBench_result.json; questions are those of `root`.

    Raises:
        DataError: as `match_answers`; no right answers.
    """
    need_truth(path, config.root, f"the folder of {FILE}")
    questions = read(config)
    given = []
    for row in read_json_rows(path):
        if "model_prediction" in row.values:
            if row.values.get("filename"):
                name = "_".join(row.key(part) for part in _PARTS)
                given.append(Given(name, row.text("model_prediction"), row.where))
        else:
            given.append(Given(row.key("question_id"), row.text("text"), row.where))
    return match_answers(questions, [one.id for one in questions], given, path, allow_missing)
