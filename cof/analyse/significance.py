"""Is it more than chance? Tests for questions that share images, and Holm's correction.

The primary test flips signs of whole images: it keeps its size where the questions of an image are
alike. McNemar's stands beside it because people compare with it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cof.analyse.statistics import CONFIDENCE, Estimate, Grouped, difference, numbered

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Change:
    """From one treatment of some questions to another.

    Attributes:
        estimate: of the mean change of credit, paired, with its interval over images.
        gained: questions with more credit.
        lost: questions with less.
        p: of the permutation test, not corrected.
    """

    estimate: Estimate
    gained: int
    lost: int
    p: float


def change(before: Sequence[float], after: Sequence[float], clusters: Grouped, seed: int) -> Change:
    """What changed, and whether chance would do it; arguments as `permutation` takes them."""
    import numpy as np

    gains = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    return Change(
        difference(before, after, clusters),
        int((gains > 0).sum()),
        int((gains < 0).sum()),
        permutation(before, after, clusters, seed),
    )


EXACT, FLIPS = 20, 20_000
"""Most images whose signs are flipped in every way; and how many ways are drawn of more."""


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Grouped, seed: int
) -> dict[str, Any]:
    """A `change` as scores.json has it.

    Args:
        before: credit a question in [0, 1], length n.
        after: the same questions' credit under the other treatment.
        clusters: what each question is grouped by (its image), length n.
        seed: of the test's flips.
    Returns: `plain` and `cof` (mean credits), `difference`, `low` and `high` (None where there is
        no interval, for the `reason`), `p`, `questions`, `clusters`, `confidence`, `seed`;
        fractions, not %.
    """
    found = change(before, after, clusters, seed)
    measured = found.estimate
    return {
        "plain": sum(before) / len(before),
        "cof": sum(after) / len(after),
        "difference": measured.value,
        "low": measured.low,
        "high": measured.high,
        "reason": measured.reason,
        "p": found.p,
        "questions": measured.n,
        "clusters": measured.clusters,
        "confidence": CONFIDENCE,
        "seed": seed,
    }


def permutation(
    before: Sequence[float], after: Sequence[float], clusters: Grouped, seed: int
) -> float:
    """Two-sided p of the sign-flip permutation test over clusters; 1 where nothing changed.

    If the treatments are alike, each cluster's sum of differences could as well have the other
    sign. With up to `EXACT` clusters whose sum is not zero all ways are counted; of more `FLIPS`
    are drawn, and the one that was seen counts as one of them.

    Args:
        before: credit a question, length n.
        after: the same questions' credit under the other treatment.
        clusters: what each question is grouped by (its image), length n.
        seed: of the draws.
    """
    import numpy as np

    changes = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    sums = np.bincount(numbered(clusters), changes)
    sizes = np.sort(np.abs(sums[np.abs(sums) > 1e-9]))
    least = abs(float(sums.sum())) - 1e-9
    if len(sizes) > REMEMBERED:
        return _flipped(sizes, least, seed)
    return _known(tuple(sizes.tolist()), least, seed)


REMEMBERED = 4_000
"""Most images of a test whose p is kept for the next time that somebody asks."""


@functools.lru_cache(maxsize=1024)
def _known(sizes: tuple[float, ...], least: float, seed: int) -> float:
    return _flipped(sizes, least, seed)


BLOCK = 2_000_000
"""Most signs that are drawn at a time."""


def _flipped(sizes: Sequence[float] | np.ndarray, least: float, seed: int) -> float:
    """Share of sign flips whose sum is at least so far from zero."""
    import numpy as np

    if len(sizes) <= EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float(np.mean(np.abs(sums) >= least))
    rng, found = np.random.default_rng(seed), 0
    fitting = (rows for rows in (1000, 500, 100, 20, 4) if rows * len(sizes) <= BLOCK)
    rows, column = next(fitting, 4), np.array(sizes)  # multiples of 4: the same draws in any block
    for _ in range(FLIPS // rows):
        signs = 2.0 * rng.integers(0, 2, (rows, len(sizes)), dtype=np.int8) - 1
        found += int(np.sum(np.abs(signs @ column) >= least))
    return (1 + found) / (1 + FLIPS)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test; 1 where nothing changed.

    It takes questions as independent. Where they share images it finds effects that are none:
    `permutation` does not.

    Args:
        gained: questions that only the second treatment got right (or better).
        lost: questions that only the first did.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected by Holm's step-down method, in the same order."""
    found, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        found[place] = least
    return found
