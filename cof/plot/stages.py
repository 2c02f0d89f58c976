"""A picture of the two stages: where the model looked, which tokens were highlighted, answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cof.types import Box, Focus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from PIL.Image import Image
    from torch import Tensor

# Okabe and Ito: told apart with every kind of colour blindness, and in grey.
COARSE, FINE = "#D55E00", "#56B4E9"

FADE = 0.6
"""How far the part of the image that is not highlighted goes to light grey, in [0, 1]."""

WIDTH = 10.0
"""Width of the figure in inches."""

SIDE = 1600
"""Longest edge in pixels at which the image is drawn; a larger one is shrunk."""

COLOURS = "YlOrRd"
OPAQUE = 0.85
"""How much of the image the strongest token of a map covers, in [0, 1]; none covers nothing."""

RAW: dict[str, Any] = {"parse_math": False}  # a `$` in an answer is a dollar


def draw_two_stages(
    image: Image,
    question: str,
    focus: Focus,
    cells: Tensor,
    answer: str,
    *,
    boxes: Sequence[Box] = (),
    plain: str | None = None,
    reply: str = "",
    stage: str = "highlight",
    heat: Tensor | None = None,
) -> Figure:
    """Left the boxes, right the region's visual tokens; the question above, answers below.

    Args:
        image: the original image, RGB.
        question: the title.
        focus: mask and boxes as the fine stage saw them (dashed).
        cells: float [T, 4], rectangle each visual token covers, in fractions of the image; what
            lies outside the image is cut off.
        answer: of the fine stage.
        boxes: of the coarse stage, before expansion (solid).
        plain: the same model's answer without the highlight, if it was asked.
        reply: the coarse stage's raw text.
        stage: the fine stage; any but `highlight` is named, and highlights no token by itself.
        heat: float [T], at least 0, the map that the boxes were read from; drawn under them.
    Returns: a figure without a window; `figure.savefig(path)` writes it.
    """
    from matplotlib.figure import Figure

    height = min(max(0.46 * WIDTH * image.height / image.width, 1.2), 7.0)
    captions = (_coarse(reply, focus), _fine(answer, plain, focus, stage))
    title = wrap(question, 95)
    above, below = inches(title, 0.2), max(inches(text, 0.175) for text in captions) + 0.3
    figure = Figure(figsize=(WIDTH, height + above + below + 0.35))
    total = figure.get_figheight()
    figure.text(0.5, 1 - 0.1 / total, title, ha="center", va="top", size=12, weight="bold", **RAW)
    what = "highlighted visual tokens" if stage == "highlight" else f"the region, for {stage}"
    names = ("1. Coarse: where is the answer?", f"2. Fine: {what}")
    for column, (name, caption) in enumerate(zip(names, captions, strict=True)):
        left = 0.02 + column * 0.5
        axes = figure.add_axes((left, below / total, 0.46, height / total))
        axes.set(xlim=(0, image.width), ylim=(image.height, 0), xticks=[], yticks=[])
        axes.set_title(name, fontsize=10, loc="left")
        figure.text(left, (below - 0.3) / total, caption, ha="left", va="top", size=10, **RAW)
        if column:
            _draw_tokens(axes, small(image), image.size, cells[focus.mask.to(cells.device)])
        else:
            _draw_ground(axes, image, cells, heat)
            _draw_boxes(axes, image.size, boxes, focus.boxes)
    keys, where = _legend(boxes, focus.boxes), (0.01, (below - 0.02) / total)
    look: dict[str, Any] = {"ncols": 2, "frameon": False, "fontsize": 9}
    figure.legend(handles=keys, loc="upper left", bbox_to_anchor=where, **look)
    return figure


def _draw_ground(axes: Axes, image: Image, cells: Tensor, heat: Tensor | None) -> None:
    """What boxes are drawn on: the image, or the map that they were read from."""
    if heat is None:
        axes.imshow(small(image), extent=(0, image.width, image.height, 0))
    else:
        draw_map(axes, image, cells, heat / heat.max().clamp(min=1e-12))


def _legend(found: Sequence[Box], used: Sequence[Box]) -> list[Line2D]:
    """What the kinds of line mean, as far as they occur."""
    from matplotlib.lines import Line2D

    solid = Line2D([], [], color=COARSE, linestyle="-", lw=2, label="box found")
    dashed = Line2D([], [], color=FINE, linestyle="--", lw=2, label="after expansion")
    return [solid] * bool(found) + [dashed] * bool(set(used) - set(found))


def draw_map(axes: Axes, image: Image, cells: Tensor, strength: Tensor) -> None:
    """The image in light grey, covered where a map is strong; `strength` is [T], 1 the most."""
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection
    from PIL import Image as Images

    shown = small(image)
    grey = Images.blend(
        shown.convert("L").convert("RGB"), Images.new("RGB", shown.size, "white"), FADE
    )
    width, height = image.size
    axes.imshow(grey, extent=(0, width, height, 0))
    scaled = cells.detach().cpu().double().numpy() * [width, height, width, height]
    corners = scaled[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # [T, 4 corners, xy]
    level = strength.clamp(0, 1).cpu().numpy()
    colours = colormaps[COLOURS](level)
    colours[:, 3] = OPAQUE * level**0.5
    axes.add_collection(PolyCollection(list(corners), facecolors=colours, edgecolors="none"))


def small(image: Image) -> Image:
    """A copy at which it is drawn."""
    shown = image.copy()
    shown.thumbnail((SIDE, SIDE))
    return shown


def _draw_boxes(
    axes: Axes, size: tuple[int, int], found: Sequence[Box], used: Sequence[Box]
) -> None:
    """The coarse boxes solid and the boxes after expansion dashed."""
    for box in found:
        outline(axes, box, size, COARSE, "-")
    for box in set(used) - set(found):
        outline(axes, box, size, FINE, "--")


def outline(axes: Axes, box: Box, size: tuple[int, int], color: str, style: str) -> None:
    """One box over a white line, to show on dark ground."""
    from matplotlib.patheffects import Normal, Stroke

    (width, height), (x0, y0, x1, y1) = size, box.as_tuple()
    axes.plot(
        [x * width for x in (x0, x1, x1, x0, x0)],
        [y * height for y in (y0, y0, y1, y1, y0)],
        color=color,
        linestyle=style,
        linewidth=2,
        clip_on=False,
        path_effects=[Stroke(linewidth=4, foreground="white"), Normal()],
    )


def _draw_tokens(axes: Axes, shown: Image, size: tuple[int, int], lit: Tensor) -> None:
    """The image in full colour where tokens are lit, faded elsewhere; as it is where none is."""
    from matplotlib.collections import PolyCollection
    from matplotlib.path import Path
    from PIL import Image as Images

    extent = (0, size[0], size[1], 0)
    if not len(lit):
        axes.imshow(shown, extent=extent)
        return
    grey = Images.new("RGB", shown.size, "#E0E0E0")
    axes.imshow(Images.blend(shown.convert("L").convert("RGB"), grey, FADE), extent=extent)
    scaled = lit.detach().cpu().double().numpy() * [size[0], size[1], size[0], size[1]]
    corners = scaled[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # [lit, 4 corners, xy]
    closed = [Path([*cell, cell[0]], closed=True) for cell in corners]
    colour = axes.imshow(shown, extent=extent)
    colour.set_clip_path(Path.make_compound_path(*closed), axes.transData)
    axes.add_collection(PolyCollection(list(corners), facecolor="none", edgecolor="white", lw=0.9))
    axes.add_collection(PolyCollection(list(corners), facecolor="none", edgecolor="black", lw=0.4))


def _coarse(reply: str, focus: Focus) -> str:
    """What is said under the left panel."""
    words = {
        "boxes": "",
        "no_box": "no box found",
        "whole": "the boxes cover the whole image",
        "empty": "the boxes light no visual token",
    }[focus.status]
    said = f"model: {wrap(reply, 55, lines=3)}" if reply else ""
    return "\n".join(text for text in (said, words) if text) or " "


def _fine(answer: str, plain: str | None, focus: Focus, stage: str) -> str:
    """What is said under the right panel."""
    done, name = ("highlighted", "CoF") if stage == "highlight" else ("in the region", stage)
    lit = f"{int(focus.mask.sum())} of {len(focus.mask)} visual tokens {done}"
    answers = [f"{name}: {wrap(answer, 55, lines=4)}"]
    if plain is not None:
        answers.append(f"plain: {wrap(plain, 55, lines=4)}")
    return "\n".join([lit, *answers])


def wrap(text: str, width: int, lines: int = 4) -> str:
    """Whole words in lines of a width, cut with an ellipsis."""
    return "\n".join(
        textwrap.wrap(" ".join(text.split()), width, max_lines=lines, placeholder=" …")
    )


def inches(text: str, line: float) -> float:
    """Height of a text whose lines have this height."""
    return line * (text.count("\n") + 1) + 0.1
