"""The tokens of an answer one by one, each with its probability."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cof.models.base import Model
    from cof.types import Answer


class Piece(NamedTuple):
    """One token as text; its probability is None where it was not computed (beams, sampling)."""

    text: str
    probability: float | None


def pieces(model: Model, said: Answer) -> list[Piece]:
    """The tokens of an answer, its end included.

    A token's text is what it adds to the tokens before it, so that half a character shows up with
    its other half. Of a model without a tokenizer the answer is one piece.
    """
    tokenizer = getattr(model, "tokenizer", None)
    chances: list[float | None] = [math.exp(one) for one in said.logprobs]
    chances = chances or [None] * len(said.tokens)
    if tokenizer is None or not said.tokens or len(chances) != len(said.tokens):
        return [Piece(said.text, None if said.logprob is None else math.exp(said.logprob))]
    texts = [
        str(tokenizer.decode(list(said.tokens[:end]), skip_special_tokens=False))
        for end in range(len(said.tokens) + 1)
    ]
    added = [after[_shared(before, after) :] for before, after in pairwise(texts)]
    return [Piece(text, chance) for text, chance in zip(added, chances, strict=True)]


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
