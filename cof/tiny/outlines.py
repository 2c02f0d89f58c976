"""Signed distances to the outlines of the world's shapes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cof.tiny.world import SHAPES


def distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of (x, y), in radii, to each object's outline; negative inside."""
    ax, ay = x.abs(), y.abs()
    distances = (
        (x * x + y * y).sqrt() - 1,
        torch.maximum(ax, ay) - 1,
        torch.maximum(y - 1, (2 * ax - (y + 1)) / 5**0.5),
        (ax + ay - 1) / 2**0.5,
        _star(x, y),
        torch.maximum(torch.minimum(ax, ay) - 0.42, torch.maximum(ax, ay) - 1),
    )
    result = distances[0].expand(torch.broadcast_shapes(shape.shape, x.shape, y.shape))
    for index in range(1, len(SHAPES)):
        result = torch.where(shape == index, distances[index], result)
    return result


def _star(x: Tensor, y: Tensor, outer: float = 1.1, inner: float = 0.52) -> Tensor:
    """Distance to a five-pointed star: fold the plane to one half ray, then one line."""
    fifth = np.pi / 5
    angle = torch.atan2(x, -y).remainder(2 * fifth)
    angle = torch.minimum(angle, 2 * fifth - angle)
    reach = (x * x + y * y).sqrt()
    px, py = reach * angle.cos(), reach * angle.sin()
    ex, ey = inner * np.cos(fifth) - outer, inner * np.sin(fifth)
    return ((px - outer) * ey - py * ex) / float(np.hypot(ex, ey))
