"""LLaVA-NeXT (1.6): the stretched image and up to four tiles of it, padding cut off.

What the numbers of its boxes are fractions of, the image or LLaVA-1.5's padded square, was asked
and not answered (haotian-liu/LLaVA issue 1158): `frame` is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cof.models.common import family, transformers_model
from cof.models.common.family import Family, Shape
from cof.models.common.tiles import anyres

_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


@dataclass(frozen=True)
class Config(family.Config):
    """Which LLaVA-NeXT to load and how; see `cof.models.common.family.Config`."""

    path: str = "llava-hf/llava-v1.6-vicuna-7b-hf"


class LlavaNext(Family):
    """LLaVA-NeXT in transformers' layout."""

    kinds = ("llava_next",)
    mark = token = "<image>"
    features = ("pixel_values", "image_sizes")

    def shape(self, size: tuple[int, int]) -> Shape:
        """The whole image first, then the tiles."""
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        return anyres(size, self.config.image_grid_pinpoints, vision.image_size, side)

    def chat(self, question: str) -> str:
        """That of the language model: Mistral's, or Vicuna's."""
        if self.config.text_config.model_type == "mistral":
            return f"[INST] {self.mark}\n{question} [/INST]"
        return f"{_SYSTEM} USER: {self.mark}\n{question} ASSISTANT:"


def load(config: Config) -> transformers_model.Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: see `cof.models.common.transformers_model.load`.
    """
    return transformers_model.load(LlavaNext, config)


def wrap(network: Any, config: Config) -> transformers_model.Transformers:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.transformers_model.wrap`.
    """
    return transformers_model.wrap(LlavaNext, network, config)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_model.identify(LlavaNext.kinds, config)
