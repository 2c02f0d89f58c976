"""The published box-to-mask rule, defects included, as a named alternative to the clean one.

Derived from its recorded outputs and checked against all of them; the parser of the published
rule is `cof.regions.parse.parse_reference`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cof.types import Quad


def reference_rectangle(quad: Quad, alpha: float, to_square: bool) -> Quad:
    """The published squaring and expansion, in fractions of the padded square.

    Its defects are kept: an edge goes to the border of the square when the centre minus the FULL
    side is not above 0 (or plus it not below 1), reversed corners stay reversed. Numbers that
    overflow give infinite corners.
    """
    x0, y0, x1, y1 = quad
    width, height = x1 - x0, y1 - y0
    if to_square:
        width = height = max(width, height)
    left, right = _span((x0 + x1) / 2, width * alpha)
    top, bottom = _span((y0 + y1) / 2, height * alpha)
    return (left, top, right, bottom)


def _span(centre: float, side: float) -> tuple[float, float]:
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
    a box that the published code crashes on (see `indexable`).

    Args:
        quad: what `parse_reference` returned, fractions of the padded square.
        grid: (rows, columns) of the visual tokens.
        expand: α, the factor on both sides.
        square: make both sides the longer one first.
    Returns: bool [rows * columns], row-major; may be all False (a reversed box, one outside).
    """
    corners = reference_rectangle(quad, expand, square) if quad else None
    if corners is None or not indexable(corners, grid):
        return torch.ones(grid[0] * grid[1], dtype=torch.bool)
    (rows, columns), (left, top, right, bottom) = grid, corners
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[_cells(top, bottom, rows), _cells(left, right, columns)] = True
    return mask.flatten()


def indexable(corners: Quad, grid: tuple[int, int]) -> bool:
    """Whether the published code can turn the corners into cells, rather than overflow."""
    return all(math.isfinite(value * max(grid)) for value in corners)


def _cells(low: float, high: float, count: int) -> slice:
    """The published cells of one axis, the end index included, as a slice within the axis."""
    start, stop, _ = slice(int(low * (count - 1)), int(high * (count - 1)) + 1).indices(count)
    return slice(start, max(start, stop))
