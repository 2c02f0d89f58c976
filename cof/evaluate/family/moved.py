"""Do visual tokens lie where they are said to lie? A block of pixels is changed; what moves?

Inside the vision tower every patch hears of every other. While the outputs of its attention are
switched off a token is of its own pixels alone, and of what resizing carries across an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cof.regions.mask import token_mask
from cof.types import Box

MIXING = ("attn.proj", "self_attn.out_proj", "self_attn.o_proj", "projection_layer")
"""Parts of names of the vision towers' weights by which patches hear of each other."""

_FILTER = 2.5
"""Pixels that a bicubic filter reaches beyond an edge."""


@contextmanager
def apart(network: Any) -> Iterator[bool]:
    """Inside the block patches do not hear of each other; whether that could be switched off."""
    text = {id(one) for one in network.get_decoder().parameters()}
    chosen = [
        weight
        for name, weight in network.named_parameters()
        if id(weight) not in text and any(part in name for part in MIXING)
    ]
    kept = [weight.detach().clone() for weight in chosen]
    try:
        for weight in chosen:
            weight.data.zero_()
        yield bool(chosen)
    finally:
        for weight, before in zip(chosen, kept, strict=True):
            weight.data.copy_(before)


def misplaced(model: Any, size: tuple[int, int], blocks: int = 6, blur: float = 0.0) -> list[str]:
    """Tokens that moved where they should not, or did not where they should, a line a block.

    Args:
        model: its `look` gives views with `features.tokens`; its patches are `apart`.
        size: (width, height) of the picture.
        blocks: how many are changed, one after the other, a third of the picture wide and high.
        blur: cells beyond its own that a token hears of (OneVision's shrunk grid).
    """
    grey = Image.new("RGB", size, (90, 120, 60))
    [before] = model.look([grey])
    found = []
    for number in range(blocks):
        place = np.random.default_rng(number)
        x, y = (round(float(place.uniform(0, 0.6)) * edge) for edge in size)
        block = (x, y, x + size[0] // 3, y + size[1] // 3)
        changed = grey.copy()
        changed.paste((210, 30, 160), block)
        [after] = model.look([changed])
        moved = (after.features.tokens - before.features.tokens).abs().amax(1).cpu()
        found += _wrong(moved / moved.max(), before.cells, block, size, blur)
    return found


def _wrong(
    moved: Tensor, cells: Tensor, block: tuple[int, ...], size: tuple[int, int], blur: float
) -> list[str]:
    """What is wrong with how far each token moved, [T] in (0, 1].

    A token counts as touched when 5 % of its cell is (of a blurred grid, which skips some, 75 %).
    """
    edges = torch.tensor(block, dtype=torch.float64) / torch.tensor([*size, *size])
    low, high = torch.maximum(cells[:, :2], edges[:2]), torch.minimum(cells[:, 2:], edges[2:])
    sides = (cells[:, 2:] - cells[:, :2]).clamp(min=1e-9)
    share = ((high - low).clamp(min=0) / sides).prod(1)
    touched = token_mask([Box(*edges.tolist())], cells) & (share > (0.75 if blur else 0.05))
    reach = _FILTER / torch.tensor(size) + blur * sides[cells[:, 0] > -1].amax(0)
    near = token_mask([_widened(edges, reach)], cells)
    still, stray = int((moved[touched] <= 0.01).sum()), int((moved[~near] > 0.05).sum())
    if not still and not stray:
        return []
    return [
        f"pixels {block} of {size[0]} x {size[1]}: {still} of {int(touched.sum())} tokens in it "
        f"did not move, {stray} of {int((~near).sum())} elsewhere did"
    ]


def _widened(edges: Tensor, by: Tensor) -> Box:
    low, high = (edges[:2] - by).clamp(min=0), (edges[2:] + by).clamp(max=1)
    return Box(*low.tolist(), *high.tolist())
