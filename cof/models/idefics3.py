"""Idefics3 and SmolVLM: tiles of the enlarged image, then the whole of it, tags between them.

No request for boxes and no frame of theirs is documented (users fail: huggingface/smollm issue
128): `frame` is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cof.models.common import family, transformers_model
from cof.models.common.family import Family, Shape
from cof.models.common.tiles import WHOLE, row_major_tiles
from cof.regions.mask import grid_cells

_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"


@dataclass(frozen=True)
class Config(family.Config):
    """Which Idefics3 or SmolVLM to load and how; see `cof.models.common.family.Config`."""

    path: str = "HuggingFaceTB/SmolVLM-Instruct"


class Idefics3(Family):
    """Idefics3, SmolVLM (one image; no video)."""

    kinds = ("idefics3", "smolvlm")
    mark = token = "<image>"
    features = ("pixel_values", "pixel_attention_mask")

    def images(self, image: Any) -> Any:
        """One prompt with one image."""
        return [[image]]

    def _tiles(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles; none where the image is shown whole alone."""
        _, rows, columns = self.processor.get_number_of_image_patches(size[1], size[0])
        return rows, columns

    def shape(self, size: tuple[int, int]) -> Shape:
        """Tiles row by row, the whole image behind them."""
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size // self.config.scale_factor
        tile = self.processor.max_image_size["longest_edge"]
        rows, columns = self._tiles(size)
        whole = grid_cells((side, side), WHOLE)
        if rows == 0:
            return Shape(whole, (side, side), (tile, tile))
        cells = torch.cat([row_major_tiles(rows, columns, side), whole])
        return Shape(cells, None, (columns * tile, rows * tile))

    def image_text(self, size: tuple[int, int], tokens: int) -> str:
        """Each tile behind its row and column, a newline behind each row, the whole image last."""
        rows, columns = self._tiles(size)
        one = self.token * (tokens // (rows * columns + 1))
        lines = [
            "".join(f"{_AROUND}<row_{row + 1}_col_{column + 1}>{one}" for column in range(columns))
            for row in range(rows)
        ]
        tiles = "".join(f"{line}\n" for line in lines) + ("\n" if lines else "")
        return f"{tiles}{_AROUND}{_WHOLE}{one}{_AROUND}"

    def chat(self, question: str) -> str:
        """As both families write it."""
        return f"<|im_start|>User:{self.mark}{question}<end_of_utterance>\nAssistant:"


def load(config: Config) -> transformers_model.Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: see `cof.models.common.transformers_model.load`.
    """
    return transformers_model.load(Idefics3, config)


def wrap(network: Any, config: Config) -> transformers_model.Transformers:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.transformers_model.wrap`.
    """
    return transformers_model.wrap(Idefics3, network, config)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_model.identify(Idefics3.kinds, config)
