"""No fine stage: the model's own answer, the region ignored. The baseline of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cof.models.base import Limits, Model
from cof.refine._reply import best, reply, rows_of
from cof.types import Answer, Focus, Question, View


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def refine(
    model: Model,
    questions: Sequence[Question],
    views: Sequence[View],
    focuses: Sequence[Focus],
    config: Config,
    limits: Limits,
) -> list[Answer]:
    """Answer each question in one pass."""
    rows = rows_of(questions)
    shown, asked = [views[row] for row, _ in rows], [questions[row].text for row, _ in rows]
    encoded = model.encode(shown, asked)
    return best(rows, reply(model, encoded, [option for _, option in rows], limits))
