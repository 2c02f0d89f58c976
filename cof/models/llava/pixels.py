"""How a checkpoint says that an image becomes pixel values; what we would do otherwise is refused.

The original LLaVA takes the settings of its CLIP tower's folder; transformers 5 writes them into
processor_config.json ("image_processor"), earlier versions into preprocessor_config.json.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cof.errors import ModelError
from cof.models.common.checkpoint import PROCESSOR, Checkpoint, image_processor, read_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PREPROCESSOR = "preprocessor_config.json"
_STATISTICS = ("image_mean", "image_std")
_BICUBIC = 3  # Pillow's number


@dataclass(frozen=True, slots=True)
class Pixels:
    """How an image becomes pixel values: side in pixels, channel statistics, padded or cropped."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: bool

    def to_json(self) -> dict[str, Any]:
        """As a manifest records it."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def read_pixels(checkpoint: Checkpoint, side: int) -> Pixels:
    """Image settings of a checkpoint.

    Without `image_aspect_ratio`, a checkpoint of transformers' layout pads: it was trained so.

    Args:
        checkpoint: either layout.
        side: what the vision tower takes, in pixels.

    Raises:
        ModelError: no mean or standard deviation, files that contradict each other, or steps that
            are not LLaVA-1.5's.
    """
    folder, original = checkpoint.folders[-1], checkpoint.layout == "original"
    pad = checkpoint.config.get("image_aspect_ratio", None if original else "pad") == "pad"
    file = folder / PREPROCESSOR
    flat = _given(read_json(file)) if file.is_file() else {}
    nested = _given(image_processor(folder))
    steps = _steps(side, pad)
    for key in (*_STATISTICS, *steps):
        _agree(folder, key, flat, nested)
    said = flat | nested
    for key, value in steps.items():
        if key in said and not _same(_edge(key, said[key], pad), value):
            where = folder / (PROCESSOR if key in nested else PREPROCESSOR)
            raise ModelError(
                f"{where}: {key} is {said[key]!r}, but LLaVA-1.5's images, and ours, are made with "
                f"{value!r} (config.json's image_size is {side}); correct whichever is wrong"
            )
    mean, std = (_statistic(folder, key, said.get(key)) for key in _STATISTICS)
    return Pixels(side, mean, std, pad)


def _given(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value is not None}


def _steps(side: int, pad: bool) -> dict[str, Any]:
    """Settings that change pixels, as our preprocessing has them; absent keys are CLIP's.

    `do_convert_rgb` is not among them (images are RGB before, as in the published script), and a
    padded image is a square already, whose centre crop is all of it.
    """
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    crop = {} if pad else {"do_center_crop": True}
    return steps | crop | _numbers(side)


def _numbers(side: int) -> dict[str, Any]:
    return {"resample": _BICUBIC, "rescale_factor": 1 / 255, "size": side, "crop_size": side}


def _edge(key: str, value: Any, pad: bool) -> Any:
    """Both sizes in any of their notations as one number, where it means what we do."""
    if not isinstance(value, dict) or key not in ("size", "crop_size"):
        return value
    edges = {name: edge for name, edge in value.items() if edge is not None}
    if set(edges) == {"shortest_edge"}:
        return edges["shortest_edge"]
    distorts = key == "size" and not pad  # a resize to a square, of an image that is none
    square = set(edges) == {"height", "width"} and edges["height"] == edges["width"]
    return edges["height"] if square and not distorts else value


def _same(left: Any, right: Any) -> bool:
    numbers = all(isinstance(value, float | int) for value in (left, right))
    return math.isclose(left, right, rel_tol=1e-6) if numbers else bool(left == right)


def _agree(folder: Path, key: str, flat: dict[str, Any], nested: dict[str, Any]) -> None:
    if key not in flat or key not in nested:
        return
    left, right = (_edge(key, said[key], pad=True) for said in (flat, nested))
    if not _same(left, right):
        raise ModelError(
            f"{folder}: {key} is {flat[key]!r} in {PREPROCESSOR}, but {nested[key]!r} in "
            f"{PROCESSOR} (which transformers 5 follows); correct the wrong one"
        )


def _statistic(folder: Path, key: str, value: Any) -> tuple[float, float, float]:
    if value is None:
        raise ModelError(
            f"{folder}: no {key} in {PREPROCESSOR}, nor in {PROCESSOR}'s image_processor; "
            "copy the file from the model, or the CLIP tower, that it was made from"
        )
    numbers = value if isinstance(value, list) else []
    lowest = 0.0 if key == "image_std" else -math.inf
    good = [float(one) for one in numbers if isinstance(one, float | int) and lowest < one < 1e9]
    if len(good) != len(numbers) or len(good) != 3:
        raise ModelError(f"{folder}: {key} is {value!r}; expected one number for each of R, G, B")
    return good[0], good[1], good[2]
