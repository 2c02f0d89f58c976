"""RefCOCO's annotation files: the official pickle with instances.json, or one JSON-lines file.

Two forms of the latter: `*_<split>.jsonl`, widely used for RefCOCO (image, sent, bbox as corners in
pixels, width, height), and `grounding.jsonl`, which `cof data mini` writes.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.bench.base import Row, read_json, read_jsonl
from cof.errors import DataError
from cof.prompts import DESCRIBED
from cof.types import Box, Question

if TYPE_CHECKING:
    from cof.bench.refcoco import Config

Phrase = tuple[Question, tuple[int, int]]
"""A question and the (width, height) of its image in pixels."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings and numbers; a pickle that asks for code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Never found: plain data needs no class."""
        raise pickle.UnpicklingError(f"it holds {module}.{name}, plain data does not")


def phrases(config: Config) -> Iterator[Phrase]:
    """Every phrase of a split, with the size of its image."""
    root = Path(config.root)
    name = f"refs({config.split_by})" if config.split_by else "refs(*)"
    pickles = sorted(root.glob(f"{name}.p"))
    tables = sorted(root.glob(f"*_{config.split}.jsonl"))
    if len(pickles) == 1:
        yield from _official(pickles[0], config.split, config.images)
    elif len(pickles) > 1:
        names = ", ".join(file.name for file in pickles)
        raise DataError(f"{root}: {names}; choose one with split_by=unc, umd or google")
    elif len(tables) == 1:
        for number, row in enumerate(read_jsonl(tables[0]), start=1):
            yield _tabled(row, number, config.split, config.images)
    elif (root / "grounding.jsonl").is_file():
        for number, row in enumerate(read_jsonl(root / "grounding.jsonl"), start=1):
            yield _mini(row, number, root)
    else:
        raise DataError(f"{root}: neither {name}.p nor one *_{config.split}.jsonl")


def _official(file: Path, split: str, images: str) -> Iterator[Phrase]:
    """Phrases of refs(*).p, boxes and sizes from instances.json beside it."""
    instances = read_json(file.with_name("instances.json"))
    boxes = {item["id"]: item["bbox"] for item in instances["annotations"]}
    pictures = {item["id"]: item for item in instances["images"]}
    found = False
    for ref in _unpickle(file):
        if ref["split"] != split:
            continue
        found = True
        where = f"{file}: ref {ref['ref_id']}"
        if ref["ann_id"] not in boxes or ref["image_id"] not in pictures:
            raise DataError(f"{where}: its annotation or image is not in instances.json")
        picture = pictures[ref["image_id"]]
        size = (picture["width"], picture["height"])
        for sentence in ref["sentences"]:
            name = f"{ref['ref_id']}/{sentence['sent_id']}"
            image = f"{images}/{picture['file_name']}"
            text = (name, image, sentence["sent"], split)
            yield _phrase(text, boxes[ref["ann_id"]], size, where)
    if not found:
        raise DataError(f"{file}: no reference of the split {split!r}")


def _unpickle(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open("rb") as opened:
            refs = _PlainUnpickler(opened, encoding="latin1").load()
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise DataError(f"{file}: not a RefCOCO pickle ({error})") from error
    if not isinstance(refs, list):
        raise DataError(f"{file}: expected a list of references")
    return refs


def _tabled(row: Row, number: int, split: str, images: str) -> Phrase:
    """A row with image, sent, bbox (corners in pixels), width and height."""
    size = (row.values.get("width"), row.values.get("height"))
    corners = row.values.get("bbox")
    if not isinstance(corners, list) or len(corners) != 4:
        raise DataError(f"{row.where}: bbox {corners!r}, expected [x0, y0, x1, y1] in pixels")
    if not all(isinstance(edge, int) and edge > 0 for edge in size):
        raise DataError(f"{row.where}: width and height are {size}, expected pixels")
    x0, y0, x1, y1 = corners
    image = f"{images}/{Path(row.text('image')).name}"
    text = (f"{split}/{number}", image, row.text("sent"), split)
    return _phrase(text, [x0, y0, x1 - x0, y1 - y0], size, row.where)  # type: ignore[arg-type]


def _mini(row: Row, number: int, root: Path) -> Phrase:
    """A row with image (relative to root), expression and bbox (corners in fractions)."""
    from PIL import Image

    image = row.text("image")
    try:
        with Image.open(root / image) as opened:
            size = opened.size
        box = Box(*row.values["bbox"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{row.where}: {error}") from error
    text = DESCRIBED.format(text=row.text("expression"))
    return Question(str(number), image, text, "mini", boxes=(box,)), size


def _phrase(
    text: tuple[str, str, str, str], xywh: list[float], size: tuple[int, int], where: str
) -> Phrase:
    """A question from (id, image, phrase, split) and a box in pixels."""
    (x, y, w, h), (width, height) = xywh, size
    try:
        corners = (x / width, y / height, (x + w) / width, (y + h) / height)
        box = Box(*(min(max(corner, 0.0), 1.0) for corner in corners))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    name, image, phrase, split = text
    question = Question(
        id=name,
        image=image,
        text=DESCRIBED.format(text=phrase),
        category=split,
        reference=json.dumps(xywh),
        boxes=(box,),
    )
    return question, size
