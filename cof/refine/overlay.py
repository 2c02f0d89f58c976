"""The region drawn on the image, which is then looked at again: outlined, or all else dimmed.

Red outlines as in arXiv 2304.06712, blur outside as in arXiv 2306.04356, both for CLIP there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cof.batch import Batch
from cof.refine.base import Look, answer
from cof.regions.boxes import pixels
from cof.types import Answer, Box, Focus

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Config:
    """What is drawn.

    Attributes:
        draw: `outline` the boxes, or `darken` or `blur` all that is outside of them.
        colour: of the outline; red, green, blue, 0 to 255.
        width: of the outline, outside the box, as a share of the image's longer side.
        dark: share of the light that is taken away outside, from 0 to 1.
        radius: of the Gaussian blur, as a share of the image's longer side.
    """

    draw: Literal["outline", "darken", "blur"] = "outline"
    colour: tuple[int, int, int] = (255, 0, 0)
    width: float = 0.01
    dark: float = 0.5
    radius: float = 0.02

    def __post_init__(self) -> None:
        if not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"colour={list(self.colour)} must be three numbers from 0 to 255")
        for name in ("width", "dark", "radius"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be from 0 to 1")


def prepare(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Look]:
    """A look at each question's drawing; at the image itself where nothing is in focus."""
    rows = [row for row, one in enumerate(focuses) if one.boxes and one.mask.any()]
    boxes = [focuses[row].boxes for row in rows]
    drawn = batch.take(rows).edited(boxes, lambda image, some: overlaid(image, some, config))
    looks = [Look(view) for view in batch.views]
    for row, view in zip(rows, batch.look(drawn), strict=True):
        looks[row] = Look(view)
    return looks


def refine(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Answer]:
    """Answer each question from its drawing; without a region in one plain pass."""
    return answer(batch, prepare(batch, focuses, config))


def overlaid(image: Image, boxes: Sequence[Box], config: Config) -> Image:
    """A copy of an RGB image with boxes (fractions of it) drawn on."""
    from PIL import ImageFilter

    rects = [pixels(box, image.size) for box in boxes]
    if config.draw == "outline":
        return _outlined(image, rects, config)
    if config.draw == "darken":
        outside = image.point(lambda value: round(value * (1 - config.dark)))
    else:
        outside = image.filter(ImageFilter.GaussianBlur(config.radius * max(image.size)))
    for rect in rects:
        outside.paste(image.crop(rect), rect[:2])
    return outside


def _outlined(image: Image, rects: Sequence[tuple[int, int, int, int]], config: Config) -> Image:
    """Frames outside the rectangles, so that nothing of the region is covered by its own."""
    from PIL import ImageDraw

    drawn, line = image.copy(), max(1, round(config.width * max(image.size)))
    pen = ImageDraw.Draw(drawn)
    for left, top, right, bottom in rects:
        corners = (left - line, top - line, right - 1 + line, bottom - 1 + line)
        pen.rectangle(corners, outline=config.colour, width=line)
    return drawn
