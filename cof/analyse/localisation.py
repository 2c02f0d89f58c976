"""The coarse stage measured: was the region right, and does the effect of CoF depend on it?

Everything comes from records. Boxes are those of the coarse stage, before expansion; tokens are
those that the fine stage highlighted. Questions that failed are left out and counted.

| measure | of | definition |
|---|---|---|
| parsed | every question | the reply held at least one box |
| boxes | every question | boxes in the reply |
| area | every question | share of the image that the boxes cover, overlaps once |
| lit | every question | share of all visual tokens that were highlighted |
| hit | questions with true boxes | the centre of some found box lies in some true box |
| IoU | questions with true boxes | of the union of found boxes with the union of true boxes |
| recall | questions with true boxes | share of the tokens over true boxes that were highlighted |

A reply without a box is a miss with IoU 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cof.analyse.significance import Change, change
from cof.analyse.statistics import Estimate, mean
from cof.regions.boxes import iou, union_area
from cof.types import Box, Result


@dataclass(frozen=True)
class Grounding:
    """One question's measures; None where the question has no true boxes."""

    boxes: int
    area: float
    lit: float
    hit: bool | None
    iou: float | None
    recall: float | None


def measure(result: Result) -> Grounding | None:
    """The measures of one question, None where it failed."""
    if result.region is None or not result.tokens:
        return None
    found, true = result.region.boxes, result.question.boxes
    target = set(result.target)
    return Grounding(
        boxes=len(found),
        area=union_area(found),
        lit=len(result.cells) / result.tokens,
        hit=hit(found, true) if true else None,
        iou=iou(found, true) if true else None,
        recall=len(target & set(result.cells)) / len(target) if target else None,
    )


def hit(found: Sequence[Box], true: Sequence[Box]) -> bool:
    """Whether the centre of some found box lies in some true box, borders included."""
    centres = [((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in found]
    return any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for x, y in centres for box in true)


def summarise(results: Sequence[Result]) -> dict[str, Estimate]:
    """Every measure's mean, with its interval over images; a measure of no question is absent.

    Args:
        results: of one run.
    Returns: `parsed`, `boxes`, `area`, `lit`, `hit`, `iou`, `recall`; shares but for `boxes`.
    """
    rows = [(measure(result), result.question.image) for result in results]
    measured = [(one, image) for one, image in rows if one is not None]
    columns: dict[str, list[tuple[float | None, str]]] = {
        "parsed": [(float(one.boxes > 0), image) for one, image in measured]
    }
    for name in ("boxes", "area", "lit", "hit", "iou", "recall"):
        columns[name] = [(getattr(one, name), image) for one, image in measured]
    known = {
        name: [(float(value), image) for value, image in column if value is not None]
        for name, column in columns.items()
    }
    highest = {"boxes": math.inf}
    return {
        name: mean(
            [value for value, _ in column],
            [image for _, image in column],
            high=highest.get(name, 1.0),
        )
        for name, column in known.items()
        if column
    }


GROUPS = {True: "hit", False: "miss", None: "no true box"}


def effect_by_hit(
    results: Sequence[Result], before: Sequence[float], after: Sequence[float], seed: int
) -> dict[str, Change]:
    """Mean of `after - before` where the region was right, where it was wrong, where none is known.

    Args:
        results: of one run.
        before: credit a question without the highlight, same length.
        after: credit with it.
        seed: of the permutation test.
    Returns: `hit`, `miss` and `no true box`, as far as there are such questions; those
        that failed are in none of them.
    """
    groups: dict[str, list[int]] = {name: [] for name in GROUPS.values()}
    for place, result in enumerate(results):
        one = measure(result)
        if one is not None:
            groups[GROUPS[one.hit]].append(place)
    found = {}
    for name, places in groups.items():
        if places:
            first, second = ([credits[i] for i in places] for credits in (before, after))
            images = [results[i].question.image for i in places]
            found[name] = change(first, second, images, seed)
    return found
