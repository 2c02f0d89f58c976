"""Where the patches of a tiled image are: it lies at the top left of a canvas of tiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.mllama.image_processing_pil_mllama import (
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

from cof.models.common.family import Shape
from cof.regions.mask import grid_cells


def shape(size: tuple[int, int], processor: Any, side: int) -> Shape:
    """The patches of an image of (width, height), tile after tile, row by row in each.

    The image is resized to fit the canvas that suits it best, and padded to the right and below.

    Args:
        size: of the image.
        processor: transformers' image processor.
        side: patches along an edge of a tile.
    """
    width, height = size
    edge = processor.size["height"]
    tall, wide = map(int, get_optimal_tiled_canvas(height, width, processor.max_image_tiles, edge))
    down, across = map(int, get_image_size_fit_to_canvas(height, width, tall, wide, edge))
    rows, columns = tall // edge, wide // edge
    frame = (0.0, 0.0, wide / across, tall / down)
    cells = grid_cells((rows * side, columns * side), frame)
    tiles = cells.view(rows, side, columns, side, 4).transpose(1, 2).reshape(-1, 4)
    grid = (side, side) if rows * columns == 1 else None
    return Shape(tiles, grid, (across, down))


def keys_of(tiles: int, side: int) -> Tensor:
    """Which keys the patches of so many tiles are, int64 [T]; a class token begins each tile."""
    patches = side**2
    starts = torch.arange(tiles)[:, None] * (patches + 1) + 1
    return (starts + torch.arange(patches)).flatten()
