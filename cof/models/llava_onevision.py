"""LLaVA-OneVision: the stretched image and many tiles, their grid shrunk where it grows too large.

The grid is shrunk without a filter against aliasing, so that a token also sees a little of what its
neighbours cover. No request for boxes and no frame of theirs is documented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cof.models.common import family, transformers_model
from cof.models.common.family import Family, Shape
from cof.models.common.tiles import anyres

_MOST = "anyres_max_"


@dataclass(frozen=True)
class Config(family.Config):
    """Which LLaVA-OneVision to load and how; see `cof.models.common.family.Config`."""

    path: str = "llava-hf/llava-onevision-qwen2-7b-ov-hf"


class LlavaOneVision(Family):
    """LLaVA-OneVision in transformers' layout."""

    kinds = ("llava_onevision",)
    mark = token = "<image>"
    features = ("pixel_values", "image_sizes")
    blur = 1.0

    def shape(self, size: tuple[int, int]) -> Shape:
        """The whole image first, then the tiles, at most N tiles' worth of tokens."""
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        most = int(self.config.vision_aspect_ratio.removeprefix(_MOST))
        return anyres(size, self.config.image_grid_pinpoints, vision.image_size, side, most)

    def chat(self, question: str) -> str:
        """ChatML, without a system prompt."""
        return f"<|im_start|>user {self.mark}\n{question}<|im_end|><|im_start|>assistant\n"


def load(config: Config) -> transformers_model.Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: see `cof.models.common.transformers_model.load`.
    """
    return transformers_model.load(LlavaOneVision, config)


def wrap(network: Any, config: Config) -> transformers_model.Transformers:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.transformers_model.wrap`.
    """
    return transformers_model.wrap(LlavaOneVision, network, config)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_model.identify(LlavaOneVision.kinds, config)
