"""A coarse stage of a known length: the model really decodes, the box is given."""

from __future__ import annotations

from dataclasses import dataclass

from cof.batch import Batch
from cof.models.base import Limits
from cof.prompts import grounding_question
from cof.types import Box, Region

BOX = Box(0.45, 0.45, 0.62, 0.6)


@dataclass(frozen=True)
class Config:
    """Length of every coarse reply, in tokens."""

    tokens: int = 25


def locate(batch: Batch, config: Config) -> list[Region]:
    """Decode `tokens` tokens a question and return the same box for all."""
    asked = [grounding_question(question.text) for question in batch.questions]
    encoded = batch.model.encode(batch.views, asked)
    replies = batch.model.generate(encoded, Limits(config.tokens))
    return [Region((BOX,), "forced", reply.text) for reply in replies]
