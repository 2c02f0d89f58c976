"""`cof probe`: attention on the region, layer by layer, before and after the highlight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cof.analyse.figures import Curve, Panel, curves
from cof.analyse.statistics import Estimate, difference, mean
from cof.analyse.tables import INTERVALS, Cell, Table, percent, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mass:
    """One question's attention.

    Attributes:
        image: of the question.
        lit: share of the visual tokens that are in the region.
        before: on the region in the plain pass, each layer.
        after: the same under the highlight.
        image_before: on all visual tokens in the plain pass, each layer.
        image_after: the same under the highlight.
    """

    image: str
    lit: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    image_before: tuple[float, ...]
    image_after: tuple[float, ...]


LAST, QUERIES = "the last prompt position", "the cross-attention's queries, their mean,"
"""Whose attention it is, of most models and of those whose `space` is `cross`."""

LINES = {
    "before": "region, plain",
    "after": "region, highlighted",
    "image_before": "all visual tokens, plain",
    "image_after": "all visual tokens, highlighted",
}
"""Attribute of `Mass` -> its name in table and figure."""


def estimates(masses: Sequence[Mass]) -> dict[str, list[Estimate]]:
    """For each line, the mean mass of every layer over questions, with its interval over images."""
    images = [one.image for one in masses]
    columns = {line: zip(*(getattr(m, line) for m in masses), strict=True) for line in LINES}
    return {line: [mean(layer, images) for layer in layers] for line, layers in columns.items()}


def table(masses: Sequence[Mass], whose: str = LAST) -> Table:
    """One row a layer; `whose` attention it is."""
    found, images = estimates(masses), [one.image for one in masses]
    lit = mean([one.lit for one in masses], images)
    rows: list[tuple[Cell, ...]] = []
    for layer in range(len(masses[0].before)):
        before, after = ([getattr(m, key)[layer] for m in masses] for key in ("before", "after"))
        change = points(difference(before, after, images))
        rows.append((layer, len(masses), *(percent(found[line][layer]) for line in LINES), change))
    head = ("layer", "n", *(f"{name}, %" for name in LINES.values()), "region, change, points")
    caption = (
        f"Attention of {whose} on the highlighted region, mean over heads; "
        f"the region is {percent(lit)} % of the visual tokens; {INTERVALS}"
    )
    return Table("attention", caption, head, tuple(rows))


def figure(masses: Sequence[Mass], hashes: str) -> Figure:
    """Mass against layer, a line each."""
    lines = [
        Curve(LINES[line], tuple(range(len(column))), tuple(one.times(100) for one in column))
        for line, column in estimates(masses).items()
    ]
    return curves([Panel("", lines)], "layer", "attention, %", hashes, log=False)
