"""What a caller hands over - pictures, questions, boxes, one or many - as the rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from PIL import Image

from cof.errors import AnswerError, DataError, shown
from cof.exif import upright
from cof.images import load_image, to_rgb
from cof.prompts import check_question
from cof.types import Box, Question, Region

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Picture: TypeAlias = "str | Path | Image.Image | np.ndarray | Tensor"
"""A file, a Pillow image, or whole numbers from 0 to 255: an array of rows x columns (grey), or
rows x columns x channels; a tensor of rows x columns, or channels x rows x columns."""

_CHANNELS = (1, 3, 4)


class Given(NamedTuple):
    """B rows.

    Attributes:
        questions: B questions.
        images: B RGB images, one object for one picture.
        regions: B regions that were given; None where the coarse stage is to find them.
        several: whether the caller gave a list, and gets one.
    """

    questions: list[Question]
    images: list[Image.Image]
    regions: list[Region | None]
    several: bool


def read(image: Any, question: Any, box: Any = None, boxes: Any = None) -> Given:
    """The rows of a call of `CoF`; see there.

    Raises:
        DataError: a picture cannot be read, or lists of different lengths.
        AnswerError: a question is empty, or no text.
        ValueError: a box is none.
    """
    many = [isinstance(one, list | tuple) for one in (image, question)]
    several, rows = any(many), _rows(image, question, many)
    pictures = list(image) if many[0] else [image] * rows
    texts = list(question) if many[1] else [question] * rows
    for text in texts:
        if not isinstance(text, str):
            raise AnswerError(f"a question is a text, not {shown(text)}")
        check_question(text)
    opened = _opened(pictures)
    names = [_name(one, place, several) for place, one in enumerate(pictures)]
    questions = [
        Question(id=str(row), image=name, text=text)
        for row, (name, text) in enumerate(zip(names, texts, strict=True))
    ]
    return Given(questions, opened, _regions(box, boxes, rows, several), several)


def picture(given: Any) -> Image.Image:
    """Any picture as RGB, upright.

    Raises:
        DataError: it is none; the message says what is wanted.
    """
    if isinstance(given, str | Path):
        return load_image(given, exif="apply")
    if isinstance(given, Image.Image):
        return to_rgb(upright(given))
    if hasattr(given, "detach"):  # a tensor, channels first
        rows = given.detach().cpu().numpy()
        if rows.ndim == 3 and len(rows) not in _CHANNELS:
            raise DataError(_unusable("tensor", rows, "channels x rows x columns"))
        return _from_array(rows.transpose(1, 2, 0) if rows.ndim == 3 else rows, "tensor")
    if hasattr(given, "__array_interface__"):
        return _from_array(given, "array")
    raise DataError(f"an image is a path, a Pillow image, an array or a tensor, not {shown(given)}")


def _from_array(rows: Any, kind: str) -> Image.Image:
    """Rows x columns, or rows x columns x channels."""
    import numpy as np

    layout = "rows x columns x channels" if kind == "array" else "channels x rows x columns"
    flat = rows[..., 0] if rows.ndim == 3 and rows.shape[-1] == 1 else rows
    shaped = flat.ndim == 2 or (flat.ndim == 3 and flat.shape[-1] in _CHANNELS)
    if flat.dtype != np.uint8 or not shaped or not flat.size:
        raise DataError(_unusable(kind, rows, layout))
    return to_rgb(Image.fromarray(np.ascontiguousarray(flat)))


def _unusable(kind: str, rows: Any, layout: str) -> str:
    way = "; (x * 255).round() of values in [0, 1], as uint8" if rows.dtype.kind == "f" else ""
    return (
        f"an image {kind} of {rows.dtype} and shape {tuple(rows.shape)}: needs uint8, "
        f"rows x columns or {layout} (1, 3 or 4){way}"
    )


def _rows(image: Any, question: Any, many: Sequence[bool]) -> int:
    counts = {len(one) for one, listed in zip((image, question), many, strict=True) if listed}
    if len(counts) > 1:
        raise DataError(
            f"{len(image)} images and {len(question)} questions: give as many of both, or one of "
            "either"
        )
    return counts.pop() if counts else 1


def _opened(pictures: Sequence[Any]) -> list[Image.Image]:
    """Every picture opened once, however often it is asked about."""
    keys = [str(one) if isinstance(one, str | Path) else id(one) for one in pictures]
    first = dict(zip(reversed(keys), reversed(pictures), strict=True))
    found = {key: picture(one) for key, one in first.items()}
    return [found[key] for key in keys]


def _name(given: Any, place: int, several: bool) -> str:
    if isinstance(given, str | Path):
        return str(given)
    return f"image {place}" if several else "image"


def _regions(box: Any, boxes: Any, rows: int, several: bool) -> list[Region | None]:
    """What is known of each row's region."""
    if box is not None and boxes is not None:
        raise ValueError("give box or boxes, not both")
    if box is not None:
        each = [box] * rows if _is_box(box) else _a_row(box, "box", rows, several)
        return [None if one is None else Region((_box(one),), "given") for one in each]
    if boxes is None:
        return [None] * rows
    each = _a_row(boxes, "boxes", rows, True) if several else [boxes]
    return [None if one is None else _region(one) for one in each]


def _is_box(given: Any) -> bool:
    """Whether this is meant as one box, however wrong: a `Box`, or numbers."""
    if isinstance(given, Box):
        return True
    if not hasattr(given, "__iter__") or isinstance(given, str):
        raise ValueError(f"box {shown(given)}: needs x0, y0, x1, y1")
    return not any(one is None or isinstance(one, Box) or hasattr(one, "__len__") for one in given)


def _a_row(given: Any, name: str, rows: int, several: bool) -> Sequence[Any]:
    if not several:
        raise ValueError(f"{name}: one question takes one box; several are `boxes`")
    if not hasattr(given, "__len__") or len(given) != rows:
        raise ValueError(f"{name}: {shown(given)}, but {rows} questions; give one entry a question")
    return given  # type: ignore[no-any-return]


def _region(given: Any) -> Region:
    """A given region.

    Raises:
        ValueError: not a list of boxes.
    """
    if not hasattr(given, "__iter__") or (len(given) and _is_box(given)):
        raise ValueError(f"boxes {shown(given)}: a question has a list of boxes [x0, y0, x1, y1]")
    return Region(tuple(map(_box, given)), "given")


def _box(given: Any) -> Box:
    if isinstance(given, Box):
        return given
    try:
        x0, y0, x1, y1 = (float(number) for number in given)
    except (TypeError, ValueError):
        raise ValueError(f"box {shown(given)}: needs x0, y0, x1, y1") from None
    return Box(x0, y0, x1, y1)
