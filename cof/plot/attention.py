"""A picture of where an answer looks: attention on the visual tokens, pass by pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cof.plot.stages import COLOURS, FINE, RAW, WIDTH, draw_map, inches, outline, wrap
from cof.types import Focus

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor

TOP = 0.99
"""Quantile of all maps that has the strongest colour: a few tokens take far more than any other
(attention sinks), and would leave the rest pale."""


def draw_attention(
    image: Image, question: str, focus: Focus, cells: Tensor, maps: Mapping[str, Tensor]
) -> Figure:
    """One panel a map, all on one scale; the region is outlined, the question above.

    Args:
        image: the original image, RGB.
        question: the title.
        focus: mask and boxes as the fine stage saw them.
        cells: float [T, 4], rectangle each visual token covers, in fractions of the image; what
            lies outside the image is cut off.
        maps: name -> float [T], share of all attention that each visual token gets.
    Returns: a figure without a window; `figure.savefig(path)` writes it.
    """
    import torch
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    title = wrap(question, 95)
    above, below = inches(title, 0.2) + 0.25, 1.05
    share = 0.96 / len(maps)
    height = min(max((share - 0.02) * WIDTH * image.height / image.width, 1.2), 7.0)
    figure = Figure(figsize=(WIDTH, height + above + below))
    total = figure.get_figheight()
    figure.text(0.5, 1 - 0.1 / total, title, ha="center", va="top", size=12, weight="bold", **RAW)
    top = float(torch.cat([one.float() for one in maps.values()]).quantile(TOP)) or 1.0
    for column, (name, found) in enumerate(maps.items()):
        place = (0.02 + column * share, below / total, share - 0.02, height / total)
        axes = figure.add_axes(place)
        axes.set(xlim=(0, image.width), ylim=(image.height, 0), xticks=[], yticks=[])
        axes.set_title(name, fontsize=10, loc="left")
        draw_map(axes, image, cells, found.float() / top)
        for box in focus.boxes:
            outline(axes, box, image.size, FINE, "-")
        said = _said(found, focus.mask)
        figure.text(place[0], (below - 0.08) / total, said, ha="left", va="top", size=10)
    bar = figure.add_axes((0.02, 0.45 / total, 0.96, 0.12 / total))
    scale = ScalarMappable(Normalize(0, 100 * top), COLOURS)
    figure.colorbar(scale, cax=bar, orientation="horizontal", extend="max")
    bar.set_xlabel("% of the attention of the answer's first token, each visual token", fontsize=9)
    bar.tick_params(labelsize=8)
    return figure


def _said(found: Tensor, mask: Tensor) -> str:
    """What is said under a panel."""
    every, lit = 100 * float(found.sum()), 100 * float(found[mask.cpu()].sum())
    return f"{every:.1f} % of all attention on the image, {lit:.1f} % on the region"
