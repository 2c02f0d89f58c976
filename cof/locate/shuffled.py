"""Another question's boxes: a control that keeps how such boxes look, and breaks what they mean."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from cof.batch import Batch
from cof.errors import DataError
from cof.locate._boxes_file import check_ids, content, read_boxes
from cof.types import Question, Region


@dataclass(frozen=True)
class Config:
    """Whose boxes.

    Attributes:
        of: a run folder, whose coarse boxes are taken, or JSON lines `{"id", "image", "boxes"}`.
            Boxes change hands among all questions in it, so that batches play no part.
        truth: of a run folder the ground-truth boxes instead.
        seed: of the permutation.
    """

    of: str
    truth: bool = False
    seed: int = 0


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Refuse a file that lacks some of the questions, or in which one image has most of them."""
    check_ids(config.of, config.truth, questions)
    _partners(config)


def source(config: Config) -> str:
    """What the file says, as a hash."""
    return content(config.of, config.truth)


def locate(batch: Batch, config: Config) -> list[Region]:
    """Boxes of a question about another image; no model is asked."""
    check_ids(config.of, config.truth, batch.questions)
    kept, partners = read_boxes(config.of, config.truth), _partners(config)
    return [Region(kept[partners[one.id]].boxes, "shuffled") for one in batch.questions]


def _partners(config: Config) -> dict[str, str]:
    kept = read_boxes(config.of, config.truth)
    images = tuple((name, one.image) for name, one in kept.items())
    return permutation(images, config.seed, config.of)


@functools.lru_cache(maxsize=8)
def permutation(questions: tuple[tuple[str, str], ...], seed: int, source: str) -> dict[str, str]:
    """Who gets whose boxes: every question gives once, and takes from one about another image.

    Images are put in a random order, their questions behind each other, and everything moves on by
    the largest number of questions that an image has.

    Args:
        questions: (id, image) of every question.
        seed: of the order.
        source: the file, for the message.

    Raises:
        DataError: no image is named, or one image has more than half of the questions.
    """
    by_image: dict[str, list[str]] = {}
    for name, image in questions:
        by_image.setdefault(image, []).append(name)
    images = list(by_image)
    Random(seed).shuffle(images)
    order = [name for image in images for name in by_image[image]]
    step = max(len(names) for names in by_image.values())
    if 2 * step > len(order):
        most = next(image for image in images if len(by_image[image]) == step)
        raise DataError(
            f"{source}: {step} of {len(order)} questions are about the image {most!r}; "
            "boxes can only be shuffled among several images"
        )
    return {name: order[(place + step) % len(order)] for place, name in enumerate(order)}
