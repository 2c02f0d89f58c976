"""What full benchmark runs should cost on 1, 8 and 64 GPUs: arithmetic, not a run.

    python scripts/run_cost.py

One batch of B questions with q questions an image takes

    B * (look / q + p * (prefix / q + coarse + question + fine)) + d * (reply + 2 * answer)

seconds where plain answers and CoF's are asked for, and
B * (look / q + p * (prefix / q + question)) + d * answer for plain answers alone. N questions are
ceil(N / B) batches, which are dealt whole, so the busiest of G GPUs has ceil(ceil(N / B) / G).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds on one H100, random weights of LLaVA-1.5-7B's shape in float16, batches of 32.

    Attributes:
        name: of the row.
        look: an image, preprocessing and vision tower.
        step: a decode step of the whole batch.
        position: one position of one row's prefill.
    """

    name: str
    look: float
    step: float
    position: float = 0.610 / 32 / 626  # 610 ms for 32 rows of 626 positions


MEASURED = Costs("as measured", look=0.496 / 32, step=0.0287)
CAPTURED = Costs("captured step", look=0.001, step=0.0131)
"""The step as a CUDA graph, measured; `look` is not: it assumes that decoding and resizing pictures
on other threads hides all but the tower's arithmetic."""

PREFIX, COARSE, QUESTION = 601, 43, 25
"""Positions of system prompt and image, of the coarse question, of the question."""
FINE = {"all": 327, "text": 25}
"""Positions that the fine pass computes: with scope `all` from the first highlighted key on, here
the middle of the image, with scope `text` the question alone."""
REPLY, ANSWER = 25, 2
"""Decode steps of the coarse reply, which ends at its box, and of an answer."""
BATCH = 32
GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Asked:
    """A benchmark's questions and the images that they share."""

    name: str
    questions: int
    images: int


BENCHES = (
    Asked("MME", 2374, 1187),
    Asked("POPE, three settings", 9000, 500),
    Asked("MMBench dev, every rotation", 4377, 1176),
)


def batch_seconds(costs: Costs, asked: Asked, scope: str) -> float:
    """Seconds of one full batch; `scope` is `plain` or one of `FINE`."""
    each = asked.questions / asked.images
    own, steps = QUESTION, ANSWER
    if scope != "plain":
        own, steps = COARSE + QUESTION + FINE[scope], REPLY + 2 * ANSWER
    return BATCH * (costs.look / each + costs.position * (PREFIX / each + own)) + costs.step * steps


def seconds(costs: Costs, asked: Asked, scope: str, gpus: int) -> float:
    """Seconds until the busiest GPU has answered its last batch; loading is not in it."""
    batches = math.ceil(asked.questions / BATCH)
    return math.ceil(batches / gpus) * batch_seconds(costs, asked, scope)


def shown(value: float) -> str:
    """`4.5 s`, `45 s`, `3.2 min`."""
    if value >= 100:
        return f"{value / 60:.1f} min"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


NAMES = {"plain": "plain alone", "all": "plain and CoF `all`", "text": "plain and CoF `text`"}


def table() -> str:
    """The table as Markdown: a row for what is asked, columns for inputs and numbers of GPUs."""
    ways = [(costs, count) for costs in (MEASURED, CAPTURED) for count in GPUS]
    head = ["benchmark", "questions", "answers"]
    head += [f"{costs.name}: {count} GPU{'s' * (count > 1)}" for costs, count in ways]
    rows: list[Sequence[str]] = [head, ["---"] * len(head)]
    groups: dict[str, Sequence[Asked]] = {one.name: [one] for one in BENCHES}
    for title, group in {**groups, "all three": BENCHES}.items():
        for scope, name in NAMES.items():
            times = (
                shown(sum(seconds(costs, one, scope, count) for one in group))
                for costs, count in ways
            )
            rows.append([title, str(sum(one.questions for one in group)), name, *times])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
