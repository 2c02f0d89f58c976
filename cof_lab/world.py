"""What is in a scene, before any pixel: a pure function of (seed, split, index).

Every random number is a hash of (seed, split, scene index, slot), so scene k of a split is the
same on every machine, in any batch, in any order; splits use different hash domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cof_lab.counter_random import mix, uniform

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 36),
    "green": (44, 158, 58),
    "blue": (38, 82, 214),
    "yellow": (238, 212, 44),
    "purple": (136, 52, 172),
    "orange": (242, 132, 28),
    "cyan": (64, 206, 214),
    "white": (244, 244, 244),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
GLYPHS = "0123456789"
SPLITS = {"train": 0, "dev": 1, "test": 2, "bench": 3}
# Extent of each shape around its centre, in units of its radius: (x0, y0, x1, y1).
EXTENTS = np.array(
    [(-1, -1, 1, 1)] * 4 + [(-1.046, -1.1, 1.046, 0.89), (-1, -1, 1, 1)], dtype=np.float64
)
PER_OBJECT = frozenset({"present", "color", "shape", "glyph", "center", "radius", "ink"})
LEGIBLE = 0.5  # ink from which a digit is plain to see; questions name things by such, if any
ASPECTS = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (1.0, 0.875), (0.875, 1.0))


@dataclass(frozen=True)
class Difficulty:
    """Knobs of a family of scenes; lengths are pixels of a scene whose side is 140.

    A pair is a range: of an object (small, large, ink) or of a scene (objects, noise).
    """

    objects: tuple[int, int]
    small: tuple[float, float] = (13.0, 16.0)
    large: tuple[float, float] = (26.0, 38.0)
    small_share: float = 0.6
    ink: tuple[float, float] = (1.0, 1.0)  # of a digit: 1 is black or white, 0 its shape's colour
    noise: tuple[float, float] = (6.0, 6.0)  # standard deviation, 0-255 scale
    contrast: float = 1.0  # 1 leaves pixels alone, 0 is flat grey
    blur: float = 0.0  # standard deviation in pixels
    bars: int = 3


_small = Difficulty((4, 9), small=(13.0, 15.0), small_share=1.0)
_crowd = Difficulty((10, 14), small=(13.0, 17.0), large=(20.0, 26.0), small_share=0.75)
_faint: dict[str, Any] = {"ink": (0.2, 1.0), "noise": (4.0, 24.0)}

DIFFICULTIES: dict[str, Difficulty] = {
    # what is examined
    "easy": Difficulty((2, 5), small=(22.0, 26.0), small_share=0.4, bars=2),
    "fine": replace(_small, ink=(0.15, 0.6), noise=(16.0, 16.0)),
    "crowded": replace(_crowd, ink=(0.15, 0.6), noise=(16.0, 16.0)),
    "noise": replace(_crowd, noise=(40.0, 40.0)),
    # what training draws besides `easy`: much ink or little, noise but not the worst
    "starter": Difficulty((1, 3), small_share=0.3, bars=1),
    "mixed": Difficulty((4, 9), **_faint),
    "small": replace(_small, **_faint),
    "dense": replace(_crowd, **_faint),
}


@dataclass(frozen=True)
class Thing:
    """One object; `box` is (x0, y0, x1, y1) in pixels of the padded square."""

    color: str
    shape: str
    glyph: str
    box: tuple[float, float, float, float]
    ink: float = 1.0

    @property
    def legible(self) -> bool:
        """The digit is plain to see."""
        return self.ink >= LEGIBLE

    @property
    def name(self) -> str:
        """Colour and shape, unique within a scene: 'red circle'."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Scenes:
    """A batch of B scene descriptions with room for K objects each (`present` says which).

    Lengths are pixels of the padded square of `side`; `frame` [B, 4] is the image inside it.
    """

    side: int
    keys: NDArray[np.uint64]  # [B] hash state of each scene; styles are drawn from it
    frame: NDArray[np.int64]  # [B, 4] x0, y0, x1, y1
    present: NDArray[np.bool_]  # [B, K]
    color: NDArray[np.int64]  # [B, K]
    shape: NDArray[np.int64]  # [B, K]
    glyph: NDArray[np.int64]  # [B, K]
    ink: NDArray[np.float64]  # [B, K]
    center: NDArray[np.float64]  # [B, K, 2]
    radius: NDArray[np.float64]  # [B, K]
    noise: NDArray[np.float64]  # [B]
    contrast: NDArray[np.float64]  # [B]
    blur: NDArray[np.float64]  # [B]
    bars: NDArray[np.int64]  # [B]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """Tight boxes [B, K, 4] in pixels of the padded square."""
        corners = np.concatenate([self.center, self.center], -1)
        return corners + EXTENTS[self.shape] * self.radius[..., None]

    def rows(self, start: int, stop: int) -> Scenes:
        """Scenes start..stop-1 of the batch."""
        names = [name for name in self.__dataclass_fields__ if name != "side"]
        return replace(self, **{name: getattr(self, name)[start:stop] for name in names})

    def things(self, row: int) -> list[Thing]:
        """The objects of one scene."""
        names = tuple(COLORS)
        boxes = self.boxes[row]
        return [
            Thing(
                names[self.color[row, k]],
                SHAPES[self.shape[row, k]],
                GLYPHS[self.glyph[row, k]],
                tuple(boxes[k].tolist()),
                float(self.ink[row, k]),
            )
            for k in np.flatnonzero(self.present[row])
        ]


def scene_keys(seed: int, split: str, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash state of scenes: the same (seed, split, index) gives the same scene for ever."""
    domain = np.array([seed * 16 + SPLITS[split]], dtype=np.uint64)
    with np.errstate(over="ignore"):
        return mix(mix(domain) + indices.astype(np.uint64))


def describe(
    indices: NDArray[np.int64] | Sequence[int],
    difficulty: str | Difficulty,
    split: str = "train",
    seed: int = 0,
    side: int = 140,
) -> Scenes:
    """Draw the scenes with these indices.

    Args:
        indices: scene numbers, at most 2**48.
        difficulty: a name of DIFFICULTIES or your own knobs.
        split: train, dev, test or bench; they never share a scene.
        seed: another seed is another world with the same statistics.
        side: pixels of the padded square.
    """
    knobs = DIFFICULTIES[difficulty] if isinstance(difficulty, str) else difficulty
    keys = scene_keys(seed, split, np.asarray(indices, dtype=np.int64))
    room = max(knobs.objects)
    low, high = knobs.objects
    wanted = low + (uniform(keys, 1, 1)[:, 0] * (high - low + 1)).astype(np.int64)
    frame = _frames(keys, side)
    color, shape = _pairs(keys, wanted, room)
    radius = _radii(keys, knobs, room) * (side / 140)
    center, placed = _place(keys, frame, radius, side)
    full = np.ones(len(keys))
    return Scenes(
        side=side,
        keys=keys,
        frame=frame,
        present=placed & (np.arange(room)[None] < wanted[:, None]),
        color=color,
        shape=shape,
        glyph=_glyphs(keys, room),
        ink=_between(knobs.ink, uniform(keys, 30, room)),
        center=center,
        radius=radius,
        noise=_between(knobs.noise, uniform(keys, 31, 1)[:, 0]),
        contrast=full * knobs.contrast,
        blur=full * knobs.blur * (side / 140),
        bars=(uniform(keys, 2, 1)[:, 0] * (knobs.bars + 1)).astype(np.int64),
    )


def _between(ends: tuple[float, float], share: NDArray[np.float64]) -> NDArray[np.float64]:
    return ends[0] + (ends[1] - ends[0]) * share


def _frames(keys: NDArray[np.uint64], side: int) -> NDArray[np.int64]:
    """Where the image sits in the padded square, at floor offsets; half of them are square."""
    choice = np.maximum(0, (uniform(keys, 3, 1)[:, 0] * 8).astype(np.int64) - 3)
    size = (np.array(ASPECTS)[choice] * side).astype(np.int64)
    start = (side - size) // 2
    return np.concatenate([start, start + size], -1)


def _pairs(
    keys: NDArray[np.uint64], wanted: NDArray[np.int64], room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct colour+shape pairs [B, room] from few colours and few shapes a scene."""
    colors, shapes = len(COLORS), len(SHAPES)
    draw = uniform(keys, 4, 2)
    few_shapes = 2 + (draw[:, 0] * 3).astype(np.int64)
    few_colors = 2 + (draw[:, 1] * 3).astype(np.int64)
    few_colors = np.maximum(few_colors, -(-(wanted + 1) // few_shapes)).clip(max=colors)
    color_rank = uniform(keys, 5, colors).argsort(-1).argsort(-1)
    shape_rank = uniform(keys, 6, shapes).argsort(-1).argsort(-1)
    outside = (color_rank >= few_colors[:, None])[:, :, None]
    outside = outside | (shape_rank >= few_shapes[:, None])[:, None, :]
    order = (uniform(keys, 7, colors * shapes) + outside.reshape(len(keys), -1)).argsort(-1)
    return order[:, :room] // shapes, order[:, :room] % shapes


def _radii(keys: NDArray[np.uint64], knobs: Difficulty, room: int) -> NDArray[np.float64]:
    """Half the extent of each object [B, room], in pixels at side 140."""
    small = uniform(keys, 8, room) < knobs.small_share
    low = np.where(small, knobs.small[0], knobs.large[0])
    high = np.where(small, knobs.small[1], knobs.large[1])
    return (low + (high - low) * uniform(keys, 9, room)) / 2


def _glyphs(keys: NDArray[np.uint64], room: int) -> NDArray[np.int64]:
    """Glyph numbers [B, room]; the first ten of a scene differ from one another."""
    rounds = [uniform(keys, 10 + k, len(GLYPHS)).argsort(-1) for k in range(-(-room // 10))]
    return np.concatenate(rounds, -1)[:, :room]


def _place(
    keys: NDArray[np.uint64],
    frame: NDArray[np.int64],
    radius: NDArray[np.float64],
    side: int,
    tries: int = 40,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Centres [B, K, 2] without overlap, by rejection; an object that finds no room is absent."""
    batch, room = radius.shape
    draws = uniform(keys, 20, room * tries * 2).reshape(batch, room, tries, 2)
    center = np.zeros((batch, room, 2))
    placed = np.zeros((batch, room), dtype=bool)
    margin = 1.5 * side / 140
    for k in range(room):
        reach = radius[:, k, None] * 1.1 + margin
        low, high = frame[:, :2] + reach, frame[:, 2:] - reach
        spot = low[:, None] + draws[:, k] * (high - low)[:, None]  # [B, tries, 2]
        apart = np.abs(spot[:, :, None] - center[:, None, :k]).max(-1)  # [B, tries, k]
        need = (radius[:, k, None] + radius[:, :k]) * 1.1 + margin
        clear = ((apart > need[:, None]) | ~placed[:, None, :k]).all(-1)
        first = clear.argmax(-1)
        center[:, k] = spot[np.arange(batch), first]
        placed[:, k] = clear.any(-1)
    return center, placed


def join(parts: list[Scenes]) -> Scenes:
    """One batch out of several of the same side; object slots are padded to the widest."""
    room = max(part.present.shape[1] for part in parts)
    merged: dict[str, Any] = {}
    for name in Scenes.__dataclass_fields__:
        if name != "side":
            values = [getattr(part, name) for part in parts]
            merged[name] = np.concatenate(
                [_widen(v, room) for v in values] if name in PER_OBJECT else values
            )
    return replace(parts[0], **merged)


def _widen(values: NDArray, room: int) -> NDArray:
    """Pad axis 1 with zeros up to `room`."""
    return np.pad(values, [(0, 0), (0, room - values.shape[1])] + [(0, 0)] * (values.ndim - 2))
