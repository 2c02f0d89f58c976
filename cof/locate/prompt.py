"""The paper's coarse stage: ask the model itself for the bounding box of the answer's region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from cof.batch import Batch
from cof.errors import ConfigError, ModelError
from cof.models.base import Limits, Model
from cof.prompts import GROUNDING, grounding_question
from cof.regions.boxes import BoxConfig
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
            text where it has none (as published). "" is the model's own (`Model.grounding`).
        max_new_tokens: length of the reply; the published script allows 128.
        stop: end a reply once its boxes are complete (`boxes`, see `boxes_complete`), after the
            first box that the published pattern finds (`first`; enough for the reference rules),
            or only when the model ends it (`never`). Under a grammar it has no effect, and stays
            as it is.
        decode: `free` (as published), or `grammar` (ours): a list of boxes in the form that the
            model itself would give it, see `Model.generate_boxes`. Such a reply always parses, may
            be empty, and takes fewer passes; what it costs in honesty, a box where the model would
            have said something else, shows in the region's `notes`.
    """

    prompt: str = GROUNDING
    max_new_tokens: int = 128
    stop: Literal["boxes", "first", "never"] = "boxes"
    decode: Literal["free", "grammar"] = "free"

    def __post_init__(self) -> None:
        if (self.prompt and "{question}" not in self.prompt) or self.max_new_tokens < 1:
            raise ValueError(
                "prompt needs {question} in it (or is empty, the model's own), max_new_tokens "
                "at least 1; "
                f"got {self.prompt!r}, {self.max_new_tokens}"
            )
        if self.decode == "grammar" and self.stop != "boxes":
            raise ValueError(
                f"stop={self.stop!r} has no effect under decode='grammar', whose replies end with "
                "their boxes; leave stop at 'boxes'"
            )


def check_model(model: Model, config: Config, boxes: BoxConfig) -> None:
    """Refuse a family that cannot be asked for boxes, a grammar where it has none, or where its
    replies hide from `boxes.rules`.

    Raises:
        ModelError: it cannot be asked, or there is no grammar.
        ConfigError: the published pattern does not find the family's boxes.
    """
    if not model.grounding:
        raise ModelError(
            f"locate.name: {model.name} cannot be asked for boxes (nobody has documented that its "
            "family writes any); use locate.name=file (boxes of another model's run, path=), "
            "attention (where it looks itself), or a control (oracle, random, whole)"
        )
    if boxes.rules == "reference" and model.frame.unit != (1.0, 1.0):
        raise ConfigError(
            "boxes.rules: 'reference' reads fractions of the image alone, and the boxes of "
            f"{model.name} are {model.frame.name}; use boxes.rules=clean"
        )
    if config.decode != "grammar":
        return
    if not model.box_form:
        raise ModelError(
            f"locate.decode: {model.name} has no grammar for boxes; use locate.decode=free"
        )
    samples = [form.write([("0.10", "0.20", "0.30", "0.40")]) for form in model.box_form]
    if boxes.rules == "reference" and any(parse_reference(text) is None for text in samples):
        raise ConfigError(
            "boxes.rules: 'reference' reads [d.d, d.d, d.d, d.d] alone, which this model's replies "
            f"need not hold ({samples[0]}); use boxes.rules=clean or locate.decode=free"
        )


def locate(batch: Batch, config: Config) -> list[Region]:
    """One reply a question, every box in it; greedy, whatever the answers are decoded with."""
    model, views = batch.model, batch.views
    request = config.prompt or model.grounding
    asked = [grounding_question(one.core or one.text, request) for one in batch.questions]
    encoded = model.encode(views, asked)
    if config.decode == "grammar":
        replies = model.generate_boxes(encoded, views, config.max_new_tokens)
        replies = [replace(one, notes={"decode": "grammar", **one.notes}) for one in replies]
    else:
        limits = Limits(config.max_new_tokens)
        replies = model.generate(encoded, limits, _done(config, model, views))
    return [_region(model, reply, view) for reply, view in zip(replies, views, strict=True)]


def _region(model: Model, reply: Answer, view: View) -> Region:
    if reply.error:
        return Region((), "prompt", "", model.frame.name, reply.seconds, error=reply.error)
    region = read_reply(model, reply.text, view, reply.seconds)
    return replace(region, notes={**confidence(reply), **reply.notes})


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
