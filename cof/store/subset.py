"""Some images of a benchmark: the first, or a draw that is spread over its categories."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from cof.config.general import Subset
from cof.types import Question


def images_of(questions: Sequence[Question]) -> list[str]:
    """Image names without repeats, in order of first appearance."""
    return list(dict.fromkeys(question.image for question in questions))


Together = Callable[[Question], str]


def chosen(
    questions: Sequence[Question], subset: Subset, together: Together | None = None
) -> list[str]:
    """The images that stay. Two draws of one dataset and seed: the larger holds the smaller.

    A draw keeps images whole that are judged `together`, so it may hold more than its limit. Images
    belong to the category of their first question. Each category is shuffled, then they give one
    image, or what goes with it, in turn, in a shuffled order, so that counts differ by one such at
    most while no category is used up.
    """
    if subset.limit is None:
        return images_of(questions)[: subset.limit_first]
    draw = random.Random(subset.limit_seed)
    first = {question.image: question for question in reversed(questions)}
    units: dict[str, list[str]] = {}
    for image in images_of(questions):
        units.setdefault(together(first[image]) if together else image, []).append(image)
    by_category: dict[str, list[list[str]]] = {}
    for unit in units.values():
        by_category.setdefault(first[unit[0]].category, []).append(unit)
    piles = list(by_category.values())
    draw.shuffle(piles)
    for pile in piles:
        draw.shuffle(pile)
    turns = chain.from_iterable(zip_longest(*piles))
    drawn: list[str] = []
    for unit in turns:
        if unit is not None and len(drawn) < subset.limit:
            drawn += unit
    return drawn
