"""What attention was in the passes of a block: the probabilities of the last query, or, of models
whose visual tokens are keys of a cross-attention, the mean of its queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from cof.attention import watched

_FOUND: ContextVar[dict[int, Tensor] | None] = ContextVar("cof_recorded", default=None)


def recorded() -> dict[int, Tensor] | None:
    """What `record_attention` around here keeps, for families whose visual tokens are not keys of
    the decoder: they put their own in. None where nobody records.
    """
    return _FOUND.get()


@contextmanager
def record_attention() -> Iterator[dict[int, Tensor]]:
    """Keep where the last query looks, layer by layer; the highlight that is on is part of it.

    Yields: layer -> probabilities [B, heads, K] over all keys, of the latest forward pass in here.
    """
    found: dict[int, Tensor] = {}

    def keep(module: Any, query: Tensor, key: Tensor, mask: Any, scaling: float | None) -> None:
        layer = getattr(module, "layer_idx", None)
        if layer is not None:
            found[layer] = last_query(query, key, mask, scaling)

    token = _FOUND.set(found)
    try:
        with watched(keep):
            yield found
    finally:
        _FOUND.reset(token)


def last_query(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """softmax(q k' scaling + mask) of the last position, float32 [B, heads, K].

    Args:
        query: [B, heads, Q, d].
        key: [B, key heads, K, d].
        mask: bool or additive [B, 1 or heads, Q, K]; None hides nothing.
        scaling: of the scores; None is d ** -0.5.
    """
    found = scores(query[:, :, -1:], key, scaling)
    if mask is not None:
        last = mask[:, :, -1:, : key.shape[2]]
        hidden = last.logical_not() if last.dtype == torch.bool else None
        found = found + last if hidden is None else found.masked_fill(hidden, -torch.inf)
    return found.softmax(-1)[:, :, 0]


def scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """The products q k' scaling, float32 [B, heads, Q, K]; arguments as of `last_query`."""
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    found = (query @ keys.transpose(2, 3)).float()
    found *= query.shape[-1] ** -0.5 if scaling is None else scaling
    return found
