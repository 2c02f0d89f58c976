"""LLaVA-OneVision: the stretched image and many tiles, their grid shrunk where it grows too large.

The grid is shrunk without a filter against aliasing, so that a token also sees a little of what its
neighbours cover. No request for boxes and no frame of theirs is documented.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cof.errors import ModelError, shown
from cof.models.common import family, transformers_model
from cof.models.common.family import Family, Shape
from cof.models.common.tiles import anyres

_MOST = re.compile(r"anyres_max_([1-9]\d*)")


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

    def __init__(self, config: Any, processor: Any, settings: Config) -> None:
        super().__init__(config, processor, settings)
        found = _MOST.fullmatch(str(config.vision_aspect_ratio))
        if found is None:
            raise ModelError(
                f"{settings.path}: vision_aspect_ratio {shown(config.vision_aspect_ratio)} in "
                "config.json; LLaVA-OneVision needs anyres_max_N, such as anyres_max_9"
            )
        self.most = int(found[1])

    def shape(self, size: tuple[int, int]) -> Shape:
        """The whole image first, then the tiles, at most N tiles' worth of tokens."""
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        return anyres(size, self.config.image_grid_pinpoints, vision.image_size, side, self.most)

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
