"""How likely given answers are, plain and highlighted; above all yes against no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cof.batch import TIE, Batch
from cof.errors import AnswerError, shown
from cof.models.base import Model
from cof.stages import refine
from cof.types import Answer, Focus, Question

if TYPE_CHECKING:
    from PIL.Image import Image

YES_NO = ("Yes", "No")
"""The answers of MME and POPE, as LLaVA-1.5 writes them."""


class Weighed(NamedTuple):
    """Given answers with their log-probabilities, without and with the highlight."""

    plain: list[Answer]
    cof: list[Answer]


class YesNo(NamedTuple):
    """Probability of yes against no, without and with the highlight."""

    plain: float
    cof: float


def weigh(
    model: Model, image: Image, question: Question, focus: Focus, stage: Any, texts: Sequence[str]
) -> Weighed:
    """See `Outcome.weigh`. Each text is its question's only option, so that any stage weighs it."""
    if isinstance(texts, str) or not texts or not all(isinstance(one, str) for one in texts):
        raise AnswerError(f"weigh takes a list of answers, not {shown(texts)}")
    asked = [replace(question, options=(text,), choose=True) for text in texts]
    batch = Batch.of(model, asked, [image] * len(asked))
    [said] = refine(batch, [[focus] * len(asked)], [stage])
    for answer in (*batch.plain, *said):
        if answer.error:
            raise AnswerError(answer.error)
    return Weighed(list(batch.plain), said)


def yes_no(weighed: Weighed) -> YesNo:
    """Of `weigh(..., YES_NO)`, see `Outcome.yes_no`.

    Raises:
        AnswerError: both words begin with the same token.
    """
    odds = [yes.logprobs[0] - no.logprobs[0] for yes, no in weighed]
    if max(map(abs, odds)) < TIE:
        raise AnswerError(f"{' and '.join(YES_NO)} begin with the same token of this model")
    return YesNo(*(1 / (1 + math.exp(-one)) for one in odds))
