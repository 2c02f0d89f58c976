"""The paper's fine stage: answer again with log(lambda) added to the region's attention scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cof.batch import Batch
from cof.errors import ConfigError
from cof.models.base import Encoded, Model
from cof.refine._words import check_stand, check_words, widened, word_spans, words_noted
from cof.refine.base import Look, noted
from cof.regions.bias import Highlight, Scope, check_indices, log_weight
from cof.regions.mask import key_bias
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
        text: words of the question that are lit as well, phrases with commas between them, in
            upper or lower case, wherever they stand as whole words; "" is none (the paper).
    """

    weight: float = 4.5
    scope: Scope = "all"
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    perturb: float = 1.0
    text: str = ""

    def __post_init__(self) -> None:
        log_weight(self.weight)
        if not math.isfinite(self.perturb):
            raise ValueError(f"perturb must be finite, got {self.perturb}")
        if self.text and self.perturb != 1:
            raise ValueError(
                f"perturb={self.perturb} multiplies visual tokens alone; leave it at 1 with text"
            )


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Refuse `text` that stands in no question."""
    check_stand(config.text, questions)


def check_model(model: Model, config: Config) -> None:
    """Hold a config against a model before any question is asked.

    Raises:
        ConfigError: a layer or head that the model does not have; a choice of layers or heads, or
            a scope, that this model cannot have.
    """
    for name, chosen, count in (
        ("layers", config.layers, model.layers),
        ("heads", config.heads, model.heads),
    ):
        try:
            check_indices(name, chosen, count)
        except ValueError as error:
            raise ConfigError(f"refine.{error}") from error
        if chosen and not model.narrows:
            raise ConfigError(
                f"refine.{name}: this model's highlight cannot be narrowed; leave it out"
            )
    check_words(model, config.text)
    if config.scope != "all" and model.space == "cross":
        raise ConfigError(
            f"refine.scope={config.scope}: this model's visual tokens are keys of a "
            "cross-attention and ask nothing themselves; use scope=all"
        )


def prepare(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Look]:
    """A look at each image with its region lit."""
    how = (config.weight, config.scope, config.layers, config.heads, config.perturb)
    looks = []
    for question, view, one in zip(batch.questions, batch.views, focuses, strict=True):
        words = word_spans(config.text, question.text)
        looks.append(Look(view, one.mask, *how, words, words_noted(question.text, words)))
    return looks


def refine(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Answer]:
    """Answer each question with its region highlighted; an empty mask is a plain pass."""
    return refine_many(batch, [focuses], [config])[0]


def refine_many(
    batch: Batch, focuses: Sequence[Sequence[Focus]], configs: Sequence[Config]
) -> list[list[Answer]]:
    """Answer the same B questions under V configs, those that differ in weight in one pass.

    Args:
        batch: the questions.
        focuses: per config the B focuses.
        configs: the V configs.

    Returns:
        Per config the B answers.
    """
    answers: dict[int, list[Answer]] = {}
    size = len(batch)
    for group in _alike(configs):
        wide = batch.take([*range(size)] * len(group)) if len(group) > 1 else batch
        masks = [spot.mask for number in group for spot in focuses[number]]
        weights = [configs[number].weight for number in group for _ in range(size)]
        said = _answer(wide, masks, weights, configs[group[0]])
        for place, number in enumerate(group):
            answers[number] = said[place * size :][:size]
    return [answers[number] for number in range(len(configs))]


def _alike(configs: Sequence[Config]) -> list[list[int]]:
    """Indices of the configs that differ in nothing but the weight, group by group."""
    groups: dict[Config, list[int]] = {}
    for number, config in enumerate(configs):
        groups.setdefault(replace(config, weight=1.0), []).append(number)
    return list(groups.values())


def _answer(
    batch: Batch, masks: Sequence[Tensor], weights: Sequence[float], config: Config
) -> list[Answer]:
    rows = [prompt.row for prompt in batch.prompts]
    masks, weights = [masks[row] for row in rows], [weights[row] for row in rows]
    encoded = perturbed(batch.encode(), masks, config.perturb)
    asked = [batch.questions[row].text for row in rows]
    chosen = lit(batch.model, encoded, asked, masks, config, weights)
    if not chosen.bias.any():  # nothing to highlight in any row: the plain model, bit by bit
        return batch.reply(encoded)
    with batch.model.highlighted(chosen):
        said = batch.reply(encoded)
    texts = [question.text for question in batch.questions]
    notes = [words_noted(text, word_spans(config.text, text)) for text in texts]
    return [noted(one, note) for one, note in zip(said, notes, strict=True)]


def lit(
    model: Model,
    encoded: Encoded,
    questions: Sequence[str],
    masks: Sequence[Tensor],
    config: Config,
    weights: Sequence[float] | None = None,
) -> Highlight:
    """The highlight of a batch: `plan`, and the words of the questions that `config.text` has.

    Args:
        model: whose prompts they are.
        encoded: B prompts over K keys.
        questions: the B questions, as they were encoded.
        masks: per row bool [T], which visual tokens to highlight.
        config: as for `plan`, and the words.
        weights: per row lambda.
    """
    spans = [word_spans(config.text, question) for question in questions]
    wide, more = widened(model, encoded, questions, masks, spans)
    return replace(plan(wide, more, config, weights), queries=_queries(encoded, config))


def plan(
    encoded: Encoded,
    masks: Sequence[Tensor],
    config: Config,
    weights: Sequence[float] | None = None,
) -> Highlight:
    """The highlight of a batch: visual tokens' masks become the bias of prompt positions.

    Args:
        encoded: B prompts over K keys.
        masks: per row bool [T], which visual tokens to highlight.
        config: scope, layers, heads, and the weight where `weights` is None.
        weights: per row lambda.
    """
    rows = len(encoded)
    bias = key_bias(masks, encoded.visual, encoded.keys, weights or [config.weight] * rows)
    return Highlight(bias, _queries(encoded, config), config.layers, config.heads)


def _queries(encoded: Encoded, config: Config) -> Tensor | None:
    """Which positions see the bias as queries, bool [B, K]; None is all."""
    if config.scope == "all":
        return None
    queries = torch.ones(len(encoded), encoded.keys, dtype=torch.bool)
    for row, positions in enumerate(encoded.visual):
        queries[row, positions] = False
    return queries


def perturbed(encoded: Encoded, masks: Sequence[Tensor], factor: float) -> Encoded:
    """The batch with highlighted tokens' embeddings multiplied (published `perturb_weight`)."""
    if factor == 1:
        return encoded
    one, changed = torch.ones(()), torch.tensor(factor, dtype=torch.float32)
    return replace(encoded, scale=tuple(torch.where(mask.cpu(), changed, one) for mask in masks))
