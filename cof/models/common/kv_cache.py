"""Keys and values of a batch: the part that its images share, and memory with room for the reply.

`Prefix` holds the keys and values of system prompt and image, computed once and used by the coarse
pass, the plain pass and every question about the image; under a highlight it is used up to the
first position that the highlight touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from cof.attention import highlighted
from cof.models.base import Counters

_FIRST = 64
"""Positions of the reply for which there is room at first."""


def forward(decoder: Any, counters: Counters, cache: Cache, **inputs: Any) -> Tensor:
    """One counted forward pass of the decoder.

    Args:
        decoder: the language model.
        counters: where the pass is counted.
        cache: keys and values so far; the pass appends its own.
        inputs: as transformers calls them; `inputs_embeds` is float [B, Q, D].

    Returns:
        The last hidden states, float [B, Q, D].
    """
    batch, length = inputs["inputs_embeds"].shape[:2]
    counters.forwards += 1
    counters.positions += batch * length
    return decoder(**cached(decoder, cache), **inputs).last_hidden_state  # type: ignore[no-any-return]


def cached(decoder: Any, cache: Cache) -> dict[str, Any]:
    """A cache as the decoder takes it: transformers 5.24 renamed `past_key_values` to `cache`."""
    run = type(decoder).forward if isinstance(decoder, torch.nn.Module) else decoder
    name = "cache" if "cache" in signature(run).parameters else "past_key_values"
    return {name: cache, "use_cache": True}


class _Roomy(DynamicLayer):
    """A layer that writes new positions into memory with room for some more of them.

    Transformers' own layer is concatenated with every token: at batch 8 that copy took a third of
    a decode step. Here the memory holds the prompt and `_FIRST` positions of the reply, and what is
    behind the prompt doubles when it is full: replies are mostly far shorter than they may be.

    Args:
        prompt: positions of the prompt.
        reply: most positions behind it.
    """

    def __init__(self, prompt: int, reply: int) -> None:
        super().__init__()
        self.prompt, self.reply = prompt, reply

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the first memory, [2, B, H, positions, D]."""
        super().lazy_initialization(key_states, value_states)
        batch, heads, _, width = key_states.shape
        room = self.prompt + min(self.reply, _FIRST)
        self.memory = key_states.new_empty(2, batch, heads, room, width)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [B, H, Q, D]; returns all keys and values so far, views of the memory."""
        start = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        _, batch, heads, room, width = self.memory.shape
        expected = (batch, heads, key_states.shape[2], width)
        if not key_states.shape == value_states.shape == expected:  # an assignment would broadcast
            given = f"keys {tuple(key_states.shape)} and values {tuple(value_states.shape)}"
            raise ValueError(f"{given} for a cache that goes on with {expected}")
        end = start + key_states.shape[2]
        if end > room:
            self._grow(start, end)
        self.memory[0, :, :, start:end] = key_states
        self.memory[1, :, :, start:end] = value_states
        return self._hold(self.memory, end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with some rows only."""
        if self.is_initialized:
            self._hold(self.memory[:, indices], self.get_seq_length())

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the given rows, in their order."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Go on with every row `repeats` times."""
        if self.is_initialized:
            repeated = self.memory.repeat_interleave(repeats, dim=1)
            self._hold(repeated, self.get_seq_length())

    def offload(self) -> None:
        """Not for this layer."""
        raise NotImplementedError("a cache with room for the reply stays on its device")

    def prefetch(self) -> None:
        """Not for this layer."""
        self.offload()

    def _grow(self, length: int, needed: int) -> None:
        """Move to memory in which the reply has twice the room, or what is needed at once."""
        most = self.prompt + self.reply
        if needed > most:
            raise RuntimeError(f"{needed} positions for a cache of at most {most}")
        two, batch, heads, room, width = self.memory.shape
        room = max(needed, min(most, 2 * room - self.prompt))
        memory = self.memory.new_empty(two, batch, heads, room, width)
        memory[:, :, :, :length] = self.memory[:, :, :, :length]
        self.memory = memory

    def _hold(self, memory: Tensor, length: int) -> tuple[Tensor, Tensor]:
        self.memory = memory
        keys, values = memory[:, :, :, :length]
        self.keys, self.values = keys, values
        return keys, values


def roomy(decoder: Any, prompt: int, reply: int = 0) -> Cache:
    """An empty cache for a prompt and at most `reply` positions behind it."""
    return Cache(layers=[_Roomy(prompt, reply) for _ in range(decoder.config.num_hidden_layers)])


class _Fixed(DynamicLayer):
    """A layer on given memory that never moves: every step writes one position of all its rows.

    Where it writes is read on the device, so that a captured step goes on without the host; what
    lies behind that position is handed out too, and has to be masked.

    Args:
        memory: [2, B, H, K, D], keys and values.
        at: int64 [1], the position to write; shared by all layers, moved on by the step.
    """

    def __init__(self, memory: Tensor, at: Tensor) -> None:
        super().__init__()
        super().lazy_initialization(memory[0], memory[1])
        self.memory, self.at = memory, at
        self.keys, self.values = memory

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write [B, H, 1, D]; returns all K keys and values."""
        keys, values = self.memory
        keys.index_copy_(2, self.at, key_states)
        values.index_copy_(2, self.at, value_states)
        return keys, values


def fixed(memories: Sequence[Tensor], at: Tensor) -> Cache:
    """A cache on given memory, one [2, B, H, K, D] a layer, that writes where `at` says."""
    return Cache(layers=[_Fixed(memory, at) for memory in memories])


def load(cache: Cache, source: Cache) -> None:
    """Put the keys and values of some rows at the beginning of fixed memory, zeros elsewhere.

    What an earlier batch left there could be NaN, which a mask does not keep out.
    """
    layers: list[Any] = cache.layers
    given: list[Any] = source.layers
    for layer, old in zip(layers, given, strict=True):
        rows, _, length, _ = old.keys.shape
        layer.memory[:, rows:] = 0
        layer.memory[:, :rows, :, length:] = 0
        layer.memory[0, :rows, :, :length] = old.keys
        layer.memory[1, :rows, :, :length] = old.values


def unload(cache: Cache, rows: Tensor, length: int, into: Cache) -> Cache:
    """Copy some rows' first positions out of fixed memory, to the end of another cache."""
    layers: list[Any] = cache.layers
    for number, layer in enumerate(layers):
        into.update(layer.keys[rows, :, :length], layer.values[rows, :, :length], number)
    return into


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

    @property
    def known(self) -> bool:
        """Whether the pass has been run."""
        return self._cache is not None

    @property
    def layers(self) -> Sequence[Any]:
        """Keys and values [U, H, P, D], layer by layer."""
        if self._cache is None:
            self._cache = self._compute()
        return self._cache.layers

    def _compute(self) -> Cache:
        length = self.embeds.shape[1]
        cache = roomy(self.decoder, length)
        with highlighted(self.decoder, None):
            forward(self.decoder, self.counters, cache, inputs_embeds=self.embeds)
        return cache


@dataclass(frozen=True)
class Start:
    """Where the prompts of some rows begin: what `View.shared` and `Encoded.shared` hold.

    Attributes:
        rows: of each row the prefix of its image, and the image's place in it. Prefixes of several
            calls of `look` (a picture, and a crop of another) may stand in one batch.
    """

    rows: tuple[tuple[Prefix, int], ...]

    @property
    def length(self) -> int:
        """Positions that a prefix has."""
        return self.rows[0][0].length

    def take(self, length: int, prompt: int, reply: int) -> Cache:
        """A cache of its own for a batch: for `prompt` positions and at most `reply` more.

        It begins with the first `length` positions of the rows' images. A part is no reason to
        compute several prefixes: it is taken where all are there already.
        """
        prefixes = {prefix for prefix, _ in self.rows}
        first, several = self.rows[0][0], len(prefixes) > 1 and length < self.length
        cache = roomy(first.decoder, prompt, reply)
        if length == 0 or (several and not all(one.known for one in prefixes)):
            return cache
        every = self.rows == tuple((first, at) for at in range(len(first.embeds)))
        parts = [(one, slice(at, at + 1)) for one, at in self.rows]
        parts = [(first, slice(None))] if every else parts  # one question an image: no copy
        for number in range(len(cache.layers)):
            layers = [(prefix.layers[number], which) for prefix, which in parts]
            keys = [layer.keys[which, :, :length] for layer, which in layers]
            values = [layer.values[which, :, :length] for layer, which in layers]
            cache.update(_stacked(keys), _stacked(values), number)
        return cache


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def together(starts: Sequence[Start | None], ids: Sequence[int]) -> Start | None:
    """One start for the rows of a batch; None where they share nothing.

    Args:
        starts: of each row's image.
        ids: text ids before the image, which must be those of the prefixes.
    """
    rows = [row for one in starts if one is not None for row in one.rows]
    if len(rows) < len(starts) or any(prefix.ids != tuple(ids) for prefix, _ in rows):
        return None
    return Start(tuple(rows)) if len({prefix.length for prefix, _ in rows}) == 1 else None
