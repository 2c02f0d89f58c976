"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL: any resolution, one grid of visual tokens, M-RoPE positions.

An image is stretched to multiples of patch x merge pixels, its shape kept as nearly as that allows,
its area within the image processor's bounds. Boxes are in thousandths of the image, Qwen2-VL's
between special tokens (QwenLM/Qwen3-VL issue 866), Qwen3-VL's as JSON (1427); Qwen2.5-VL's are in
pixels of the resized image (676, 733, 782, 866).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from cof import prompts
from cof.models.common import family, transformers_model
from cof.models.common.family import FRAMES, Family, Seen, Shape
from cof.regions.mask import grid_cells

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"

GROUNDING = (
    "{question}\nLocate the region that contains the answer in this image and output the bbox "
    "coordinates in JSON format."
)
"""The wording of Qwen's grounding cookbook ("Locate X in this image and output ..."), with the
region of the answer as X, which is ours. Qwen2-VL has documented none."""


@dataclass(frozen=True)
class Config(family.Config):
    """Which Qwen-VL to load and how; see `cof.models.common.family.Config` for the rest.

    Attributes:
        max_pixels: largest area of the resized image; 0 is the checkpoint's (Qwen's is so large
            that a photograph may take 16384 visual tokens).
        min_pixels: smallest area of the resized image; 0 is the checkpoint's.
    """

    path: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    max_pixels: int = 0
    min_pixels: int = 0

    def __post_init__(self) -> None:
        if self.max_pixels < 0 or self.min_pixels < 0:
            raise ValueError(
                f"max_pixels={self.max_pixels} and min_pixels={self.min_pixels}: areas in pixels, "
                "or 0 for the checkpoint's own"
            )


class QwenVL(Family):
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL."""

    kinds = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    mark = token = "<|image_pad|>"
    features = ("pixel_values", "image_grid_thw")
    kept = ("image_grid_thw",)
    types = "mm_token_type_ids"

    def __init__(self, config: Any, processor: Any, settings: Config) -> None:
        super().__init__(config, processor, settings)
        kind = config.model_type
        self.frame = FRAMES["resized_pixels" if kind == "qwen2_5_vl" else "thousandths"]
        self.grounding = prompts.GROUNDING if kind == "qwen2_vl" else GROUNDING
        self.system = "" if kind == "qwen3_vl" else _SYSTEM
        for edge, area in (
            ("longest_edge", settings.max_pixels),
            ("shortest_edge", settings.min_pixels),
        ):
            if area:
                processor.size[edge] = area

    def shape(self, size: tuple[int, int]) -> Shape:
        """One grid over the whole image."""
        how = self.processor
        side = how.patch_size * how.merge_size
        bounds = how.size["shortest_edge"], how.size["longest_edge"]
        height, width = smart_resize(size[1], size[0], side, *bounds)
        grid = (height // side, width // side)
        return Shape(grid_cells(grid, (0.0, 0.0, 1.0, 1.0)), grid, (width, height))

    def chat(self, question: str) -> str:
        """ChatML; Qwen3 has no system prompt."""
        shown = f"<|vision_start|>{self.mark}<|vision_end|>"
        return (
            f"{self.system}<|im_start|>user\n{shown}{question}<|im_end|>\n<|im_start|>assistant\n"
        )

    def split(self, output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Qwen3's deepstack beside the tokens."""
        deep = getattr(output, "deepstack_features", None) or ()
        return torch.cat(list(output.pooler_output)), tuple(torch.cat(list(one)) for one in deep)

    def join(self, seen: Sequence[Seen], tokens: Sequence[Tensor]) -> Any:
        """One tensor a row; for each deeper layer likewise."""
        joined = super().join(seen, tokens)
        if seen[0].deep:
            from transformers.models.qwen3_vl.modeling_qwen3_vl import (
                BaseModelOutputWithDeepstackFeatures,
            )

            deep: Any = [list(layer) for layer in zip(*(one.deep for one in seen), strict=True)]
            return BaseModelOutputWithDeepstackFeatures(
                pooler_output=joined.pooler_output, deepstack_features=deep
            )
        return joined

    def positions(self, network: Any, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """M-RoPE: time, height, width, int64 [3, B, S]."""
        places, _ = network.model.get_rope_index(**inputs, attention_mask=mask)
        return places  # type: ignore[no-any-return]


def load(config: Config) -> transformers_model.Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: see `cof.models.common.transformers_model.load`.
    """
    return transformers_model.load(QwenVL, config)


def wrap(network: Any, config: Config) -> transformers_model.Transformers:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.transformers_model.wrap`.
    """
    return transformers_model.wrap(QwenVL, network, config)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_model.identify(QwenVL.kinds, config)
