"""From prepared images to one batch on the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

_A = TypeVar("_A")
_B = TypeVar("_B")


def side_by_side(prepare: Callable[[_A], _B], images: Sequence[_A]) -> list[_B]:
    """Prepare images that nobody prepared ahead (crops, a first question), on every core."""
    if len(images) < 2:
        return [prepare(image) for image in images]
    with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1)) as pool:
        return list(pool.map(prepare, images))


def stacked(frames: Sequence[Tensor], device: torch.device) -> Tensor:
    """B equal tensors as one [B, ...] on the device; to CUDA from pinned memory, without waiting.

    Torch keeps the pinned memory until the copy is done.
    """
    if device.type != "cuda":
        return torch.stack(list(frames)).to(device)
    shape = (len(frames), *frames[0].shape)
    pinned = torch.empty(shape, dtype=frames[0].dtype, pin_memory=True)
    return torch.stack(list(frames), out=pinned).to(device, non_blocking=True)
