"""A box in the middle of the image: what photographers' habits alone are worth, as a control."""

from __future__ import annotations

from dataclasses import dataclass

from cof.batch import Batch
from cof.types import Box, Region


@dataclass(frozen=True)
class Config:
    """How much of the image.

    Attributes:
        area: share of the image in (0, 1]; the box has the image's aspect.
    """

    area: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise ValueError(f"area={self.area} must be above 0 and at most 1")


def locate(batch: Batch, config: Config) -> list[Region]:
    """The same box for every question; no model is asked."""
    margin = (1 - config.area**0.5) / 2
    box = Box(margin, margin, 1 - margin, 1 - margin)
    return [Region((box,), "centre") for _ in batch.questions]
