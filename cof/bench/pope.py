"""POPE, arXiv 2305.10355: is a named object in the image?

Three settings by where the absent objects come from: `random`, `popular` (frequent) and
`adversarial` (seen together with what is there). The label files exist in two versions, told apart
by the random setting: 2910 questions (behind LLaVA's published 85.9) and 3000; scores name theirs.
LLaVA's single number is the mean of the three F1, which is not the F1 of all answers pooled.

Peers parse answers in incompatible ways, so the scores name the parser (`PARSERS`); counts are of
predicted yes: an answer that a parser cannot read is wrong, and no prediction of either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cof.bench import _pope_files
from cof.bench._pope_files import FIRST_ID, SETTINGS
from cof.bench.common.answers import (
    Answers,
    Given,
    Said,
    add_up,
    llava_answer,
    match_answers,
    unique,
    with_boxes,
)
from cof.bench.common.containers import Held, held
from cof.bench.common.files import read_jsonl, write_jsonl
from cof.bench.common.finding import folder_of, with_llava
from cof.bench.common.rows import Row
from cof.bench.common.tally import Mark, Part, Tally, scored
from cof.bench.common.yes_no import PARSERS, blank_yes
from cof.errors import DataError, shown
from cof.files import Folder
from cof.prompts import SHORT_ANSWER
from cof.types import Question

VERSION = "2"  # 1 had a parser `word` that knew more punctuation than VLMEvalKit
SOURCE = "github.com/RUCAIBox/POPE (output/coco); images: COCO val2014, cocodataset.org"
KNOWN_MD5 = {"POPE.tsv": ("c12f5acb142f2ef1f85a26ba2fbe41d5",)}
METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")


@dataclass(frozen=True)
class Config:
    """Where POPE is and how its answers are read.

    Attributes:
        root: folder of the label files, or the folder above (`coco/`, `output/coco/`); lmms-lab's
            parquet files, or their folder; VLMEvalKit's POPE.tsv; or LLaVA's llava_pope_test.jsonl,
            the label files beside it.
        questions: LLaVA's llava_pope_test.jsonl, or "" for the label files' own order.
        images: folder of the images, relative to `root`.
        source: which label files: `<source>_pope_<setting>.json`.
        parser: `llava` (published), `strict` (lmms-eval) or `word` (VLMEvalKit).
    """

    root: str
    questions: str = ""
    images: str = "val2014"
    source: Literal["coco", "aokvqa", "gqa"] = "coco"
    parser: Literal["llava", "strict", "word"] = "llava"


def read(config: Config) -> list[Question]:
    """Every question of the settings that are there, by setting in LLaVA's order.

    Raises:
        DataError: no label file, a row without image, text or a label yes|no, or a question file
            that does not belong to the label files.
    """
    config = with_llava(config)
    labels = _labels(config)
    if config.questions:
        questions = _pope_files.as_llava(Path(config.questions), labels)
    else:
        questions = [question for rows in labels.values() for question in rows]
    keys = [(q.image.rpartition("/")[2], q.text.removesuffix(SHORT_ANSWER)) for q in questions]
    return with_boxes(questions, folder_of(config.root), keys, _region_key)


def pictures(config: Config) -> Folder:
    """Where the images are: below the label files, or in a table."""
    config = with_llava(config)
    return _held(config).pictures if _own(config) is None else Path(config.root)


def _labels(config: Config) -> dict[str, list[Question]]:
    own = _own(config)
    if own is not None:
        return own
    found = _held(config).questions
    return {name: [one for one in found if one.category == name] for name in FIRST_ID}


def _own(config: Config) -> dict[str, list[Question]] | None:
    return _pope_files.labelled(Path(config.root), config.source, config.images)


def _held(config: Config) -> Held:
    tables = _pope_files.tables(config.root, config.source)
    return held(_pope_files.READER, config, tables)


def _region_key(row: Row) -> tuple[str, str]:
    return row.text("image").rpartition("/")[2], row.text("question")


def yes_no(answer: Said, config: Config | None = None) -> str:
    """`yes`, `no` or `other` by the chosen parser."""
    return _parser(config)(answer)


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of questions a category, "" for all."""
    return {"adversarial": (3000,), "random": (2910, 3000), "popular": (3000,)}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 for the right answer, else 0.0."""
    return float(_parser(config)(answer) == question.reference)


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Counts and metrics a setting, their unweighted mean, and the metrics of all pooled.

    `data` names the version: `pope-2910` and `pope-3000` by the size of the random setting, all
    settings complete; anything else is `pope-other`. All metrics are shares in [0, 1]. `blank_yes`
    counts empty answers that the parser takes for a yes, where there are any.
    """
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (setting, truth, prediction, whether an empty answer is that prediction)."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        parse = _parser(self.config)
        said, blank = parse(answer), blank_yes(answer, parse)
        return float(said == question.reference), (
            *(question.category, question.reference, said, blank),
        )

    def total(self, part: Part) -> dict[str, Any]:
        pooled: Counter[Mark] = Counter()
        by_setting: dict[str, Counter[Mark]] = {name: Counter() for name in SETTINGS}
        for (name, truth, said, _), count in part.counts.items():
            by_setting.setdefault(name, Counter())[truth, said] += count
            pooled[truth, said] += count
        settings = {name: _metrics(by_setting[name]) for name in SETTINGS if by_setting[name]}
        blank = part.where(lambda mark: mark[3])
        return {
            "benchmark": "pope",
            "version": VERSION,
            "data": _data_version({name: one["n"] for name, one in settings.items()}),
            "parser": self.config.parser if self.config else "llava",
            "mean": {
                metric: add_up(one[metric] for one in settings.values()) / len(settings)
                for metric in METRICS
            },
            "pooled": _metrics(pooled),
            "settings": settings,
            **({"blank_yes": blank} if blank else {}),
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: mean and pooled F1, then every metric of every setting; in percent."""
    n = scores["pooled"]["n"]
    rows = [(f"{kind} f1", 100 * scores[kind]["f1"], n) for kind in ("mean", "pooled")]
    for name, setting in scores["settings"].items():
        rows += [(f"{name} {metric}", 100 * setting[metric], setting["n"]) for metric in METRICS]
    return rows


def _parser(config: Config | None) -> Callable[[Said], str]:
    """The chosen parser; a question that failed has no answer to parse."""
    parse = PARSERS[config.parser if config else "llava"]
    return lambda answer: "other" if answer is None else parse(answer)


def _metrics(counts: Mapping[Mark, int]) -> dict[str, Any]:
    """Counts and metrics of how often each (truth, prediction) is; a share of nothing is 0."""
    count = {
        name: counts.get(pair, 0)
        for name, pair in {
            "tp": ("yes", "yes"),
            "fp": ("no", "yes"),
            "tn": ("no", "no"),
            "fn": ("yes", "no"),
        }.items()
    }
    n = sum(counts.values())
    yes = sum(often for (truth, _), often in counts.items() if truth == "yes")
    precision = _share(count["tp"], count["tp"] + count["fp"])
    recall = _share(count["tp"], yes)
    return {
        "n": n,
        **count,
        "other": sum(often for (_, said), often in counts.items() if said == "other"),
        "accuracy": _share(count["tp"] + count["tn"], n),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_ratio": _share(count["tp"] + count["fp"], n),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _data_version(counts: dict[str, int]) -> str:
    """The version of the label files, by their sizes."""
    if (counts.get("adversarial"), counts.get("popular")) != (3000, 3000):
        return "pope-other"
    return {2910: "pope-2910", 3000: "pope-3000"}.get(counts.get("random", 0), "pope-other")


# --- files -----------------------------------------------------------------------------------


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer file and, a setting, the official file of question and answer."""
    pairs = list(zip(questions, answers, strict=True))
    rows = [
        llava_answer(_pope_files.llava_id(question), question, answer) for question, answer in pairs
    ]
    written = [write_jsonl(folder / "llava_pope_answers.jsonl", rows)]
    for name in SETTINGS:
        given = [
            {"question": question.text.removesuffix(SHORT_ANSWER), "answer": answer}
            for question, answer in pairs
            if question.category == name
        ]
        if given:
            written.append(write_jsonl(folder / f"pope_{name}.json", given))
    return written


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """LLaVA's answers; `config.root` holds the label files.

    Answers are matched by question_id: through the question file, else by LLaVA's numbering. Where
    an answer repeats its prompt, that must be the question.

    Raises:
        DataError: as `match_answers`; another version's labels; no label files.
    """
    if not config.root:
        raise DataError(f"{path}: needs --labels, the folder of {config.source}_pope_*.json")
    config = with_llava(config)
    questions = read(config)
    if config.questions:
        keys = [row.key("question_id") for row in read_jsonl(Path(config.questions))]
    else:
        keys = [str(_pope_files.llava_id(question)) for question in questions]
    unique(keys, config.questions)
    given = _given(read_jsonl(path), dict(zip(keys, questions, strict=True)))
    return match_answers(questions, keys, given, path, allow_missing)


def _given(rows: Sequence[Row], asked: Mapping[str, Question]) -> list[Given]:
    """The answers of LLaVA's rows, each prompt compared with the question of that id."""
    given = []
    for row in rows:
        key = row.key("question_id")
        prompt = row.text("prompt") if "prompt" in row.values and key in asked else None
        if prompt is not None and _pope_files.bare(prompt) != _pope_files.bare(asked[key].text):
            raise DataError(
                f"{row.where}: asks {shown(prompt)}, the labels have {shown(asked[key].text)}; "
                "these are answers to another version of POPE (random has 2910 or 3000 questions)"
            )
        given.append(Given(key, row.text("text"), row.where))
    return given
