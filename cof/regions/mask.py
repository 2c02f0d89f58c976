"""Box -> mask over visual tokens -> bias on attention scores; the same for every model.

A model says which rectangle of the original image each of its visual tokens covers (`cells`);
nothing here knows a grid size. The published rule, which only speaks of grids, is apart in
`cof.regions.published`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cof.errors import ConfigError
from cof.regions.bias import log_weight
from cof.regions.boxes import (
    BoxConfig,
    centre_crop,
    expand,
    from_frame,
    padded_square,
    square,
    to_frame,
)
from cof.regions.parse import parse_reference
from cof.regions.published import indexable, reference_mask, reference_rectangle
from cof.types import Box, Focus, FocusStatus, Quad, Region, View

IMAGE = Box(0.0, 0.0, 1.0, 1.0)
"""The whole image."""

TOLERANCE = 1e-5
"""Share of a cell (or of the box, where that is narrower) by which they must overlap on each axis.
Far above the rounding of cells kept in float32, far below a step of a two-decimal box."""


def grid_cells(grid: tuple[int, int], frame: Quad) -> Tensor:
    """Rectangles of a token grid over a frame, as fractions of the original image.

    Args:
        grid: (rows, columns) of the model's visual tokens.
        frame: the rectangle that the grid covers, in fractions of the image.
    Returns: float64 [rows * columns, 4], row-major; nothing is clipped.
    """
    (rows, columns), (left, top, right, bottom) = grid, frame
    x = left + torch.arange(columns + 1, dtype=torch.float64) * ((right - left) / columns)
    y = top + torch.arange(rows + 1, dtype=torch.float64) * ((bottom - top) / rows)
    y0, x0 = torch.meshgrid(y[:-1], x[:-1], indexing="ij")
    y1, x1 = torch.meshgrid(y[1:], x[1:], indexing="ij")
    return torch.stack((x0, y0, x1, y1), dim=-1).reshape(-1, 4)


def padded_square_cells(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """`grid_cells` over the padded square of an image of (width, height); padding is outside."""
    return grid_cells(grid, padded_square(size))


def cells_of_part(cells: Tensor, window: Box) -> Tensor:
    """Cells [T, 4] in fractions of a window, as fractions of its image.

    Clipped to the window, or its padding would cover what lies around it; what is outside, or
    `NOWHERE`, has no area.
    """
    left, top, right, bottom = window.as_tuple()
    size = cells.new_tensor([right - left, bottom - top] * 2)
    return cells.clamp(0, 1) * size + cells.new_tensor([left, top] * 2)


def centre_crop_cells(
    grid: tuple[int, int], size: tuple[int, int], pixels: int | None = None
) -> Tensor:
    """`grid_cells` over the centre crop of an image of (width, height); see `boxes.centre_crop`."""
    return grid_cells(grid, centre_crop(size, pixels))


def token_mask(boxes: Sequence[Box], cells: Tensor) -> Tensor:
    """Visual tokens whose rectangle shares area with any box.

    A box that ends on the border of a cell does not light the neighbour: see `TOLERANCE`.

    Args:
        boxes: regions, in fractions of the original image.
        cells: float [T, 4], rectangle each visual token covers, same frame.
    Returns: bool [T], on the device of the cells.
    """
    if not boxes:
        return torch.zeros(len(cells), dtype=torch.bool, device=cells.device)
    cell = cells.detach().to("cpu", torch.float64)[:, None, :]  # [T, 1, 4]
    box = torch.tensor([box.as_tuple() for box in boxes], dtype=torch.float64)  # [B, 4]
    overlap = torch.minimum(cell[..., 2:], box[:, 2:]) - torch.maximum(cell[..., :2], box[:, :2])
    narrower = torch.minimum(cell[..., 2:] - cell[..., :2], box[:, 2:] - box[:, :2])  # [T, B, 2]
    shared = (overlap > TOLERANCE * narrower).all(dim=-1)
    return shared.any(dim=1).to(cells.device)


def focus(region: Region, view: View, config: BoxConfig) -> Focus:
    """The step from a region to a mask, by the rules of the config.

    | rules     | no box          | lights all           | lights none | else    |
    |-----------|-----------------|----------------------|-------------|---------|
    | clean     | no_box, plain   | whole, plain         | empty       | boxes   |
    | reference | no_box, ALL lit | whole, ALL lit       | empty       | boxes   |

    Under `clean`, all means every token that shares area with the image (not padding), and plain
    is a mask of all False. `reference` reads the first box of `region.reply`, or takes the first
    of `region.boxes` where no model was asked. `region.everything` lights every token.

    Raises:
        ConfigError: rules `reference` for a model whose tokens are not one grid.
    """
    if region.everything:
        every = torch.ones(len(view.cells), dtype=torch.bool, device=view.cells.device)
        return Focus(every, (IMAGE,), "whole")
    rule = _focus_reference if config.rules == "reference" else _focus_clean
    return rule(region, view, config)


def _focus_clean(region: Region, view: View, config: BoxConfig) -> Focus:
    """Every box, by shared area; a region that is no region becomes a plain pass."""
    boxes = region.boxes
    if config.square:
        boxes = tuple(square(box, view.size) for box in boxes)
    boxes = tuple(expand(box, config.expand) for box in boxes)
    mask = token_mask(boxes, view.cells)
    if not boxes:
        return Focus(mask, boxes, "no_box")
    if not mask.any():
        return Focus(mask, boxes, "empty")
    if mask[token_mask([IMAGE], view.cells)].all():
        return Focus(torch.zeros_like(mask), boxes, "whole")
    return Focus(mask, boxes, "boxes")


def _focus_reference(region: Region, view: View, config: BoxConfig) -> Focus:
    """The first box, by the published rule on the token grid."""
    if view.grid is None:
        raise ConfigError(
            "boxes.rules is 'reference', but the visual tokens of this model are not one grid; "
            "use boxes.rules=clean"
        )
    quad = parse_reference(region.reply)
    (left, top), (right, bottom) = view.cells[0, :2].tolist(), view.cells[-1, 2:].tolist()
    frame = (left, top, right, bottom)  # what the grid covers
    if not region.reply and region.boxes:
        quad = to_frame(region.boxes[0], frame)
    mask = reference_mask(quad, view.grid, config.expand, config.square).to(view.cells.device)
    corners = reference_rectangle(quad, config.expand, config.square) if quad else None
    if corners is None or not indexable(corners, view.grid):
        return Focus(mask, (), "no_box")
    box = from_frame(corners, frame)
    status: FocusStatus = "whole" if mask.all() else "boxes" if mask.any() else "empty"
    return Focus(mask, (box,) if box else (), status)


def key_bias(
    masks: Sequence[Tensor], visual: Sequence[Tensor], keys: int, weights: Sequence[float]
) -> Tensor:
    """What is added to the attention scores of each key: log λ for the highlighted tokens, else 0.

    Args:
        masks: per row bool [T], highlighted visual tokens.
        visual: per row int64 [T], positions of the visual tokens in the key space.
        keys: K, width of the key space.
        weights: per row λ, above 0; 1 changes nothing, below 1 dims.
    Returns: float32 [B, K], on the device of the positions.

    Raises:
        ValueError: a λ that is not a finite number above 0, a mask of the wrong length, or
            masks, positions and weights of different numbers of rows.
    """
    rows = list(zip(masks, visual, weights, strict=True))
    device = visual[0].device if rows else None
    bias = torch.zeros(len(rows), keys, dtype=torch.float32, device=device)
    for row, (mask, positions, weight) in enumerate(rows):
        if len(mask) != len(positions):
            raise ValueError(
                f"mask of row {row} has {len(mask)} tokens, "
                f"but the image has {len(positions)} visual tokens"
            )
        bias[row, positions[mask.to(positions.device)]] = log_weight(weight)
    return bias
