"""Which visual tokens the answer depends on: the gradient of its first token, one number a token.

ViCrop's pure gradient (arXiv 2502.17422), which is Simonyan's saliency map (arXiv 1312.6034): the
norm of the gradient of the likeliest first token's log-probability. There it is taken by the pixels
of the image and pooled; here by the visual tokens themselves, so that it needs no vision tower and
holds for any family.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from cof.batch import Batch
from cof.errors import ModelError
from cof.models.base import Encoded, Model
from cof.regions.boxes import BoxConfig
from cof.regions.heat import hottest, inside, packed
from cof.types import Region, View


@dataclass(frozen=True)
class Config:
    """How the gradients become a box.

    Attributes:
        threshold: share of the peak from which a token belongs to the region, above 0, at most 1.
        keep_map: record the map in the region's `notes`, compressed.
    """

    threshold: float = 0.5
    keep_map: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be above 0 and at most 1")


def check_model(model: Model, config: Config, boxes: BoxConfig) -> None:
    """Refuse a family that cannot be differentiated, before any question.

    Raises:
        ModelError: it has no `gradient` of its own.
    """
    if type(model).gradient is Model.gradient:
        raise ModelError(
            f"locate.name=gradient: {model.name} has no gradients by visual tokens; use "
            "locate.name=attention (where it looks), detector, or file (another run's boxes)"
        )


def locate(batch: Batch, config: Config) -> list[Region]:
    """One box a question, around its hottest patch; one pass and one way back a question.

    Questions are taken one after the other, so that memory holds the graph of one.

    Raises:
        ModelError: a family that cannot be differentiated.
    """
    regions = []
    for view, question in zip(batch.views, batch.questions, strict=True):
        started = time.perf_counter()
        encoded = batch.model.encode([view], [question.text])
        why, heat = _heat(batch.model, encoded, view)
        seconds = time.perf_counter() - started
        regions.append(_region(heat, why, view, seconds, config))
    return regions


def _heat(model: Model, encoded: Encoded, view: View) -> tuple[str, Tensor]:
    """Why there is no map, "" where there is one; and the map, float32 [T]."""
    nothing = torch.zeros(len(view.cells))
    if encoded.refused:
        return encoded.refused[0], nothing
    found = model.gradient(encoded)
    if not bool(found.isfinite().all()):
        return model.not_finite(), nothing
    return "", found.where(inside(view), nothing)


def _region(heat: Tensor, why: str, view: View, seconds: float, config: Config) -> Region:
    if why:
        return Region((), "gradient", seconds=seconds, error=why)
    box = hottest(heat, view, config.threshold)
    notes = {"map": packed(heat, view)} if config.keep_map else {}
    return Region((box,) if box else (), "gradient", seconds=seconds, notes=notes)
