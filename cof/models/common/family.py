"""What a family of `AutoModelForImageTextToText` has of its own: a `Family` fills it in.

Everything else (looking, prompts, decoding, highlighting) is `common/transformers_model.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cof import prompts
from cof.models import base
from cof.models.common.graphs import Decode
from cof.models.common.loading import Quantization
from cof.regions.frame import Frame

FRAMES = {
    "image": Frame("image"),
    "padded_square": Frame("padded_square"),
    "thousandths": Frame("thousandths", (1000.0, 1000.0)),
    "thousandths_yx": Frame("thousandths_yx", (1000.0, 1000.0), "yxyx"),
    "resized_pixels": Frame("resized_pixels", None),
    "bins_yx": Frame("bins_yx", (1024.0, 1024.0), "yxyx"),
}
"""Frames by name: fractions of the image or of its padded square, thousandths of the image (x or y
first), pixels of the resized image, 1024 bins with y first."""

ASSUMED = Frame("image", assumed=True)
"""Where nobody has documented what the numbers of a family's boxes mean."""


@dataclass(frozen=True)
class Config(base.Config):
    """What families of transformers' own models have in common; see `cof.models.base.Config`.

    Attributes:
        dtype: `auto` is the checkpoint's own half precision on CUDA, float32 on the CPU.
        frame: what the coordinates of box replies are, a name of `FRAMES`; "" is what the family's
            authors have documented, or an assumption that is logged and recorded as one.
        decode: how greedy replies are decoded: `graph` replays a captured CUDA graph of the whole
            step (on the CPU the same step runs uncaptured), `eager` does not; `auto` is `graph` on
            CUDA. Beams, sampling and what outgrows a window of attention are always eager.
        quantization: None, or `bnb4`, `bnb8`: bitsandbytes quantises the weights while they are
            loaded, to 4 bits (NF4) or 8.
        suffix: None asks questions as they come; else this stands in place of the line that
            benchmarks put behind them for LLaVA (`cof.prompts.SUFFIXES`), where one is there.
    """

    path: str = ""
    decode: Decode = "auto"
    quantization: Quantization | None = None
    suffix: str | None = None
    frame: Literal[
        "",
        "image",
        "padded_square",
        "thousandths",
        "thousandths_yx",
        "resized_pixels",
        "bins_yx",
    ] = ""


@dataclass(frozen=True)
class Seen:
    """One image's visual tokens: what `View.features` holds.

    Attributes:
        tokens: float [T, D], in the order of their placeholders.
        deep: per deeper layer float [T, D] that is added there (Qwen3-VL's deepstack), or ().
        extras: what the image processor says that the prompt's pass needs, each [1, ...].
    """

    tokens: Tensor
    deep: tuple[Tensor, ...]
    extras: Mapping[str, Tensor]

    def __len__(self) -> int:
        """T."""
        return len(self.tokens)


@dataclass(frozen=True)
class Shape:
    """Where the visual tokens of an image of some size are.

    Attributes:
        cells: float64 [T, 4], see `cof.types.View`.
        grid: (rows, columns) where the tokens are one row-major grid, else None.
        shown: (width, height) in pixels that the model sees.
    """

    cells: Tensor
    grid: tuple[int, int] | None
    shown: tuple[int, int]


class Family(ABC):
    """One family, for one checkpoint.

    Attributes:
        kinds: `model_type` of the checkpoints that are of it.
        mark: text that the chat template puts where the image goes.
        token: the placeholder, once for each visual token.
        frame: what the coordinates of box replies are.
        grounding: its own request for a box, `{question}` in it; the paper's where none is known.
        features: outputs of the image processor that the vision tower takes.
        kept: those of them that the prompt's pass needs too.
        types: name of the argument that marks the visual tokens with 1, "" for none.
        packed: visual tokens of a tile where the network takes one tensor [tiles, tokens, D]; 0
            where it takes a list with a tensor an image.
        blur: cells beyond its own of which a token may hear a little.
        config: of the network.
        processor: transformers' image processor.
    """

    kinds: ClassVar[tuple[str, ...]]
    mark: str
    token: str
    frame: Frame = ASSUMED
    grounding: str = prompts.GROUNDING
    features: tuple[str, ...] = ("pixel_values",)
    kept: tuple[str, ...] = ()
    types: str = ""
    packed: int = 0
    blur: float = 0.0

    def __init__(self, config: Any, processor: Any, settings: Any) -> None:
        self.config, self.processor, self.settings = config, processor, settings

    @abstractmethod
    def shape(self, size: tuple[int, int]) -> Shape:
        """The visual tokens of an image of (width, height) pixels.

        Raises:
            ValueError: the family cannot be shown an image of this size.
        """

    @abstractmethod
    def chat(self, question: str) -> str:
        """The documented prompt, for checkpoints without a chat template; `mark` in it once."""

    def image_text(self, size: tuple[int, int], tokens: int) -> str:
        """What `mark` becomes: the placeholder for each of the `tokens`, and what is around."""
        return self.token * tokens

    def options(self) -> dict[str, Any]:
        """What the image processor is called with."""
        return {}

    def images(self, image: Any) -> Any:
        """One image as the image processor takes a batch of it."""
        return [image]

    def split(self, output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Visual tokens [T, D], and those of deeper layers, of one image's features."""
        tokens = output.pooler_output
        if isinstance(tokens, Tensor):
            return tokens.flatten(0, -2), ()
        return torch.cat(list(tokens)), ()

    def join(self, seen: Sequence[Seen], tokens: Sequence[Tensor]) -> Any:
        """The features of a batch, a row each, as the network takes them; a new object each time.

        `generate` with beams expands what it is given in place.

        Args:
            seen: of each row.
            tokens: of each row float [T, D], in place of `Seen.tokens`.
        """
        pooled: Any = list(tokens)
        if self.packed:
            pooled = torch.cat(pooled)
            whole = len(pooled) % self.packed == 0  # else it is a part of an image
            pooled = pooled.unflatten(0, (-1, self.packed)) if whole else pooled[None]
        return BaseModelOutputWithPooling(pooler_output=pooled)

    def positions(self, network: Any, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor | None:
        """Positions [B, S] or [axes, B, S] of the prompts; None counts what is no padding from 0.

        Args:
            network: the whole model.
            inputs: `input_ids`, and what else the prompt's pass is given.
            mask: int64 [B, S].
        """
        return None

    def sees(self, visual: Tensor) -> Tensor | None:
        """The last key that each query sees, int64 [B, S]; None is causal.

        Args:
            visual: bool [B, S], which positions are visual tokens.
        """
        return None
