"""What a stage is given: the rows of one batch; what they share is computed once.

A coarse stage is `locate(batch, config) -> regions`, a fine stage `refine(batch, focuses, config)
-> answers`; both find here whatever they may need, and neither has to know who else asks.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cof.errors import ModelError
from cof.models.base import Encoded, Limits, Mix, Model
from cof.types import Answer, Question, View

if TYPE_CHECKING:
    from PIL.Image import Image

_T = TypeVar("_T")

TIE = 1e-5
"""Nats. Two options nearer than this are in an order that rounding made: in float32 the loss of one
and the same option moves by up to 3e-6 with the company of its batch (32 questions of MiniVStar,
lambda 1 to 50). The options of real questions lie tenths apart."""


class Prompt(NamedTuple):
    """One prompt of a batch.

    Attributes:
        row: whose question it is.
        option: the answer to weigh, None to generate one.
    """

    row: int
    option: str | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image, and what a worker made of it ahead of the model.

    Attributes:
        image: RGB.
        ahead: of the model's `prepare`; None where it has prepared nothing.
    """

    image: Image
    ahead: Any = None

    @classmethod
    def of(cls, model: Model, image: Image) -> Prepared:
        """Prepare an image, for a model whose `look` takes what was prepared."""
        takes = "prepared" in inspect.signature(model.look).parameters
        return cls(image, model.prepare(image) if takes else None)


@dataclass(frozen=True)
class Batch:
    """B questions and what the model saw of their images.

    Attributes:
        model: the multi-modal LLM.
        questions: B questions.
        images: the B images they are about, RGB, as they are shown.
        views: the B images as the model saw them; one object for one image.
        limits: how answers are decoded.
    """

    model: Model
    questions: Sequence[Question]
    images: Sequence[Image]
    views: Sequence[View]
    limits: Limits = field(default_factory=Limits)
    _whole: Batch | None = field(default=None, init=False, repr=False, compare=False)
    _rows: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        model: Model,
        questions: Sequence[Question],
        images: Sequence[Image | Prepared],
        limits: Limits | None = None,
    ) -> Batch:
        """Show each image to the model once, however many questions are about it."""
        pictures = [one if isinstance(one, Prepared) else Prepared(one) for one in images]
        shown = [picture.image for picture in pictures]
        return cls(model, questions, shown, _look(model, pictures), limits or Limits())

    def __len__(self) -> int:
        """B."""
        return len(self.questions)

    def look(self, images: Sequence[Image]) -> list[View]:
        """Other images through the model's eyes: crops, drawings. One object is seen once."""
        return _look(self.model, [Prepared(image) for image in images])

    def edited(self, hows: Sequence[_T], edit: Callable[[Image, _T], Image]) -> list[Image]:
        """Each row's image, changed in its way: a part cut out, something drawn on it.

        Equal changes of one image are one object, so that `look` sees it once.

        Args:
            hows: one a row, hashable: a rectangle, boxes.
            edit: an image and its `how` -> another image.
        """
        wanted = [(id(image), how) for image, how in zip(self.images, hows, strict=True)]
        images = {id(image): image for image in self.images}
        made = {(owner, how): edit(images[owner], how) for owner, how in dict.fromkeys(wanted)}
        return [made[one] for one in wanted]

    def closer(self, rects: Sequence[tuple[int, int, int, int]]) -> tuple[list[Image], list[View]]:
        """A rectangle of each row's image, in pixels (left, top, right, bottom): cut out, and seen.

        One that is the whole image is not seen again, and equal ones of one image are seen once.
        """
        parts = self.edited(rects, lambda image, rect: image.crop(rect))
        pairs = zip(self.images, rects, strict=True)
        whole = [rect == (0, 0, *image.size) for image, rect in pairs]
        found = iter(self.look([one for one, same in zip(parts, whole, strict=True) if not same]))
        views = [
            view if same else next(found) for view, same in zip(self.views, whole, strict=True)
        ]
        return parts, views

    def take(self, rows: Sequence[int]) -> Batch:
        """The batch of some rows, in the order given; a row may be taken several times."""
        taken = replace(
            self,
            questions=[self.questions[row] for row in rows],
            images=[self.images[row] for row in rows],
            views=[self.views[row] for row in rows],
        )
        object.__setattr__(taken, "_whole", self)  # not `replace`d on: then it is another batch
        object.__setattr__(taken, "_rows", tuple(rows))
        return taken

    @cached_property
    def plain(self) -> tuple[Answer, ...]:
        """The model's own answers, without any region; computed once, whoever asks first.

        Inside a `highlighted` block, too, they are plain.
        """
        if self._whole is not None:
            return tuple(self._whole.plain[row] for row in self._rows)
        if not len(self):
            return ()
        with self.model.highlighted(None):
            return tuple(self.reply(self.encode()))

    @cached_property
    def prompts(self) -> list[Prompt]:
        """One a question; one an option of a question whose options are weighed (`choose`)."""
        return [
            Prompt(row, option)
            for row, question in enumerate(self.questions)
            for option in (question.options if question.choose else (None,))
        ]

    def encode(
        self, views: Sequence[View] | None = None, texts: Sequence[str] | None = None
    ) -> Encoded:
        """The batch's prompts, in the order of `prompts`.

        Args:
            views: B others than the batch's own (of `look`).
            texts: B others than the questions' own.
        """
        if not len(self):
            raise ValueError("a batch of no rows has no prompts")
        shown = self.views if views is None else views
        asked = [question.text for question in self.questions] if texts is None else texts
        rows = [prompt.row for prompt in self.prompts]
        return self.model.encode([shown[row] for row in rows], [asked[row] for row in rows])

    def reply(self, encoded: Encoded, mix: Mix | None = None) -> list[Answer]:
        """One answer a question: generated, or the likeliest of its options.

        Args:
            encoded: of `encode`; a highlight that is on applies to it.
            mix: what becomes of the scores of each decoding step.

        Raises:
            ModelError: `mix` where options are weighed, or with beams or sampling.
            ValueError: questions that choose and questions that do not; prompts of another batch.
        """
        prompts = self.prompts
        if len(encoded) != len(prompts):
            raise ValueError(f"{len(encoded)} prompts for a batch that has {len(prompts)}")
        options = [prompt.option for prompt in prompts if prompt.option is not None]
        if not options:
            return self.model.generate(encoded, self.limits, mix=mix)
        if len(options) != len(prompts):
            raise ValueError("a batch holds questions that choose and questions that do not")
        if mix is not None:
            raise ModelError(
                "this fine stage mixes the scores of decoding steps; it cannot answer questions "
                "whose options are weighed (choose)"
            )
        return [likeliest(options) for options in self.weigh(encoded)]

    def weigh(self, encoded: Encoded) -> list[list[Answer]]:
        """Of each question whose options are weighed (`choose`): every option, with `logprobs`.

        Args:
            encoded: of `encode`; a highlight that is on applies to it.
        """
        started = time.perf_counter()
        weighed = self.model.score(encoded, [prompt.option or "" for prompt in self.prompts])
        share = (time.perf_counter() - started) / len(weighed)
        timed = [replace(answer, seconds=share) for answer in weighed]
        groups = groupby(zip(self.prompts, timed, strict=True), key=lambda pair: pair[0].row)
        return [[answer for _, answer in group] for _, group in groups]


def _look(model: Model, pictures: Sequence[Prepared]) -> list[View]:
    if not pictures:
        return []
    unique = {id(one.image): one for one in pictures}
    images = [one.image for one in unique.values()]
    prepared = [one.ahead for one in unique.values()]
    ready = all(one is not None for one in prepared)
    look: Any = model.look
    views = look(images, prepared) if ready else look(images)
    seen = dict(zip(unique, views, strict=True))
    return [seen[id(one.image)] for one in pictures]


def likeliest(weighed: Sequence[Answer]) -> Answer:
    """The option of the lowest mean token loss.

    Where the two lowest are within `TIE` no option is chosen: the text is empty, which is wrong
    under every rule, and no order of the options decides. A question fails with any of its options.
    """
    seconds = sum(answer.seconds for answer in weighed)
    error = next((answer.error for answer in weighed if answer.error), "")
    if error:
        return Answer("", seconds=seconds, error=error)
    best, *others = sorted(weighed, key=_loss)
    margin = _loss(others[0]) - _loss(best) if others else None
    if margin is not None and margin <= TIE:
        return Answer("", seconds=seconds, margin=margin)
    return replace(best, tokens=(), seconds=seconds, margin=margin)


def _loss(answer: Answer) -> float:
    """Mean negative log-likelihood a token, in nats."""
    return -math.fsum(answer.logprobs) / max(len(answer.logprobs), 1)
