"""Pictures as HTML: boxes and highlighted tokens are drawn over them, as SVG."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cof.app.text import safe
from cof.types import Box, Focus, Quad

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor

    from cof.outcome import Outcome

SIDE = 1280
"""Longest edge in pixels at which a picture is shown; the model sees it as it is."""

STATUS = {
    "boxes": "",
    "no_box": "no box in the reply",
    "whole": "the boxes cover every visual token",
    "empty": "the boxes light no visual token",
}
"""What became of the boxes, where it is not the usual."""

KEPT = "the gate kept the plain answer, so that nobody looked for a region"


class Picture(NamedTuple):
    """An image, RGB, and what a browser shows of it, as a `data:` address."""

    image: Image
    url: str

    @classmethod
    def of(cls, image: Image) -> Picture:
        """Shrink and encode."""
        small = image.copy()
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=92)
        return cls(image, f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def blank(shown: Picture) -> str:
    """The picture alone, ready for a box to be drawn."""
    return _panels(_panel("Draw a box, or ask where to look", _svg(shown, [], draws=True)))


def stages(
    shown: Picture,
    found: Sequence[Box],
    focus: Focus,
    cells: Tensor,
    *,
    true: Sequence[Box] = (),
    reply: str = "",
    draws: bool = False,
    kept: bool = False,
) -> str:
    """Both stages side by side: boxes on the picture, and the highlighted visual tokens.

    Args:
        shown: the picture.
        found: boxes of the coarse stage (solid).
        focus: mask, and boxes after expansion (dashed).
        cells: float [T, 4], rectangle each visual token covers, in fractions of the picture.
        true: annotated boxes (dotted).
        reply: the coarse stage's raw text.
        draws: whether a box can be drawn on the left one.
        kept: whether a gate kept the plain answer, so that nobody looked for a region.
    """
    size = shown.image.size
    used = [box for box in focus.boxes if box not in found]
    kinds = {"true": true, "found": found, "used": used}
    names = {"true": "true box", "found": "box", "used": "box after expansion (α)"}
    outlines = [_rect(box.as_tuple(), size, kind) for kind, some in kinds.items() for box in some]
    legend = " ".join(
        f'<span class="cof-key cof-{kind}">{names[kind]}</span>' for kind in kinds if kinds[kind]
    )
    said = f"<code>{safe(reply, 400)}</code>" if reply else ""
    lit = f"{int(focus.mask.sum())} of {len(focus.mask)} visual tokens"
    reason = KEPT if kept else STATUS[focus.status]
    why = f": {reason}" if reason else ""
    head = "1. Coarse: where to look" + ("; draw to correct it" if draws else "")
    return _panels(
        _panel(head, _svg(shown, outlines, draws), f"{legend} {said}"),
        _panel(
            "2. Fine: the visual tokens of the region",
            _svg(shown, _lit(cells[focus.mask.to(cells.device)].tolist(), size)),
            f"{lit}{why}",
        ),
    )


def outcome_stages(shown: Picture, outcome: Outcome) -> str:
    """`stages` of an answered question."""
    found, cells = outcome.region, outcome.view.cells
    kept = outcome.result.kept
    return stages(
        shown, found.boxes, outcome.focus, cells, reply=found.reply, draws=True, kept=kept
    )


def attention(outcome: Outcome, layer: int) -> str:
    """Where the answer looks, plain and with the highlight; see `Outcome.attention`.

    Args:
        outcome: answered.
        layer: from 1; 0 is the mean of all layers.

    Raises:
        AnswerError: see `Outcome.attention`.
    """
    from cof.plot import draw_attention

    found = outcome.attention()
    maps = found.mean() if layer == 0 else type(found)(*(one[layer - 1] for one in found))
    own = getattr(outcome.stage, "weight", None)
    named = {"plain": maps.plain, "CoF" if own is None else f"CoF, λ = {own:g}": maps.cof}
    title = f"{outcome.question} - {f'layer {layer}' if layer else 'mean of all layers'}"
    cells = outcome.view.cells
    figure = draw_attention(outcome.image, title, outcome.focus, cells, named)
    return f'<img class="cof-figure" alt="attention maps" src="{_png(figure)}">'


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _panels(*panels: str) -> str:
    return f'<div class="cof-panels">{"".join(panels)}</div>'


def _panel(head: str, body: str, foot: str = "") -> str:
    return f"<figure><b>{head}</b>{body}<figcaption>{foot}</figcaption></figure>"


def _svg(shown: Picture, layers: Iterable[str], draws: bool = False) -> str:
    width, height = shown.image.size
    names = "cof-picture cof-draws" if draws else "cof-picture"
    filled = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    picture = f'<image href="{shown.url}" {filled}/>'
    head = f'<svg class="{names}" role="img" viewBox="0 0 {width} {height}">'
    return f"{head}{picture}{''.join(layers)}</svg>"


def _rect(quad: Quad | Sequence[float], size: tuple[int, int], kind: str) -> str:
    """One rectangle of fractions as pixels of the picture."""
    width, height = size
    x0, y0, x1, y1 = quad
    place = f'x="{x0 * width:.2f}" y="{y0 * height:.2f}"'
    extent = f'width="{(x1 - x0) * width:.2f}" height="{(y1 - y0) * height:.2f}"'
    return f'<rect class="cof-{kind}" {place} {extent}/>'


def _lit(cells: Sequence[Sequence[float]], size: tuple[int, int]) -> list[str]:
    """All that is not lit fades; nothing does where nothing is lit."""
    if not cells:
        return []
    holes = "".join(_rect(cell, size, "hole") for cell in cells)
    name = f"cof-lit-{zlib.crc32(holes.encode())}"
    whole = 'width="100%" height="100%"'
    mask = f'<mask id="{name}"><rect class="cof-whole" {whole}/>{holes}</mask>'
    fade = f'<rect class="cof-fade" {whole} mask="url(#{name})"/>'
    return [mask, fade, *(_rect(cell, size, "cell") for cell in cells)]
