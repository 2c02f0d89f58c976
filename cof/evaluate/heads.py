"""Which attention heads localise? Ranked on questions whose true boxes are known.

Few heads of a multi-modal LLM look at what is asked about (arXiv 2503.06287); that paper finds them
by how much they look at the image and how little they spread. Here boxes say it: of each head's map
the share that lies in the true boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cof.batch import Batch
from cof.config.schema import RunConfig
from cof.errors import DataError
from cof.images import load_image
from cof.locate import attention
from cof.models.base import Model
from cof.regions.mask import token_mask
from cof.store.dataset import pictures
from cof.types import Box, Question


@dataclass(frozen=True)
class Head:
    """One head, measured.

    Attributes:
        layer, head: from 0.
        share: of its map over the image's tokens that lies in true boxes, mean over questions.
        hits: share of the questions whose hottest token shares area with a true box; a map of
            zeros has none.
    """

    layer: int
    head: int
    share: float
    hits: float


@dataclass(frozen=True)
class Ranked:
    """All heads, best first, and the questions behind them.

    Attributes:
        heads: by `share`; ties by layer and head.
        questions: that counted.
        failed: have boxes too, but no readable image, no sound pass, or no box in view.
        chance: share of the image's tokens that share area with true boxes, their mean.
    """

    heads: tuple[Head, ...]
    questions: int
    failed: int
    chance: float


def rank(model: Model, config: RunConfig, questions: Iterable[Question]) -> Ranked:
    """Measure every head on the questions that have true boxes.

    Args:
        model: the config's.
        config: of a run; its `locate.over` divides the maps where the stage is `attention`.
        questions: of the benchmark; those without boxes, and those that fail, do not count.

    Raises:
        DataError: none of them counts.
    """
    every = tuple((layer, head) for layer in range(model.layers) for head in range(model.heads))
    asked = config.locate if isinstance(config.locate, attention.Config) else attention.Config()
    stage = replace(asked, heads=every, layers=None, chosen_on="all")
    found = [_measured(model, config, stage, one) for one in questions if one.boxes]
    kept = [one for one in found if one is not None]
    if not kept:
        raise DataError(
            f"{config.bench.root}: no question with true boxes that could be asked; heads are "
            "ranked on boxes"
        )
    shares, hits, chances = (torch.stack(rows).mean(0) for rows in zip(*kept, strict=True))
    rows = zip(every, shares.tolist(), hits.tolist(), strict=True)
    heads = [Head(layer, head, share, hit) for (layer, head), share, hit in rows]
    heads.sort(key=lambda one: (-one.share, one.layer, one.head))
    return Ranked(tuple(heads), len(kept), len(found) - len(kept), float(chances))


def _measured(
    model: Model, config: RunConfig, stage: attention.Config, question: Question
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of one question each head's share and hit, [heads] each, and the share of chance."""
    try:
        image = load_image(pictures(config) / question.image, exif=config.images.exif)
    except DataError:
        return None
    batch = Batch.of(model, [question], [image])
    [view] = batch.views
    (heat,), (said,) = attention.relative_maps(batch, stage)
    within, true = (
        token_mask(boxes, view.cells).cpu() for boxes in ((Box(0, 0, 1, 1),), question.boxes)
    )
    if said.error or not bool((true & within).any()):
        return None
    heat = heat.where(within, torch.zeros(()))
    share = heat[:, true].sum(1) / heat.sum(1).clamp(min=attention.LEAST)
    hit = true[heat.argmax(1)] & (heat.amax(1) > 0)  # a layer with a window may see no image
    return share, hit.float(), (true & within).sum() / within.sum()
