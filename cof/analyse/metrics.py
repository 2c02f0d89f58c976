"""The benchmark's own metrics of a run, each with an interval over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cof.analyse.gather import IMAGES, Pass, gather, together
from cof.analyse.passes import bench_of, tally_of
from cof.analyse.statistics import Clusters, Estimate, Metric, Metrics, jackknife
from cof.errors import RunError
from cof.store.run import Run

FEW_PLACES = 64
"""Of so few questions the metrics are remembered: there are many alike."""


def published(run: Run, which: Pass, seed: int) -> dict[str, Estimate]:
    """Name -> metric, in the order and the units of the benchmark's table.

    Args:
        run: from records alone; its scores.json is not read.
        which: the pass.
        seed: of the jackknife's groups.

    Raises:
        RunError: the run has no such pass, or no records.
    """
    score = scorer(run, which)
    return jackknife(score, _images(run), seed)


def _images(run: Run) -> Clusters:
    """The image of each question, or those that it is judged together with."""
    bench, _ = bench_of(run)
    wanted = together(bench) if hasattr(bench, "together") else IMAGES
    images: Clusters = gather(run.results, wanted)[0]
    return images


@dataclass(frozen=True)
class Paired:
    """One metric of both passes and its difference."""

    plain: Estimate
    cof: Estimate
    difference: Estimate


def paired(run: Run, seed: int) -> dict[str, Paired]:
    """`published` for both passes, and the interval of their difference.

    Raises:
        RunError: as `published`.
    """
    plain, cof = scorer(run, "plain"), scorer(run, "cof")

    def metrics(places: Sequence[int]) -> Metrics:
        before, after = plain(places), cof(places)
        found: dict[str, Metric] = {}
        for name, one in before.items():
            later, span = after[name], one.high - one.low
            change = Metric(later.value - one.value, one.n, -span, span)
            found |= {f"plain {name}": one, f"cof {name}": later, f"difference {name}": change}
        return found

    found = jackknife(metrics, _images(run), seed)
    names = [name.removeprefix("cof ") for name in found if name.startswith("cof ")]
    return {
        name: Paired(*(found[f"{part} {name}"] for part in ("plain", "cof", "difference")))
        for name in names
    }


def scorer(run: Run, which: Pass) -> Callable[[Sequence[int]], Metrics]:
    """The benchmark's table as a function of some of a run's questions, by their places.

    Raises (the function that is returned):
        RunError: a metric that lies outside its range.
    """
    bench, _ = bench_of(run)
    tally = tally_of(run, which)
    known: dict[Any, Metrics] = {}

    def metrics(places: Sequence[int]) -> Metrics:
        if len(places) > FEW_PLACES or not hasattr(tally, "alike"):
            return measured(places)
        key = tally.alike(places)
        if key not in known:
            known[key] = measured(places)
        return known[key]

    def measured(places: Sequence[int]) -> Metrics:
        scores = tally.score(places)
        ranges = bench.ranges(scores) if hasattr(bench, "ranges") else {}
        found: dict[str, Metric] = {}
        for name, value, n in bench.table(scores):
            low, high = ranges.get(name, (0.0, 100.0))
            if not low - 1e-6 <= value <= high + 1e-6:
                raise RunError(
                    f"{run.path}: {name} is {value}, but should lie between {low:g} and {high:g}; "
                    "a benchmark's `ranges` says so where that is not 0 to 100"
                )
            found[f"{name} (2)" if name in found else name] = Metric(value, n, low, high)
        return found

    return metrics
