"""Boxes that are annotated in pixels, and those that only claim to be.

A file is judged as a whole: one box of less than a pixel may be an odd one, a file of them is in
fractions. What cannot be in the unit that it should be in is refused, with what it would fit as.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from cof.bench.common.rows import Numbers
from cof.errors import DataError, shown

Unit = Literal["pixels", "fraction", "per_mille"]
"""Of coordinates: pixels, fractions of width and height, or thousandths of them (0-1000)."""

Form = Literal["corners", "xywh"]
"""Of a box: x0, y0, x1, y1, or x, y, width, height."""

Corners = tuple[float, float, float, float]
Size = tuple[int, int]

_NAMES: dict[Unit, str] = {
    "pixels": "pixels",
    "fraction": "fractions of the image",
    "per_mille": "thousandths of the image (0-1000)",
}
_FORMS: dict[Form, str] = {"corners": "x0, y0, x1, y1", "xywh": "x, y, width, height"}


class Annotated(NamedTuple):
    """A box as a file has it, the (width, height) of its image in pixels, and its file:line."""

    box: Numbers
    size: Size
    where: str


@dataclass(frozen=True)
class Claim:
    """What a file's boxes should be.

    Attributes:
        form: how they are written.
        unit: of their numbers.
        key: config key that declares another unit, "" where there is none.
        beyond: share of an edge that annotators may go beyond it; never less than 3 pixels.
    """

    form: Form
    unit: Unit = "pixels"
    key: str = ""
    beyond: float = 0.01


def pixels(found: Sequence[Annotated], claim: Claim) -> list[Corners]:
    """The corners of a whole file's boxes in pixels, clipped to their images.

    Raises:
        DataError: a box that is none on its image by more than a few pixels, or mostly boxes within
            one pixel; names the first, and what the whole file would fit as.
    """
    if not _valid(found, claim):
        bad = next((one for one in found if not _fits(one, claim)), found[0])
        width, height = bad.size
        raise DataError(
            f"{bad.where}: bbox {shown(list(bad.box))} cannot be {_FORMS[claim.form]} in "
            f"{_NAMES[claim.unit]} on an image of {width} x {height} pixels; {_looks(found, claim)}"
        )
    return [_clipped(_scaled(one, claim), one.size) for one in found]


def _valid(found: Sequence[Annotated], claim: Claim) -> bool:
    """Whether all boxes lie on their images, and are not fractions taken for something larger.

    Most boxes within one pixel are fractions; a few of those may be written beyond the edge.
    """
    tiny = sum(max(_corners(one.box, claim.form)) <= 1 for one in found)
    return (claim.unit == "fraction" or 2 * tiny <= len(found)) and all(
        _fits(one, claim) for one in found
    )


def _looks(found: Sequence[Annotated], claim: Claim) -> str:
    """What all boxes of a file would fit as."""
    swapped = [one._replace(size=(one.size[1], one.size[0])) for one in found]
    other: Form = "corners" if claim.form == "xywh" else "xywh"
    ways = {
        f"{name} ({claim.key}={unit})" if claim.key else name: _valid(
            found, replace(claim, unit=unit)
        )
        for unit, name in _NAMES.items()
    }
    ways["what they should be, with width and height exchanged"] = _valid(swapped, claim)
    ways[f"{_FORMS[other]} in {_NAMES[claim.unit]}"] = _valid(found, replace(claim, form=other))
    fitting = [name for name, fits in ways.items() if fits]
    return f"all of them would fit as {' or '.join(fitting)}" if fitting else "see the file"


def _corners(box: Numbers, form: Form) -> Corners:
    a, b, c, d = box
    return (a, b, a + c, b + d) if form == "xywh" else (a, b, c, d)


def _scaled(one: Annotated, claim: Claim) -> Corners:
    """A box's corners in pixels."""
    across, down = (_PIXELS[claim.unit](edge) for edge in one.size)
    x0, y0, x1, y1 = _corners(one.box, claim.form)
    return x0 * across, y0 * down, x1 * across, y1 * down


_PIXELS: dict[Unit, Callable[[int], float]] = {
    "pixels": lambda edge: 1.0,
    "fraction": lambda edge: edge,
    "per_mille": lambda edge: edge / 1000,
}
"""How many pixels one unit is along an edge."""


def _fits(one: Annotated, claim: Claim) -> bool:
    """Whether a box shares area with its image and leaves it by a few pixels at most."""
    x0, y0, x1, y1 = _scaled(one, claim)
    across, down = (max(3.0, edge * claim.beyond) for edge in one.size)
    width, height = one.size
    near = -across <= x0 and -down <= y0 and x1 <= width + across and y1 <= height + down
    return near and max(x0, 0) < min(x1, width) and max(y0, 0) < min(y1, height)


def _clipped(corners: Corners, size: Size) -> Corners:
    x0, y0, x1, y1 = corners
    return max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1])
