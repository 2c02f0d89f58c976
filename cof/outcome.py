"""What came of a question: `Result` for records, and `Outcome`, which `CoF` returns to a caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cof.regions.mask import token_mask
from cof.types import Answer, Box, Focus, Quad, Question, Region, Result, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """One question about one image, answered.

    Attributes:
        image: what was asked about, RGB.
        view: how the model saw it; `view.cells` are the rectangles of its visual tokens.
        region: the coarse stage's boxes and raw reply (`region.reply`, "" where a box was given).
        focus: boxes after expansion, and the mask (`focus.mask`, bool [T]) that was highlighted.
        result: both answers, in the form of a run's record.
    """

    image: Image
    view: View
    region: Region
    focus: Focus
    result: Result

    @property
    def text(self) -> str:
        """The answer with the region highlighted, as the model wrote it."""
        return self.result.cof.text if self.result.cof else ""

    @property
    def plain(self) -> str | None:
        """The same model's answer without the highlight, None unless asked for."""
        return self.result.plain.text if self.result.plain else None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The highlighted regions, fractions of the image, expansion included."""
        return self.focus.boxes

    @property
    def mask(self) -> Tensor:
        """The highlighted visual tokens, bool [T]."""
        return self.focus.mask

    @property
    def seconds(self) -> float:
        """Wall time of the coarse stage and the answers, vision tower not included."""
        parts = (self.region, self.result.cof, self.result.plain)
        return sum(part.seconds for part in parts if part is not None)

    def plot(self) -> Figure:
        """Draw the two stages: the boxes on the image, the highlighted tokens, the answers."""
        from cof.plot import draw_two_stages

        return draw_two_stages(
            self.image,
            self.result.question.text,
            self.focus,
            self.view.cells,
            self.text,
            boxes=self.region.boxes,
            plain=self.plain,
            reply=self.region.reply,
        )


def result_of(
    question: Question, view: View, region: Region, focus: Focus, cof: Answer, plain: Answer | None
) -> Result:
    """A question's result; a pass that failed leaves only its error, the other one stays."""
    located = not region.error
    cells = _indices(focus.mask) if located else ()
    return Result(
        question=question,
        region=region if located else None,
        focus_boxes=focus.boxes if located else (),
        cells=cells,
        tokens=len(focus.mask),
        status=focus.status,
        cof=cof if located and not cof.error else None,
        plain=plain if plain and not plain.error else None,
        error=_error(region, cof, plain),
        target=_indices(token_mask(question.boxes, view.cells)),
        grid=view.grid,
        frame=_frame(view),
        lit=() if view.grid else tuple(_quad(view.cells[cell]) for cell in cells),
    )


def _error(region: Region, cof: Answer, plain: Answer | None) -> str:
    """Which passes failed and why; without a region there is no CoF pass that could."""
    found = {
        "coarse pass": region.error,
        "CoF pass": "" if region.error else cof.error,
        "plain pass": plain.error if plain else "",
    }
    reasons: dict[str, list[str]] = {}
    for name, why in found.items():
        if why:
            reasons.setdefault(why, []).append(name)
    return "; ".join(f"{' and '.join(names)}: {why}" for why, names in reasons.items())


def _indices(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def _frame(view: View) -> Quad | None:
    """The rectangle that a grid covers, from its first and its last token."""
    if view.grid is None:
        return None
    (left, top), (right, bottom) = view.cells[0, :2].tolist(), view.cells[-1, 2:].tolist()
    return (left, top, right, bottom)


def _quad(cell: Tensor) -> Quad:
    x0, y0, x1, y1 = cell.tolist()
    return (x0, y0, x1, y1)
