"""What every mini benchmark is made of: scenes of the `bench` split, images, regions, hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cof.files import whole, write_whole
from cof_lab.render import crop, render
from cof_lab.world import Scenes, Thing, describe

STRIDE = 1_000_000  # scene numbers set aside for each part of each benchmark
JPEG = {"quality": 95, "subsampling": 0}
DRAWN: ContextVar[Callable[[int], object]] = ContextVar("DRAWN", default=lambda count: None)
"""Told how many scenes were drawn, whenever some were: a progress bar."""


@dataclass(frozen=True)
class MiniConfig:
    """What to write.

    size: images of each part (each MME subtask, each POPE setting's image set, ...).
    difficulty: easy, fine, crowded or noise.
    side: long side of every image in pixels; the embedded model reads 140 without resizing.
    """

    seed: int = 0
    size: int = 60
    difficulty: str = "easy"
    side: int = 140

    def __post_init__(self) -> None:
        if self.size < 1 or self.seed < 0:
            raise ValueError(f"size={self.size} must be at least 1, seed={self.seed} at least 0")


@dataclass(frozen=True)
class Picture:
    """One scene as a file would hold it: the image without padding, and its things."""

    index: int
    pixels: np.ndarray  # uint8 [height, width, 3]
    things: list[Thing]
    frame: tuple[int, int, int, int]  # where the image lies in its padded square

    def boxes(self, chosen: Sequence[int]) -> list[list[float]]:
        """Boxes of these things as fractions of the image, four decimals, clipped to it."""
        return [self._box(self.things[k].box) for k in chosen]

    def _box(self, box: Sequence[float]) -> list[float]:
        x0, y0, x1, y1 = self.frame
        size = (x1 - x0, y1 - y0) * 2
        values = [(v - o) / s for v, o, s in zip(box, (x0, y0) * 2, size, strict=True)]
        return [round(min(max(v, 0.0), 1.0), 4) for v in values]

    def save(self, path: Path) -> None:
        """Write the image; JPEG by suffix .jpg, at a quality that keeps two-pixel strokes."""
        options: dict[str, Any] = dict(JPEG) if path.suffix == ".jpg" else {}
        with whole(path) as fresh:
            Image.fromarray(self.pixels).save(fresh, **options)


def pictures(config: MiniConfig, part: int) -> Iterator[Picture]:
    """Endless scenes of one part; no two parts share a scene."""
    at = part * STRIDE
    while True:
        scenes = describe(
            range(at, at + 32), config.difficulty, split="bench", seed=config.seed, side=config.side
        )
        DRAWN.get()(len(scenes))
        yield from _draw(scenes, at)
        at += 32


def _draw(scenes: Scenes, first: int) -> Iterator[Picture]:
    pixels = render(scenes)
    for row in range(len(scenes)):
        frame = tuple(scenes.frame[row].tolist())
        yield Picture(first + row, crop(pixels, scenes, row), scenes.things(row), frame)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines, UTF-8."""
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_hashes(folder: Path) -> None:
    """sha256.json: every file below `folder` and the hash of its bytes, sorted."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "sha256.json")
    hashes = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    write_whole(folder / "sha256.json", json.dumps(hashes, indent=1) + "\n")
