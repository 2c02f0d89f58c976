"""InternVL (transformers' layout, `-hf`): tiles of the stretched image, then the whole of it.

Boxes are `<box>[[x0, y0, x1, y1]]</box>` in thousandths of the image (OpenGVLab/InternVL issues 227
and 285; old training data had fractions, says a user in 844).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from cof.models.common import family, transformers_model
from cof.models.common.family import FRAMES, Family, Shape
from cof.models.common.tiles import WHOLE, row_major_tiles
from cof.regions.mask import grid_cells

GROUNDING = (
    "Please provide the bounding box coordinate of the region this sentence describes: "
    "<ref>the region that contains the answer to the question: {question}</ref>"
)
"""InternVL's documented request; what the sentence says is ours."""


@dataclass(frozen=True)
class Config(family.Config):
    """Which InternVL to load and how; see `cof.models.common.family.Config` for the rest.

    Attributes:
        max_tiles: most tiles of an image, the whole one aside; 0 is the checkpoint's.
    """

    path: str = "OpenGVLab/InternVL3-8B-hf"
    max_tiles: int = 0

    def __post_init__(self) -> None:
        if self.max_tiles < 0:
            raise ValueError(f"max_tiles={self.max_tiles}: a number of tiles, or 0")


class InternVL(Family):
    """InternVL 2.5 and later."""

    kinds = ("internvl",)
    mark = token = "<IMG_CONTEXT>"
    frame = FRAMES["thousandths"]
    grounding = GROUNDING

    def __init__(self, config: Any, processor: Any, settings: Config) -> None:
        super().__init__(config, processor, settings)
        vision = config.vision_config
        patches = vision.image_size[0] // vision.patch_size[0]
        self.side = int(patches * config.downsample_ratio)
        self.packed = self.side**2
        processor.max_patches = settings.max_tiles or processor.max_patches
        processor.crop_to_patches = True  # by itself the image processor makes one tile

    def shape(self, size: tuple[int, int]) -> Shape:
        """Tiles row by row; the whole image behind them, unless there is one tile."""
        how, side = self.processor, self.side
        tile = (how.size["height"], how.size["width"])
        columns, rows = (1, 1)
        if how.max_patches > 1:
            columns, rows = get_optimal_tiled_canvas(
                size[::-1], tile, how.min_patches, how.max_patches
            )
        shown = (columns * tile[1], rows * tile[0])
        cells = row_major_tiles(rows, columns, side)
        if rows * columns == 1:
            return Shape(cells, (side, side), shown)
        return Shape(torch.cat([cells, grid_cells((side, side), WHOLE)]), None, shown)

    def image_text(self, size: tuple[int, int], tokens: int) -> str:
        """The tokens between `<img>` and `</img>`."""
        return f"<img>{self.token * tokens}</img>"

    def chat(self, question: str) -> str:
        """ChatML, without a system prompt."""
        return f"<|im_start|>user\n{self.mark}\n{question}<|im_end|>\n<|im_start|>assistant\n"


def load(config: Config) -> transformers_model.Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: see `cof.models.common.transformers_model.load`.
    """
    return transformers_model.load(InternVL, config)


def wrap(network: Any, config: Config) -> transformers_model.Transformers:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.transformers_model.wrap`.
    """
    return transformers_model.wrap(InternVL, network, config)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_model.identify(InternVL.kinds, config)
