"""Where the model itself looks: the attention of the position that would begin the answer.

As ViCrop's relative attention (arXiv 2502.17422): the map of the question over that of a generic
request about the same image, which takes away what is looked at whatever is asked. Few heads do
the localising (arXiv 2503.06287); which ones has to be found on other data (`cof tune heads`). A
model whose visual tokens are keys of a cross-attention looks through that one, the mean of its
queries.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cof.batch import Batch
from cof.errors import ConfigError, ModelError
from cof.models.base import Limits, Model
from cof.models.common.recording import record_attention
from cof.regions.bias import check_indices
from cof.regions.boxes import BoxConfig
from cof.regions.heat import hottest, inside, packed
from cof.types import Answer, Region, View

GENERIC = "Write a general description of the image."
"""ViCrop's generic request."""

LEAST = 1e-8
"""Attention of a token below which its share is no number to divide by."""


@dataclass(frozen=True)
class Config:
    """Which attention, and how it becomes a box.

    Attributes:
        over: the request whose map the question's is divided by, token by token; "" divides by
            nothing. The default is ViCrop's.
        layers: decoder layers that count, from 0; None is all of them.
        heads: query heads that count, from 0, in each of these layers; or pairs (layer, head),
            which leave `layers` out; None is all of them.
        threshold: share of the peak from which a token belongs to the region, above 0, at most 1.
        keep_map: record the map in the region's `notes`, compressed.
        chosen_on: what chose the pairs: the hash of a benchmark, as `cof tune heads` writes it (a
            run over that one is refused), or a source; pairs need it.
    """

    over: str = GENERIC
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = None
    threshold: float = 0.5
    keep_map: bool = False
    chosen_on: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be above 0 and at most 1")
        if self.pairs and self.layers is not None:
            raise ValueError(f"heads={self.heads} name their layers; leave layers out")
        if self.pairs and not self.chosen_on:
            raise ValueError(
                f"heads={self.heads}: say in chosen_on which data chose them; `cof tune heads` does"
            )

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The heads where they are pairs (layer, head), else ()."""
        return tuple(one for one in self.heads or () if isinstance(one, tuple))


def check_model(model: Model, config: Config, boxes: BoxConfig) -> None:
    """Refuse layers and heads that the model does not have.

    Raises:
        ConfigError: the message shows them.
    """
    _check(model, config)


def _check(model: Model, config: Config) -> None:
    pairs = config.pairs
    layers = tuple(layer for layer, _ in pairs) if pairs else config.layers
    heads: Any = tuple(head for _, head in pairs) if pairs else config.heads
    for name, chosen, count in (("layers", layers, model.layers), ("heads", heads, model.heads)):
        try:
            check_indices(name, chosen, count)
        except ValueError as error:
            raise ConfigError(f"locate.{error}") from error


def locate(batch: Batch, config: Config) -> list[Region]:
    """One box a question, around its hottest patch; one pass a question, two with `over`.

    Raises:
        ConfigError: a layer or head that the model does not have.
        ModelError: a family whose attention cannot be recorded.
    """
    started = time.perf_counter()
    _check(batch.model, config)
    maps, said = relative_maps(batch, config)
    share = (time.perf_counter() - started) / len(batch)
    rows = zip(maps, said, batch.views, strict=True)
    return [_region(heat.mean(0), answer, view, share, config) for heat, answer, view in rows]


def relative_maps(batch: Batch, config: Config) -> tuple[list[Tensor], list[Answer]]:
    """`attention_maps` of the questions, divided by those of `config.over`."""
    maps, said = attention_maps(batch, [one.text for one in batch.questions], config)
    if config.over:
        below, others = _generic_maps(batch, config)
        maps = [one / two.clamp(min=LEAST) for one, two in zip(maps, below, strict=True)]
        said = [one if one.error else other for one, other in zip(said, others, strict=True)]
    return maps, said


def _generic_maps(batch: Batch, config: Config) -> tuple[list[Tensor], list[Answer]]:
    """`attention_maps` of `config.over`, asked once about each image."""
    rows = [*{id(view): row for row, view in enumerate(batch.views)}.values()]
    maps, said = attention_maps(batch.take(rows), [config.over] * len(rows), config)
    place = {id(batch.views[row]): number for number, row in enumerate(rows)}
    each = [place[id(view)] for view in batch.views]
    return [maps[one] for one in each], [said[one] for one in each]


def attention_maps(
    batch: Batch, texts: Sequence[str], config: Config
) -> tuple[list[Tensor], list[Answer]]:
    """Attention of each prompt's last position on its visual tokens, in a plain pass.

    Returns:
        Per row float32 [layers, T] on the CPU, the mean of the heads, or [pairs, T] where heads
        are pairs; and the row's first token, an answer whose `error` says why its map means
        nothing.
    """
    model = batch.model
    encoded = model.encode(batch.views, texts)
    with model.highlighted(None), record_attention() as found:
        said = model.generate(encoded, Limits(max_new_tokens=1))
    if not found:
        raise ModelError(f"{model.name}: its attention does not pass through cof.attention")
    layers = sorted(found) if config.layers is None else config.layers
    heads: Any = list(range(model.heads) if config.heads is None else config.heads)
    each = config.pairs or [(layer, heads) for layer in layers]
    if absent := sorted({layer for layer, _ in each} - found.keys()):
        raise ConfigError(
            f"locate: layers {absent} of {model.name} do not look at visual tokens; "
            f"those that do are {sorted(found)}"
        )
    kept = [found[layer][:, some] for layer, some in each]
    stacked = torch.stack([(one.mean(1) if one.ndim == 3 else one).cpu() for one in kept])
    return [stacked[:, row, places.cpu()] for row, places in enumerate(encoded.visual)], said


def _region(heat: Tensor, said: Answer, view: View, seconds: float, config: Config) -> Region:
    if said.error:
        return Region((), "attention", seconds=seconds, error=said.error)
    heat = heat.where(inside(view), torch.zeros(()))
    box = hottest(heat, view, config.threshold)
    notes = {"map": packed(heat, view)} if config.keep_map else {}
    return Region((box,) if box else (), "attention", seconds=seconds, notes=notes)
