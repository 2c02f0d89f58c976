"""How a fine stage gets its answers: generated, or the likeliest of a question's options."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

from cof.models.base import Encoded, Limits, Model
from cof.types import Answer, Question

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
    return [(Answer(option, seconds=share), loss) for option, loss in rows]


def best(rows: Sequence[Ask], replies: Sequence[Reply]) -> list[Answer]:
    """One answer a question: the reply, or the option of the lowest loss (the first of equals)."""
    answers = []
    paired = zip(rows, replies, strict=True)
    for _, group in groupby(paired, key=lambda pair: pair[0][0]):
        mine = [said for _, said in group]
        answer, _ = min(mine, key=lambda said: said[1])
        seconds = sum(said.seconds for said, _ in mine)
        answers.append(Answer(answer.text, answer.tokens, seconds))
    return answers
