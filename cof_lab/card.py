"""The embedded model's card: what was measured, which release gates are met, how to repeat it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.analyse.statistics import FEWEST, Estimate
from cof.analyse.tables import Number
from cof.files import write_whole
from cof_lab.questions import WORD_KINDS, YES_NO_KINDS

Examination = dict[str, dict[str, dict[str, Estimate]]]
SURE = ("existence", "color", "OCR", "what_color", "what_shape", "what_digit")
HARD = ("position", "count")


@dataclass(frozen=True)
class Gate:
    """One release gate: what, the least (and most) allowed, and what was measured."""

    what: str
    low: float
    high: float
    score: Estimate

    @property
    def met(self) -> bool:
        """The point estimate lies in the allowed range."""
        return self.low <= self.score.value <= self.high

    def __str__(self) -> str:
        allowed = f">= {self.low:.2f}" if self.high >= 1 else f"{self.low:.2f}-{self.high:.2f}"
        verdict = "met    " if self.met else "NOT MET"
        return f"{verdict}  {self.what}: {as_text(self.score)} (gate {allowed})"


def as_text(score: Estimate) -> str:
    """`0.987 [0.980, 0.994]`."""
    return str(Number(score, digits=3))


def gates(report: Examination) -> list[Gate]:
    """The release gates, declared before training; the plain model on the test split, no CoF."""
    found = [
        Gate(f"hit@.5 of its own boxes, {name}", low, 1.0, report[name]["hit"]["all"])
        for name, low in (("easy", 0.95), ("fine", 0.8), ("crowded", 0.8))
    ]
    easy = report["easy"]["accuracy"]
    found += [Gate(f"accuracy, easy, {kind}", 0.95, 1.0, easy[kind]) for kind in SURE]
    found += [Gate(f"accuracy, easy, {kind}", 0.80, 1.0, easy[kind]) for kind in HARD]
    found += [
        Gate(f"accuracy, {name}: room to improve", 0.55, 0.85, report[name]["accuracy"]["all"])
        for name in ("fine", "crowded")
    ]
    return found


def write_card(path: Path, report: Examination, reworded: Examination, scenes: int) -> None:
    """Fill the part between the two marks of a model card (the rest is written by hand).

    The same numbers go to card.json beside it, with all digits.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else f"{START}\n{END}\n"
    before, rest = text.split(START)
    _, after = rest.split(END)
    body = "\n".join(_body(report, reworded, scenes))
    write_whole(path, f"{before}{START}\n{body}\n{END}{after}")
    content = {"scenes": scenes, "test": _plain(report), "reworded": _plain(reworded)}
    write_whole(path.parent / "card.json", json.dumps(content, indent=1) + "\n")


START, END = "<!-- measured: cof tiny card -->", "<!-- end of measured -->"


def _plain(report: Examination) -> dict[str, Any]:
    return {
        difficulty: {
            name: {kind: dataclasses.asdict(score) for kind, score in kinds.items()}
            for name, kinds in metrics.items()
        }
        for difficulty, metrics in report.items()
    }


def _body(report: Examination, reworded: Examination, scenes: int) -> Iterator[str]:
    yield (
        f"{scenes} test scenes of each difficulty; mean [95 % interval over scenes]; too few: "
        f"under {FEWEST} scenes, or all alike."
    )
    for name, title in (
        ("accuracy", "Answers (greedy, exact match)"),
        ("hit", "Its own boxes: all of a question's boxes found at IoU 0.5"),
        ("iou", "Mean IoU of its own boxes"),
    ):
        yield f"\n**{title}**\n"
        yield from _table(report, name)
    absent = [f"{d} {as_text(report[d]['absent']['all'])}" for d in report]
    yield f'\nAsked to locate what is absent, it says so (`{{"bbox": []}}`): {", ".join(absent)}.'
    held = reworded["easy"]
    yield (
        f"\nWordings held out of training, easy: accuracy {as_text(held['accuracy']['all'])}, "
        f"hit@.5 {as_text(held['hit']['all'])}."
    )
    yield "\n**Release gates**\n\n| gate | allowed | measured | n | |\n|---|---|---|---|---|"
    for gate in gates(report):
        allowed = f"≥ {gate.low:.2f}" if gate.high >= 1 else f"{gate.low:.2f}–{gate.high:.2f}"
        verdict = "met" if gate.met else "**not met**"
        yield f"| {gate.what} | {allowed} | {as_text(gate.score)} | {gate.score.n} | {verdict} |"


def _table(report: Examination, name: str) -> Iterator[str]:
    yield "| | " + " | ".join(report) + " |\n|---|" + "---|" * len(report)
    for kind in (*YES_NO_KINDS, *WORD_KINDS, "all"):
        cells = [report[d][name].get(kind) for d in report]
        if any(cells):
            yield (
                f"| {kind} | " + " | ".join(as_text(cell) if cell else "–" for cell in cells) + " |"
            )
