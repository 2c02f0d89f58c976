"""Prompts that go through the whole network, replies that go through its decoder.

A prompt's pass needs what only the outer model knows: visual tokens put in place, token types,
features added in deeper layers. Embeddings made beforehand lose some of it, silently. A step of the
reply is text, and its position is known, so that the decoder alone is right, and quicker.
`Outer` is both in one, to `cof.models.common.decoding.Greedy` a decoder like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cof.models.base import Encoded
from cof.models.common.decoding import Greedy
from cof.models.common.family import Family, Seen
from cof.models.common.kv_cache import cached
from cof.types import View


@dataclass(frozen=True)
class Prompts(Encoded):
    """`Encoded`, with what each row's image looks like; `inputs` are ids, types and grids.

    Attributes:
        views: per row its image.
    """

    views: tuple[View, ...] = ()


class Outer:
    """The decoder of one batch of prompts; see the head of this file.

    Args:
        network: the whole model.
        decoder: its language model.
        family: how features are joined.
        encoded: the prompts.
    """

    def __init__(self, network: Any, decoder: Any, family: Family, encoded: Prompts) -> None:
        self.network, self.decoder, self.family = network, decoder, family
        self.encoded, self.config = encoded, decoder.config

    def __call__(self, cache: Any, use_cache: bool, **inputs: Any) -> Any:
        """The output of one pass, `last_hidden_state` in it; the first is the prompts'."""
        if cache.get_seq_length() > 0:
            return self.decoder(**cached(self.decoder, cache), **inputs)
        del inputs["inputs_embeds"]  # the network makes them of the ids
        features = joined(self.family, self.encoded)
        inner = self.network.model
        return inner(
            **cached(inner, cache), **inputs, **self.encoded.inputs, mm_encoder_outputs=features
        )


class Loop(Greedy):
    """Greedy decoding whose prompts are ids; `decoder` is an `Outer`."""

    def prompt(self, encoded: Encoded) -> Tensor:
        """Embeddings of the ids, float [B, S, D]: the first pass takes shape and type of them."""
        ids = encoded.inputs["input_ids"]
        embed = self.network.get_input_embeddings()
        return embed.weight.new_empty((1, 1, 1)).expand(*ids.shape, 1)  # type: ignore[no-any-return]


def joined(family: Family, encoded: Prompts) -> dict[str, Any]:
    """The batch's visual tokens as the network takes them, scaled where asked (`Encoded.scale`).

    What is added in deeper layers is not scaled: `perturb` is of the input embeddings.
    """
    seen = [view.features for view in encoded.views]
    factors: Sequence[Tensor | None] = encoded.scale or [None] * len(seen)
    tokens = [_scaled(one, factor) for one, factor in zip(seen, factors, strict=True)]
    return {"image": family.join(seen, tokens)}


def _scaled(seen: Seen, factor: Tensor | None) -> Tensor:
    if factor is None:
        return seen.tokens
    scaled = seen.tokens * factor.to(seen.tokens.device)[:, None]  # in float32
    return scaled.to(seen.tokens.dtype)


def padded(rows: Sequence[Sequence[int]], fill: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids [B, S], padded on the left by `fill`, and the mask of what is real, int64 [B, S]."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), fill)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = torch.tensor(row)
        mask[number, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)
