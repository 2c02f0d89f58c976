"""Questions that failed, pass by pass: how many, which, why; a pass without any answer at all.

A failed question has no answer in the pass that failed, which counts as wrong there, and the other
pass is scored as it is. So a difference between two passes may be a failure: whoever prints one
says how many failed beside it. A pass in which every answer failed has no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cof.analyse.gather import overview
from cof.analyse.scores import NAMES, Pass
from cof.config import plugins
from cof.store.run import Run

SHOWN = 3
"""Reasons that a message names, and questions of each; records.jsonl has all."""


def counts(run: Run) -> dict[Pass, int]:
    """Pass -> how many of its answers failed, for the passes that were asked for."""
    bench = plugins.load("bench", run.config["bench"]["name"])
    asked: tuple[Pass, ...] = ("plain", "cof") if run.config["plain"] else ("cof",)
    failed = overview(run.results).failed
    of_region = hasattr(bench, "region_answer")  # which stands for the answer of both passes
    return {which: failed["region" if of_region else which] for which in asked}


def spoilt(run: Run, passes: Iterable[Pass] = ("plain", "cof")) -> str:
    """Which of these passes has no answer at all and why, "" where each has some."""
    for which, failed in counts(run).items():
        if which in passes and run.results and failed == len(run.results):
            name, why = overview(run.results).first
            return f"every {NAMES[which]} answer failed ({name}: {why})"
    return ""


def message(runs: Sequence[Run]) -> str:
    """One line about what failed in these runs, "" where nothing did."""
    reasons: dict[str, list[str]] = {}
    for run in runs:
        for result in run.results if overview(run.results).errors else ():
            if not result.error:
                continue
            name = f"{run.path.name} {result.question.id}" if len(runs) > 1 else result.question.id
            reasons.setdefault(result.error, []).append(name)
    if not reasons:
        return ""
    named = [f"{_listed(names)}: {why}" for why, names in reasons.items()]
    return (
        f"{sum(map(len, reasons.values()))} questions failed, counted as wrong in the pass that "
        f"failed ({by_pass(runs)}): {_listed(named, '; ')}"
    )


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


def by_pass(runs: Sequence[Run]) -> str:
    """`plain 0, CoF 4`: answers that failed, of the passes that were asked for."""
    each = [counts(run) for run in runs]
    passes = [which for which in NAMES if any(which in one for one in each)]
    sums = {which: sum(one.get(which, 0) for one in each) for which in passes}
    return ", ".join(f"{NAMES[which]} {number}" for which, number in sums.items())
