"""Boxes without torch: change their frame, expand, square, clip; parsing is in `cof.regions.parse`.

A `Quad` is four raw numbers (x0, y0, x1, y1) in whatever frame a reply speaks of; a `Box` is
checked and always in fractions of the ORIGINAL image. Frames:

* image: fractions of the original W x H image;
* padded square: fractions of the S x S square, S = max(W, H), in which the image sits at the
  floor offsets ((S - W) // 2, (S - H) // 2). LLaVA-1.5 answers in this one;
* centre crop: fractions of the middle square that is left of an image that is not padded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cof.types import Box, Quad

THINNEST = 200
"""Longest : shortest side of a window that is cut out to be looked at: Qwen-VL takes no thinner
image, and no family can see much in one."""

_ROUNDING = 1e-6
"""Pixels by which a border may miss a whole number and still be meant to be one."""


@dataclass(frozen=True)
class BoxConfig:
    """How a region becomes a mask.

    Attributes:
        rules: `clean` (every box, clip by half width, a token belongs when it shares area) or
            `reference` (the published code, its defects included).
        expand: α, the factor on both sides of the box about its centre; above 0.
        square: grow the shorter side (in pixels) to the longer one before expanding.
    """

    rules: Literal["clean", "reference"] = "clean"
    expand: float = 1.0
    square: bool = False

    def __post_init__(self) -> None:
        if self.rules not in ("clean", "reference"):
            raise ValueError(f"rules is {self.rules!r}; it must be 'clean' or 'reference'")
        _check_factor(self.expand)


def clip(quad: Quad) -> Box | None:
    """The part of an ordered quad inside [0, 1]; None where it has no area or is not finite."""
    if not all(math.isfinite(value) for value in quad):
        return None
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in quad)
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def padded_square(size: tuple[int, int]) -> Quad:
    """The rectangle that the padded square covers, in fractions of the image; holds [0, 1]^2.

    Args:
        size: (width, height) of the original image in pixels.
    """
    side = max(size)
    left, top = ((side - edge) // 2 for edge in size)
    width, height = size
    return (-left / width, -top / height, (side - left) / width, (side - top) / height)


def centre_crop(size: tuple[int, int], pixels: int | None = None) -> Quad:
    """The rectangle that the centre crop covers, in fractions of the image; lies in [0, 1]^2.

    Args:
        size: (width, height) of the original image in pixels.
        pixels: edge of the model's input; with it the crop is the processor's, in whole pixels of
            the resized image, without it the ideal one (they differ by up to one such pixel).
    """
    long, short = max(size), min(size)
    start, length = (long - short) / 2 / long, short / long
    if pixels is not None:
        resized = int(pixels * long / short)
        start, length = (resized - pixels) // 2 / resized, pixels / resized
    wide = size[0] >= size[1]
    return (start, 0.0, start + length, 1.0) if wide else (0.0, start, 1.0, start + length)


def named_frame(name: str, size: tuple[int, int], pixels: int | None = None) -> Quad:
    """The rectangle that a frame of this name covers, in fractions of the image.

    Args:
        name: `padded_square`, `centre_crop`; any other covers the image itself.
        size: (width, height) of the original image in pixels.
        pixels: as of `centre_crop`.
    """
    if name == "padded_square":
        return padded_square(size)
    return centre_crop(size, pixels) if name == "centre_crop" else (0.0, 0.0, 1.0, 1.0)


def from_frame(quad: Quad, frame: Quad) -> Box | None:
    """An ordered quad in fractions of a frame as a Box; None where nothing of it is in the image.

    Args:
        quad: fractions of the frame.
        frame: the rectangle that the frame covers, in fractions of the image.
    """
    x0, y0, x1, y1 = quad
    left, top, right, bottom = frame
    width, height = right - left, bottom - top
    return clip((left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height))


def to_frame(box: Box, frame: Quad) -> Quad:
    """A box in fractions of a frame, the inverse of `from_frame`."""
    left, top, right, bottom = frame
    width, height = right - left, bottom - top
    return (
        (box.x0 - left) / width,
        (box.y0 - top) / height,
        (box.x1 - left) / width,
        (box.y1 - top) / height,
    )


def from_padded_square(quad: Quad, size: tuple[int, int]) -> Box | None:
    """An ordered quad of the padded square as a Box; None where it covers padding only."""
    return from_frame(quad, padded_square(size))


def to_padded_square(box: Box, size: tuple[int, int]) -> Quad:
    """A box in fractions of the padded square, the inverse of `from_padded_square`."""
    return to_frame(box, padded_square(size))


def expand(box: Box, alpha: float) -> Box:
    """The box with both sides times alpha about its centre, clipped to the image.

    Raises:
        ValueError: alpha is not a finite number above 0.
    """
    _check_factor(alpha)
    if alpha == 1:
        return box
    x0, x1 = _interval((box.x0 + box.x1) / 2, (box.x1 - box.x0) * alpha)
    y0, y1 = _interval((box.y0 + box.y1) / 2, (box.y1 - box.y0) * alpha)
    return Box(x0, y0, x1, y1)


def square(box: Box, size: tuple[int, int]) -> Box:
    """The box with its shorter side grown to the longer one, measured in pixels.

    It is moved to stay inside the image, and cut where the image is narrower than the side.

    Args:
        box: fractions of the original image.
        size: (width, height) of the original image in pixels.
    """
    width, height = (box.x1 - box.x0) * size[0], (box.y1 - box.y0) * size[1]
    if width > height:
        y0, y1 = _moved((box.y0 + box.y1) / 2, width / size[1])
        return Box(box.x0, y0, box.x1, y1)
    x0, x1 = _moved((box.x0 + box.x1) / 2, height / size[0])
    return Box(x0, box.y0, x1, box.y1)


def around(boxes: Sequence[Box], factor: float, least: float = 0.0) -> Box:
    """One window about some boxes: their union's sides times a factor, moved into the image.

    Args:
        boxes: at least one, in fractions of the image.
        factor: on both sides of the union, about its centre.
        least: least length of a side, as a share of the image's.
    """
    x0, y0 = min(box.x0 for box in boxes), min(box.y0 for box in boxes)
    x1, y1 = max(box.x1 for box in boxes), max(box.y1 for box in boxes)
    left, right = _moved((x0 + x1) / 2, max(factor * (x1 - x0), least))
    top, bottom = _moved((y0 + y1) / 2, max(factor * (y1 - y0), least))
    return Box(left, top, right, bottom)


def pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest rectangle of whole pixels that holds a box: left, top, right, bottom.

    Args:
        box: fractions of the image.
        size: its (width, height) in pixels.
    """
    (left, right), (top, bottom) = (
        (math.floor(low * edge + _ROUNDING), math.ceil(high * edge - _ROUNDING))
        for low, high, edge in ((box.x0, box.x1, size[0]), (box.y0, box.y1, size[1]))
    )
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def cut(window: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a window that is cut out to be looked at: `pixels`, but never thinner than
    `THINNEST` : 1 where the image is not. The short side grows about its middle, inside the image.
    """
    left, top, right, bottom = pixels(window, size)
    left, right = _grown(left, right, size[0], math.ceil((bottom - top) / THINNEST))
    top, bottom = _grown(top, bottom, size[1], math.ceil((right - left) / THINNEST))
    return left, top, right, bottom


def union_area(boxes: Sequence[Box]) -> float:
    """Area that a set of boxes covers, overlaps counted once, as a share of the image."""
    xs = sorted({x for box in boxes for x in (box.x0, box.x1)})
    ys = sorted({y for box in boxes for y in (box.y0, box.y1)})
    return sum(
        (x1 - x0) * (y1 - y0)
        for x0, x1 in itertools.pairwise(xs)
        for y0, y1 in itertools.pairwise(ys)
        if any(b.x0 <= x0 and x1 <= b.x1 and b.y0 <= y0 and y1 <= b.y1 for b in boxes)
    )


def shared_area(first: Sequence[Box], second: Sequence[Box]) -> float:
    """Area that two sets of boxes both cover, as a share of the image."""
    both = union_area([*first, *second])
    return max(union_area(first) + union_area(second) - both, 0.0)


def iou(found: Sequence[Box], true: Sequence[Box]) -> float:
    """Intersection over union of the areas that two sets of boxes cover; 0 without boxes."""
    if not found or not true:
        return 0.0
    return min(shared_area(found, true) / union_area([*found, *true]), 1.0)


def _interval(centre: float, length: float) -> tuple[float, float]:
    """Both ends of an interval, clipped to [0, 1]; never empty, however short the length."""
    low = min(max(centre - length / 2, 0.0), math.nextafter(1.0, 0.0))
    high = min(centre + length / 2, 1.0)
    return (low, high) if low < high else (low, math.nextafter(low, 1.0))


def _moved(centre: float, length: float) -> tuple[float, float]:
    """An interval of at most 1 about the centre, moved into [0, 1]."""
    half = min(length, 1.0) / 2
    return _interval(min(max(centre, half), 1 - half), 2 * half)


def _grown(low: int, high: int, edge: int, least: int) -> tuple[int, int]:
    """Whole numbers at least `least` apart, as far as [0, edge] has room."""
    length = max(high - low, min(least, edge))
    low = min(max(low - (length - (high - low)) // 2, 0), edge - length)
    return low, low + length


def _check_factor(alpha: float) -> None:
    """Raise unless a box can be scaled by alpha."""
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"expand is {alpha}; it must be a finite number above 0 (1 keeps the box)")
