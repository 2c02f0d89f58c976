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
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cof.analyse.gather import IMAGES, Wanted, gather
from cof.analyse.significance import Change, change
from cof.analyse.statistics import Clusters, Estimate, mean
from cof.regions.boxes import iou, union_area
from cof.types import Box, Result

if TYPE_CHECKING:
    import numpy as np


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
    measured, images = gather(results, {**GROUNDING, **IMAGES})
    found: dict[str, Estimate] = measured.summary(images)
    return found


class _Groundings:
    """The measures of all questions; the columns are gone once they are summarised."""

    NAMES = ("boxes", "area", "lit", "hit", "iou", "recall")

    def __init__(self) -> None:
        self.hits = array("b")
        self._columns: dict[str, array[float]] = {name: array("d") for name in self.NAMES}
        self._summary: dict[str, Estimate] | None = None

    def add(self, result: Result) -> None:
        one = measure(result)
        self.hits.append(FAILED if one is None else CODES[one.hit])
        for name, column in self._columns.items():
            value = None if one is None else getattr(one, name)
            column.append(math.nan if value is None else value)

    def found(self) -> _Groundings:
        return self

    def summary(self, images: Clusters) -> dict[str, Estimate]:
        if self._summary is None:
            import numpy as np

            boxes = np.asarray(self._columns["boxes"])
            parsed = np.where(np.isnan(boxes), boxes, boxes > 0)
            columns = {"parsed": parsed} | {k: np.asarray(v) for k, v in self._columns.items()}
            self._summary = {}
            for name, column in columns.items():
                known = mean_of_known(column, images, math.inf if name == "boxes" else 1.0)
                self._summary |= {name: known} if known else {}
            self._columns = {}
        return self._summary


def mean_of_known(values: np.ndarray, images: Clusters, high: float) -> Estimate | None:
    """The mean of the values that are numbers, None where none is."""
    import numpy as np

    places = np.flatnonzero(~np.isnan(values))
    known = array("d", values[places].tobytes())
    return mean(known, images.take(places), high=high) if known else None


GROUNDING: Wanted = {"grounding": _Groundings}
"""The measures of every question, for `summarise` and `effect_by_hit`."""

GROUPS = {True: "hit", False: "miss", None: "no true box"}
CODES = {True: 1, False: 0, None: 2}
FAILED = -1


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
    import numpy as np

    measured, images = gather(results, {**GROUNDING, **IMAGES})
    hits, found = np.asarray(measured.hits), {}
    for hit, name in GROUPS.items():
        places = np.flatnonzero(hits == CODES[hit])
        if len(places):
            first, second = (
                array("d", np.asarray(credits, np.float64)[places].tobytes())
                for credits in (before, after)
            )
            found[name] = change(first, second, images.take(places), seed)
    return found
