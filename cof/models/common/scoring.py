"""How likely is a given continuation of a prompt? Teacher forcing on the shared prefix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cof.models.base import Encoded
from cof.models.common.checks import finite
from cof.models.common.decoding import Greedy, positions
from cof.models.common.kv_cache import forward


@torch.inference_mode()
def continuation_logprobs(
    loop: Greedy, encoded: Encoded, continuations: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    """Log-probability of each token of one continuation a row, in nats.

    NaN throughout a row in which any logits are not finite.

    Args:
        loop: the model's decoding; its prefix and counters are used.
        encoded: B prompts; a highlight that is active here applies to them.
        continuations: B lists of ids, each at least one long.
    """
    mask = encoded.attention_mask
    ids, real = padded(continuations, mask)
    cache = loop.start(encoded, ids.shape[1])
    known = cache.get_seq_length()
    places, embeds = positions(encoded), loop.prompt(encoded)
    inputs = {"inputs_embeds": embeds[:, known:], "position_ids": places[..., known:]}
    hidden = forward(loop.decoder, loop.counters, cache, attention_mask=mask, **inputs)[:, -1:]
    if ids.shape[1] > 1:
        given, ahead = ids[:, :-1], torch.arange(1, ids.shape[1], device=mask.device)
        later = forward(
            loop.decoder,
            loop.counters,
            cache,
            inputs_embeds=loop.embed(given, embeds),
            attention_mask=torch.cat([mask, real[:, :-1]], dim=1),
            position_ids=places[..., -1:] + ahead,
        )
        hidden = torch.cat([hidden, later], dim=1)
    logits, counted = loop.network.lm_head(hidden), real.bool()
    scores = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    sound = (finite(logits) | ~counted).all(1)
    rows = scores.where(sound[:, None], torch.nan).tolist()
    return [tuple(row[: len(one)]) for row, one in zip(rows, continuations, strict=True)]


def padded(rows: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [B, L], padded on the right by 0, and which are real, int64 [B, L]."""
    longest = max(len(row) for row in rows)
    ids, real = like.new_zeros(len(rows), longest), like.new_zeros(len(rows), longest)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        real[number, : len(row)] = 1
    return ids, real
