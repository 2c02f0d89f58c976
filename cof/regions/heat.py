"""Heat maps over visual tokens: from a map to a box, and to a line in a record."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import torch

from cof.regions.boxes import clip
from cof.types import Box, Region, View

if TYPE_CHECKING:
    from torch import Tensor

NEAR = 1e-6
"""Share of the image by which cells that touch may miss each other."""


def inside(view: View) -> Tensor:
    """Which visual tokens share area with the image (not padding, not `NOWHERE`), bool [T]."""
    cells = view.cells.cpu().double()
    low, high = cells[:, :2].clamp(min=0), cells[:, 2:].clamp(max=1)
    return (low < high).all(1)


def hottest(heat: Tensor, view: View, threshold: float) -> Box | None:
    """The box around the patch of tokens about the peak; None where nothing is warm.

    Args:
        heat: float [T], at least 0.
        view: whose tokens they are; padding is passed over.
        threshold: share of the peak that a token must have to belong. Of those, the patch is what
            hangs together with the peak, corners included.
    """
    within = inside(view)
    heat = heat.double().where(within, torch.zeros(()).double())
    if not bool(heat.max() > 0):
        return None
    warm = (heat >= threshold * heat.max()) & within
    cells = view.cells.cpu().double()[warm]
    patch = _patch(cells, int(heat[warm].argmax()))
    low, high = cells[patch, :2].amin(0).tolist(), cells[patch, 2:].amax(0).tolist()
    return clip((low[0], low[1], high[0], high[1]))


def _patch(cells: Tensor, start: int) -> Tensor:
    """Which of N rectangles [N, 4] hang together with one of them, bool [N]."""
    low = torch.maximum(cells[:, None, :2], cells[None, :, :2])
    high = torch.minimum(cells[:, None, 2:], cells[None, :, 2:])
    touching = (low <= high + NEAR).all(-1)
    reached = touching[start]
    while True:
        further = touching[reached].any(0)
        if torch.equal(further, reached):
            return reached
        reached = further


def packed(heat: Tensor, view: View) -> dict[str, Any]:
    """A heat map for a record: {grid, top, zlib}; `unpacked` reads it.

    `zlib` is base64 of the compressed bytes, one a token, 255 for the hottest; `top` is its heat.
    """
    top = float(heat.max())
    levels = (heat.double() * (255 / top if top > 0 else 0)).round().to(torch.uint8)
    squeezed = base64.b64encode(zlib.compress(levels.numpy().tobytes(), 9)).decode()
    return {"grid": view.grid and list(view.grid), "top": top, "zlib": squeezed}


def unpacked(kept: dict[str, Any]) -> Tensor:
    """The heat map of a record, float32 [T]; exact to 1/510 of its peak."""
    levels = bytearray(zlib.decompress(base64.b64decode(kept["zlib"])))
    return torch.frombuffer(levels, dtype=torch.uint8).float() * (kept["top"] / 255)


def heat_of(region: Region) -> Tensor | None:
    """The heat map that a stage kept of a region (`keep_map`), float32 [T]; None where it did not.

    Of a record too: `heat_of(result.region)` for the results of `cof.load_run`.
    """
    kept = region.notes.get("map")
    if not isinstance(kept, dict) or kept.keys() != {"grid", "top", "zlib"}:
        return None
    return unpacked(kept)
