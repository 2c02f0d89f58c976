"""What flows through the pipeline: Question, View -> Region -> Focus -> Answer -> Record.

Frozen dataclasses without behaviour beyond checking their own values; nothing here imports torch
at run time. A box is always in fractions of the ORIGINAL image: each model adapter converts from
the frame that its text uses (LLaVA-1.5 answers in the padded square).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Quad = tuple[float, float, float, float]
"""(x0, y0, x1, y1), x right, y down, in whatever frame; not checked, may reach beyond the image."""

NOWHERE: Quad = (-1.0, -1.0, -1.0, -1.0)
"""Rectangle of a visual token without a place: no area, so that no box shares any with it."""

FocusStatus = Literal["boxes", "no_box", "whole", "empty"]
"""How a region became a mask: `boxes` lit some visual tokens; `no_box` nothing was parsed;
`whole` every visual token was lit; `empty` boxes were parsed but lit none."""


@dataclass(frozen=True, slots=True)
class Box:
    """Corners (x0, y0)-(x1, y1) as fractions of the original image; x right, y down.

    Raises:
        ValueError: not 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1; the message shows the value.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        corners = (self.x0, self.y0, self.x1, self.y1)
        ordered = 0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1
        if not ordered or not all(math.isfinite(value) for value in corners):
            raise ValueError(
                f"box {corners} needs 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 "
                "(fractions of the image, x right, y down)"
            )

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The corners as (x0, y0, x1, y1)."""
        return (self.x0, self.y0, self.x1, self.y1)


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one image, as a benchmark asks it.

    Attributes:
        id: unique within the benchmark and stable between runs.
        image: path of the image file; benchmarks give it relative to their root.
        text: what the model is asked, the benchmark's suffix included, without the chat template.
        category: the benchmark's own group (MME subtask, POPE setting), or "".
        reference: the right answer as the benchmark writes it, or "".
        boxes: ground-truth regions, where the benchmark has them.
        options: answer options of a multiple-choice question, in the order they were shown.
        choose: the text shows no options; the answer is the one that is likeliest.
        core: what is asked, where `text` begins with something else (a hint); the coarse stage asks
            about this. "" is the first line of `text`.
    """

    id: str
    image: str
    text: str
    category: str = ""
    reference: str = ""
    boxes: tuple[Box, ...] = ()
    options: tuple[str, ...] = ()
    choose: bool = False
    core: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One image as the model sees it; computed once, used by both stages and every question.

    Attributes:
        features: the image's visual tokens and whatever a family keeps with them; for stages
            opaque. Images of one batch may have different numbers of visual tokens.
        cells: float [T, 4], rectangle (x0, y0, x1, y1) of the original image that each token
            covers, in fractions of it. Padding lies outside [0, 1]; nothing is clipped. A token
            without a place (newline, class, padding) has `NOWHERE`.
        grid: (rows, columns) where the T tokens are one row-major grid, else None.
        size: (width, height) of the original image in pixels.
        shown: (width, height) in pixels that the model saw: the unit of replies in pixels.
        shared: what the family's prompts about this image have in common; the family's business.
    """

    features: Any
    cells: Tensor
    grid: tuple[int, int] | None
    size: tuple[int, int]
    shown: tuple[int, int] | None = None
    shared: Any = None


@dataclass(frozen=True, slots=True)
class Region:
    """What the coarse stage found.

    Attributes:
        boxes: regions, in fractions of the original image, before expansion; may be empty.
        source: name of the coarse stage (`prompt`, `oracle`, ...).
        reply: the model's raw text, "" where no model was asked.
        frame: the frame that `reply` speaks of (`padded_square`, `image`).
        seconds: wall time spent on this question, its share of the batch.
        everything: every visual token is wanted, padding included (the control `whole`).
        error: why the stage found nothing that counts, "" where it did its work; then there are no
            boxes, and the question has no answer with a highlight.
        notes: what the stage wants to have recorded beside it, as JSON has it.
    """

    boxes: tuple[Box, ...]
    source: str
    reply: str = ""
    frame: str = "image"
    seconds: float = 0.0
    everything: bool = False
    error: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Focus:
    """A region as the fine stage sees it: which visual tokens to highlight.

    Attributes:
        mask: bool [T], True for the visual tokens of the region; all False means a plain pass.
        boxes: the boxes after expansion, squaring and clipping, fractions of the original image.
        status: how the mask came about; `no_box`, `whole` and `empty` are counted in reports.
    """

    mask: Tensor
    boxes: tuple[Box, ...]
    status: FocusStatus


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the model, or why there is none.

    Attributes:
        text: decoded, special tokens dropped, stripped.
        tokens: generated ids, end-of-sequence included, padding dropped.
        seconds: wall time spent on this question, its share of the batch.
        error: why the pass failed (numbers that are not finite, a prompt that is too long), "" if
            it did not; with an error text and tokens are empty, and mean nothing.
        logprobs: log-probability of each of `tokens` given those before it, in nats, under the
            scores that it was chosen by; () where they were not computed (beams, sampling). Of an
            option that was weighed, those of its tokens, which are not kept.
        notes: what the stage wants to have recorded beside it, as JSON has it; of a pass that
            failed nothing is recorded but the error.
        margin: how far the answer was from being another, in nats, at least 0. Of a generated one
            the log-probability of a token less that of the second best in its place, at the token
            where this is least: that one decided. (A yes or a no is mostly decided at the first.)
            Of an option that was weighed the mean token loss of the second best option less its
            own. None where it was not computed (beams, sampling), or nothing else could be said.
    """

    text: str
    tokens: tuple[int, ...] = ()
    seconds: float = 0.0
    error: str = ""
    logprobs: tuple[float, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    margin: float | None = field(default=None, compare=False)

    @property
    def logprob(self) -> float | None:
        """Log-probability of the whole answer, in nats; None where it was not computed."""
        return sum(self.logprobs) if self.logprobs else None


@dataclass(frozen=True, slots=True)
class Gated:
    """What the doubt gate (`cof.config.general.Gate`) made of a question.

    Attributes:
        margin: of the plain answer, see `Answer.margin`; None where that pass failed.
        asked: whether the question was located and refined; else it kept its plain answer, nothing
            was located, and no time was spent.
        forwards: forward calls of the decoder for the plain answer, and for locating and refining;
            its share of its batch (and, of settings that are answered together, of these).
        positions: decoder positions that these computed, likewise.
    """

    margin: float | None
    asked: bool
    forwards: tuple[float, float] = (0.0, 0.0)
    positions: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Result:
    """Both answers to one question, with everything that led to them.

    A pass that failed has no answer (None), and the other one is what it is.

    Attributes:
        question: what was asked.
        region: the coarse stage's output, None where it failed or was not asked (`gate`).
        focus_boxes: boxes after expansion, fractions of the original image.
        cells: indices of the highlighted visual tokens, in [0, tokens).
        tokens: number of visual tokens of the image.
        status: see `FocusStatus`.
        cof: the answer with the highlight, None where that pass or the coarse stage failed.
        plain: the same model's answer without it, None where it failed or was not asked for.
        error: which passes failed and why, "" where none did.
        target: indices of the visual tokens that share area with the question's true boxes.
        grid: (rows, columns) of the visual tokens where they are one row-major grid, else None.
        frame: the rectangle that the grid covers, in fractions of the image; None without a grid.
        lit: without a grid, the rectangle that each of `cells` covers, in fractions of the image.
        gate: what the doubt gate made of it, None where there was none.
    """

    question: Question
    region: Region | None = None
    focus_boxes: tuple[Box, ...] = ()
    cells: tuple[int, ...] = ()
    tokens: int = 0
    status: FocusStatus = "no_box"
    cof: Answer | None = None
    plain: Answer | None = None
    error: str = field(default="")
    target: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None
    frame: Quad | None = None
    lit: tuple[Quad, ...] = ()
    gate: Gated | None = None

    @property
    def kept(self) -> bool:
        """Whether the gate kept the plain answer, so that neither stage was run."""
        return self.gate is not None and not self.gate.asked
