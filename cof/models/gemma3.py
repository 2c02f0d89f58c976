"""Gemma 3: one stretched square, 256 visual tokens that see each other both ways.

Pan-and-scan (further crops of long images) is off, as it is by default. No request for boxes and no
frame of theirs is documented, but for fine-tuned models: `frame` is an assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cof.models.common import family, transformers_model
from cof.models.common.family import Family, Shape
from cof.models.common.tiles import WHOLE
from cof.regions.mask import grid_cells

_END = "<end_of_image>"


@dataclass(frozen=True)
class Config(family.Config):
    """Which Gemma 3 to load and how; see `cof.models.common.family.Config`."""

    path: str = "google/gemma-3-4b-it"


class Gemma3(Family):
    """Gemma 3 with vision (4B and larger)."""

    kinds = ("gemma3",)
    mark, token = "<start_of_image>", "<image_soft_token>"
    types = "token_type_ids"

    def __init__(self, config: Any, processor: Any, settings: Config) -> None:
        super().__init__(config, processor, settings)
        self.packed = config.mm_tokens_per_image

    def options(self) -> dict[str, Any]:
        """No further crops, whatever the checkpoint says."""
        return {"do_pan_and_scan": False}

    def shape(self, size: tuple[int, int]) -> Shape:
        """One grid over the whole image."""
        side = math.isqrt(self.config.mm_tokens_per_image)
        edges = self.processor.size
        shown = (edges["width"], edges["height"])
        return Shape(grid_cells((side, side), WHOLE), (side, side), shown)

    def image_text(self, size: tuple[int, int], tokens: int) -> str:
        """The tokens between the marks of an image, on lines of their own."""
        return f"\n\n{self.mark}{self.token * tokens}{_END}\n\n"

    def chat(self, question: str) -> str:
        """Gemma's turns."""
        return (
            f"<bos><start_of_turn>user\n{self.mark}{question}<end_of_turn>\n<start_of_turn>model\n"
        )

    def sees(self, visual: Tensor) -> Tensor:
        """Visual tokens see to the end of their image."""
        place = torch.arange(visual.shape[1], device=visual.device).expand(visual.shape)
        last = torch.where(visual, place, -1).amax(1, keepdim=True)
        return torch.where(visual, last, place)


def load(config: Config) -> transformers_model.Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: see `cof.models.common.transformers_model.load`.
    """
    return transformers_model.load(Gemma3, config)


def wrap(network: Any, config: Config) -> transformers_model.Transformers:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.transformers_model.wrap`.
    """
    return transformers_model.wrap(Gemma3, network, config)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_model.identify(Gemma3.kinds, config)
