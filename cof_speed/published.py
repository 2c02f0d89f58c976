"""The published way, as a yardstick: eager attention, one question at a time, nothing shared.

Both stages run the vision tower and the whole prefill, and the coarse reply is decoded to its
full length. It gives the answers of our highlight (tested), only slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import DynamicCache

from cof.attention import NAME
from cof.models.base import Encoded
from cof.models.common.kv_cache import cached
from cof.models.llava.model import Llava
from cof.prompts import grounding_question


@contextmanager
def eager(model: Llava) -> Iterator[None]:
    """Run both towers with eager attention inside the block, as the published code does."""
    tower = model.network.model.vision_tower
    before = tower.config._attn_implementation
    model.decoder.set_attn_implementation("eager")
    tower.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.decoder.set_attn_implementation(NAME)
        tower.set_attn_implementation(before)


def answer(
    model: Llava, image: Image, question: str, bias: Tensor, coarse: int, fine: int
) -> list[int]:
    """Both stages for one question.

    Args:
        model: inside `eager`.
        image: RGB.
        question: as a benchmark asks it.
        bias: float [T], log lambda for highlighted visual tokens, 0 for the others.
        coarse: tokens of the coarse reply.
        fine: tokens of the answer.

    Returns:
        The answer's tokens.
    """
    first = model.encode(model.look([image]), [grounding_question(question)])
    _decode(model, first, torch.zeros(first.keys), coarse)
    second = model.encode(model.look([image]), [question])
    by_key = torch.zeros(second.keys)
    by_key[second.visual[0]] = bias.float().cpu()
    return _decode(model, second, by_key, fine)


@torch.inference_mode()
def _decode(model: Llava, encoded: Encoded, by_key: Tensor, steps: int) -> list[int]:
    """Greedy decoding of one row with an additive mask made by hand."""
    cache, embeds, tokens = DynamicCache(), model.embeds(encoded), []
    length, dtype, device = embeds.shape[1], embeds.dtype, embeds.device
    lowest = torch.finfo(dtype).min
    bias = torch.cat([by_key, torch.zeros(steps)]).to(device, dtype)
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    mask = torch.where(causal, bias[:length], lowest)[None, None]
    for step in range(steps):
        out = model.decoder(
            inputs_embeds=embeds, attention_mask=mask, **cached(model.decoder, cache)
        )
        best = model.network.lm_head(out.last_hidden_state[:, -1]).argmax(-1)
        tokens.append(int(best))
        embeds = model.network.get_input_embeddings()(best[:, None])
        mask = bias[None, None, None, : length + step + 1]
    return tokens
