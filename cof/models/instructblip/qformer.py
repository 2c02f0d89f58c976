"""The Q-Former under a highlight: what is added to its cross-attention, and where it looked.

The published code (Prompt Highlighter, `attention_qformer.py`) replaces the attention of every
layer. Here the mask argument is enough: a 4-D `encoder_attention_mask` of floats is added to the
scores of the image's patches as it is, in every cross-attention, for every query.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from cof.attention import watched
from cof.models.common.recording import scores


def states(
    qformer: Any,
    queries: Tensor,
    images: Tensor,
    text: tuple[Tensor, Tensor] | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """What the queries found in the images, the question's own states behind: [B, Q + L, D].

    Args:
        qformer: transformers' `InstructBlipQFormerModel`.
        queries: the learned query tokens, float [1, Q, D].
        images: float [B, K, E], of the vision tower, the class token first.
        text: ids of the question in the Q-Former's own vocabulary, and which are real, int64
            [B, L] each; None asks without a question.
        bias: float [B, K], added to each patch's scores; None adds nothing.
    """
    rows, keys, _ = images.shape
    ids, real = text if text is not None else (None, images.new_ones(rows, 0, dtype=torch.long))
    seen = images.new_ones(rows, keys, dtype=torch.long)
    if bias is not None:
        seen = bias[:, None, None].to(images)
    output = qformer(
        input_ids=ids,
        attention_mask=torch.cat([real.new_ones(rows, queries.shape[1]), real], dim=1),
        query_embeds=queries.expand(rows, -1, -1),
        encoder_hidden_states=images,
        encoder_attention_mask=seen,
    )
    return output.last_hidden_state  # type: ignore[no-any-return]


class Looks:
    """Collects the scores of each cross-attention while a Q-Former runs inside `on`.

    Attributes:
        found: cross-attention, from 0 -> scores [B, heads, Q, K], scaled, no bias in them.
    """

    def __init__(self, qformer: Any) -> None:
        crossing = [layer for layer in qformer.encoder.layer if layer.has_cross_attention]
        self.layers = {id(layer.crossattention.attention): n for n, layer in enumerate(crossing)}
        self.found: dict[int, Tensor] = {}

    def on(self, wanted: bool) -> Any:
        """A block in which scores are collected, or in which nobody watches."""
        return watched(self._keep) if wanted else nullcontext()

    def _keep(
        self, module: Any, query: Tensor, key: Tensor, mask: Any, scaling: float | None
    ) -> None:
        if id(module) in self.layers:
            self.found[self.layers[id(module)]] = scores(query, key, scaling)

    def maps(self, bias: Tensor | None) -> dict[int, Tensor]:
        """Cross-attention -> attention on each key under a bias [B, K], the mean of the queries.

        Float32 [B, heads, K].
        """
        added = None if bias is None else bias[:, None, None]
        return {
            n: (one if added is None else one + added.to(one.device)).softmax(-1).mean(2)
            for n, one in self.found.items()
        }

    def weigh(self, bias: Tensor) -> Tensor:
        """How much of a highlight each query stands for, float32 [B, Q].

        The sum of its attention on each patch (mean of layers and heads, no bias in the layer
        itself) times the patch's weight exp(bias). For a region of weight lambda that is
        1 + (lambda - 1) x share of attention inside: a query that looks nowhere but there has
        lambda, one that never does has 1.
        """
        share = torch.stack([one.softmax(-1).mean(1) for one in self.found.values()]).mean(0)
        return (share * bias.to(share.device).exp()[:, None]).sum(-1)
