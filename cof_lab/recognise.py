"""Is a picture one of the embedded world's? What `cof ask` warns by; a photograph is not.

The world's pictures have a dull background: every channel within some 40 of the others, neither
dark nor bright, never quite grey (each picture has its tint), and of even brightness; things cover
less than a third of it. Three numbers over a coarse grid of means, in which noise and JPEG hardly
show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

GRID = 28
"""Cells along the longer side; a cell averages 5 x 5 pixels of a picture in the usual size."""

DULL, DARK, BRIGHT = 40, 45, 195
"""A cell is dull whose channels lie within DULL of each other and whose mean is in between."""

COVER = 0.62
"""Least share of dull cells. Measured on 4000 scenes of all difficulties, a tenth of them also as a
JPEG of quality 60, three times as large and half as large: 0.67 to 1."""

TINT = (4.0, 20.0)
"""Mean distance between a dull cell's channels; there 4.9 to 17.7. Grey has 0."""

UNEVEN = 30.0
"""Most standard deviation of the dull cells' brightness; there up to 23.4."""


def is_drawn(image: Image) -> bool:
    """Whether an RGB image may be a scene of the embedded world, in whatever size.

    Made to never deny a scene; of photographs those in flat muted colours pass.
    """
    cover, tint, uneven = measures(image)
    return cover >= COVER and TINT[0] <= tint <= TINT[1] and uneven <= UNEVEN


def measures(image: Image) -> tuple[float, float, float]:
    """Share of dull cells, their tint, and the standard deviation of their brightness."""
    from PIL.Image import Resampling

    scale = GRID / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    cells = np.asarray(image.resize((width, height), Resampling.BOX), dtype=float)
    mean, spread = cells.mean(-1), np.ptp(cells, axis=-1)
    dull = (spread < DULL) & (mean > DARK) & (mean < BRIGHT)
    if not dull.any():
        return 0.0, 0.0, 0.0
    return float(dull.mean()), float(spread[dull].mean()), float(mean[dull].std())
