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

from cof.errors import ModelError
from cof.prompts import GROUNDING, Span
from cof.regions.boxes import from_frame, named_frame
from cof.regions.frame import BoxForm, Frame
from cof.regions.parse import parse_boxes
from cof.types import Answer, Box, Quad, View

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cof.regions.bias import Highlight


@dataclass(frozen=True, slots=True)
class Encoded:
    """A padded batch of B prompts, images in place, ready for the model.

    Attributes:
        inputs: the family's own, each [B, ...] (LLaVA: `inputs_embeds`, float [B, S, D]).
        attention_mask: int64 [B, S], 0 for padding. Every row ends at S.
        visual: per row int64 [T], positions of its visual tokens in the key space that is
            highlighted; T may differ from row to row.
        keys: K, width of that key space: S, or the number of keys of a cross-attention.
        positions: int64 [B, S], or [axes, B, S] where a family counts on several axes; None counts
            the tokens that are no padding, from 0.
        sees: int64 [B, S], the last key that each query sees; None is causal (itself).
        scale: per row float [T] by which its visual tokens' embeddings are multiplied, or None;
            () multiplies none.
        shared: what the rows have in common and need not be computed; the family's business.
        refused: row -> why its question cannot be asked; the row holds an empty question instead,
            so that it harms nobody, and what the model says to it counts as failed.
        room: per row, tokens of a reply for which the model has positions; () is no limit.
    """

    inputs: Mapping[str, Tensor]
    attention_mask: Tensor
    visual: tuple[Tensor, ...]
    keys: int
    positions: Tensor | None = None
    sees: Tensor | None = None
    scale: tuple[Tensor | None, ...] = ()
    shared: Any = None
    refused: Mapping[int, str] = field(default_factory=dict)
    room: tuple[int, ...] = ()

    def __len__(self) -> int:
        """B."""
        return len(self.attention_mask)


Mix = Callable[["Tensor"], "Tensor"]
"""What becomes of the scores of a decoding step, float32 [rows, V] -> [rows, V].

Rows that belong together (pairs; of a function with an attribute `rows`, so many) stand next to
each other and must get equal scores: then they choose the same token, live and end together, and
where one of them fails all do. Fewer rows are given as rows end, their order stays. Tokens may be
ruled out with -inf. What is recorded as the log-probability of a token is its log-softmax; of a
function whose attribute `shares` is true, which gives probabilities or a mixture of such, it is
the logarithm, what is below 0 cut off and the rest scaled to 1."""


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
        frame: what the coordinates of its box replies are.
        layers: decoder layers; those of the cross-attention where `space` is `cross`.
        heads: query heads of each.
        dtype: of its weights, as torch names it (`float16`).
        space: which keys are highlighted: the decoder's own (`self`), or those of a
            cross-attention (`cross`), where every query is a token of text.
        narrows: whether a highlight can be narrowed to layers or heads.
        lights_words: whether words of a question can be highlighted: not at all (`no`), their
            attention (`keys`), or their embeddings can be multiplied too (`inputs`).
        joins: whether two images can stand in one prompt (`join`).
        box_form: ways in which it writes boxes, for `generate_boxes`; () where it has no grammar.
        counters: what it has computed so far.
        grounding: its own request for the box of an answer, `{question}` in it; the paper's where
            its family has documented none, "" where it cannot be asked for boxes at all.
    """

    name: str
    frame: Frame
    layers: int
    heads: int
    dtype: str
    space: Literal["self", "cross"] = "self"
    narrows: bool = True
    lights_words: Literal["no", "keys", "inputs"] = "no"
    joins: bool = False
    box_form: tuple[BoxForm, ...] = ()
    counters: Counters
    grounding: str = GROUNDING

    def prepare(self, image: Image) -> Any:
        """What of `look` needs no model: called in threads, ahead, and cheap to hold.

        A family that prepares nothing leaves this out, and `prepared` in `look` as well.

        Raises:
            DataError: an image that the model cannot be shown; a run goes on without its questions.
        """
        return None

    @abstractmethod
    def look(self, images: Sequence[Image]) -> list[View]:
        """Run the vision tower once over RGB images (any sizes).

        A family with a `prepare` takes a second argument, `prepared`: None, or what `prepare` made
        of each image, where somebody had the time.
        """

    @abstractmethod
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Encoded:
        """Put each question into the chat template behind its image; one padded batch.

        A question that the model cannot be asked is refused by itself, see `Encoded.refused`.
        """

    @abstractmethod
    def highlighted(self, highlight: Highlight | None) -> AbstractContextManager[None]:
        """Add the highlight's bias to attention scores inside the block; None switches it off."""

    @abstractmethod
    def generate(
        self,
        encoded: Encoded,
        limits: Limits,
        done: Callable[[str], bool] | None = None,
        mix: Mix | None = None,
    ) -> list[Answer]:
        """Decode one answer a row.

        Args:
            encoded: the prompts.
            limits: how to decode.
            done: stop a row early, once this is true of its text (greedy decoding only).
            mix: what becomes of each step's scores, see `Mix` (greedy decoding only).

        Returns:
            Answers in the order of the rows; `seconds` is a row's share of the wall time. A row
            that was refused, whose logits are not finite, or whose reply outgrows the model's
            positions has an answer with an `error`; the others are what they are without it.

        Raises:
            ModelError: `mix` with beams or sampling.
        """

    def score(self, encoded: Encoded, texts: Sequence[str]) -> list[Answer]:
        """Weigh one given answer a row: its tokens, end of reply included, with their `logprobs`.

        An answer with an `error` where the row cannot be asked or its logits are not finite.

        Raises:
            ModelError: this family cannot weigh given answers.
        """
        raise ModelError(f"{self.name}: this model family cannot weigh given answers")

    def generate_boxes(
        self, encoded: Encoded, views: Sequence[View], max_new_tokens: int
    ) -> list[Answer]:
        """Decode one reply a row that is a list of boxes: greedy among what a grammar allows.

        Args:
            encoded: the prompts; no highlight is active.
            views: the rows' images, for replies in pixels.
            max_new_tokens: room for at least one box.

        Returns:
            Answers as of `generate`, in one of `box_form`, which `boxes` reads. They have no
            `logprobs`, since what could not be otherwise at the end is not asked. In `notes` are
            log-probabilities without the grammar: `least_logprob` and `mean_logprob` of the tokens
            that were asked, and `least_allowed`, the lowest of all tokens together that the grammar
            allowed at some place, far below 0 where the model would have said something else.

        Raises:
            ModelError: this family has no grammar, its tokenizer cannot follow it, or
                `max_new_tokens` is too small for a box.
        """
        raise ModelError(f"{self.name}: this model family has no grammar for boxes")

    def words(
        self, encoded: Encoded, questions: Sequence[str], spans: Sequence[Sequence[Span]]
    ) -> list[Tensor]:
        """Positions, in the key space, of the tokens that hold some characters of the questions.

        Args:
            encoded: prompts of these questions.
            questions: as `encode` was given them.
            spans: per row characters of its question, as of `cof.prompts.spans_of`.

        Returns:
            Per row int64 [n]; none of a row that is refused.

        Raises:
            ModelError: this family cannot say (`lights_words`).
        """
        raise ModelError(f"{self.name}: this model family does not say where words of a prompt are")

    def gradient(self, encoded: Encoded) -> Tensor:
        """Of one prompt: how much the reply's first token depends on each visual token.

        Returns:
            float32 [T] on the CPU: the norm of the gradient of the likeliest token's
            log-probability by the token's embedding, in the plain model; NaN or inf where the pass
            is not finite.

        Raises:
            ModelError: this family cannot be differentiated.
        """
        raise ModelError(f"{self.name}: this model family has no gradients by visual tokens")

    def join(self, whole: View, part: View, window: Box) -> View:
        """An image and a window of it, seen apart, as what one prompt shows: first one, then the
        other; the cells of both are fractions of the image.

        Raises:
            ModelError: this family shows one image a prompt (`joins`).
        """
        raise ModelError(f"{self.name}: this model family shows one image in a prompt")

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything of the model that a greedy reply depends on, as JSON has it.

        Weights, dtype, image options, chat template, stops: the key of replies kept on disk.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a manifest records: name, revision, layout, device, dtype, attention mechanism."""

    def boxes(self, reply: str, view: View) -> tuple[Box, ...]:
        """Every box of a reply, from the model's frame to fractions of the image."""
        unit = self.frame.unit or view.shown or view.size
        found = parse_boxes(reply, unit, self.frame.order)
        kept = (from_frame(quad, self.rectangle(view.size)) for quad in found)
        return tuple(box for box in kept if box is not None)

    def rectangle(self, size: tuple[int, int]) -> Quad:
        """The rectangle that replies speak of, in fractions of an image of (width, height)."""
        return named_frame(self.frame.name, size)

    def not_finite(self) -> str:
        """Why an answer with NaN or inf in its logits is none, and what to do about it."""
        way = (
            "are the weights damaged, or refine.perturb or refine.weight far too large?"
            if self.dtype in ("float32", "bfloat16")
            else "try dtype=float32 or dtype=bfloat16"
        )
        return f"non-finite logits (NaN or inf) in {self.dtype}; {way}"


@dataclass(frozen=True)
class Config:
    """Which model to load and how; a family's own `Config` adds what it alone has.

    Attributes:
        path: `cof-tiny` (the embedded model), a folder, or a hub name.
        device: `auto` (CUDA where there is one, else CPU), `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto` (float16 on CUDA as published, float32 on CPU), or a torch dtype's name.
        device_map: None, or "auto" to spread a model over several GPUs.
    """

    path: str = "cof-tiny"
    device: str = "auto"
    dtype: str = "auto"
    device_map: Literal["auto"] | None = None
