"""Where visual tokens are in models that cut an image into tiles.

An image of W x H pixels, tiles of side s, n x n tokens a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from cof.models.common.family import Shape
from cof.regions.mask import grid_cells
from cof.types import NOWHERE, Quad

WHOLE: Quad = (0.0, 0.0, 1.0, 1.0)


def row_major_tiles(rows: int, columns: int, side: int) -> Tensor:
    """Cells of tiles that cover the image, tile after tile, side x side each: float64 [T, 4]."""
    cells = grid_cells((rows * side, columns * side), WHOLE)
    tiles = cells.view(rows, side, columns, side, 4).transpose(1, 2)
    return tiles.reshape(-1, 4)


def anyres(
    size: tuple[int, int],
    pinpoints: Sequence[tuple[int, int]],
    tile: int,
    side: int,
    most: int | None = None,
) -> Shape:
    """LLaVA-NeXT's tokens: the stretched image, then all tiles as one grid with ends of rows.

    The tiles' canvas is the pinpoint that fits best; the image lies in its middle, and rows or
    columns of tokens that hold nothing but padding are cut off. Each row ends in a newline token,
    which has no place.

    Args:
        size: (width, height) of the image.
        pinpoints: (height, width) that a canvas may have.
        tile: edge of a tile in pixels.
        side: tokens along an edge of a tile.
        most: tiles' worth of tokens above which the grid is shrunk (OneVision's `anyres_max_N`).
    """
    width, height = size
    tall, wide = select_best_resolution((height, width), [tuple(one) for one in pinpoints])
    fitted = _fitted(size, (wide, tall))
    rows, columns = tall // tile * side, wide // tile * side
    canvas = grid_cells((rows, columns), _around(fitted, (wide, tall))).view(rows, columns, 4)
    canvas = _unpadded(canvas, size)
    if most is not None:
        canvas = _shrunk(canvas, most * side**2)
    newline = torch.tensor(NOWHERE, dtype=torch.float64).expand(len(canvas), 1, 4)
    grid = torch.cat([canvas, newline], dim=1).view(-1, 4)
    return Shape(torch.cat([grid_cells((side, side), WHOLE), grid]), None, fitted)


def _fitted(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Size of the image on a canvas: one edge fills it, the other keeps the shape."""
    (width, height), (wide, tall) = size, canvas
    if wide / width < tall / height:
        return wide, min(math.ceil(height * (wide / width)), tall)
    return min(math.ceil(width * (tall / height)), wide), tall


def _around(fitted: tuple[int, int], canvas: tuple[int, int]) -> Quad:
    """The canvas in fractions of the image in its middle."""
    (width, height), (wide, tall) = fitted, canvas
    left, top = (wide - width) // 2, (tall - height) // 2
    return -left / width, -top / height, (wide - left) / width, (tall - top) / height


def _unpadded(canvas: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells [rows, columns, 4] without the ends that transformers' `unpad_image` cuts off."""
    (width, height), (rows, columns) = size, canvas.shape[:2]
    if width / height > columns / rows:
        cut = (rows - int(round(height * (columns / width), 7))) // 2
        return canvas[cut : rows - cut]
    cut = (columns - int(round(width * (rows / height), 7))) // 2
    return canvas[:, cut : columns - cut]


def _shrunk(canvas: Tensor, most: int) -> Tensor:
    """Cells of the grid over the same rectangle, with not many more than `most` tokens."""
    rows, columns = canvas.shape[:2]
    ratio = math.sqrt(rows * columns / most)
    if ratio <= 1.1:
        return canvas
    (x0, y0), (x1, y1) = canvas[0, 0, :2].tolist(), canvas[-1, -1, 2:].tolist()
    grid = (int(rows // ratio), int(columns // ratio))
    return grid_cells(grid, (x0, y0, x1, y1)).view(*grid, 4)
