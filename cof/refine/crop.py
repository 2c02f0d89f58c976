"""The region looked at again: a crop of the image, at the model's full resolution.

Alone, and then the whole image can come back by averaging with the plain pass (`cof.refine.mean`);
or `beside` the whole image, as ViCrop (arXiv 2502.17422) shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cof.batch import Batch
from cof.errors import ConfigError
from cof.models.base import Model
from cof.refine.base import Look, answer
from cof.regions.boxes import around, cut
from cof.types import Answer, Box, Focus


@dataclass(frozen=True)
class Config:
    """How much is shown.

    Attributes:
        window: factor on both sides of the boxes' union; at least 1.
        least: least side of the window, as a share of the image's, from 0 to 1.
        beside: show it as a second image behind the whole one, in one prompt.
    """

    window: float = 6.0
    least: float = 0.6
    beside: bool = False

    def __post_init__(self) -> None:
        if not (self.window >= 1 and math.isfinite(self.window) and 0 <= self.least <= 1):
            raise ValueError(
                f"window={self.window} must be at least 1 and least={self.least} from 0 to 1"
            )


def check_model(model: Model, config: Config) -> None:
    """Refuse `beside` for a family that shows one image a prompt.

    Raises:
        ConfigError: it does.
    """
    if config.beside and not model.joins:
        raise ConfigError(
            f"refine.beside: {model.name} is shown one image a prompt here; use "
            "refine.beside=false, or refine.name=mean of plain and crop"
        )


def prepare(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Look]:
    """A look at each question's window; at the whole image where nothing of it is in focus."""
    looks = [Look(view) for view in batch.views]
    rects = {
        row: cut(window, image.size)
        for row, (focus, image) in enumerate(zip(focuses, batch.images, strict=True))
        if (window := _window(focus, config)) is not None
    }
    rects = {row: rect for row, rect in rects.items() if rect != (0, 0, *batch.images[row].size)}
    _, seen = batch.take([*rects]).closer([*rects.values()])
    for view, (row, (left, top, right, bottom)) in zip(seen, rects.items(), strict=True):
        width, height = batch.images[row].size
        window = Box(left / width, top / height, right / width, bottom / height)
        shown = batch.model.join(batch.views[row], view, window) if config.beside else view
        notes = {"window": [round(value, 6) for value in window.as_tuple()]}
        looks[row] = Look(shown, notes=notes)
    return looks


def refine(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Answer]:
    """Answer each question from its window, or with it; without a region in one plain pass."""
    return answer(batch, prepare(batch, focuses, config))


def _window(focus: Focus, config: Config) -> Box | None:
    """The window about a region, None where nothing is in focus."""
    if not focus.boxes or not focus.mask.any():
        return None
    return around(focus.boxes, config.window, config.least)
