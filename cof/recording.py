"""What attention was in the passes of a block; `cof.highlight` reports every layer here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_RECORDED: ContextVar[dict[int, Tensor] | None] = ContextVar("cof_recorded", default=None)


@contextmanager
def record_attention() -> Iterator[dict[int, Tensor]]:
    """Keep where the last query looks, layer by layer; the highlight that is on is part of it.

    Yields: layer -> probabilities [B, heads, K] over all keys, of the latest forward pass in here.
    """
    found: dict[int, Tensor] = {}
    token = _RECORDED.set(found)
    try:
        yield found
    finally:
        _RECORDED.reset(token)


def record(
    layer: int | None, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None
) -> None:
    """Keep one layer's softmax(q k' scaling + mask) of the last position, if a block asks for it.

    Args:
        layer: its index; None is no layer of a decoder and is not kept.
        query: [B, heads, Q, d].
        key: [B, key heads, K, d].
        mask: bool or additive [B, 1 or heads, Q, K]; None hides nothing.
        scaling: of the scores; None is d ** -0.5.
    """
    recorded = _RECORDED.get()
    if recorded is None or layer is None:
        return
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query[:, :, -1:] @ keys.transpose(2, 3)).float()
    scores *= query.shape[-1] ** -0.5 if scaling is None else scaling
    if mask is not None:
        last = mask[:, :, -1:, : keys.shape[2]]
        hidden = last.logical_not() if last.dtype == torch.bool else None
        scores = scores + last if hidden is None else scores.masked_fill(hidden, -torch.inf)
    recorded[layer] = scores.softmax(-1)[:, :, 0]
