"""Scene descriptions to pixels, in batch, by torch, on whatever device the caller names.

Shapes are signed distances (so edges are anti-aliased), glyphs come from a 5x7 bitmap atlas.
Objects never overlap, hence compositing is a sum and its order does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cof_lab.counter_random import uniform
from cof_lab.shape_distances import shape_distance
from cof_lab.world import COLORS, SHAPES, Scenes

PAD_COLOR = (122, 116, 104)  # what LLaVA-1.5 pads to a square with
GLYPH_SHIFT = {"triangle": 0.3}  # a glyph sits where its shape is wide, in radii
# Rows of each digit, top to bottom, five bits a row.
BITMAPS = (
    "0e11131519110e 040c040404040e 0e11010204081f 1f02040201110e 02060a121f0202",
    "1f101e0101110e 0608101e11110e 1f010204080808 0e11110e11110e 0e11110f01020c",
)


@lru_cache(maxsize=4)
def atlas(device: str = "cpu") -> Tensor:
    """Glyph coverage, float [10, 7, 5] in 0..1."""
    rows = [
        [int(word[i : i + 2], 16) for i in range(0, 14, 2)] for word in " ".join(BITMAPS).split()
    ]
    bits = [[[row >> (4 - x) & 1 for x in range(5)] for row in glyph] for glyph in rows]
    return torch.tensor(bits, dtype=torch.float32, device=device)


@lru_cache(maxsize=4)
def noise_tile(device: str = "cpu") -> Tensor:
    """Unit normal noise [3, 1024, 1024] that every scene cuts its own window from."""
    draw = np.random.default_rng(20240612).standard_normal((3, 1024, 1024), dtype=np.float32)
    return torch.from_numpy(draw).to(device)


def render(scenes: Scenes, device: str | torch.device = "cpu", chunk: int = 8) -> Tensor:
    """Draw scenes inside their padded squares, `chunk` at a time (small enough for CPU caches).

    Returns: uint8 [B, 3, side, side], RGB; outside `scenes.frame` it is PAD_COLOR.
    """
    parts = [scenes.rows(k, k + chunk) for k in range(0, len(scenes), chunk)]
    return torch.cat([_render(part, str(device)) for part in parts])


def _render(scenes: Scenes, device: str) -> Tensor:
    canvas = _background(scenes, device)
    canvas = _draw_bars(canvas, scenes)
    canvas = _draw_objects(canvas, scenes)
    canvas = _degrade(canvas, scenes)
    canvas = canvas.round().clamp(0, 255)
    pad = torch.tensor(PAD_COLOR, dtype=torch.float32, device=device)[None, :, None, None]
    return torch.where(_inside(scenes, device), canvas, pad).to(torch.uint8)


def crop(pixels: Tensor, scenes: Scenes, row: int) -> np.ndarray:
    """One image without its padding: uint8 [height, width, 3]."""
    x0, y0, x1, y1 = scenes.frame[row].tolist()
    return pixels[row, :, y0:y1, x0:x1].permute(1, 2, 0).cpu().numpy()


def _draws(scenes: Scenes, slot: int, *shape: int, device: str) -> Tensor:
    """Uniform floats [B, *shape]."""
    values = uniform(scenes.keys, slot, int(np.prod(shape))).reshape(len(scenes), *shape)
    return torch.from_numpy(values.astype(np.float32)).to(device)


def _pixels(side: int, device: str) -> tuple[Tensor, Tensor]:
    """Pixel centres (x, y), each [side, side]."""
    line = torch.arange(side, dtype=torch.float32, device=device) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _inside(scenes: Scenes, device: str) -> Tensor:
    """Bool [B, 1, side, side]: the image, without its padding."""
    x, y = _pixels(scenes.side, device)
    x0, y0, x1, y1 = torch.from_numpy(scenes.frame).to(device)[:, :, None, None].unbind(1)
    return ((x > x0) & (x < x1) & (y > y0) & (y < y1))[:, None]


def _background(scenes: Scenes, device: str) -> Tensor:
    """Smooth dull colours [B, 3, side, side]."""
    base = 70 + 90 * _draws(scenes, 40, 1, 1, 1, device=device)
    grey = 40 * (_draws(scenes, 41, 1, 4, 4, device=device) - 0.5)
    tint = 24 * (_draws(scenes, 42, 3, 4, 4, device=device) - 0.5)
    size = (scenes.side, scenes.side)
    return F.interpolate(base + grey + tint, size=size, mode="bilinear", align_corners=True)


def _draw_bars(canvas: Tensor, scenes: Scenes) -> Tensor:
    """Clutter: up to `scenes.bars` thin grey segments a scene, under the objects."""
    device, side = str(canvas.device), scenes.side
    line = torch.arange(side, dtype=torch.float32, device=device) + 0.5
    x, y = line[None, :], line[:, None]  # one row, one column: half the work
    count = torch.from_numpy(scenes.bars).to(device)
    most = int(scenes.bars.max())
    draw = _draws(scenes, 43, 6, 6, device=device)
    for k in range(most):
        rows = (count > k).nonzero()[:, 0]
        cx, cy, angle, length, width, shade = draw[rows, k, :, None, None].unbind(1)
        angle, half = angle * np.pi, (0.1 + 0.25 * length) * side
        dx, dy = x - cx * side, y - cy * side
        cos, sin = angle.cos(), angle.sin()
        along = (dx * cos + dy * sin).abs_().sub_(half)
        across = (dy * cos - dx * sin).abs_().sub_((0.5 + 1.2 * width) * side / 140)
        alpha = torch.maximum(along, across).neg_().add_(0.5).clamp_(0, 1).mul_(0.8)
        under = canvas[rows]
        canvas = canvas.index_copy(0, rows, under.lerp(40 + 170 * shade[:, None], alpha[:, None]))
    return canvas


def _draw_objects(canvas: Tensor, scenes: Scenes) -> Tensor:
    """Add every object to the canvas through a small window around it; small ones apart."""
    large = scenes.radius > 9.5 * scenes.side / 140
    for chosen in (scenes.present & ~large, scenes.present & large):
        if chosen.any():
            canvas = _add(canvas, Objects.of(scenes, chosen, str(canvas.device)))
    return canvas


@dataclass(frozen=True)
class Objects:
    """N objects of a batch in one list; lengths in pixels."""

    image: Tensor  # int64 [N]
    shape: Tensor  # int64 [N, 1, 1]
    glyph: Tensor  # int64 [N]
    center: Tensor  # float [N, 2]
    radius: Tensor  # float [N, 1, 1]
    fill: Tensor  # float [N, 3], RGB
    ink: Tensor  # float [N, 1, 1], strength of the glyph

    @staticmethod
    def of(scenes: Scenes, chosen: np.ndarray, device: str) -> Objects:
        """The objects that `chosen` [B, K] marks."""
        palette = np.array(list(COLORS.values()), dtype=np.float32)
        jitter = uniform(scenes.keys, 44, chosen.shape[1] * 3).reshape(*chosen.shape, 3)
        fill = (palette[scenes.color] + 24 * (jitter - 0.5)).clip(0, 255)

        def pick(values: np.ndarray, dtype: type = np.float32) -> Tensor:
            return torch.from_numpy(values[chosen].astype(dtype)).to(device)

        return Objects(
            image=torch.from_numpy(np.nonzero(chosen)[0]).to(device),
            shape=pick(scenes.shape, np.int64)[:, None, None],
            glyph=pick(scenes.glyph, np.int64),
            center=pick(scenes.center),
            radius=pick(scenes.radius)[:, None, None],
            fill=pick(fill),
            ink=pick(scenes.ink)[:, None, None],
        )


def _add(canvas: Tensor, objects: Objects) -> Tensor:
    """Paint objects; their windows may overlap, what is painted in them does not."""
    side, batch = canvas.shape[-1], len(canvas)
    window = int(np.ceil(float(objects.radius.max()) * 2.2)) + 4
    start = (objects.center.floor().long() - window // 2).clamp(0, side - window)
    step = torch.arange(window, device=canvas.device)
    column, row = start[:, 0, None] + step, start[:, 1, None] + step  # [N, window]
    x = (column + 0.5 - objects.center[:, 0, None])[:, None, :]
    y = (row + 0.5 - objects.center[:, 1, None])[:, :, None]
    alpha, ink = _layers(objects, x, y)
    place = objects.image[:, None, None] * side**2 + row[:, :, None] * side + column[:, None, :]
    place = place.flatten()
    pixels = canvas.transpose(0, 1).flatten(1)  # [3, B * side * side]
    change = alpha.flatten() * (ink.transpose(0, 1).flatten(1) - pixels[:, place])
    pixels = pixels.index_add(1, place, change)
    return pixels.view(3, batch, side, side).transpose(0, 1)


def _layers(objects: Objects, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage [N, h, w] and colour [N, 3, h, w] of each object, x and y from its centre."""
    radius = objects.radius
    alpha = (0.5 - shape_distance(objects.shape, x / radius, y / radius) * radius).clamp(0, 1)
    glyph = _glyph_cover(objects, x, y)
    light = (objects.fill * torch.tensor([0.3, 0.59, 0.11], device=x.device)).sum(-1)
    dark_or_light = torch.where(light > 120, 12.0, 248.0)[:, None, None, None]
    fill = objects.fill[..., None, None]
    paint = fill + (glyph * objects.ink)[:, None] * (dark_or_light - fill)
    return torch.maximum(alpha, glyph), paint


def _glyph_cover(objects: Objects, x: Tensor, y: Tensor) -> Tensor:
    """Coverage [N, h, w] of the glyphs: 7 px high at least, on whole pixels."""
    radius = objects.radius
    cell = radius.clamp(min=7.0) / 7
    shift = torch.zeros_like(radius)
    for name, amount in GLYPH_SHIFT.items():
        shift = torch.where(objects.shape == SHAPES.index(name), amount * radius, shift)
    # glyph centres lie on pixel centres: crisp strokes
    snap = (objects.center.floor() + 0.5 - objects.center)[..., None, None]
    u = (x - snap[:, 0]) / cell / 2.5
    v = (y - snap[:, 1] - shift.round()) / cell / 3.5
    sheet = atlas(str(x.device))[objects.glyph][:, None]
    grid = torch.stack(torch.broadcast_tensors(u, v), -1)
    cover = F.grid_sample(sheet, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return ((cover[:, 0] - 0.5) * cell.clamp(min=1) + 0.5).clamp(0, 1)


def _degrade(canvas: Tensor, scenes: Scenes) -> Tensor:
    """Blur, contrast and pixel noise, in that order (what a camera would do)."""
    device, side = str(canvas.device), scenes.side
    if scenes.blur.any():
        canvas = torch.stack([_blur(c, float(s)) for c, s in zip(canvas, scenes.blur, strict=True)])
    if (scenes.contrast != 1).any():
        mean = canvas.mean((1, 2, 3), keepdim=True)
        contrast = torch.from_numpy(scenes.contrast.astype(np.float32)).to(device)
        canvas = mean + contrast[:, None, None, None] * (canvas - mean)
    tile = noise_tile(device)
    corner = (uniform(scenes.keys, 45, 2) * (tile.shape[-1] - side)).astype(int)
    noise = torch.stack([tile[:, a : a + side, b : b + side] for a, b in corner.tolist()])
    level = torch.from_numpy(scenes.noise.astype(np.float32)).to(device)[:, None, None, None]
    return canvas + level * noise


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of one image [3, S, S]; sigma in pixels, 0 returns it as it is."""
    if sigma == 0:
        return image
    reach = int(np.ceil(3 * sigma))
    line = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-(line**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]
    image = F.pad(image[:, None], [reach] * 4, mode="replicate")
    image = F.conv2d(image, kernel[:, :, None, :])
    return F.conv2d(image, kernel[:, :, :, None])[:, 0]
