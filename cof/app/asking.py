"""One question for the page: the coarse stage once, then every λ of the slider in one fine pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cof.batch import Batch
from cof.errors import AnswerError
from cof.outcome import Outcome
from cof.prompts import check_question
from cof.types import Question, Region

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.pipeline import CoF

LOWEST, HIGHEST, STEP = 0.5, 10.0, 0.5
"""Of the λ slider; 1 is the plain model."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question with its answers over λ.

    Attributes:
        outcomes: one a λ, all with one region and one mask.
        weights: their λ, rising; () where the fine stage has none, and one outcome.
        expand: α, by which the boxes were expanded.
    """

    outcomes: tuple[Outcome, ...]
    weights: tuple[float, ...]
    expand: float

    def place(self, weight: float) -> int:
        """Of the outcome whose λ is nearest."""
        return min(range(len(self.weights)), key=lambda i: abs(self.weights[i] - weight), default=0)

    def at(self, weight: float) -> Outcome:
        """The outcome whose λ is nearest; those of the slider are all there."""
        return self.outcomes[self.place(weight)]

    @property
    def question(self) -> str:
        """What was asked."""
        return self.outcomes[0].question

    @property
    def region(self) -> Region | None:
        """What the coarse stage found, or was given; None where a gate kept the plain answer."""
        first = self.outcomes[0]
        return None if first.result.kept else first.region


def ask(
    cof: CoF,
    image: Image,
    question: str,
    region: Region | None = None,
    expand: float | None = None,
    rows: int | None = None,
) -> Asked:
    """Locate, and answer under every λ of the slider and the settings' own; plain as well.

    Args:
        cof: model and settings.
        image: RGB.
        question: as it should be asked, any suffix included.
        region: known already, so that the coarse stage is left out.
        expand: α in place of the settings' own.
        rows: most λ in one pass; None puts all into one.

    Raises:
        AnswerError: the question is blank, or no pass answered it.
    """
    check_question(question)
    settings = cof.settings
    asked = Question(id="0", image="image", text=question)
    batch = Batch.of(cof.model, [asked], [image], settings.limits)
    boxes = settings.boxes if expand is None else replace(settings.boxes, expand=expand)
    weights = weights_of(settings.refine)
    stages = [replace(settings.refine, weight=one) for one in weights] or [settings.refine]
    variants = [replace(settings, boxes=boxes, refine=stage) for stage in stages]
    steps = cof.both_stages(batch, variants, rows, [region])
    outcomes = tuple(
        Outcome.of(batch, 0, step, batch.plain[0], stage)
        for [step], stage in zip(steps, stages, strict=True)
    )
    if all(outcome.error for outcome in outcomes):
        raise AnswerError(outcomes[0].error)
    return Asked(outcomes, weights, boxes.expand)


def weights_of(stage: Any) -> tuple[float, ...]:
    """The λ that a fine stage is asked under: the slider's and its own; () where it has none."""
    own = getattr(stage, "weight", None)
    if own is None:
        return ()
    count = round((HIGHEST - LOWEST) / STEP) + 1
    return tuple(sorted({float(own), *(LOWEST + STEP * number for number in range(count))}))


def given(boxes: Sequence[Any]) -> Region:
    """The region of boxes that somebody drew."""
    return Region(tuple(boxes), "given")
