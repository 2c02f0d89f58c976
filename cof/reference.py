"""The published box-to-mask rule, defects included, as a named alternative to the clean one.

Derived from its recorded outputs and checked against all of them; the parser of the published
rule is `cof.replies.parse_reference`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cof.replies import Quad


def reference_rectangle(quad: Quad, alpha: float, to_square: bool) -> Quad | None:
    """The published squaring and expansion, in fractions of the padded square.

    Its defects are kept: an edge goes to the border of the square when the centre minus the FULL
    side is not above 0 (or plus it not below 1), reversed corners stay reversed.

    Returns: the corners to index the grid with, unordered; None where the published code crashes
        (a corner that is not finite).
    """
    x0, y0, x1, y1 = quad
    width, height = x1 - x0, y1 - y0
    if to_square:
        width = height = max(width, height)
    left, right = _reference_span((x0 + x1) / 2, width * alpha)
    top, bottom = _reference_span((y0 + y1) / 2, height * alpha)
    corners = (left, top, right, bottom)
    return corners if all(math.isfinite(value) for value in corners) else None


def _reference_span(centre: float, side: float) -> tuple[float, float]:
    """One axis of the published expansion."""
    low = centre - side / 2 if centre - side > 0 else 0.0
    high = centre + side / 2 if centre + side < 1 else 1.0
    return low, high


def reference_mask(
    quad: Quad | None, grid: tuple[int, int], expand: float = 1.0, square: bool = True
) -> Tensor:
    """The published box-to-mask rule, defaults included.

    The cell of a coordinate is int(coordinate * (n - 1)), both ends included; negative indices
    count from the far end, as slices do. Nothing parsed lights every token, as published; so does
    a box on which the published code crashes (it overflows to infinity).

    Args:
        quad: what `parse_reference` returned, fractions of the padded square.
        grid: (rows, columns) of the visual tokens.
        expand: α, the factor on both sides.
        square: make both sides the longer one first.
    Returns: bool [rows * columns], row-major; may be all False (a reversed box, one outside).
    """
    corners = reference_rectangle(quad, expand, square) if quad else None
    mask = torch.zeros(grid, dtype=torch.bool)
    if corners is None:
        return ~mask.flatten()
    (rows, columns), (left, top, right, bottom) = grid, corners
    y0, y1 = int(top * (rows - 1)), int(bottom * (rows - 1))
    x0, x1 = int(left * (columns - 1)), int(right * (columns - 1))
    mask[slice(y0, y1 + 1), slice(x0, x1 + 1)] = True
    return mask.flatten()
