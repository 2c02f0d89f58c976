"""Signed distances to the outlines of the world's shapes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def shape_distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of points, in radii, to each object's outline; negative inside.

    Args:
        shape: int64 [N, 1, 1], index into SHAPES.
        x: [N, 1, w], from the object's centre.
        y: [N, h, 1].
    Returns: [N, h, w].
    """
    result = x.new_empty(len(shape), y.shape[1], x.shape[2])
    for index, distance in enumerate(DISTANCES):
        rows = (shape[:, 0, 0] == index).nonzero()[:, 0]
        if len(rows):
            result[rows] = distance(x[rows], y[rows])
    return result


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt() - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 1


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(y - 1, (2 * x.abs() - (y + 1)) / 5**0.5)


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() + y.abs() - 1) / 2**0.5


def _cross(x: Tensor, y: Tensor) -> Tensor:
    ax, ay = x.abs(), y.abs()
    return torch.maximum(torch.minimum(ax, ay) - 0.42, torch.maximum(ax, ay) - 1)


def _star(x: Tensor, y: Tensor, outer: float = 1.1, inner: float = 0.52) -> Tensor:
    """Distance to a five-pointed star: fold the plane to one half ray, then one line."""
    fifth = np.pi / 5
    angle = torch.atan2(x, -y).remainder(2 * fifth)
    angle = torch.minimum(angle, 2 * fifth - angle)
    reach = (x * x + y * y).sqrt()
    px, py = reach * angle.cos(), reach * angle.sin()
    ex, ey = inner * np.cos(fifth) - outer, inner * np.sin(fifth)
    return ((px - outer) * ey - py * ex) / float(np.hypot(ex, ey))


DISTANCES = (_circle, _square, _triangle, _diamond, _star, _cross)
"""In the order of SHAPES."""
