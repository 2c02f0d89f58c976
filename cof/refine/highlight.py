"""The paper's fine stage: answer again with log(lambda) added to the region's attention scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cof.highlight import Highlight, Scope
from cof.models.base import Encoded, Limits, Model, View
from cof.tokens import key_bias
from cof.types import Answer, Focus, Question


@dataclass(frozen=True)
class Config:
    """How strongly, and where, the region is highlighted.

    Attributes:
        weight: lambda; above 1 highlights, 1 is the plain model, below 1 suppresses. 4.5 is the
            published MME script's value for LLaVA-1.5-13B.
        scope: `all` queries (the paper), or `text`: only queries that are not visual tokens (ours).
        layers: decoder layers that see it, from 0; None is all of them (the paper).
        heads: query heads that see it, from 0; None is all of them (the paper).
        perturb: multiplies the input embeddings of the highlighted tokens; 1 leaves them alone.
    """

    weight: float = 4.5
    scope: Scope = "all"
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    perturb: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight (lambda) must be positive, got {self.weight}")


def refine(
    model: Model,
    questions: Sequence[Question],
    views: Sequence[View],
    focuses: Sequence[Focus],
    config: Config,
    limits: Limits,
) -> list[Answer]:
    """Answer each question with its region highlighted; an empty mask is a plain pass."""
    encoded = model.encode(views, [question.text for question in questions])
    masks = [focus.mask for focus in focuses]
    encoded = perturbed(encoded, masks, config.perturb)
    with model.highlight(plan(encoded, masks, config)):
        return model.generate(encoded, limits)


def plan(encoded: Encoded, masks: Sequence[Tensor], config: Config) -> Highlight:
    """The highlight of a batch: visual tokens' masks become the bias of prompt positions.

    Args:
        encoded: B prompts of S positions.
        masks: per row bool [T], which visual tokens to highlight.
        config: weight, scope, layers, heads.
    """
    rows, length = encoded.attention_mask.shape
    bias = key_bias(masks, encoded.visual, length, [config.weight] * rows)
    queries = None
    if config.scope == "text":
        queries = torch.ones(rows, length, dtype=torch.bool)
        for row, positions in enumerate(encoded.visual):
            queries[row, positions] = False
    return Highlight(bias, queries, config.layers, config.heads)


def perturbed(encoded: Encoded, masks: Sequence[Tensor], factor: float) -> Encoded:
    """The batch with highlighted tokens' embeddings multiplied (published `perturb_weight`)."""
    if factor == 1:
        return encoded
    embeds = encoded.embeds.clone()
    for row, (mask, positions) in enumerate(zip(masks, encoded.visual, strict=True)):
        embeds[row, positions[mask.cpu()]] *= factor
    return replace(encoded, embeds=embeds, prefix=None, rows=())
