"""The whole image as the region: no model is asked. A control, and the way to run plain alone.

With clean box rules it acts as no highlight (status `whole`); with the reference rules every
visual token is highlighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cof.models.base import Model, View
from cof.types import Box, Question, Region


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def locate(
    model: Model, questions: Sequence[Question], views: Sequence[View], config: Config
) -> list[Region]:
    """The same region for every question, at no cost."""
    return [Region((Box(0, 0, 1, 1),), "whole") for _ in questions]
