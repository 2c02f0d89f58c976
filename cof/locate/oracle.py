"""The ground-truth boxes of the benchmark as the region: how far perfect locating would carry.

A question without boxes has an empty region, which is counted as `no_box`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cof.batch import Batch
from cof.errors import DataError
from cof.types import Question, Region


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Refuse a benchmark that has no boxes at all."""
    if not any(question.boxes for question in questions):
        raise DataError(
            f"locate.name=oracle: {bench} has no ground-truth boxes (none in any of the "
            f"{len(questions)} questions); locate.name=file takes boxes of your own"
        )


def locate(batch: Batch, config: Config) -> list[Region]:
    """Each question's own boxes; no model is asked."""
    return [Region(question.boxes, "oracle") for question in batch.questions]
