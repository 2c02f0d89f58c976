"""What a visitor may hand to the page: pictures within bounds, and boxes as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cof.errors import AnswerError, DataError, shown
from cof.files import DiskError, regular
from cof.images import load_image
from cof.types import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


@dataclass(frozen=True)
class Bounds:
    """Largest upload.

    Attributes:
        megabytes: of the file, 10**6 bytes each.
        megapixels: of the picture, 10**6 each; read from its header, before it is decoded.
    """

    megabytes: float = 32.0
    megapixels: float = 50.0

    @property
    def bytes(self) -> int:
        """The same in bytes."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """The same in pixels."""
        return int(self.megapixels * 1e6)


def read_upload(path: str | Path, folder: Path, bounds: Bounds) -> Image:
    """An uploaded picture as RGB, upright.

    Args:
        path: what the browser says that it has uploaded; not to be trusted.
        folder: of uploads.
        bounds: see there.

    Raises:
        DataError: a file elsewhere, too large, or no picture; it names the file as its owner does.
    """
    file = Path(path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise DataError(f"{shown(str(path))} is none of this page's uploads; choose a file again")
    try:
        _check_size(file, bounds)
        return load_image(file, exif="apply", max_pixels=bounds.pixels)
    except (DataError, DiskError, MemoryError) as error:
        raise DataError(str(error).replace(str(file), file.name)) from None


def _check_size(file: Path, bounds: Bounds) -> None:
    size = regular(file).stat().st_size
    if size > bounds.bytes:
        raise DataError(
            f"{file.name}: {size} bytes, the limit is {bounds.bytes}; scale the picture down, or "
            "start the page with a larger --max-megabytes"
        )


def read_boxes(text: str) -> tuple[Box, ...]:
    """Boxes as `write_boxes` writes them; brackets are allowed.

    Raises:
        AnswerError: no box, not four numbers each, or numbers that make none.
    """
    parts = [part.strip(" \t\n[]()") for part in text.split(";")]
    found = tuple(_box(part) for part in parts if part)
    if not found:
        raise AnswerError("no box: write x0, y0, x1, y1 as fractions of the picture, or draw one")
    return found


def _box(text: str) -> Box:
    try:
        x0, y0, x1, y1 = (float(number) for number in text.split(","))
        return Box(x0, y0, x1, y1)
    except ValueError:
        raise AnswerError(
            f"{shown(text)} is no box: x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 "
            "(fractions of the picture, x right, y down); several are parted by ;"
        ) from None


def write_boxes(boxes: Sequence[Box]) -> str:
    """Boxes in thousandths of the picture, `0.300, 0.320, 0.420, 0.450; ...`."""
    return "; ".join(", ".join(f"{corner:.3f}" for corner in box.as_tuple()) for box in boxes)
