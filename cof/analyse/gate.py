"""The doubt gate measured: who was asked, what changed, what was saved; and a threshold chosen.

A question keeps its plain answer where that answer's margin (`cof.types.Answer.margin`) is above
the threshold. What is counted is recorded of each question (`cof.types.Gated`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cof.analyse.compare import changes
from cof.analyse.gather import IMAGES, Wanted, gather
from cof.analyse.localisation import mean_of_known
from cof.analyse.passes import has_both, scored_pass
from cof.analyse.tables import INTERVALS, Cell, Table, percent
from cof.errors import RunError
from cof.store.run import Run
from cof.types import Result

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("margin", "asked", "forwards", "then_forwards", "positions", "then_positions")


class _Columns:
    """What `Gated` says of each question, NaN throughout where there was no gate."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {name: array("d") for name in COLUMNS}

    def add(self, result: Result) -> None:
        gate = result.gate
        values = [math.nan] * len(COLUMNS)
        if gate is not None:
            margin = math.nan if gate.margin is None else gate.margin
            values = [margin, float(gate.asked), *gate.forwards, *gate.positions]
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def found(self) -> dict[str, np.ndarray]:
        import numpy as np

        return {name: np.asarray(column) for name, column in self._columns.items()}


GATE: Wanted = {"gate": _Columns}


def gate_table(runs: Sequence[Run], names: Sequence[str]) -> Table | None:
    """Who was asked, what changed, what was computed; None without a gated run.

    `saved` is 1 - (p + s a) / (p + a), where p is the mean number of decoder positions of a plain
    answer, s the share asked, a the mean of locating and refining over those asked.
    """
    rows = [
        _row(run, name) for run, name in zip(runs, names, strict=True) if run.config.get("gate")
    ]
    if not rows:
        return None
    head = ["run", "threshold, nats", "chosen on", "n", "asked, %", "gained", "lost"]
    head += ["forwards a question", "positions a question", "positions saved, %"]
    caption = (
        "The doubt gate: surer plain answers are kept, the others located and refined; forwards "
        "and decoder positions: of the plain answer + of the rest, a question's share of its "
        "batch; saved: of plain and CoF for every question, if those kept had cost what those "
        f"asked did; {INTERVALS}"
    )
    return Table("gate", caption, tuple(head), tuple(rows))


def _row(run: Run, name: str) -> tuple[Cell, ...]:
    gate = run.config["gate"]
    found, images = gather(run.results, {**GATE, **IMAGES})
    asked = mean_of_known(found["asked"], images, 1.0)
    changed: tuple[Cell, Cell] = (None, None)
    if has_both(run):
        gained, lost = changes(scored_pass(run, "plain"), scored_pass(run, "cof"))
        changed = len(gained), len(lost)
    threshold = gate["threshold"]
    return (
        name,
        "none, all are asked" if threshold is None else f"{threshold:g}",
        gate["chosen_on"][:8] or "not recorded",
        len(images),
        percent(asked) if asked else None,
        *changed,
        *(_sum(found[key], found[f"then_{key}"]) for key in ("forwards", "positions")),
        _saved(found),
    )


def _sum(first: np.ndarray, then: np.ndarray) -> str:
    import numpy as np

    return f"{np.nanmean(first):.1f} + {np.nanmean(then):.1f}"


def _saved(found: dict[str, np.ndarray]) -> str:
    """Share of the decoder positions that were saved, in per cent, see `gate_table`."""
    import numpy as np

    asked = found["asked"] == 1
    if not asked.any():
        return "nobody was asked"
    plain, rest = np.nanmean(found["positions"]), found["then_positions"][asked].mean()
    spent = plain + np.nanmean(found["then_positions"])
    return f"{100 * (1 - spent / (plain + rest)):.1f}"


class Chosen(NamedTuple):
    """A threshold and what it does to the questions that chose it.

    Attributes:
        threshold: nats.
        asked: share of the questions at or below it.
        plain: mean credit where none is asked; likewise `gated` at the threshold, `all`.
        n: questions; those of which a pass failed are left out.
    """

    threshold: float
    asked: float
    plain: float
    gated: float
    all: float
    n: int


def choose(
    margins: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    within: float = 0.005,
    share: float | None = None,
) -> Chosen:
    """The threshold that asks the fewest, and is within so much of the best.

    Args:
        margins: of the plain answers, at least one.
        before: credit of the plain answers, in [0, 1].
        after: credit of the answers with a region.
        within: most mean credit given away against the best of all thresholds.
        share: ask about this share instead, whatever their credit.
    """
    import numpy as np

    order = np.argsort(margins, kind="stable")
    sorted_, n = np.asarray(margins, np.float64)[order], len(margins)
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    credit = first.mean() + np.concatenate([[0.0], np.cumsum((second - first)[order])]) / n
    can = np.concatenate([[sorted_[0] > 0], sorted_[1:] > sorted_[:-1], [True]])  # ties stay one
    counts = np.flatnonzero(can)
    if share is not None:
        count = int(counts[np.abs(counts - share * n).argmin()])
    else:
        good = credit[counts] >= credit[counts].max() - within - 1e-12
        count = int(counts[good.argmax()])
    ends = np.concatenate([[0.0], sorted_, [sorted_[-1] + 1]])
    threshold = round(float((ends[count] + ends[count + 1]) / 2), 7)
    return Chosen(threshold, count / n, credit[0], float(credit[count]), float(credit[-1]), n)


def choose_on(run: Run, within: float, share: float | None) -> Chosen:
    """`choose` on the records of a run in which every question was asked.

    Raises:
        RunError: a run that recorded no margins, or that kept some answers.
    """
    import numpy as np

    found = gather(run.results, GATE)[0]
    if np.isnan(found["asked"]).all():
        raise RunError(
            f"{run.path}: its records hold no margins; run it with gate.threshold=null, or give "
            "its config in place of the folder"
        )
    if (kept := int((found["asked"] == 0).sum())) or not has_both(run):
        why = f"{kept} answers were kept" if kept else "it has no plain answers"
        raise RunError(f"{run.path}: {why}; run it with gate.threshold=null and plain: true")
    passes = [scored_pass(run, "plain"), scored_pass(run, "cof")]
    failed = sum(np.frombuffer(one.failed, np.uint8) for one in passes)
    sound = np.flatnonzero((failed == 0) & ~np.isnan(found["margin"]))
    before, after = (np.asarray(one.credits)[sound] for one in passes)
    return choose(found["margin"][sound], before, after, within, share)  # type: ignore[arg-type]
