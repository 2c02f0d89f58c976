"""The frame of a picture: as it is stored, or upright, as its EXIF orientation has people see it.

Published code shows a picture as it is stored, and boxes of benchmarks are annotated so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from PIL import Image, ImageOps

from cof.types import Box

Exif = Literal["ignore", "apply"]
"""`ignore` shows a picture as it is stored, `apply` turns it upright."""

_ORIENTATION = 0x0112
_Turn = Image.Transpose
_UNDO = {
    **{2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM},
    **{5: _Turn.TRANSPOSE, 6: _Turn.ROTATE_90, 7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_270},
}

Corners = tuple[float, float, float, float]

_TURNED: dict[int, Callable[[float, float, float, float], Corners]] = {
    2: lambda x0, y0, x1, y1: (1 - x1, y0, 1 - x0, y1),
    3: lambda x0, y0, x1, y1: (1 - x1, 1 - y1, 1 - x0, 1 - y0),
    4: lambda x0, y0, x1, y1: (x0, 1 - y1, x1, 1 - y0),
    5: lambda x0, y0, x1, y1: (y0, x0, y1, x1),
    6: lambda x0, y0, x1, y1: (1 - y1, x0, 1 - y0, x1),
    7: lambda x0, y0, x1, y1: (1 - y1, 1 - x1, 1 - y0, 1 - x0),
    8: lambda x0, y0, x1, y1: (y0, 1 - x1, y1, 1 - x0),
}


def orientation(image: Image.Image) -> int:
    """What its EXIF tag says of an image that was opened and not loaded yet: 1 (upright) to 8.

    A broken tag is none, as viewers have it.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parser raises whatever a broken tag makes it trip over
        return 1
    return value if value in _UNDO else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture as people see it, without the tag that turned it."""
    return ImageOps.exif_transpose(image) if orientation(image) > 1 else image


def as_stored(image: Image.Image) -> Image.Image:
    """The picture as its file holds it, whatever its tag says.

    Pillow turns TIFF files by itself when it loads them; that is taken back.
    """
    turn = _UNDO.get(orientation(image)) if image.format == "TIFF" else None
    return image if turn is None else image.transpose(turn)


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of `as_stored(image)`, from the header alone; before the image is loaded."""
    swapped = image.format == "TIFF" and orientation(image) >= 5
    return image.size[::-1] if swapped else image.size


def turned(box: Box, tag: int) -> Box:
    """A box on the stored picture, on the upright one; both in fractions of their picture.

    Args:
        box: in the stored frame.
        tag: the picture's `orientation`.
    """
    return Box(*_TURNED[tag](*box.as_tuple())) if tag in _TURNED else box
