"""How much a reply's first token depends on each visual token: one pass, and one way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cof.attention import highlighted
from cof.models.base import Encoded
from cof.models.common.decoding import Greedy, positions
from cof.models.common.kv_cache import forward

SCALE = 1024.0
"""Factor on what is differentiated: in float16 small gradients would be 0."""


def saliency(loop: Greedy, encoded: Encoded, tokens: Tensor) -> Tensor:
    """Norm of the gradient of the first token's log-probability by each of some embeddings.

    Of the likeliest token, in the plain model. The graph is of this pass alone, and of no weight.

    Args:
        loop: the model's decoding.
        encoded: one prompt, made of `tokens`; nothing of it is shared.
        tokens: float [..., D], which requires a gradient.
    Returns: float32 [...] on the CPU; NaN or inf where the pass was not finite.
    """
    with torch.enable_grad(), frozen(loop.network), highlighted(loop.decoder, None):
        hidden = forward(
            loop.decoder,
            loop.counters,
            loop.start(encoded, 1),
            inputs_embeds=loop.prompt(encoded),
            position_ids=positions(encoded),
            attention_mask=encoded.attention_mask,
        )
        best = loop.network.lm_head(hidden[:, -1]).float().log_softmax(-1).max()
        (found,) = torch.autograd.grad(best * SCALE, tokens)
    return (found.float().norm(dim=-1) / SCALE).cpu()


@contextmanager
def frozen(network: Any) -> Iterator[None]:
    """No gradient of any weight inside the block; afterwards as before."""
    wanted = [one for one in network.parameters() if one.requires_grad]
    for one in wanted:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in wanted:
            one.requires_grad_(True)
