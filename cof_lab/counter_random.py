"""Random numbers as a hash of a key and a counter: the same everywhere, in any order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser: uint64 of any shape -> well-mixed uint64 of that shape."""
    with np.errstate(over="ignore"):
        z = state + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(keys: NDArray[np.uint64], slot: int, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), [len(keys), count]; each `slot` is an independent stream."""
    with np.errstate(over="ignore"):
        counters = np.uint64(slot) * np.uint64(1 << 20) + np.arange(count, dtype=np.uint64)
        bits = mix(mix(keys)[:, None] + counters[None] * np.uint64(0xD1342543DE82EF95))
    return (bits >> np.uint64(11)).astype(np.float64) / float(1 << 53)
