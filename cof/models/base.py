"""The contract between a model family and the two stages.

The one general idea: every visual token knows which rectangle of the original image it covers.
`look` shows the model an image and says so; everything after it (box -> mask -> bias) is the same
for every model. Adding a model is writing one `Model` in one file of this package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cof.errors import AnswerError, ModelError
from cof.types import Answer, Box, View

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cof.regions.bias import Highlight


@dataclass(frozen=True, slots=True)
class Encoded:
    """A padded batch of prompts, images in place, ready for the language model.

    Every row ends at S. Padding stands before the row, or between its image and its question
    where rows share a prefix.

    Attributes:
        embeds: float [B, S, D], input embeddings.
        attention_mask: int64 [B, S], 0 for padding.
        visual: per row int64 [T], positions of the visual tokens in the padded sequence.
        prefix: keys and values of the first `prefix.length` positions, None where not shared.
        rows: each row's row in `prefix`.
        refused: row -> why its question cannot be asked; the row holds an empty question instead,
            so that it harms nobody, and what the model says to it counts as failed.
        room: per row, tokens of a reply for which the model has positions; () is no limit.
    """

    embeds: Tensor
    attention_mask: Tensor
    visual: tuple[Tensor, ...]
    prefix: Any = None
    rows: tuple[int, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)
    room: tuple[int, ...] = ()


@dataclass
class Counters:
    """What a model has computed so far; exact, so that sharing can be asserted.

    Attributes:
        images: images that went through the vision tower.
        vision_calls: calls of the vision tower.
        positions: decoder positions computed, padding included, summed over rows.
        forwards: forward calls of the decoder.
    """

    images: int = 0
    vision_calls: int = 0
    positions: int = 0
    forwards: int = 0


@dataclass(frozen=True)
class Limits:
    """How to decode. The defaults are LLaVA's for MME: greedy, at most 128 new tokens.

    Attributes:
        max_new_tokens: at least 1.
        num_beams: 1 is greedy (or sampling).
        temperature: 0 is greedy; above 0 samples.
        seed: of the sampling generator, unused when greedy.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_beams < 1 or self.temperature < 0:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} and num_beams={self.num_beams} must be at "
                f"least 1, temperature={self.temperature} at least 0"
            )


class Model(ABC):
    """A multi-modal LLM that can be asked, and whose attention can be highlighted.

    Attributes:
        name: what the user called it (a path or hub name).
        frame: the frame its box replies use, recorded with every region.
        layers: decoder layers.
        heads: query heads of each.
        counters: what it has computed so far.
    """

    name: str
    frame: str
    layers: int
    heads: int
    counters: Counters

    @abstractmethod
    def look(self, images: Sequence[Image]) -> list[View]:
        """Run the vision tower once over RGB images (any sizes)."""

    @abstractmethod
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Encoded:
        """Put each question into the chat template behind its image; one padded batch.

        A question that the model cannot be asked is refused by itself, see `Encoded.refused`.
        """

    @abstractmethod
    def highlight(self, highlight: Highlight) -> AbstractContextManager[None]:
        """Add the highlight's bias to attention scores inside the `with` block."""

    @abstractmethod
    def generate(
        self, encoded: Encoded, limits: Limits, done: Callable[[str], bool] | None = None
    ) -> list[Answer]:
        """Decode one answer a row.

        Args:
            encoded: the prompts.
            limits: how to decode.
            done: stop a row early, once this is true of its text (greedy decoding only).

        Returns:
            Answers in the order of the rows; `seconds` is a row's share of the wall time. A row
            that was refused, whose logits are not finite, or whose reply outgrows the model's
            positions has an answer with an `error`; the others are what they are without it.
        """

    def losses(self, encoded: Encoded, texts: Sequence[str]) -> list[float | AnswerError]:
        """Mean token loss, in nats, of one given answer a row, its end of reply included.

        NaN where the row's logits are not finite, an error where it cannot be asked.

        Raises:
            ModelError: this family cannot weigh given answers.
        """
        raise ModelError(f"{self.name}: this model family cannot weigh given answers")

    def not_finite(self) -> str:
        """Why an answer with NaN or inf in its logits is none, and what to do about it."""
        dtype = self.describe().get("dtype", "an unknown dtype")
        way = (
            "are the weights damaged, or refine.perturb or refine.weight far too large?"
            if dtype in ("float32", "bfloat16")
            else "try dtype=float32 or dtype=bfloat16"
        )
        return f"non-finite logits (NaN or inf) in {dtype}; {way}"

    @abstractmethod
    def to_image(
        self, corners: tuple[float, float, float, float], size: tuple[int, int]
    ) -> Box | None:
        """A box of a reply, in the model's frame, as a Box; None where nothing of it is inside."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a manifest records: name, revision, layout, device, dtype, attention mechanism."""


@dataclass(frozen=True)
class Config:
    """Which model to load and how.

    Attributes:
        path: `cof-tiny` (the embedded model), a folder, or a hub name.
        device: `auto` (CUDA where there is one, else CPU), `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto` (float16 on CUDA as published, float32 on CPU), or a torch dtype's name.
        device_map: None, or "auto" to spread a model over several GPUs.
        conv: chat template, `vicuna_v1` or `llava_v1`.
        compile: decode on a static cache through `torch.compile`; pays on CUDA with long replies.
    """

    path: str = "cof-tiny"
    device: str = "auto"
    dtype: str = "auto"
    device_map: Literal["auto"] | None = None
    conv: str = "vicuna_v1"
    compile: bool = False
