"""The paper's coarse stage: ask the model itself for the bounding box of the answer's region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cof.models.base import Limits, Model, View
from cof.prompts import GROUNDING, grounding_question
from cof.replies import parse_boxes
from cof.types import Question, Region


@dataclass(frozen=True)
class Config:
    """How the region is asked for.

    Attributes:
        prompt: the request; `{question}` stands for the question's first line.
        max_new_tokens: length of the reply; the published script allows 128.
    """

    prompt: str = GROUNDING
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if "{question}" not in self.prompt or self.max_new_tokens < 1:
            raise ValueError(
                "prompt needs {question} in it, max_new_tokens at least 1; "
                f"got {self.prompt!r}, {self.max_new_tokens}"
            )


def locate(
    model: Model, questions: Sequence[Question], views: Sequence[View], config: Config
) -> list[Region]:
    """One reply a question, every box in it; greedy, whatever the answers are decoded with."""
    asked = [grounding_question(question.text, config.prompt) for question in questions]
    replies = model.generate(model.encode(views, asked), Limits(config.max_new_tokens))
    return [
        read_reply(model, reply.text, view.size, reply.seconds)
        for reply, view in zip(replies, views, strict=True)
    ]


def read_reply(model: Model, reply: str, size: tuple[int, int], seconds: float = 0.0) -> Region:
    """The boxes of a raw reply, from the model's frame to fractions of the image.

    Args:
        model: whose frame the reply uses.
        reply: raw text; anything that is no box is passed over.
        size: (width, height) of the image in pixels.
        seconds: time spent on the reply.
    """
    found = (model.to_image(corners, size) for corners in parse_boxes(reply))
    boxes = tuple(box for box in found if box is not None)
    return Region(boxes, "prompt", reply, model.frame, seconds)
