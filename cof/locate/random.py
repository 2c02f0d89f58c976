"""Boxes of the same size and shape, elsewhere: a control that keeps everything but the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from cof.batch import Batch
from cof.errors import DataError
from cof.locate._boxes_file import boxes_of, check_ids, content
from cof.regions.boxes import shared_area
from cof.types import Box, Question, Region

ORACLE = "oracle"

TRIES = 64
"""Places that are drawn for each box; the one that overlaps least is taken."""


@dataclass(frozen=True)
class Config:
    """Elsewhere than what.

    Attributes:
        of: `oracle` (the benchmark's ground truth), or where the boxes are kept: a run folder,
            whose coarse boxes are taken, or JSON lines `{"id", "boxes"}`.
        truth: of a run folder the ground-truth boxes instead.
        seed: of the places; each question has its own stream.
    """

    of: str = ORACLE
    truth: bool = False
    seed: int = 0


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Refuse a file that lacks some of the questions, or a benchmark without boxes."""
    if config.of != ORACLE:
        check_ids(config.of, config.truth, questions)
    elif not any(question.boxes for question in questions):
        raise DataError(
            f"locate.name=random: {bench} has no ground-truth boxes; give locate.of=RUN_FOLDER"
        )


def source(config: Config) -> str:
    """What the file says, as a hash; "" for the benchmark's own boxes, which its hash covers."""
    return "" if config.of == ORACLE else content(config.of, config.truth)


def locate(batch: Batch, config: Config) -> list[Region]:
    """As many boxes as the question's own have, of their sizes; no model is asked."""
    return [Region(_elsewhere(question, config), "random") for question in batch.questions]


def _elsewhere(question: Question, config: Config) -> tuple[Box, ...]:
    """Boxes that avoid the question's own, and each other, as far as there is room."""
    own = question.boxes
    if config.of != ORACLE:
        own = boxes_of(config.of, config.truth, question)
    rng = Random(f"{config.seed} {question.id}")
    taken = list(own)
    for box in own:
        places = [_moved(box, rng) for _ in range(TRIES)]
        overlaps = [shared_area([place], taken) for place in places]
        taken.append(places[overlaps.index(min(overlaps))])
    return tuple(taken[len(own) :])


def _moved(box: Box, rng: Random) -> Box:
    """The box at a place drawn evenly from those where it fits."""
    width, height = box.x1 - box.x0, box.y1 - box.y0
    x, y = rng.random() * (1 - width), rng.random() * (1 - height)
    return Box(x, y, min(x + width, 1.0), min(y + height, 1.0))
