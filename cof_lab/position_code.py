"""Coordinates as waves: a code in which neighbours are alike and several places can be added up.

The mean of two linear coordinates is a third place, where nothing is; the mean of two codes
still tells both. So the vision tower is taught the code of every thing's box, the language model
the code of what a phrase names, and the tokens that write coordinates begin as such codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WAVES = (0.5, 1.0, 2.0, 4.0, 8.0)  # periods across the image
BOX_CODE = 4 * 2 * len(WAVES)  # numbers in the code of a box


def position_code(values: Tensor, waves: tuple[float, ...] = WAVES) -> Tensor:
    """Coordinates [..., C] in 0..1 to their codes [..., C * 2 * len(waves)], each in -1..1."""
    angle = 2 * math.pi * values[..., None] * values.new_tensor(waves)
    return torch.stack([angle.cos(), angle.sin()], -1).flatten(-3)


def coordinate_table(width: int, spread: float, seed: int) -> Tensor:
    """First weights [101, width] of the tokens 0.00 .. 1.00: codes in random directions.

    Entries have standard deviation `spread`, as those of any other token. One wave more than
    for places: a hundredth is finer than what is asked of the vision tower.
    """
    waves = (*WAVES, 16.0)
    code = position_code(torch.arange(101)[:, None] / 100, waves)
    directions = torch.randn(code.shape[1], width, generator=torch.Generator().manual_seed(seed))
    return spread / math.sqrt(len(waves)) * code @ directions
