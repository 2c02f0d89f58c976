"""A coarse stage of a known length: the model really decodes, the box is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cof.models.base import Limits, Model
from cof.prompts import grounding_question
from cof.types import Box, Question, Region, View

BOX = Box(0.45, 0.45, 0.62, 0.6)


@dataclass(frozen=True)
class Config:
    """Length of every coarse reply, in tokens."""

    tokens: int = 25


def locate(
    model: Model, questions: Sequence[Question], views: Sequence[View], config: Config
) -> list[Region]:
    """Decode `tokens` tokens a question and return the same box for all."""
    asked = [grounding_question(question.text) for question in questions]
    replies = model.generate(model.encode(views, asked), Limits(config.tokens))
    return [Region((BOX,), "forced", reply.text) for reply in replies]
