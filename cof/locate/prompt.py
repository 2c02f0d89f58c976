"""The paper's coarse stage: ask the model itself for the bounding box of the answer's region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from cof.batch import Batch
from cof.models.base import Limits, Model
from cof.prompts import GROUNDING, grounding_question
from cof.regions.parse import parse_boxes, parse_reference
from cof.types import Answer, Region, View

CACHEABLE = True
"""A reply depends on model, image, question and `Config` alone; it may be kept on disk."""

PATIENCE = 16
"""Characters without a bracket after which a reply whose brackets are closed has said it all."""


@dataclass(frozen=True)
class Config:
    """How the region is asked for.

    Attributes:
        prompt: the request; `{question}` stands for the first line of the question's `core`, of its
            text where it has none (as published).
        max_new_tokens: length of the reply; the published script allows 128.
        stop: end a reply once its boxes are complete (`boxes`, see `boxes_complete`), after the
            first box that the published pattern finds (`first`; enough for the reference rules),
            or only when the model ends it (`never`).
    """

    prompt: str = GROUNDING
    max_new_tokens: int = 128
    stop: Literal["boxes", "first", "never"] = "boxes"

    def __post_init__(self) -> None:
        if "{question}" not in self.prompt or self.max_new_tokens < 1:
            raise ValueError(
                "prompt needs {question} in it, max_new_tokens at least 1; "
                f"got {self.prompt!r}, {self.max_new_tokens}"
            )


def locate(batch: Batch, config: Config) -> list[Region]:
    """One reply a question, every box in it; greedy, whatever the answers are decoded with."""
    model, views = batch.model, batch.views
    asked = [grounding_question(one.core or one.text, config.prompt) for one in batch.questions]
    limits = Limits(config.max_new_tokens)
    replies = model.generate(model.encode(views, asked), limits, _done(config, model, views))
    return [_region(model, reply, view) for reply, view in zip(replies, views, strict=True)]


def _region(model: Model, reply: Answer, view: View) -> Region:
    if reply.error:
        return Region((), "prompt", "", model.frame.name, reply.seconds, error=reply.error)
    region = read_reply(model, reply.text, view, reply.seconds)
    return replace(region, notes=confidence(reply))


def confidence(reply: Answer) -> dict[str, float]:
    """How sure the model was of a reply's tokens, in nats: the least log-probability, the mean."""
    said = reply.logprobs
    if not said:
        return {}
    least, mean = min(said), sum(said) / len(said)
    return {"least_logprob": round(least, 4), "mean_logprob": round(mean, 4)}


def read_reply(model: Model, reply: str, view: View, seconds: float = 0.0) -> Region:
    """The boxes of a raw reply, from the model's frame to fractions of the image.

    Args:
        model: whose frame the reply uses.
        reply: raw text; anything that is no box is passed over.
        view: the image as the model saw it.
        seconds: time spent on the reply.
    """
    return Region(model.boxes(reply, view), "prompt", reply, model.frame.name, seconds)


def _done(config: Config, model: Model, views: Sequence[View]) -> Callable[[str], bool] | None:
    """When a reply needs no continuation."""
    if config.stop == "never":
        return None
    if config.stop == "first":
        return first_box
    shown = [view.shown or view.size for view in views]
    widest = (max(width for width, _ in shown), max(height for _, height in shown))
    unit = model.frame.unit or widest
    return partial(boxes_complete, unit=unit, order=model.frame.order)


def boxes_complete(
    text: str, unit: tuple[float, float] = (1.0, 1.0), order: Literal["xyxy", "yxyx"] = "xyxy"
) -> bool:
    """True once a reply has boxes, every bracket is closed, and prose goes on without another.

    Boxes that follow more than `PATIENCE` characters of prose are given up; on recorded replies
    the boxes are those of the full reply (tested). `unit` and `order` as in `parse_boxes`.
    """
    depth, last = 0, -1
    for index, sign in enumerate(text):
        if sign in "[({":
            depth += 1
        elif sign in "])}":
            depth, last = depth - 1, index
    return (
        depth <= 0 <= last and len(text) - last > PATIENCE and bool(parse_boxes(text, unit, order))
    )


def first_box(text: str) -> bool:
    """True once the published pattern finds a box."""
    return parse_reference(text) is not None
