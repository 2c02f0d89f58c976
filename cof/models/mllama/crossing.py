"""The decoder of one batch of prompts about tiled images, and greedy decoding with it.

The mask argument of the cross-attention is enough for a highlight: floats that are added to the
scores as they are. It is made anew for each pass, of what is hidden (tiles that an image does not
have; the whole image, to text before it) and of the bias that is on, for text behind the mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from cof.attention import current, highlighted, watched
from cof.models.base import Encoded
from cof.models.common.decoding import Greedy, State
from cof.models.common.kv_cache import cached, roomy
from cof.models.common.recording import last_query, recorded


class Crossing:
    """A decoder with what its rows look at; to `Greedy` a decoder like any other.

    Args:
        decoder: transformers' `MllamaTextModel`.
        states: of the images, float [B, K, D].
        present: which keys belong to tiles that the image has, bool [B, K].
        opened: from which position on each prompt sees its image, bool [B, S].
    """

    def __init__(self, decoder: Any, states: Tensor, present: Tensor, opened: Tensor) -> None:
        self.decoder, self.config = decoder, decoder.config
        self.states, self.present, self.opened = states, present, opened

    def __call__(self, cache: Cache, use_cache: bool, inputs_embeds: Tensor, **inputs: Any) -> Any:
        """The output of one pass, `last_hidden_state` in it; the first is the prompts'."""
        first = cache.get_seq_length() == 0
        opened = self.opened
        if not first:
            opened = opened.new_ones(inputs_embeds.shape[:2])
        mask, sighted = self._masks(opened, inputs_embeds.dtype)
        chosen = current(self.decoder)
        if chosen is not None:
            mask = mask + _behind(chosen.bias, sighted)
        with highlighted(self.decoder, None), watched(self._record):
            return self.decoder(
                **cached(self.decoder, cache),
                **inputs,
                inputs_embeds=inputs_embeds,
                cross_attention_states=self.states if first else None,
                cross_attention_mask=mask,
                full_text_row_masked_out_mask=sighted,
            )

    def _masks(self, opened: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What is added to scores, [B, 1, Q, K], and which queries see anything, [B, 1, Q, 1].

        As transformers has it, a query before the image has a mask of zeros: its attention is over
        all keys alike, and only the MLP behind is taken out.
        """
        hidden = opened[:, None, :, None] & ~self.present[:, None, None]
        lowest = torch.finfo(dtype).min
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return mask.masked_fill(hidden, lowest), opened[:, None, :, None].to(dtype)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only."""
        rows = rows.to(self.present.device)
        self.states, self.present = self.states[rows], self.present[rows]
        self.opened = self.opened[rows]

    def _record(
        self, module: Any, query: Tensor, key: Tensor, mask: Any, scaling: float | None
    ) -> None:
        """What the last query looks at, where somebody records it; cross-attentions from 0."""
        kept, crossing = recorded(), self.config.cross_attention_layers
        if kept is not None and module.layer_idx in crossing:
            kept[crossing.index(module.layer_idx)] = last_query(query, key, mask, scaling)


def _behind(bias: Tensor, sighted: Tensor) -> Tensor:
    """A bias [B, K] for the queries that see their image, [B, 1, Q, K]; 0 for those before it."""
    return bias.to(sighted)[:, None, None] * sighted


@contextmanager
def crossed(decoder: Any, bias: Tensor | None) -> Iterator[None]:
    """Inside the block transformers' own passes of a decoder have the bias [B, K] too.

    Beams and repeats multiply the batch by n: each row's bias is repeated n times. The images are
    looked at by the first pass alone; `generate` would hand them to every step.
    """

    def before(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = given["cross_attention_mask"]
        cache = given.get("cache", given.get("past_key_values"))  # 5.24 renamed it
        if bias is not None:
            rows = bias.repeat_interleave(len(mask) // len(bias), dim=0)
            sighted = given["full_text_row_masked_out_mask"]
            given["cross_attention_mask"] = mask + _behind(rows, sighted)
        if cache is not None and cache.get_seq_length() > 0:
            given["cross_attention_states"] = None
        return args, given

    hook = decoder.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with highlighted(decoder, None):
            yield
    finally:
        hook.remove()


class CrossingLoop(Greedy):
    """Greedy decoding whose `decoder` is a `Crossing`."""

    def start(self, encoded: Encoded, reply: int) -> Cache:
        """An empty cache; what the cross-attentions keep is written once."""
        cache = roomy(self.decoder, encoded.attention_mask.shape[1], reply)
        for layer in self.decoder.config.cross_attention_layers:
            cache.layers[layer] = DynamicLayer()
        return cache

    def prompt(self, encoded: Encoded) -> Tensor:
        """Input embeddings of the prompts, float [B, S, D]; no visual tokens among them."""
        return encoded.inputs["inputs_embeds"]

    def _keep(self, state: State, rows: Tensor, narrowed: Any) -> None:
        super()._keep(state, rows, narrowed)
        self.decoder.keep(rows)
