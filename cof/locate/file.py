"""Boxes from a file (`_boxes_file`): another run's, another tool's, or drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cof.batch import Batch
from cof.locate._boxes_file import boxes_of, check_ids, content
from cof.types import Question, Region


@dataclass(frozen=True)
class Config:
    """Which file.

    Attributes:
        path: JSON lines `{"id", "boxes"}`, or a run folder, whose coarse boxes are taken.
        truth: of a run folder the ground-truth boxes instead.
    """

    path: str
    truth: bool = False


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Refuse a file that lacks some of the questions."""
    check_ids(config.path, config.truth, questions)


def source(config: Config) -> str:
    """What the file says, as a hash."""
    return content(config.path, config.truth)


def locate(batch: Batch, config: Config) -> list[Region]:
    """Each question's boxes in the file; no model is asked."""
    return [Region(boxes_of(config.path, config.truth, one), "file") for one in batch.questions]
