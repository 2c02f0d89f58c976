"""Some images of a benchmark: the first, or a draw that is spread over its categories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, zip_longest

from cof.config.general import Subset
from cof.types import Question


def images_of(questions: Sequence[Question]) -> list[str]:
    """Image names without repeats, in order of first appearance."""
    return list(dict.fromkeys(question.image for question in questions))


def chosen(questions: Sequence[Question], subset: Subset) -> list[str]:
    """The images that stay. Two draws of one dataset and seed: the larger holds the smaller.

    An image belongs to the category of its first question. Each category is shuffled, then they
    give one image in turn, in a shuffled order, so that counts differ by one at most while no
    category is used up.
    """
    if subset.limit is None:
        return images_of(questions)[: subset.limit_first]
    draw = random.Random(subset.limit_seed)
    by_category: dict[str, list[str]] = {}
    category = {question.image: question.category for question in reversed(questions)}
    for image in images_of(questions):
        by_category.setdefault(category[image], []).append(image)
    piles = list(by_category.values())
    draw.shuffle(piles)
    for pile in piles:
        draw.shuffle(pile)
    turns = chain.from_iterable(zip_longest(*piles))
    return [image for image in turns if image is not None][: subset.limit]
