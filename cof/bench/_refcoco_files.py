"""RefCOCO's annotation files: the official pickle with instances.json, or one JSON-lines file.

Two forms of the latter: `*_<split>.jsonl`, widely used for RefCOCO (image, sent, bbox as corners in
pixels, width, height), and `grounding.jsonl`, which `cof data mini` writes.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cof.bench.common.answers import boxes_in
from cof.bench.common.files import file_of, read_json, read_jsonl
from cof.bench.common.finding import unknown
from cof.bench.common.rows import Row, inside
from cof.bench.common.units import Annotated, Claim, Corners, Size, Unit, pixels
from cof.errors import DataError, cut
from cof.images import header
from cof.prompts import DESCRIBED
from cof.types import Box, Question


class Phrase(NamedTuple):
    """A question, the (width, height) of its image in pixels, and its place in the files."""

    question: Question
    size: Size
    where: str


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings and numbers; a pickle that asks for code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Never found: plain data needs no class."""
        raise pickle.UnpicklingError(f"it holds {module}.{name}, plain data does not")


@dataclass(frozen=True)
class Config:
    """Where one of the three sets is.

    Attributes:
        root: folder of `refs(<split_by>).p` and `instances.json`, or of `*_<split>.jsonl`.
        split: `val`, `testA` or `testB`; for RefCOCOg `val` or `test`.
        split_by: who split it; "" takes the only `refs(*).p` there is.
        images: folder of COCO's train2014, relative to `root`.
        frame: what foreign replies are fractions of, for `cof score`.
        unit: of the boxes of a `*_<split>.jsonl`: `pixels` (as published), `fraction` or
            `per_mille` (0-1000). A file that cannot be in its unit is refused.
    """

    root: str
    split: Literal["val", "testA", "testB", "test"] = "val"
    split_by: Literal["", "unc", "umd", "google"] = ""
    images: str = "train2014"
    frame: Literal["padded_square", "centre_crop", "image"] = "padded_square"
    unit: Unit = "pixels"


def phrases(config: Config) -> list[Phrase]:
    """Every phrase of a split, with the size of its image."""
    root = Path(config.root)
    name = f"refs({config.split_by})" if config.split_by else "refs(*)"
    pickles = sorted(root.glob(f"{name}.p"))
    tables = sorted(root.glob(f"*_{config.split}.jsonl"))
    if len(pickles) > 1:
        names = ", ".join(file.name for file in pickles)
        raise DataError(f"{root}: {names}; choose one with split_by=unc, umd or google")
    if config.unit != "pixels" and (pickles or len(tables) != 1):
        raise DataError(
            f"{root}: unit={config.unit} is for a *_{config.split}.jsonl; the boxes of other files "
            "have one unit only, so leave it out"
        )
    if pickles:
        return _official(pickles[0], config)
    if len(tables) == 1:
        return _tabled(tables[0], config)
    if (root / "grounding.jsonl").is_file():
        rows = read_jsonl(root / "grounding.jsonl")
        return [_mini(row, number, root) for number, row in enumerate(rows, start=1)]
    raise unknown("refcoco", config.root, f"{name}.p, *_{config.split}.jsonl, grounding.jsonl")


def check_sizes(found: Sequence[Phrase], root: Path) -> None:
    """Refuse pictures that are not of the annotated size, by their headers.

    A picture that is missing or no image fails its own questions later.

    Raises:
        DataError: names the first, with both sizes.
    """
    for image, phrase in {phrase.question.image: phrase for phrase in found}.items():
        try:
            size, tag = header(root / image)
        except DataError:
            continue
        if size != phrase.size:
            upright = size[::-1] == phrase.size and tag >= 5
            why = "; it is annotated as its EXIF tag turns it: store it turned" if upright else ""
            raise DataError(
                f"{root / image}: {size[0]} x {size[1]} pixels, annotated as {phrase.size[0]} x "
                f"{phrase.size[1]} ({phrase.where}); another picture than the boxes are for{why}"
            )


class _Entry(NamedTuple):
    """A phrase as the files have it: id, image, words, and the box in pixels."""

    name: str
    image: str
    words: str
    box: Annotated


def _official(file: Path, config: Config) -> list[Phrase]:
    """Phrases of refs(*).p, boxes and sizes from instances.json beside it."""
    place = file.with_name("instances.json")
    instances = Row.of(read_json(place), str(place))
    boxes = {row.number("id"): row for row in instances.parts("annotations")}
    pictures = {row.number("id"): row for row in instances.parts("images")}
    entries = []
    for number, item in enumerate(_unpickle(file), start=1):
        row = Row.of(item, f"{file}: item {number}")
        if row.text("split") != config.split:
            continue
        ref, annotation, image = (row.number(key) for key in ("ref_id", "ann_id", "image_id"))
        where = f"{file}: ref {ref}"
        if annotation not in boxes or image not in pictures:
            raise DataError(f"{where}: its annotation or image is not in instances.json")
        picture = pictures[image]
        bbox = boxes[annotation].numbers("bbox", "x, y, width, height in pixels")
        box = Annotated(bbox, _size(picture), where)
        for sentence in row.parts("sentences"):
            name = f"{ref}/{sentence.number('sent_id')}"
            entries.append(_Entry(name, picture.inside("file_name"), sentence.asked("sent"), box))
    if not entries:
        raise DataError(f"{file}: no reference of the split {config.split!r}")
    return _phrases(entries, Claim("xywh"), config)


def _unpickle(file: Path) -> list[Any]:
    try:
        with file_of(file).open("rb") as opened:
            refs = _PlainUnpickler(opened, encoding="latin1").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its bytes ask for
        raise DataError(f"{file}: not a RefCOCO pickle ({cut(str(error))})") from error
    if not isinstance(refs, list):
        raise DataError(f"{file}: expected a list of references")
    return refs


def _tabled(file: Path, config: Config) -> list[Phrase]:
    """Rows with image, sent, bbox (corners), width and height."""
    entries = []
    for number, row in enumerate(read_jsonl(file), start=1):
        corners = row.numbers("bbox", "[x0, y0, x1, y1]")
        image = inside(Path(row.text("image")).name, row.where)
        box = Annotated(corners, _size(row), row.where)
        entries.append(_Entry(f"{config.split}/{number}", image, row.asked("sent"), box))
    return _phrases(entries, Claim("corners", config.unit, "bench.unit"), config)


def _size(row: Row) -> Size:
    size = row.value("width"), row.value("height")
    if not all(type(edge) is int and 0 < edge < 10**6 for edge in size):
        raise DataError(f"{row.where}: width and height are {cut(str(size))}, expected pixels")
    return size


def _mini(row: Row, number: int, root: Path) -> Phrase:
    """A row with image (relative to root), expression and bbox (corners in fractions)."""
    image = row.inside("image")
    boxes = boxes_in([row.value("bbox")], row.where)
    text = DESCRIBED.format(text=row.asked("expression"))
    size, _ = header(root / image)
    return Phrase(Question(str(number), image, text, "mini", boxes=boxes), size, row.where)


def _phrases(entries: Sequence[_Entry], claim: Claim, config: Config) -> list[Phrase]:
    """The phrases of a whole file."""
    corners = pixels([entry.box for entry in entries], claim)
    return [_phrase(*pair, claim, config) for pair in zip(entries, corners, strict=True)]


def _phrase(entry: _Entry, corners: Corners, claim: Claim, config: Config) -> Phrase:
    """A question; its reference is the box as x, y, width, height in pixels."""
    (x0, y0, x1, y1), (width, height) = corners, entry.box.size
    try:
        box = Box(x0 / width, y0 / height, x1 / width, y1 / height)
    except ValueError as error:
        raise DataError(f"{entry.box.where}: {cut(str(error), 200)}") from error
    if claim.unit == "pixels":  # unclipped, as annotated
        x0, y0, x1, y1 = entry.box.box
    annotated = [x0, y0, x1, y1] if claim.form == "xywh" else [x0, y0, x1 - x0, y1 - y0]
    question = Question(
        id=entry.name,
        image=f"{config.images}/{entry.image}",
        text=DESCRIBED.format(text=entry.words),
        category=config.split,
        reference=json.dumps(annotated),
        boxes=(box,),
    )
    return Phrase(question, entry.box.size, entry.box.where)
