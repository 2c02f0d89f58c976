"""How a fine stage gets its answers: generated, or the likeliest of a question's options."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import groupby

from cof.errors import AnswerError
from cof.models.base import Encoded, Limits, Model
from cof.types import Answer, Question

TIE = 1e-5
"""Nats. Two options nearer than this are in an order that rounding made: in float32 the loss of one
and the same option moves by up to 3e-6 with the company of its batch (32 questions of MiniVStar,
lambda 1 to 50). The options of real questions lie tenths apart."""

Ask = tuple[int, str | None]
"""A row of a batch: the question's place, and the option to weigh, None to generate."""

Reply = tuple[Answer, float]
"""An answer and its mean token loss; 0 where it was generated."""


def rows_of(questions: Sequence[Question]) -> list[Ask]:
    """One row a question; one an option of a question whose options are weighed."""
    return [
        (place, option)
        for place, question in enumerate(questions)
        for option in (question.options if question.choose else (None,))
    ]


def reply(
    model: Model, encoded: Encoded, options: Sequence[str | None], limits: Limits
) -> list[Reply]:
    """Answer the encoded rows: weigh each row's option, or generate where there is none.

    Raises:
        ValueError: a batch that mixes the two.
    """
    weighed = [option for option in options if option is not None]
    if not weighed:
        return [(answer, 0.0) for answer in model.generate(encoded, limits)]
    if len(weighed) != len(options):
        raise ValueError("a batch holds questions that choose and questions that do not")
    started = time.perf_counter()
    losses = model.losses(encoded, weighed)
    share = (time.perf_counter() - started) / len(losses)
    rows = zip(weighed, losses, strict=True)
    return [_weighed(model, option, loss, share) for option, loss in rows]


def _weighed(model: Model, option: str, loss: float | AnswerError, seconds: float) -> Reply:
    if isinstance(loss, AnswerError):
        return Answer("", seconds=seconds, error=str(loss)), math.inf
    if not math.isfinite(loss):
        return Answer("", seconds=seconds, error=model.not_finite()), math.inf
    return Answer(option, seconds=seconds), loss


def best(rows: Sequence[Ask], replies: Sequence[Reply]) -> list[Answer]:
    """One answer a question: the reply, or the option of the lowest loss.

    Where the two lowest are within `TIE` no option is chosen: the text is empty, which is wrong
    under every rule, and no order of the options decides. A question fails with any of its options.
    """
    paired = zip(rows, replies, strict=True)
    groups = groupby(paired, key=lambda pair: pair[0][0])
    return [_one([said for _, said in group]) for _, group in groups]


def _one(mine: Sequence[Reply]) -> Answer:
    seconds = sum(answer.seconds for answer, _ in mine)
    error = next((answer.error for answer, _ in mine if answer.error), "")
    if error:
        return Answer("", seconds=seconds, error=error)
    (answer, lowest), *others = sorted(mine, key=lambda said: said[1])
    if others and others[0][1] - lowest <= TIE:
        return Answer("", seconds=seconds)
    return Answer(answer.text, answer.tokens, seconds)
