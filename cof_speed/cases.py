"""The cases that are timed, each a function of a model that answers a known number of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from PIL import Image

from cof.models.base import Encoded, Limits
from cof.models.llava.model import Llava
from cof.pipeline import CoF, Settings
from cof.prompts import SHORT_ANSWER
from cof.refine import highlight
from cof.regions.bias import Highlight, log_weight
from cof.regions.mask import token_mask
from cof.types import Question
from cof_speed import forced, published

WEIGHTS = (1.3, 2.0, 3.0, 4.5, 6.0, 8.0)
FINE, COARSE, LONG, STOPPED, GRAMMAR = 2, 30, 128, 25, 9
"""Tokens of an answer; of the coarse reply as published, when it rambles, and ended at its box;
decode steps of a reply under `locate.decode: grammar`, which feeds what could not be otherwise."""

QUESTIONS = (
    "Is there a red car to the left of the tall tree in the image?" + SHORT_ANSWER,
    "Is the small dog that sits near the door brown or black in colour?" + SHORT_ANSWER,
)
SIZE = (640, 480)


TWO = ", two questions an image"


def grammar_note(coarse: int) -> str:
    """How a case with coarse replies of so many decode steps is marked."""
    return "" if coarse == STOPPED else ", grammar"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: what is done.
        run: does it once.
        questions: questions answered by one run; a sweep counts its questions once.
        unit: name of the case that it is measured in.
        once: on a GPU, where it takes minutes, time it in the first round alone.
    """

    name: str
    run: Callable[[], object]
    questions: int
    unit: str
    once: bool = False


def random_images(count: int) -> list[Image.Image]:
    """Random images, the same every time."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize(SIZE) for pixels in noise]


class Workload:
    """The questions and settings behind every case.

    Args:
        model: its replies are cut to known lengths, whatever it says.
        batch: size of the large batches.
    """

    def __init__(self, model: Llava, batch: int = 8) -> None:
        self.model, self.batch, self.images = model, batch, random_images(batch)
        self.question = QUESTIONS[0]
        model.__dict__["stops"] = frozenset()

    def cases(self) -> list[Case]:
        """Every case, the units first."""
        one, many = "plain, batch 1", f"plain, batch {self.batch}"
        return [
            Case(one, self.plain, 1, one),
            Case("plain with the highlight active", lambda: self.plain(active=True), 1, one),
            Case(f"published, {COARSE} tokens", self.published, 1, one, once=True),
            Case(f"published, {LONG} tokens", lambda: self.published(LONG), 1, one, once=True),
            Case(many, lambda: self.plain(self.batch), self.batch, many),
            Case(f"{many}, highlight active", self._many_active, self.batch, many),
            *(case for coarse in (STOPPED, GRAMMAR) for case in self._ours(coarse)),
        ]

    def _many_active(self) -> object:
        return self.plain(self.batch, active=True)

    def _ours(self, coarse: int) -> list[Case]:
        """Both stages in every company, their coarse replies of so many decode steps."""
        one, many, note = "plain, batch 1", f"plain, batch {self.batch}", grammar_note(coarse)
        found = []
        for scope in ("all", "text"):
            for name, count, each, weights, unit in (
                (f"ours {scope}, batch 1", 1, 1, WEIGHTS[3:4], one),
                (f"sweep, ours {scope}", 1, 1, WEIGHTS, one),
                (f"ours {scope}, batch {self.batch}", self.batch, 1, (4.5,), many),
                (f"ours {scope}, batch {self.batch}{TWO}", self.batch, 2, (4.5,), many),
            ):
                run = partial(self.ours, scope, count, each, weights, coarse)
                found.append(Case(name + note, run, count, unit))
        return found

    def plain(self, count: int = 1, active: bool = False) -> object:
        """One pass without any sharing; `active` runs it under a highlight."""
        encoded = self.encode(count)
        if not active:
            return self.model.generate(encoded, Limits(FINE))
        with self.model.highlighted(self._plan(encoded)):
            return self.model.generate(encoded, Limits(FINE))

    def published(self, coarse: int = COARSE) -> object:
        """The published script's way; a sweep runs it once a weight, nothing is kept."""
        bias = self._mask() * log_weight(4.5)
        with published.eager(self.model):
            image, question = self.images[0], QUESTIONS[0]
            return published.answer(self.model, image, question, bias, coarse, FINE)

    def ours(
        self,
        scope: highlight.Scope,
        count: int,
        each: int,
        weights: Sequence[float] = (4.5,),
        coarse: int = STOPPED,
    ) -> object:
        """The pipeline: `count` questions, `each` of them about one image, under every weight."""
        variants = [
            Settings(
                locate=forced.Config(coarse),
                refine=highlight.Config(weight, scope),
                limits=Limits(FINE),
                plain=False,
            )
            for weight in weights
        ]
        images = [self.images[index // each] for index in range(count)]
        questions = [
            Question(str(index), "", QUESTIONS[index % each if each > 1 else 0])
            for index in range(count)
        ]
        return CoF(self.model).answer_many(questions, images, variants)

    def encode(self, count: int) -> Encoded:
        """The first `count` images with the same question, nothing shared."""
        encoded = self.model.encode(self.model.look(self.images[:count]), [QUESTIONS[0]] * count)
        return replace(encoded, shared=None)

    def _mask(self) -> torch.Tensor:
        return token_mask([forced.BOX], self.model.look(self.images[:1])[0].cells)

    def _plan(self, encoded: Encoded) -> Highlight:
        mask = torch.zeros(len(encoded.visual[0]), dtype=torch.bool)
        mask[len(mask) // 2 :][:20] = True
        return highlight.plan(encoded, [mask] * len(encoded.visual), highlight.Config(4.5))
