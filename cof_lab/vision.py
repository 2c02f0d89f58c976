"""Teach the vision tower alone: what is the object under each patch, and where does it end?

A throw-away readout sits on the patch features; afterwards the tower is a standard CLIP ViT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cof_lab.loop import Schedule
from cof_lab.model import ModelConfig, normalise_pixels, vision_features
from cof_lab.position_code import BOX_CODE, position_code
from cof_lab.render import render
from cof_lab.world import COLORS, GLYPHS, SHAPES, Scenes, describe, join

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration


@dataclass(frozen=True)
class PatchTargets:
    """For each of T patches of B images; class 0 of every label means 'no object here'."""

    color: Tensor  # int64 [B, T]
    shape: Tensor  # int64 [B, T]
    glyph: Tensor  # int64 [B, T]
    middle: Tensor  # float [B, T], 1 where an object's centre lies in the patch
    box: Tensor  # float [B, T, 4], box corners minus the patch centre, in patches
    place: Tensor  # float [B, T, BOX_CODE], code of the box in the square; the patch's own if empty
    share: Tensor  # float [B, T], part of the object that the patch and its equals hold


def patch_targets(scenes: Scenes, patch: int, device: str = "cpu") -> PatchTargets:
    """Label every patch with the object that covers most of it."""
    grid = scenes.side // patch
    edge = np.arange(grid) * patch
    boxes = scenes.boxes  # [B, K, 4]
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    span = np.minimum(high, edge[:, None] + patch) - np.maximum(low, edge[:, None])
    span = span.clip(min=0) * scenes.present[..., None, None]  # [B, K, grid, 2] in x and in y
    area = (span[:, :, :, None, 1] * span[:, :, None, :, 0]).reshape(*boxes.shape[:2], -1)
    owner = area.argmax(1)  # [B, T]
    most = np.take_along_axis(area, owner[:, None], 1)[:, 0]
    whole = np.take_along_axis(np.prod(boxes[..., 2:] - boxes[..., :2], -1), owner, 1)
    covered = most > 0
    middle = (scenes.center // patch).astype(np.int64)
    cell = middle[..., 1] * grid + middle[..., 0]
    hit = (np.take_along_axis(cell, owner, 1) == np.arange(grid * grid)) & covered
    point = np.stack(np.meshgrid(edge, edge), -1).reshape(-1, 2) + patch / 2
    own = np.take_along_axis(boxes, owner[..., None], 1) - np.concatenate([point, point], -1)

    corners = np.concatenate([point, point], -1)[None]
    place = np.where(covered[..., None], own + corners, corners) / scenes.side

    def pick(values: np.ndarray) -> Tensor:
        chosen = np.take_along_axis(values, owner, 1) + 1
        return torch.from_numpy(np.where(covered, chosen, 0)).to(device)

    def real(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    share = real(most / np.minimum(whole.clip(min=1), patch * patch))
    return PatchTargets(
        pick(scenes.color),
        pick(scenes.shape),
        pick(scenes.glyph),
        real(hit),
        real(own / patch),
        position_code(real(place)),
        share,
    )


class Readout(nn.Module):
    """One linear map from patch features to all targets."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(COLORS) + 1, len(SHAPES) + 1, len(GLYPHS) + 1, 1, 4, BOX_CODE]
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, sum(self.sizes))

    def forward(self, features: Tensor) -> list[Tensor]:
        """[B, T, width] to logits of colour, shape, glyph, middle, box offsets and place."""
        return list(self.readout(self.norm(features)).split(self.sizes, -1))


def patch_loss(
    outputs: list[Tensor], targets: PatchTargets, glyph_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the readout's losses, and accuracies on patches that hold an object."""
    color, shape, glyph, middle, box, place = outputs
    covered = targets.color > 0
    weight = torch.where(covered, targets.share.clamp(0.05, 1) * 4, 0.3)
    weight = weight / weight.sum()
    total, report = torch.zeros((), device=color.device), {}
    labels = {"color": (color, 1.0), "shape": (shape, 1.0), "glyph": (glyph, glyph_weight)}
    for name, (logits, scale) in labels.items():
        truth = getattr(targets, name)
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
        total = total + scale * (loss * weight.flatten()).sum()
        center = targets.middle > 0
        report[name] = float((logits.argmax(-1) == truth)[center].float().mean())
    gap = F.smooth_l1_loss(box, targets.box, reduction="none", beta=0.2).mean(-1)
    present = weight * covered
    total = total + 2 * (gap * present).sum() / present.sum()
    # without this target the tower forgets where its patches are, and no box can be read later
    miss = F.smooth_l1_loss(place, targets.place, reduction="none", beta=0.2).mean(-1)
    total = total + 10 * (miss * weight).sum()
    total = total + 2 * F.binary_cross_entropy_with_logits(middle[..., 0], targets.middle)
    report["middle"] = float(((middle[..., 0] > 0) == (targets.middle > 0)).float().mean())
    report["offset"] = float((box.detach() - targets.box).abs().mean(-1)[covered].mean())
    report["place"] = float((place.detach() - targets.place).abs()[covered].mean())
    return total, report


DIGITS = 900  # step after which digits weigh more
MIX = (("starter", 0.10), ("easy", 0.25), ("small", 0.2), ("dense", 0.25), ("mixed", 0.2))


def mixture(step: int, images: int, shares: tuple[tuple[str, float], ...], **where: Any) -> Scenes:
    """Training scenes of one step, in fixed shares of difficulty; no scene is seen twice."""
    edges = np.round(np.cumsum([0.0] + [share for _, share in shares]) * images).astype(int)
    base = step * images
    parts = [
        describe(np.arange(base + low, base + high), name, **where)
        for (name, _), low, high in zip(shares, edges[:-1], edges[1:], strict=True)
        if high > low
    ]
    return join(parts)


class VisionStage:
    """Dense per-patch supervision; digits weigh more once colours and shapes are known."""

    name = "vision"

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        config: ModelConfig,
        schedule: Schedule,
        seed: int,
        device: str,
    ) -> None:
        self.model, self.config, self.schedule = model, config, schedule
        self.seed, self.device = seed, device
        torch.manual_seed(seed)
        self.readout = Readout(config.vision_width).to(device)
        self.modules: dict[str, nn.Module] = {
            "tower": model.model.vision_tower,
            "readout": self.readout,
        }
        self.scales: dict[str, float] = {}

    def _forward(self, scenes: Scenes, glyph_weight: float) -> tuple[Tensor, dict[str, float]]:
        pixels = normalise_pixels(render(scenes, self.device))
        targets = patch_targets(scenes, self.config.patch, self.device)
        outputs = self.readout(vision_features(self.model, pixels))
        return patch_loss(outputs, targets, glyph_weight)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss on fresh training scenes."""
        scenes = mixture(step, self.schedule.images, MIX, seed=self.seed, side=self.config.side)
        return self._forward(scenes, 3.0 if step > DIGITS else 1.0)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Readout accuracies on dev scenes of each difficulty."""
        report = {}
        for name in ("easy", "fine", "crowded"):
            scenes = describe(range(self.schedule.dev), name, split="dev", side=self.config.side)
            _, scores = self._forward(scenes, 1.0)
            report.update({f"{name}/{key}": value for key, value in scores.items()})
        return report
