"""Intervals for a paired comparison whose questions share images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

RESAMPLES = 9999
CONFIDENCE = 0.95


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> dict[str, Any]:
    """Mean of `after - before` with a percentile bootstrap interval over whole clusters.

    Questions about one image are not independent, so images are drawn, each with all its
    questions; the statistic of a draw is its summed difference over its number of questions.

    Args:
        before: credit a question in [0, 1], length n.
        after: the same questions' credit under the other treatment.
        clusters: what each question is grouped by (its image), length n.
        seed: of the resampling.
    Returns: `plain` and `cof` (mean credits), `difference`, `low` and `high` (None for a single
        cluster), `questions`, `clusters`, `confidence`, `resamples`, `seed`; fractions, not %.
    """
    n = len(before)
    low, high = _interval(before, after, clusters, seed)
    return {
        "plain": sum(before) / n,
        "cof": sum(after) / n,
        "difference": sum(b - a for a, b in zip(before, after, strict=True)) / n,
        "low": low,
        "high": high,
        "questions": n,
        "clusters": len(set(clusters)),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "seed": seed,
    }


def _interval(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> tuple[float | None, float | None]:
    import numpy as np
    from scipy.stats import bootstrap

    _, group = np.unique([str(name) for name in clusters], return_inverse=True)
    if group.max() == 0:
        return None, None
    differences = np.bincount(group, np.subtract(after, before))
    counts = np.bincount(group)
    result = bootstrap(
        (differences, counts),
        lambda d, c, axis: d.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
