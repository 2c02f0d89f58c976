"""The paper's fine stage: answer again with log(lambda) added to the region's attention scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cof.errors import ConfigError
from cof.models.base import Encoded, Limits, Model
from cof.refine._reply import Reply, best, reply, rows_of
from cof.regions.bias import Highlight, Scope, check_indices, log_weight
from cof.regions.mask import key_bias
from cof.types import Answer, Focus, Question, View


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
        log_weight(self.weight)
        if not math.isfinite(self.perturb):
            raise ValueError(f"perturb must be finite, got {self.perturb}")


def check(model: Model, config: Config) -> None:
    """Hold a config against a model before any question is asked.

    Raises:
        ConfigError: a layer or head that the model does not have, or a choice of layers or heads
            for a model that decodes through `torch.compile`.
    """
    for name, chosen, count in (
        ("layers", config.layers, model.layers),
        ("heads", config.heads, model.heads),
    ):
        try:
            check_indices(name, chosen, count)
        except ValueError as error:
            raise ConfigError(f"refine.{error}") from error
        if chosen and model.describe().get("compile"):
            raise ConfigError(f"refine.{name} needs model.compile=false")


def refine(
    model: Model,
    questions: Sequence[Question],
    views: Sequence[View],
    focuses: Sequence[Focus],
    config: Config,
    limits: Limits,
) -> list[Answer]:
    """Answer each question with its region highlighted; an empty mask is a plain pass."""
    return refine_many(model, questions, views, [focuses], [config], limits)[0]


def refine_many(
    model: Model,
    questions: Sequence[Question],
    views: Sequence[View],
    focuses: Sequence[Sequence[Focus]],
    configs: Sequence[Config],
    limits: Limits,
) -> list[list[Answer]]:
    """Answer the same questions under several configs, those that differ in weight in one batch.

    Args:
        model: the multi-modal LLM.
        questions: B questions.
        views: the B images as the model saw them.
        focuses: per config the B focuses.
        configs: the V variants.
        limits: how to decode.

    Returns:
        Per config the B answers.
    """
    answers: dict[int, list[Answer]] = {}
    asked = rows_of(questions)
    for group in _alike(configs):
        rows = [(number, row, option) for number in group for row, option in asked]
        picked = [row for _, row, _ in rows]
        encoded = model.encode([views[i] for i in picked], [questions[i].text for i in picked])
        masks = [focuses[number][row].mask for number, row, _ in rows]
        weights = [configs[number].weight for number, _, _ in rows]
        options = [option for _, _, option in rows]
        said = _answer(model, encoded, masks, weights, options, configs[group[0]], limits)
        for place, number in enumerate(group):
            answers[number] = best(asked, said[place * len(asked) :][: len(asked)])
    return [answers[number] for number in range(len(configs))]


def _alike(configs: Sequence[Config]) -> list[list[int]]:
    """Indices of the configs that differ in nothing but the weight, group by group."""
    groups: dict[Config, list[int]] = {}
    for number, config in enumerate(configs):
        groups.setdefault(replace(config, weight=1.0), []).append(number)
    return list(groups.values())


def _answer(
    model: Model,
    encoded: Encoded,
    masks: Sequence[Tensor],
    weights: Sequence[float],
    options: Sequence[str | None],
    config: Config,
    limits: Limits,
) -> list[Reply]:
    encoded = perturbed(encoded, masks, config.perturb)
    chosen = plan(encoded, masks, config, weights)
    if not chosen.bias.any():  # nothing to highlight in any row: the plain model, bit by bit
        return reply(model, encoded, options, limits)
    with model.highlight(chosen):
        return reply(model, encoded, options, limits)


def plan(
    encoded: Encoded,
    masks: Sequence[Tensor],
    config: Config,
    weights: Sequence[float] | None = None,
) -> Highlight:
    """The highlight of a batch: visual tokens' masks become the bias of prompt positions.

    Args:
        encoded: B prompts of S positions.
        masks: per row bool [T], which visual tokens to highlight.
        config: scope, layers, heads, and the weight where `weights` is None.
        weights: per row lambda.
    """
    rows, length = encoded.attention_mask.shape
    bias = key_bias(masks, encoded.visual, length, weights or [config.weight] * rows)
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
