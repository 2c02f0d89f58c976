"""A table once, written as text, Markdown, LaTeX (booktabs) or CSV; tabulate does the writing.

A measured number stands with its interval, its n in a column of its own or beside it. CSV has all
digits, a column each for value, ends and n.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from cof.analyse import escape
from cof.analyse.statistics import FEWEST, Estimate


@dataclass(frozen=True, slots=True)
class Number:
    """An estimate and how it is shown.

    Attributes:
        estimate: in the unit that is shown.
        digits: after the point.
        signed: with a plus sign where it is positive.
        n: also show what it rests on.
        p: of a test of a difference, None for none; the caption says which.
    """

    estimate: Estimate
    digits: int = 1
    signed: bool = False
    n: bool = False
    p: float | None = None

    def __str__(self) -> str:
        one, form = self.estimate, f"{'+' if self.signed else ''}z.{self.digits}f"
        shown = format(one.value, form)
        if one.low is None or one.high is None:
            shown += f" {too_few(one.clusters)}"
        else:
            shown += f" [{one.low:{form}}, {one.high:{form}}]"
        if self.p is not None:
            shown += f", p {_shown(self.p)}"
        return f"{shown} (n = {one.n})" if self.n else shown


Cell = str | int | float | Number | None
"""A p-value is a float; a measured number is a `Number`; None is an empty cell."""


def percent(share: Estimate, n: bool = False) -> Number:
    """A share in [0, 1] as per cent."""
    return Number(share.times(100), n=n)


def points(share: Estimate, n: bool = False, p: float | None = None) -> Number:
    """A difference of shares in percentage points."""
    return Number(share.times(100), signed=True, n=n, p=p)


def metric(estimate: Estimate, signed: bool = False) -> Number:
    """A published metric in the points of its benchmark's table."""
    return Number(estimate, digits=2, signed=signed)


INTERVALS = (
    f"brackets: 95 % intervals over images, jackknife; too few: under {FEWEST} images, or all alike"
)
"""For captions: which interval, and where there is none."""

TESTED = "p (permutation over images)"
"""Head of the column of the primary test."""


def too_few(clusters: int) -> str:
    """What stands in place of an interval that so many images cannot give."""
    return f"too few ({clusters})"


def plural(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Table:
    """Rows under a head.

    Attributes:
        name: stem of its files, LaTeX label.
        caption: one sentence.
        head: names of the columns.
        rows: as many cells each.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def text(self) -> str:
        """For a terminal."""
        return self._write("simple")

    def markdown(self) -> str:
        """A Markdown table under its caption."""
        return f"{escape.markdown(self.caption)}\n\n{self._write('pipe')}\n"

    def latex(self) -> str:
        """A `table` environment for a document that loads booktabs, special characters escaped."""
        lines = [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape.latex(self.caption)}}}",
            rf"\label{{tab:{self.name}}}",
            self._write("latex_booktabs"),
            r"\end{table}",
        ]
        return _symbols("\n".join(lines)) + "\n"

    def csv(self) -> str:
        """All digits; a measured column `x` is `x`, `x low`, `x high`, `x n`; if tested, `x p`."""
        columns = [[row[place] for row in self.rows] for place in range(len(self.head))]
        widths = [max((_width(cell) for cell in column), default=1) for column in columns]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        heads = zip(self.head, widths, strict=True)
        writer.writerow([escape.cell(name) + end for name, width in heads for end in ENDS[:width]])
        for row in self.rows:
            cells = zip(row, widths, strict=True)
            writer.writerow([value for cell, width in cells for value in _digits(cell)[:width]])
        return file.getvalue()

    def _write(self, form: str) -> str:
        from tabulate import tabulate

        safe = {"pipe": _markdown, "latex_booktabs": _minus}.get(form, _shown)
        rows = [[safe(cell) for cell in row] for row in self.rows]
        head = [safe(name) for name in self.head]
        align = ["left" if self._is_text(place) else "right" for place in range(len(self.head))]
        return tabulate(rows, head, tablefmt=form, disable_numparse=True, colalign=align)

    def _is_text(self, place: int) -> bool:
        return any(isinstance(row[place], str) for row in self.rows) or not self.rows


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return "<0.001" if cell < 0.001 else f"{cell:.3f}"
    return escape.clean(str(cell))


ENDS = ("", " low", " high", " n", " p")
"""What a measured column's own columns of a CSV file are called, after its name."""


def _width(cell: Cell) -> int:
    """Columns of a CSV file that a cell needs."""
    return 1 if not isinstance(cell, Number) else 4 if cell.p is None else 5


def _digits(cell: Cell) -> list[Any]:
    """A cell's values for `ENDS`."""
    if not isinstance(cell, Number):
        value = escape.cell(cell) if isinstance(cell, str) else cell
        return [value, None, None, None, None]
    one = cell.estimate
    return [one.value, one.low, one.high, one.n, cell.p]


def _markdown(cell: Cell) -> str:
    """A Markdown cell; the brackets of intervals are our own and stay."""
    if isinstance(cell, Number):
        return _shown(cell).replace("<", "&lt;")  # of a small p
    return escape.markdown(_shown(cell))


def _minus(cell: Cell) -> str:
    """A LaTeX cell before it is escaped: minus signs, no hyphens, in numbers."""
    return _shown(cell).replace("-", "−") if isinstance(cell, Number) else _shown(cell)


def _symbols(text: str) -> str:
    """The signs outside ASCII that our own heads use, as LaTeX."""
    return text.replace("λ", r"$\lambda$").replace("α", r"$\alpha$").replace("−", "$-$")
