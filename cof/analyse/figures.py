"""Figures of runs: score against λ, differences with their intervals; each carries its runs' hash.

Colours are Okabe and Ito's, told apart with every kind of colour blindness, and every series also
has a marker and a line style of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.analyse.statistics import Estimate
from cof.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
GREY = "#595959"

PANEL = (4.2, 3.2)
"""Width and height of one panel in inches."""

LETTERS = 14
"""Letters of a legend to the inch."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure: estimates at places on the x axis.

    Attributes:
        label: for the legend.
        x: ascending.
        y: as many.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[Estimate, ...]


@dataclass(frozen=True)
class Panel:
    """One of a figure's plots.

    Attributes:
        title: "" for none.
        lines: what is drawn.
        plain: the model without the highlight, a horizontal line with its band.
    """

    title: str
    lines: Sequence[Curve]
    plain: Estimate | None = None


def curves(
    panels: Sequence[Panel],
    x: str,
    y: str,
    hashes: str,
    log: bool = True,
) -> Figure:
    """Score against a setting: a panel each group, a line each series, bands for intervals.

    Args:
        panels: side by side, three to a row, of four two; some may be empty.
        x: name of the x axis.
        y: name of the y axis.
        hashes: which runs, see `stamp`.
        log: whether the x axis is logarithmic.
    """
    from matplotlib.figure import Figure

    panels = panels or [Panel("", [])]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(PANEL[0] * columns + 0.4, PANEL[1] * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, plot in zip(panels, axes.flat, strict=False):
        _panel(plot, panel, log)
    for spare in axes.flat[len(panels) :]:
        spare.set_visible(False)
    for plot in axes[-1]:
        plot.set_xlabel(x)
    for row in axes:
        row[0].set_ylabel(y)
    _legend(figure, max((plot.get_legend_handles_labels() for plot in axes.flat), key=_entries))
    stamp(figure, hashes)
    return figure


def _entries(legend: tuple[list[Any], list[str]]) -> int:
    return len(legend[1])


def _legend(figure: Figure, legend: tuple[list[Any], list[str]]) -> None:
    handles, names = legend
    if not names:
        return
    room = figure.get_figwidth() * LETTERS / (max(map(len, names)) + 6)
    style: dict[str, Any] = {"ncols": max(1, min(4, int(room))), "fontsize": 9, "frameon": False}
    figure.legend(handles, names, loc="outside upper center", **style)


def _panel(plot: Axes, panel: Panel, log: bool) -> None:
    plot.set_title(panel.title, fontsize=10, parse_math=False)
    if panel.plain is not None:
        _level(plot, panel.plain)
    for place, line in enumerate(panel.lines):
        _line(plot, line, place)
    if panel.lines:  # the x axis is shared: an empty panel would take the others' ticks away
        plot.set_xscale("log" if log else "linear")
        _ticks(plot, sorted({value for line in panel.lines for value in line.x}))
    plot.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _line(plot: Axes, line: Curve, place: int) -> None:
    colour = COLOURS[place % len(COLOURS)]
    values = [one.value for one in line.y]
    plot.plot(
        line.x,
        values,
        color=colour,
        marker=MARKERS[place % len(MARKERS)],
        linestyle=DASHES[place % len(DASHES)],
        markersize=5,
        linewidth=1.6,
        label=line.label,
    )
    low = [
        math.nan if one.low is None else one.low for one in line.y
    ]  # no band where none is known
    high = [math.nan if one.high is None else one.high for one in line.y]
    plot.fill_between(line.x, low, high, color=colour, alpha=0.15, linewidth=0)


def _level(plot: Axes, plain: Estimate) -> None:
    plot.axhline(plain.value, color=GREY, linewidth=1.2, linestyle=(0, (5, 1)), label="plain")
    if plain.low is not None and plain.high is not None:
        plot.axhspan(plain.low, plain.high, color=GREY, alpha=0.1, linewidth=0)


def _ticks(plot: Axes, places: Sequence[float]) -> None:
    """The settings that were run, and no others."""
    plot.set_xticks(places, [f"{place:g}" for place in places])
    plot.minorticks_off()


FOREST = "(95 % intervals, uncorrected; filled: zero is outside;\ncross: too few images for one)"


def _difference(plot: Axes, one: Estimate, place: int) -> None:
    """A point with its interval; where there is none, a cross that claims nothing."""
    if one.low is None or one.high is None:
        plot.plot(one.value, place, marker="x", color=COLOURS[0])
        return
    plot.plot([one.low, one.high], [place, place], color=COLOURS[0], linewidth=1.8)
    face = COLOURS[0] if one.low > 0 or one.high < 0 else "white"
    plot.plot(one.value, place, marker="o", color=COLOURS[0], markerfacecolor=face)


def forest(rows: Mapping[str, Estimate], x: str, hashes: str) -> Figure:
    """Differences as points with their intervals, one below the other, around zero.

    Args:
        rows: name -> difference, from top to bottom.
        x: name of the x axis.
        hashes: which runs, see `stamp`.
    """
    from matplotlib.figure import Figure

    names = [f"{name}  (n = {one.n})" for name, one in rows.items()]
    width = max(6.4, 4.2 + max(map(len, names), default=0) / LETTERS * 1.2)
    figure = Figure(figsize=(width, 1.1 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1)
    for place, one in enumerate(rows.values()):
        _difference(axes, one, place)
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, -1), max(right, 1))  # so that nothing does not look like something
    axes.set_xlabel(f"{x}\n{FOREST}", parse_math=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    stamp(figure, hashes)
    return figure


def stamp(figure: Figure, hashes: str) -> None:
    """Write under a figure which runs it shows."""
    strip = 0.16 / figure.get_figheight()
    engine: Any = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, strip, 1, 1 - strip))
    figure.text(0.995, 0.005, hashes, ha="right", va="bottom", fontsize=6, color=GREY)


def save(figure: Figure, path: Path) -> Path:
    """Write PNG or PDF, without the day and the program's version."""
    metadata: dict[str, Any] = (
        {"Software": None} if path.suffix == ".png" else {"CreationDate": None}
    )
    with whole(path) as fresh:
        figure.savefig(fresh, dpi=150, metadata=metadata)
    return path
