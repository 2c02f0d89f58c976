"""What the tests of families with a cross-attention share."""

import numpy as np
import torch
from PIL import Image

from cof.regions.mask import token_mask
from cof.types import Box

SIZES = ((97, 61), (83, 120), (20, 23))
TEXTS = ("What is it?", "Where is the red cup?", "Is it?")
BOX = Box(0.1, 0.3, 0.55, 0.8)


def picture(size, seed=0):
    """Noise: every pixel matters."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


PICTURES = [picture(size, seed) for seed, size in enumerate(SIZES)]


def logits(rows):
    """Of each row float64 [steps, V]."""
    return [torch.stack(row.logits).double() for row in rows]


def worst(some, others):
    """The largest difference between two lists of tensors."""
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))


def masks_of(views):
    """The patches that `BOX` lights in each view."""
    masks = [token_mask([BOX], view.cells) for view in views]
    assert all(mask.any() and not mask.all() for mask in masks)
    return masks


def check_block(model, kept, size, features):
    """With the weights `kept` at zero: a block of pixels moves the patches that it touches.

    A filter carries a little across edges.

    Args:
        model: what looks.
        kept: weights by which patches hear of each other.
        size: of a grey image.
        features: a view's, float [T, D], of the patches alone.
    """
    saved = [weight.detach().clone() for weight in kept]
    for weight in kept:
        weight.data.zero_()
    try:
        grey = Image.new("RGB", size, (90, 120, 60))
        changed = grey.copy()
        corners = (size[0] // 3, size[1] // 4, 2 * size[0] // 3, 2 * size[1] // 3)
        changed.paste((210, 30, 160), corners)
        [before], [after] = model.look([grey]), model.look([changed])
    finally:
        for weight, value in zip(kept, saved, strict=True):
            weight.data.copy_(value)
    moved = (features(after) - features(before)).abs().amax(1)
    x0, y0, x1, y1 = (corner / side for corner, side in zip(corners, (*size, *size), strict=True))
    near = 2.5 / size[0], 2.5 / size[1]
    inside = token_mask([Box(x0 + near[0], y0 + near[1], x1 - near[0], y1 - near[1])], after.cells)
    around = token_mask([Box(x0 - near[0], y0 - near[1], x1 + near[0], y1 + near[1])], after.cells)
    assert (moved[inside] > 0.01 * moved.max()).all()
    assert (moved[~around] < 0.05 * moved.max()).all()
    assert inside.any()
    assert not around.all()
