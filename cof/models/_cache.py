"""Keys and values of a batch: the part that its images share, and memory with room for the reply.

`Prefix` holds the keys and values of system prompt and image, computed once and used by the coarse
pass, the plain pass and every question about the image; under a highlight it is used up to the
first position that the highlight touches.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, StaticCache
from transformers.cache_utils import DynamicLayer

from cof.highlight import current, highlighted
from cof.models.base import Counters

_BLOCK = 128
"""A compiled step is built anew for each cache length; this many positions make few lengths."""


def forward(decoder: Any, counters: Counters, **inputs: Any) -> Tensor:
    """One counted forward pass of the decoder; last hidden states [B, Q, D]."""
    batch, length = inputs["inputs_embeds"].shape[:2]
    counters.forwards += 1
    counters.positions += batch * length
    return decoder(use_cache=True, **inputs).last_hidden_state  # type: ignore[no-any-return]


class _Roomy(DynamicLayer):
    """A layer that writes new positions into memory taken once, at the first use.

    Transformers' own layer is concatenated with every token: at batch 8 that copy took a third of
    a decode step.

    Args:
        room: most positions it will hold.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [B, H, Q, D]; returns all keys and values so far, views of the memory."""
        start = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            batch, heads, _, width = key_states.shape
            self.memory = key_states.new_empty(2, batch, heads, self.room, width)
        length = key_states.shape[2]
        fresh = self.memory.narrow(3, start, length)  # refuses what a slice would cut off
        fresh[0], fresh[1] = key_states, value_states
        self.keys, self.values = self.memory[:, :, :, : start + length]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with some rows only."""
        length = self.get_seq_length()
        self.memory = self.memory[:, indices]
        self.keys, self.values = self.memory[:, :, :, :length]


def roomy(decoder: Any, room: int) -> Cache:
    """An empty cache for at most `room` positions."""
    return Cache(layers=[_Roomy(room) for _ in range(decoder.config.num_hidden_layers)])


def static(config: Any, cache: Cache, room: int) -> StaticCache:
    """A copy of a cache in fixed memory, with room for the reply; lengths in steps of `_BLOCK`."""
    longest = -(-(int(cache.get_seq_length()) + room) // _BLOCK) * _BLOCK
    fixed = StaticCache(config=config, max_cache_len=longest)
    layers: list[Any] = cache.layers
    for number, layer in enumerate(layers):
        fixed.update(layer.keys, layer.values, number)
    return fixed


class Prefix:
    """Keys and values of the positions that depend on the image alone, for a set of images.

    Computed at the first use, without any highlight.

    Args:
        decoder: the language model.
        embeds: float [U, P, D], system prompt and visual tokens of U images, no padding.
        ids: text ids before the image; a prompt with others cannot share.
        counters: where the pass is counted.
    """

    def __init__(
        self, decoder: Any, embeds: Tensor, ids: tuple[int, ...], counters: Counters
    ) -> None:
        self.decoder, self.embeds, self.ids, self.counters = decoder, embeds, ids, counters
        self.length = embeds.shape[1]
        self._cache: Cache | None = None

    def take(self, rows: tuple[int, ...], length: int, room: int) -> Cache:
        """A cache of its own for a batch, for `room` positions in all.

        It begins with the first `length` positions of the given images.
        """
        if self._cache is None:
            self._cache = self._compute()
        every = rows == tuple(range(len(self.embeds)))  # one question an image: nothing to gather
        chosen = slice(None) if every else torch.tensor(rows)  # on the CPU: layers may be anywhere
        cache = roomy(self.decoder, room)
        if length == 0:
            return cache
        layers: list[Any] = self._cache.layers
        for number, layer in enumerate(layers):
            keys, values = layer.keys[:, :, :length], layer.values[:, :, :length]
            cache.update(keys[chosen], values[chosen], number)
        return cache

    def _compute(self) -> Cache:
        batch, length = self.embeds.shape[:2]
        cache, plain = roomy(self.decoder, length), current(self.decoder)
        with ExitStack() as stack:
            if plain is not None:
                nothing = torch.zeros(batch, length)
                stack.enter_context(highlighted(self.decoder, type(plain)(nothing)))
            forward(self.decoder, self.counters, inputs_embeds=self.embeds, past_key_values=cache)
        return cache
