"""V*Bench's folders: each image with its annotation, and the boxes of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from cof.bench.common.files import read_json
from cof.bench.common.rows import Row, numbers
from cof.bench.common.units import Annotated, Claim, pixels
from cof.errors import DataError, cut, shown
from cof.images import header
from cof.types import Box

_IMAGES = (".jpg", ".jpeg", ".png")


def noted(folder: Path) -> Iterator[tuple[Row, Path]]:
    """The annotation of each image, with the image; all of them, or an error."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    notes = {file.stem: file for file in files if file.suffix == ".json"}
    images = {file.stem: file for file in files if file.suffix.lower() in _IMAGES}
    for stem in sorted(notes.keys() ^ images.keys()):
        found = notes.get(stem) or images[stem]
        raise DataError(f"{found}: has no {'image' if stem in notes else '.json'} beside it")
    for stem, file in notes.items():
        yield Row.of(read_json(file), str(file)), images[stem]


def boxes(found: Sequence[tuple[Row, Path]]) -> list[tuple[Box, ...]]:
    """The targets' boxes of all questions as fractions of their images, clipped to them.

    The files have x, y, width, height in pixels of the image as it is stored.
    """
    annotated = [_annotated(row, image) for row, image in found]
    every = [one for boxes in annotated for one in boxes]
    placed = map(_box, pixels(every, Claim("xywh", beyond=0.1)), every)
    return [tuple(itertools.islice(placed, len(boxes))) for boxes in annotated]


def _annotated(row: Row, image: Path) -> list[Annotated]:
    """The boxes of one image as its annotation has them."""
    found = row.values.get("bbox") or []
    if not isinstance(found, list):
        raise DataError(f"{row.where}: bbox {shown(found)}, expected a list of boxes")
    size, _ = header(image)
    meaning = "x, y, width, height in pixels"
    return [Annotated(numbers(box, "bbox", meaning, row.where), size, row.where) for box in found]


def _box(corners: Sequence[float], one: Annotated) -> Box:
    (x0, y0, x1, y1), (width, height) = corners, one.size
    try:
        return Box(x0 / width, y0 / height, x1 / width, y1 / height)
    except ValueError as error:
        raise DataError(f"{one.where}: bbox {shown(list(one.box))} ({cut(str(error))})") from error
