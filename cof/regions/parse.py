"""Boxes in the text of a reply: numbers as written, in whatever frame the reply speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Literal

from cof.types import Quad

SLACK = 0.5
"""A coordinate may lie this far outside [0, 1] (it is clipped later); farther out it is taken to
be pixels, thousandths or per cent, whose scale only a guess could tell, and the box is dropped."""

_REFERENCE = re.compile(r"\[-?\d+\.\d+(?:, -?\d+\.\d+){3}\]")

# No backtracking, so that a megabyte of brackets is one scan: quantifiers on single characters are
# possessive, an optional group has a negative look-ahead as its other branch. (A possessive
# quantifier on a group would say it shorter, but fails to match in Python 3.11.0 to 3.11.4.)
_NUMBER = r"[-+]?(?:\d++(?:\.\d*+|(?!\.))|\.\d++)(?:e[-+]?\d++|(?!e[-+]?\d))"
_GAP = r"\s*+(?:[,;]\s*+|(?<=\s))"
_WORD = r"(?<!\w)[a-z_]\w*+"
_IS = r"\s*+[:=]\s*+"
_KEY = _WORD + _IS
_ROW = rf"{_NUMBER}(?:{_GAP}{_NUMBER}){{3}}"
_PAIR = rf"\s*+{_NUMBER}{_GAP}{_NUMBER}\s*+"
_POINT = rf"(?:\({_PAIR}\)|\[{_PAIR}\])"
_INSIDE = rf"\s*+(?:(?:({_WORD}){_IS})?({_ROW})|({_POINT}\s*+,?+\s*+{_POINT}))\s*+[,;]?+\s*+"
_GROUPS = [
    re.compile(start + _INSIDE + end, re.I)
    for start, end in (
        (r"\[", r"\]"),
        (r"\(", r"\)"),
        (r"\{", r"\}"),
        (r"<(?:b?box|\|box_start\|)>", r"<(?:/b?box|\|box_end\|)>"),
    )
]
_LOCATIONS = re.compile(r"(?<!\d>)((?:<loc\d{4}>){4})(?!<loc)")
_SIDES = (
    r"(?<!\w)(top|upper|bottom|lower)[\s_-]?+(left|right)\w*+"
    rf"(?:[\s-]++corner(?!\w)|(?![\s-]++corner(?!\w))){_IS}"
)
_XY = rf"\{{\s*+x{_IS}{_NUMBER}{_GAP}y{_IS}{_NUMBER}\s*+\}}"
_SPOT = rf"({_POINT}|{_XY})"
_NAMED = re.compile(_SIDES + _SPOT, re.I)
_AND = r"(?:and\s++|(?!and\s))(?:the\s++|(?!the\s))"
_NAMED_ROW = re.compile(rf"{_SIDES}{_SPOT}(?:{_GAP}{_AND}{_SIDES}{_SPOT})+", re.I)
_CORNER = re.compile(rf"({_WORD}){_IS}({_NUMBER})", re.I)
_CORNERS = re.compile(
    rf"{_KEY}{_NUMBER}(?:{_GAP}{_KEY}{_NUMBER}){{3,}}"
    r"(?:(?P<closed>[.!?]?[\s,;\])}/>])|(?P<end>[.!?]?\Z))?",
    re.I,
)
_SCHEMAS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_TOP = ("top", "upper")
_NAMES = {name for schema in _SCHEMAS for name in schema}
_ANY_NUMBER = re.compile(_NUMBER, re.I)
_BARE = re.compile(rf"(?<![\w.%/+-]){_ROW}(?![\w%/]|\.\d)", re.I)
_BRACKET = re.compile(r"[\[\](){}]|</?\|?\w")
# Quotes, escapes and markdown say nothing about numbers; full-width punctuation is punctuation.
_PLAIN = str.maketrans("\"'`*\\“”‘’，、；：＝（）［］【】｛｝−", " " * 9 + ",,;:=()[][]{}-")


def parse_reference(text: str) -> Quad | None:
    """The published rule: the first `[d.d, d.d, d.d, d.d]`, or None.

    Decimals and one space after each comma are required, so `[0, 1, 0.5, 1]` is not found. The
    numbers are as written: in any order, of any size, infinite where they overflow.
    """
    found = _REFERENCE.search(text)
    return _quad(found[0]) if found else None


def parse_boxes(
    text: str,
    unit: tuple[float, float] = (1.0, 1.0),
    order: Literal["xyxy", "yxyx"] = "xyxy",
) -> tuple[Quad, ...]:
    """The clean rule: every box of a reply, once each, in the order of the text.

    A box is a bracketed group of exactly four numbers (`[]`, `()`, `{}`, `<box></box>`; any number
    form of JSON or Python, quoted or not, commas or spaces), two points in one bracket, two points
    named as opposite corners (top_left and bottom_right, lower_left and upper_right, ..; of all
    four, in any order, top_left and bottom_right count), or four named corners (x0 y0 x1 y1, x1 y1
    x2 y2, xmin.., left top right bottom; with width and height it is not said whether x, y is a
    corner or the centre, so that is no box). In a text without any bracket, a line that holds
    exactly four numbers, in a row and one of them with a decimal point, is a box too. So are four
    location tokens (`<loc0512>`) in a row. A group that is never closed is unfinished, hence no
    box.

    Reversed corners are put in order. A box is dropped when a number is not finite, when it has no
    area, when nothing of it lies in [0, 1], or when a coordinate is more than `SLACK` outside of
    [0, 1] (pixels or thousandths where fractions are spoken: a scale is not guessed). Likewise
    where pixels or thousandths are spoken and no number is above 1: those are fractions.

    Never raises; the time is linear in the length of the text.

    Args:
        text: a reply.
        unit: what stands for the whole width and height, (1000, 1000) for thousandths; numbers are
            divided by it before they are judged.
        order: `yxyx` where groups without names begin with the vertical coordinate.
    Returns: boxes in fractions of the frame, x right, y down.
    """
    plain = text.translate(_PLAIN)
    bracketed = _BRACKET.search(plain) is not None
    found = [*_groups(plain), *_diagonals(plain), *_corners(plain, bracketed)]
    found += [(run.start(), _quad(run[1])) for run in _LOCATIONS.finditer(plain)]
    found += [] if bracketed else _bare(plain)
    found = sorted(found, key=itemgetter(0))
    spoken = (quad for _, quad in found if min(unit) <= 1 or max(quad) > 1)
    quads = (_order(_fraction(quad, unit, order)) for quad in spoken)
    return tuple(dict.fromkeys(quad for quad in quads if _plausible(quad)))


def _groups(text: str) -> Iterator[tuple[int, Quad]]:
    """Bracketed groups of four numbers, with the place of each in the text."""
    for pattern in _GROUPS:
        for found in pattern.finditer(text):
            key, row, points = found.groups()
            if key is None or _name(key) not in _NAMES:
                yield found.start(), _quad(row or points)


def _diagonals(text: str) -> Iterator[tuple[int, Quad]]:
    """Points named as corners, two of them opposite; a repeated name starts the next box."""
    for row in _NAMED_ROW.finditer(text):
        place, points = row.start(), dict[tuple[bool, bool], str]()
        for found in _NAMED.finditer(text, *row.span()):
            up, side, point = (part.lower() for part in found.groups())
            name = (up in _TOP, side == "left")
            if name in points:
                yield from _opposite(place, points)
                place, points = found.start(), {}
            points[name] = point
        yield from _opposite(place, points)


def _opposite(place: int, points: dict[tuple[bool, bool], str]) -> Iterator[tuple[int, Quad]]:
    """The box of one set of named points; keys are (top, left)."""
    for left in (True, False):
        if (True, left) in points and (False, not left) in points:
            yield place, _quad(f"{points[True, left]} {points[False, not left]}")
            return


def _corners(text: str, bracketed: bool) -> Iterator[tuple[int, Quad]]:
    """Named corners next to each other; a repeated name starts the next box."""
    for found in _CORNERS.finditer(text):
        if found["closed"] is None and (found["end"] is None or bracketed):
            continue  # cut off
        corners: dict[str, str] = {}
        for word, number in _CORNER.findall(found[0]):
            name = _name(word)
            if name in corners:
                yield from _named(found.start(), corners)
                corners = {}
            corners[name] = number
        yield from _named(found.start(), corners)


def _named(place: int, corners: dict[str, str]) -> Iterator[tuple[int, Quad]]:
    """The box of one set of named corners, unless two readings are possible."""
    fits = [schema for schema in _SCHEMAS if all(name in corners for name in schema)]
    if len(fits) == 1:
        x0, y0, x1, y1 = (float(corners[name]) for name in fits[0])
        yield place, (x0, y0, x1, y1)


def _bare(text: str) -> Iterator[tuple[int, Quad]]:
    """Lines with exactly four numbers, one after the other."""
    place = 0
    for line in text.splitlines(keepends=True):
        found = _BARE.search(line) if len(_ANY_NUMBER.findall(line)) == 4 else None
        if found and "." in found[0]:
            yield place + found.start(), _quad(found[0])
        place += len(line)


def _quad(text: str) -> Quad:
    """The four numbers of a text that holds exactly four."""
    x0, y0, x1, y1 = (float(number) for number in _ANY_NUMBER.findall(text))
    return (x0, y0, x1, y1)


def _name(word: str) -> str:
    """`x_Min` -> `xmin`."""
    return word.replace("_", "").lower()


def _fraction(quad: Quad, unit: tuple[float, float], order: str) -> Quad:
    """Numbers as written -> fractions of the frame, x before y."""
    (a, b, c, d), (width, height) = quad, unit
    x0, y0, x1, y1 = (b, a, d, c) if order == "yxyx" else (a, b, c, d)
    return (x0 / width, y0 / height, x1 / width, y1 / height)


def _order(quad: Quad) -> Quad:
    """Corners with x0 <= x1 and y0 <= y1."""
    x0, y0, x1, y1 = quad
    return (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _plausible(quad: Quad) -> bool:
    """Whether ordered corners can be fractions of an image and cover a part of it."""
    x0, y0, x1, y1 = quad
    inside = x0 < x1 and y0 < y1 and x0 < 1 and y0 < 1 and x1 > 0 and y1 > 0
    return inside and all(-SLACK <= value <= 1 + SLACK for value in quad)
