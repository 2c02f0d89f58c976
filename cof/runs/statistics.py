"""Intervals and tests for questions that share images; scipy and statsmodels do the counting.

Two kinds of interval, both over whole images, since questions about one image are not independent:
a mean of credits gets a percentile bootstrap, a published metric that is no mean (F1, MME's acc+,
circular accuracy) a jackknife, which only ever asks the benchmark's scorer about fewer questions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

RESAMPLES = 9999
CONFIDENCE = 0.95

GROUPS = 100
"""Most groups of images in a jackknife; each costs one call of a scorer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that was measured, with what it rests on.

    Attributes:
        value: the number.
        low: lower end of the interval, None where there is none (fewer than two images).
        high: upper end.
        n: questions (or boxes, ...) behind it.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def times(self, factor: float) -> Estimate:
        """In another unit, such as 100 for percent."""
        low, high = (None if end is None else factor * end for end in (self.low, self.high))
        return replace(self, value=factor * self.value, low=low, high=high)


def mean(values: Sequence[float], clusters: Sequence[Hashable], seed: int) -> Estimate:
    """A mean with a percentile bootstrap interval over whole clusters.

    Clusters are drawn, each with all its values; the statistic of a draw is its summed values over
    their number.

    Args:
        values: length n, at least 1.
        clusters: what each value is grouped by (its image), length n.
        seed: of the resampling.
    """
    return Estimate(sum(values) / len(values), *_interval(values, clusters, seed), len(values))


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> dict[str, Any]:
    """Mean of `after - before`, as scores.json has it; the interval is that of `mean`.

    Args:
        before: credit a question in [0, 1], length n.
        after: the same questions' credit under the other treatment.
        clusters: what each question is grouped by (its image), length n.
        seed: of the resampling.
    Returns: `plain` and `cof` (mean credits), `difference`, `low` and `high` (None for a single
        cluster), `questions`, `clusters`, `confidence`, `resamples`, `seed`; fractions, not %.
    """
    n = len(before)
    low, high = _interval(_minus(after, before), clusters, seed)
    return {
        "plain": sum(before) / n,
        "cof": sum(after) / n,
        "difference": sum(_minus(after, before)) / n,
        "low": low,
        "high": high,
        "questions": n,
        "clusters": len(set(clusters)),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "seed": seed,
    }


def difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> Estimate:
    """Mean of `after - before`, paired, with the interval of `mean`."""
    return mean(_minus(after, before), clusters, seed)


def _minus(after: Sequence[float], before: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(before, after, strict=True)]


def _interval(
    values: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> tuple[float | None, float | None]:
    return _bootstrap(tuple(values), tuple(str(name) for name in clusters), seed)


@functools.lru_cache(maxsize=1024)
def _bootstrap(
    values: tuple[float, ...], clusters: tuple[str, ...], seed: int
) -> tuple[float | None, float | None]:
    """Kept: runs that share questions share plain answers and boxes, and their intervals."""
    import numpy as np
    from scipy.stats import bootstrap

    _, group = np.unique(clusters, return_inverse=True)
    if group.max() == 0:
        return None, None
    result = bootstrap(
        (np.bincount(group, values), np.bincount(group)),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


Metrics = Mapping[str, tuple[float, int]]
"""Name of a metric -> its value and the number of questions behind it."""


def jackknife(
    metrics: Callable[[Sequence[int]], Metrics], clusters: Sequence[Hashable], seed: int
) -> dict[str, Estimate]:
    """Any metrics, with delete-a-group jackknife intervals over clusters.

    The clusters are dealt at random to at most `GROUPS` groups; leaving out one group after the
    other shows how much each metric rests on it. The interval is symmetric (Student's t), so near
    a metric's bound it may reach beyond it.

    Args:
        metrics: from the indices of some questions to metrics; called for all, then with each
            group left out.
        clusters: what each question is grouped by (its image), length n.
        seed: of the dealing, which matters where there are more clusters than groups.
    Returns: the metrics of all questions; one that vanishes without some group has no interval.
    """
    import numpy as np
    from scipy.stats import t

    _, cluster = np.unique([str(name) for name in clusters], return_inverse=True)
    order = np.random.default_rng(seed).permutation(cluster.max() + 1)
    count = min(len(order), GROUPS)
    group = (order % count)[cluster]
    whole = metrics(range(len(clusters)))
    if count < 2:
        return {name: Estimate(value, None, None, n) for name, (value, n) in whole.items()}
    parts = [metrics(np.flatnonzero(group != left).tolist()) for left in range(count)]
    factor = t.ppf((1 + CONFIDENCE) / 2, count - 1) * (count - 1) ** 0.5
    found = {}
    for name, (value, n) in whole.items():
        if all(name in part for part in parts):
            spread = float(factor * np.std([part[name][0] for part in parts]))
            found[name] = Estimate(value, value - spread, value + spread, n)
        else:
            found[name] = Estimate(value, None, None, n)
    return found


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test; 1 where nothing changed.

    It takes questions as independent. Where they share images, the interval over images is the
    better guide.

    Args:
        gained: questions that only the second treatment got right (or better).
        lost: questions that only the first did.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact

    if gained + lost == 0:
        return 1.0
    return float(exact([[0, gained], [lost, 0]], exact=True).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected by Holm's method, in the same order."""
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(values, method="holm")[1]] if values else []
