"""Greedy decoding with everything shared that stays exact; the loop behind both stages.

`Prefix` holds the keys and values of system prompt and image, computed once and used by the coarse
pass, the plain pass and every question about the image; under a highlight it is used up to the
first position that the highlight touches. `Greedy` decodes a batch on top of it, ends a row once
its text is complete, and drops finished rows from the batch, so that one rambling reply does not
keep the other rows busy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache
from transformers.masking_utils import create_causal_mask

from cof.highlight import current, highlighted
from cof.models.base import Counters, Encoded

_BLOCK = 128
"""A compiled step is built anew for each cache length; this many positions make few lengths."""


def _static(config: Any, cache: Cache, room: int) -> StaticCache:
    """A copy of a cache in fixed memory, with room for the reply; lengths in steps of `_BLOCK`."""
    longest = -(-(int(cache.get_seq_length()) + room) // _BLOCK) * _BLOCK
    fixed = StaticCache(config=config, max_cache_len=longest)
    layers: list[Any] = cache.layers
    for number, layer in enumerate(layers):
        fixed.update(layer.keys, layer.values, number)
    return fixed


def forward(decoder: Any, counters: Counters, **inputs: Any) -> Tensor:
    """One counted forward pass of the decoder; last hidden states [B, Q, D]."""
    batch, length = inputs["inputs_embeds"].shape[:2]
    counters.forwards += 1
    counters.positions += batch * length
    return decoder(use_cache=True, **inputs).last_hidden_state  # type: ignore[no-any-return]


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
        self._cache: DynamicCache | None = None

    def take(self, rows: tuple[int, ...], length: int) -> DynamicCache:
        """A cache of its own for a batch: the first `length` positions of the given images."""
        if self._cache is None:
            self._cache = self._compute()
        index = torch.tensor(rows)  # on the CPU: layers may be on several devices
        cache = DynamicCache()
        if length == 0:
            return cache
        layers: list[Any] = self._cache.layers
        for number, layer in enumerate(layers):
            keys, values = layer.keys[:, :, :length], layer.values[:, :, :length]
            cache.update(keys[index], values[index], number)
        return cache

    def _compute(self) -> DynamicCache:
        cache = DynamicCache()
        batch, length = self.embeds.shape[:2]
        plain = current(self.decoder)
        with ExitStack() as stack:
            if plain is not None:
                nothing = torch.zeros(batch, length)
                stack.enter_context(highlighted(self.decoder, type(plain)(nothing)))
            forward(self.decoder, self.counters, inputs_embeds=self.embeds, past_key_values=cache)
        return cache


@dataclass
class Row:
    """One row of a batch while it is being decoded."""

    index: int
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    closed: bool = False


@dataclass
class Greedy:
    """Greedy decoding of one batch.

    Attributes:
        network: the whole model (its `lm_head` and embeddings are used).
        decoder: its language model.
        counters: where forward passes are counted.
        stops: ids that end a reply.
        text: ids -> text, for `done`.
        closing: ids whose text holds `]` or `}`; `done` is first asked after one of them.
        done: None, or true of a text that needs no continuation.
        keep_logits: keep each step's logits.
        step: None, or a compiled forward of the decoder: decoding then runs on a static cache, in
            which finished rows stay, so that shapes do not change.
    """

    network: Any
    decoder: Any
    counters: Counters
    stops: frozenset[int]
    text: Callable[[list[int]], str]
    closing: frozenset[int] = frozenset()
    done: Callable[[str], bool] | None = None
    keep_logits: bool = False
    step: Callable[..., Any] | None = None

    @torch.inference_mode()
    def run(self, encoded: Encoded, max_new_tokens: int) -> list[Row]:
        """Decode every row to its end, at most `max_new_tokens` tokens.

        Args:
            encoded: B prompts; a highlight that is active here applies to them.
            max_new_tokens: at least 1.

        Returns:
            The B rows in order; the ending id is included.
        """
        rows = [Row(index) for index in range(len(encoded.embeds))]
        with ExitStack() as narrowed:
            self._steps(encoded, rows, max_new_tokens, narrowed)
        return rows

    def _steps(self, encoded: Encoded, rows: list[Row], limit: int, narrowed: ExitStack) -> None:
        mask = encoded.attention_mask
        cache: Cache = self.start(encoded)
        known = cache.get_seq_length()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        embeds, places = encoded.embeds[:, known:], positions[:, known:]
        active = list(rows)
        for step in range(limit):
            hidden = self._forward(step, embeds, mask, places, cache)
            going = self._take(active, self.network.lm_head(hidden[:, -1]))
            if not any(going) or step == limit - 1:
                return
            if step == 0 and self.step is not None:
                cache = _static(self.decoder.config, cache, limit)
            if sum(going) <= len(active) // 2 and self.step is None:
                keep = torch.tensor([i for i, go in enumerate(going) if go])
                active = [row for row, go in zip(active, going, strict=True) if go]
                mask, places = mask[keep], places[keep]
                self._drop(cache, keep, narrowed)
            newest = torch.tensor([[row.tokens[-1]] for row in active], device=mask.device)
            embeds, places = self.embed(newest, encoded), places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)

    def _forward(
        self, step: int, embeds: Tensor, mask: Tensor, places: Tensor, cache: Cache
    ) -> Tensor:
        """Prefill as it is; decode steps through the compiled forward, if there is one.

        The mask is made outside the compiled code: there, a highlight would be baked in.
        """
        inputs = {"inputs_embeds": embeds, "position_ids": places, "past_key_values": cache}
        if step == 0 or self.step is None:
            return forward(self.decoder, self.counters, attention_mask=mask, **inputs)
        full = create_causal_mask(self.decoder.config, embeds, mask, cache, places)
        return forward(self.step, self.counters, attention_mask=full, **inputs)

    def start(self, encoded: Encoded) -> DynamicCache:
        """The keys and values that the batch may start from."""
        if encoded.prefix is None:
            return DynamicCache()
        plan = current(self.decoder)
        usable = encoded.prefix.length if plan is None else plan.untouched()
        return encoded.prefix.take(encoded.rows, min(usable, encoded.prefix.length))

    def embed(self, ids: Tensor, encoded: Encoded) -> Tensor:
        """Input embeddings of ids, like the prompt's."""
        return self.network.get_input_embeddings()(ids).to(encoded.embeds)  # type: ignore[no-any-return]

    def _drop(self, cache: Cache, keep: Tensor, narrowed: ExitStack) -> None:
        """Go on with some rows only: their cache, and their part of the highlight."""
        cache.batch_select_indices(keep)
        plan = current(self.decoder)
        if plan is not None:
            narrowed.enter_context(highlighted(self.decoder, plan.take(keep)))

    def _take(self, active: list[Row], logits: Tensor) -> list[bool]:
        """Append each row's best token; True where the row goes on."""
        best = logits.argmax(-1).tolist()
        going = []
        for row, token, scores in zip(active, best, logits, strict=True):
            ended = bool(row.tokens) and self._ended(row)
            if not ended:
                row.tokens.append(token)
                row.logits += [scores.float().cpu()] if self.keep_logits else []
                row.closed |= token in self.closing
            going.append(not ended and not self._ended(row))
        return going

    def _ended(self, row: Row) -> bool:
        if row.tokens[-1] in self.stops:
            return True
        return row.closed and self.done is not None and self.done(self.text(row.tokens))
