"""Coarse, crop, finer: the model is asked for the box again on a crop about its first one.

Ours, after the iterated zoom of visual search (V*, arXiv 2312.14135). The finer box is brought back
to the image's own frame; where the crop has none, the first one stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cof.batch import Batch
from cof.locate import prompt
from cof.models.base import Model
from cof.regions.boxes import BoxConfig, around, cut, from_frame
from cof.types import Box, Region


@dataclass(frozen=True)
class Config:
    """How often and how close.

    Attributes:
        ask: how each box is asked for; the keys of the stage `prompt`.
        window: factor on both sides of the boxes' union that the crop shows; at least 1.
        least: least side of the crop, as a share of the image's, from 0 to 1.
        times: crops that are looked at, one in the other; at least 1.
    """

    ask: prompt.Config = field(default_factory=prompt.Config)
    window: float = 4.0
    least: float = 0.1
    times: int = 1

    def __post_init__(self) -> None:
        sizes = self.window >= 1 and math.isfinite(self.window) and 0 <= self.least <= 1
        if not sizes or self.times < 1:
            raise ValueError(
                f"window={self.window} and times={self.times} must be at least 1, "
                f"least={self.least} from 0 to 1"
            )


def check_model(model: Model, config: Config, boxes: BoxConfig) -> None:
    """Refuse what `prompt` refuses."""
    prompt.check_model(model, config.ask, boxes)


def locate(batch: Batch, config: Config) -> list[Region]:
    """One region a question; its replies are in `notes`, as they are in frames of their own."""
    regions = [_first(region) for region in prompt.locate(batch, config.ask)]
    for _ in range(config.times):
        rows = [row for row, region in enumerate(regions) if region.boxes]
        found = _closer(batch.take(rows), [regions[row] for row in rows], config)
        for row, region in zip(rows, found, strict=True):
            regions[row] = region
    return regions


def _first(region: Region) -> Region:
    step = {"reply": region.reply, **region.notes}
    notes = {} if region.error else {"steps": [step]}
    return replace(region, source="iterate", reply="", frame="image", notes=notes)


def _closer(batch: Batch, regions: Sequence[Region], config: Config) -> list[Region]:
    """Each region as a crop about it shows it."""
    if not regions:
        return []
    windows = [around(region.boxes, config.window, config.least) for region in regions]
    rects = [cut(one, image.size) for one, image in zip(windows, batch.images, strict=True)]
    crops, views = batch.closer(rects)
    near = replace(batch, images=crops, views=views)
    rows = zip(regions, prompt.locate(near, config.ask), rects, batch.images, strict=True)
    return [_merged(old, new, rect, image.size) for old, new, rect, image in rows]


def _merged(
    old: Region, new: Region, rect: tuple[int, int, int, int], size: tuple[int, int]
) -> Region:
    """A region with what its crop said: finer boxes in the frame of the image, if any."""
    seconds = old.seconds + new.seconds
    if new.error:
        return replace(old, boxes=(), seconds=seconds, error=new.error, notes={})
    width, height = size
    frame = (rect[0] / width, rect[1] / height, rect[2] / width, rect[3] / height)
    boxes: list[Box | None] = [from_frame(box.as_tuple(), frame) for box in new.boxes]
    kept = tuple(box for box in boxes if box is not None)
    step = {"window": [round(value, 6) for value in frame], "reply": new.reply, **new.notes}
    notes = {"steps": [*old.notes["steps"], step]}
    return replace(old, boxes=kept or old.boxes, seconds=seconds, notes=notes)
