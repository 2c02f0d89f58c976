"""Prompts that go through the whole network, replies that go through its decoder.

A prompt's pass needs what only the outer model knows: visual tokens put in place, token types,
features added in deeper layers. Embeddings made beforehand lose some of it, silently. A step of the
reply is text, and its position is known, so that the decoder alone is right, and quicker; so is the
rest of a prompt behind an image whose keys and values are known.
`Outer` is all of it in one, to `cof.models.common.decoding.Greedy` a decoder like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        """One pass, `last_hidden_state` in its output: the prompts up to their end, then steps."""
        start, encoded = cache.get_seq_length(), self.encoded
        if start >= encoded.keys:
            return self.decoder(**cached(self.decoder, cache), **inputs)
        ids = encoded.inputs["input_ids"][:, start:]
        if start and all(int(places[-1]) < start for places in encoded.visual):
            inputs["inputs_embeds"] = self.network.get_input_embeddings()(ids)
            return self.decoder(**cached(self.decoder, cache), **inputs)
        del inputs["inputs_embeds"]  # the network makes them of the ids
        ours = {**encoded.inputs, "input_ids": ids}
        if self.family.types:
            ours[self.family.types] = ours[self.family.types][:, start:]
        features, inner = joined(self.family, encoded, start), self.network.model
        return inner(**cached(inner, cache), **inputs, **ours, mm_encoder_outputs=features)


class Loop(Greedy):
    """Greedy decoding whose prompts are ids; `decoder` is an `Outer`."""

    def prompt(self, encoded: Encoded) -> Tensor:
        """Embeddings of the ids, float [B, S, D]: the first pass takes shape and type of them."""
        ids, embed = encoded.inputs["input_ids"], self.network.get_input_embeddings()
        return ids.new_empty((1, 1, 1), dtype=embed.weight.dtype).expand(*ids.shape, 1)


def joined(family: Family, encoded: Prompts, start: int = 0) -> dict[str, Any]:
    """The batch's visual tokens as the network takes them, scaled where asked (`Encoded.scale`).

    What is added in deeper layers is not scaled: `perturb` is of the input embeddings.

    Args:
        family: how they are joined.
        encoded: the prompts.
        start: first position of the pass; visual tokens before it are left out.
    """
    seen = [view.features for view in encoded.views]
    factors: Sequence[Tensor | None] = encoded.scale or [None] * len(seen)
    tokens = [_scaled(one, factor) for one, factor in zip(seen, factors, strict=True)]
    if start:
        skipped = [int((places < start).sum()) for places in encoded.visual]
        tokens = [one[count:] for one, count in zip(tokens, skipped, strict=True)]
        seen = [
            replace(one, deep=tuple(layer[count:] for layer in one.deep))
            for one, count in zip(seen, skipped, strict=True)
        ]
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
