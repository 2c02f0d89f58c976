"""Prompt Highlighter (arXiv 2312.04302): a pass that sees the region more against one that does so
less.

Both ask the same question. The first has +log(w) on the attention scores of the lit tokens, the
second -(2 + log(w)), and there the lit tokens' embeddings are multiplied by `perturb`. Each token
is the best of g (s0 - s1) + s1, where s are the two passes' scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cof.batch import Batch
from cof.errors import DataError, ModelError
from cof.models.base import Encoded, Limits, Mix, Model
from cof.refine._words import check_stand, check_words, widened, word_spans, words_noted
from cof.refine.base import check_greedy, noted, whole
from cof.regions.bias import Highlight, log_weight
from cof.regions.mask import key_bias
from cof.types import Answer, Focus, Question

FURTHER = 2.0
"""Nats by which the second pass's lit tokens are dimmed beyond 1 / w (the published constant)."""

SURE = {"logprobs": "of the scores that chose"}
"""Note of every answer. Records made without it hold log-softmax of probabilities, which says
nothing; `cof.analyse.yes_no` leaves them out."""

WEIGHED = (
    "refine.name=guided mixes the scores of decoding steps; it cannot answer questions whose "
    "options are weighed (choose): take another fine stage, such as mean"
)


@dataclass(frozen=True)
class Config:
    """How far apart the two passes are, and how much their difference counts.

    Attributes:
        weight: w, above 0; the published scripts have 2 to 5.
        guidance: g; 1 leaves the first pass alone, the published scripts have 1.3 to 2.
        log: the scores are log-probabilities; otherwise probabilities.
        perturb: factor on the embeddings of the second pass's lit tokens (published: 0.01).
        text: words of the question that are lit as well, as `highlight.Config`.
    """

    weight: float = 2.0
    guidance: float = 1.3
    log: bool = False
    perturb: float = 0.01
    text: str = ""

    def __post_init__(self) -> None:
        log_weight(self.weight)
        if not (math.isfinite(self.guidance) and math.isfinite(self.perturb)):
            raise ValueError(
                f"guidance={self.guidance} and perturb={self.perturb} must be finite numbers"
            )


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Refuse questions whose options are weighed, and `text` that stands in no question.

    Raises:
        DataError: some options are.
        ConfigError: see `check_stand`.
    """
    if any(question.choose for question in questions):
        raise DataError(f"{bench}: {WEIGHED}")
    check_stand(config.text, questions)


def check_model(model: Model, config: Config) -> None:
    """Refuse words for a model that does not say where they are, or cannot perturb them.

    Raises:
        ConfigError: see `check_words`.
    """
    check_words(model, config.text, config.perturb)


def check_limits(limits: Limits, config: Config) -> None:
    """Refuse beams and sampling: the two passes take one and the same token at each step."""
    check_greedy(limits, "guided")


def refine(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Answer]:
    """Answer each question under guidance; where nothing is lit, plainly.

    Raises:
        ModelError: questions whose options are weighed (`choose`), beams or sampling.
    """
    if any(question.choose for question in batch.questions):
        raise ModelError(WEIGHED)
    texts = [question.text for question in batch.questions]
    words = [word_spans(config.text, text) for text in texts]
    lit = [row for row, focus in enumerate(focuses) if focus.mask.any() or words[row]]
    answers = dict(zip(lit, _guided(batch, focuses, lit, config), strict=True))
    said = [answers.get(row, plain) for row, plain in enumerate(batch.plain)]
    return [
        noted(one, {**SURE, **(words_noted(text, words[row]) if row in answers else {})})
        for row, (one, text) in enumerate(zip(said, texts, strict=True))
    ]


def _guided(
    batch: Batch, focuses: Sequence[Focus], rows: Sequence[int], config: Config
) -> list[Answer]:
    if not rows:
        return []
    twice = [row for row in rows for _ in range(2)]
    wide = batch.take(twice)
    texts = [question.text for question in wide.questions]
    spans = [word_spans(config.text, text) for text in texts]
    masks = [focuses[row].mask for row in twice]
    encoded, highlight = branches(*widened(batch.model, wide.encode(), texts, masks, spans), config)
    with batch.model.highlighted(highlight):
        said = wide.reply(encoded, mix=guide(config))
    return [whole(*said[place : place + 2]) for place in range(0, len(said), 2)]


def branches(
    encoded: Encoded, masks: Sequence[Tensor], config: Config
) -> tuple[Encoded, Highlight]:
    """The two passes over prompts that stand there in pairs.

    Args:
        encoded: 2 B prompts, each one twice.
        masks: per row bool [T], the same for both of a pair.
        config: weight and perturb.
    """
    weights = (config.weight, math.exp(-FURTHER) / config.weight)
    pairs = [weights[row % 2] for row in range(len(masks))]
    highlight = Highlight(key_bias(masks, encoded.visual, encoded.keys, pairs))
    if config.perturb == 1:
        return encoded, highlight
    one, changed = torch.ones(()), torch.tensor(config.perturb)
    scale = (
        torch.where(mask.cpu(), changed, one) if row % 2 else None for row, mask in enumerate(masks)
    )
    return replace(encoded, scale=tuple(scale)), highlight


def guide(config: Config) -> Mix:
    """Scores [2 B, V] in pairs -> g (s0 - s1) + s1 for both of a pair.

    Of probabilities these sum to 1, and some may lie below 0: `Mix` says what is recorded of them.
    """

    def mix(scores: Tensor) -> Tensor:
        said = scores.log_softmax(-1) if config.log else scores.softmax(-1)
        first, second = said[0::2], said[1::2]
        return (config.guidance * (first - second) + second).repeat_interleave(2, dim=0)

    mix.shares = not config.log  # type: ignore[attr-defined]
    return mix
