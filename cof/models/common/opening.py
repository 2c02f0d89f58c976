"""What all prompts about one image begin with, and its keys and values, computed once.

A family's images take different numbers of tokens, so that each has keys and values of its own. In
a batch they stand side by side, padded on the left; questions are padded between the image and
themselves, so that what is known ends at one place in all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache

from cof.models.common.kv_cache import roomy


class Opening:
    """The beginning of every prompt about one image, up to its last visual token.

    Args:
        ids: of the prompts; the placeholder once for each visual token.
        compute: the pass that makes keys and values of them, [1, H, P, D] a layer; it is run at
            the first use, without any highlight.
    """

    def __init__(self, ids: Sequence[int], compute: Callable[[], Cache]) -> None:
        self.ids, self._compute = tuple(ids), compute
        self._cache: Cache | None = None

    @property
    def known(self) -> bool:
        """Whether the pass has been run."""
        return self._cache is not None

    @property
    def layers(self) -> Sequence[Any]:
        """Keys and values, layer by layer."""
        if self._cache is None:
            self._cache = self._compute()
        return self._cache.layers


@dataclass(frozen=True)
class Side:
    """The openings of a batch, padded on the left to the longest: `Encoded.shared`.

    Attributes:
        decoder: the language model.
        openings: of each row.
        whole: an image's tokens see each other both ways, so that a part of them is of no use.
    """

    decoder: Any
    openings: tuple[Opening, ...]
    whole: bool

    @property
    def length(self) -> int:
        """Positions of the longest, P."""
        return max(len(one.ids) for one in self.openings)

    def take(self, length: int, prompt: int, reply: int) -> Cache:
        """A cache for `prompt` positions and at most `reply` more, that begins with `length`.

        A part is taken of what is there already, but is no reason to compute the whole.
        """
        cache, part = roomy(self.decoder, prompt, reply), length < self.length
        if length == 0 or (part and (self.whole or not all(one.known for one in self.openings))):
            return cache
        for number in range(len(cache.layers)):
            layers = [one.layers[number] for one in self.openings]
            cache.update(
                self._beside([layer.keys for layer in layers], length),
                self._beside([layer.values for layer in layers], length),
                number,
            )
        return cache

    def _beside(self, rows: Sequence[torch.Tensor], length: int) -> torch.Tensor:
        """The first `length` positions of [1, H, P, D] each, as one [B, H, length, D]."""
        _, heads, _, width = rows[0].shape
        found = rows[0].new_zeros(len(rows), heads, length, width)
        for number, row in enumerate(rows):
            start = self.length - row.shape[2]
            found[number, :, start:] = row[0, :, : max(0, length - start)]
        return found
