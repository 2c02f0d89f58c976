"""What came of a question as a record has it: `Result`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cof.regions.mask import token_mask
from cof.stages import Step
from cof.types import Answer, Quad, Question, Region, Result, View

if TYPE_CHECKING:
    from torch import Tensor


def result_of(question: Question, view: View, step: Step, plain: Answer | None) -> Result:
    """A question's result; a pass that failed leaves only its error, the other one stays.

    Of an answer that the gate kept there is no region: nobody looked for one.
    """
    region, focus, cof, gate = step
    located = not region.error and (gate is None or gate.asked)
    cells = _indices(focus.mask) if located else ()
    return Result(
        question=question,
        region=region if located else None,
        focus_boxes=focus.boxes if located else (),
        cells=cells,
        tokens=len(focus.mask),
        status=focus.status,
        cof=cof if not (region.error or cof.error) else None,
        plain=plain if plain and not plain.error else None,
        error=_error(region, cof, plain),
        target=_indices(token_mask(question.boxes, view.cells)),
        grid=view.grid,
        frame=_frame(view),
        lit=() if view.grid else tuple(_quad(view.cells[cell]) for cell in cells),
        gate=gate,
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
