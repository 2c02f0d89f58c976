"""What is added to the attention scores of a batch; `cof.attention` adds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Scope = Literal["all", "text"]


@dataclass(frozen=True)
class Highlight:
    """What to add to the attention scores of a batch.

    Attributes:
        bias: float [B, S], added to the scores of each of the S prompt positions as a key: log of
            the weight for highlighted tokens, 0 elsewhere, padding included. Positions after S
            (generated tokens) get 0. When beams or repeats multiply the batch by n, each row is
            repeated n times.
        queries: None (every query is biased: the paper), or bool [B, S], True where the query at
            that position is biased. Generated tokens always are.
        layers: None (all), or the decoder layers that see the bias, from 0.
        heads: None (all), or the query heads that see it, from 0, in each chosen layer.

    Raises:
        ValueError: a shape that is not [B, S], or a bias that is not finite.
    """

    bias: Tensor
    queries: Tensor | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.bias.ndim != 2 or not torch.isfinite(self.bias).all():
            raise ValueError(f"bias must be finite [B, S], got shape {tuple(self.bias.shape)}")
        if self.queries is not None and self.queries.shape != self.bias.shape:
            shapes = f"{tuple(self.queries.shape)}, bias {tuple(self.bias.shape)}"
            raise ValueError(f"queries must have the shape of bias; queries {shapes}")

    @property
    def narrowed(self) -> bool:
        """True when only some layers or heads see the bias."""
        return self.layers is not None or self.heads is not None

    def check(self, layers: int, heads: int) -> None:
        """Hold `layers` and `heads` against a decoder of so many.

        Raises:
            ValueError: an index that the decoder does not have, or none at all.
        """
        check_indices("layers", self.layers, layers)
        check_indices("heads", self.heads, heads)

    def untouched(self, sees: Tensor | None = None) -> int:
        """How many leading positions have the plain model's keys and values, in every row.

        A position is touched when its query is biased towards a key that it can see; everything
        before the first such position may be reused from an unhighlighted pass.

        Args:
            sees: int64 [B, S], the last key that each query sees; None is causal (itself). In a
                block with attention both ways (Gemma 3's images, PaliGemma's prompts) that is the
                block's end, so that the first key that changes is the block's first.
        """
        lit = (self.bias != 0).cummax(dim=1).values
        lit = lit if sees is None else lit.gather(1, sees.to(lit.device))
        touched = lit if self.queries is None else lit & self.queries
        first = torch.where(touched.any(1), touched.int().argmax(1), self.bias.shape[1])
        return int(first.min())

    def take(self, rows: Tensor) -> Highlight:
        """The highlight of some rows of the batch, by their indices."""
        queries = None if self.queries is None else self.queries[rows]
        return replace(self, bias=self.bias[rows], queries=queries)


def check_indices(what: str, chosen: Sequence[int] | None, count: int) -> None:
    """Some of `count` layers or heads; None is all of them.

    Raises:
        ValueError: an index outside 0 to count - 1, or an empty choice.
    """
    wrong = [index for index in chosen or () if not 0 <= index < count]
    if wrong or chosen == ():
        raise ValueError(f"{what} {wrong or 'is empty'}: the model has {what} 0 to {count - 1}")


def log_weight(weight: float) -> float:
    """The bias of a weight lambda: its natural logarithm.

    Raises:
        ValueError: lambda is not a positive finite number; the message shows it.
    """
    if not (weight > 0 and math.isfinite(weight)):
        raise ValueError(f"highlight weight (lambda) must be positive and finite, got {weight}")
    return math.log(weight)
