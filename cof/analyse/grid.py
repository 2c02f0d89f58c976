"""Runs that differ in their settings side by side: one table, one figure.

The runs of a sweep, or any runs over the same questions. Every setting is compared with the plain
answers of its own run; all of them are one family for Holm's correction.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cof.analyse.compare import EVIDENCE, Comparison, compare, corrected, evidence
from cof.analyse.figures import Curve, Panel, curves, forest
from cof.analyse.gather import ASKED, PLAIN_TEXTS, gather
from cof.analyse.metrics import published
from cof.analyse.naming import hash_names, setting_names
from cof.analyse.page import write_page
from cof.analyse.passes import align, scored_pass
from cof.analyse.settings import differing, sign, values
from cof.analyse.statistics import Estimate
from cof.analyse.tables import INTERVALS, Cell, Table, metric, percent, plural, points
from cof.config.identity import flatten
from cof.store.run import Run, run_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHT, EXPAND = "refine.weight", "boxes.expand"
SCORE = "accuracy (mean credit), %\n(bands: 95 % of the difference to plain)"
CAPTION = (
    "Accuracy (mean credit) of each setting and its difference to the plain answers; Holm over the "
    f"rows; {INTERVALS}"
)
NOTE = (
    "p: signs of whole images flipped, in every way where few differ; Holm's correction is of that "
    "p. McNemar's exact test takes questions as independent, which those of one image are not."
)


class Grid:
    """Runs over the same questions, with their comparisons.

    Args:
        runs: finished, each with its plain pass.
        seed: of the tests, and of the groups of the jackknife.
        by_category: also compare each of the benchmark's groups, which takes time.
        left_out: run's name -> why it is not among them, for the notes.

    Raises:
        RunError: a run that is not finished or has no plain pass, or runs over other questions.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        seed: int = 0,
        by_category: bool = False,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.runs, self.seed, self.left_out = list(runs), seed, left_out or {}
        plains = [scored_pass(run, "plain") for run in runs]
        for other in plains[1:]:
            align(plains[0], other)
        pairs = zip(plains, (scored_pass(run, "cof") for run in runs), strict=True)
        found = [compare(*pair, seed, by_category=by_category) for pair in pairs]
        self.found: list[Comparison] = corrected(found)
        self.keys = differing([run.config for run in runs])
        self.hashes = hash_names([run_hash(run) for run in runs])

    def plain_changes(self) -> int:
        """Questions whose plain answer is not the same in all runs; rounding can do that."""
        import numpy as np

        if len(self.runs) == 1:
            return 0
        found = [gather(run.results, {**ASKED, **PLAIN_TEXTS}) for run in self.runs]
        first, *others = (text[np.argsort(asked.ids, kind="stable")] for asked, text in found)
        differs = np.zeros(len(first), bool)
        for other in others:
            differs |= first != other
        return int((differs & (first != 0)).sum())

    @functools.cached_property
    def table(self) -> Table:
        """One row a run; the plain answers on top, or in a column where they are not the same."""
        varies, count = self.plain_changes() > 0, max(len(self.keys), 1)
        heads = [published(run, "cof", self.seed) for run in self.runs]
        main = next(iter(heads[0]), None)
        head = [sign(key) for key in self.keys] or ["run"]
        head += ["n", *(["plain, %"] if varies else []), "CoF, %", "difference, points"]
        head += [*EVIDENCE, *([main] if main else [])]
        some = any(any(one.failed) for one in self.found)
        head += ["failed (plain, CoF)"] if some else []
        rows: list[tuple[Cell, ...]] = []
        if not varies:
            first = self.found[0].before
            plain = published(self.runs[0], "plain", self.seed)
            top = [metric(plain[main])] if main else []
            names = ["plain", *[""] * (count - 1)]
            rows.append((*names, first.n, percent(first), *[None] * 6, *top, *[None] * some))
        for run, one, scores in zip(self.runs, self.found, heads, strict=True):
            settings = list(values(run.config, self.keys).values()) or [run.path.name]
            row: list[Cell] = [*settings, one.after.n]
            row += [percent(one.before)] if varies else []
            row += [percent(one.after), points(one.difference), *evidence(one)]
            row += [metric(scores[main])] if main else []
            rows.append((*row, *([f"{one.failed[0]}, {one.failed[1]}"] if some else [])))
        return Table("settings", CAPTION, tuple(head), tuple(rows))

    def figure(self) -> Figure:
        """Score against λ, a line per α; without λ, each setting's difference to plain."""
        hashes = self.hashes
        if WEIGHT not in self.keys:
            rows = {
                name: one.difference.times(100)
                for name, one in zip(setting_names(self.runs), self.found, strict=True)
            }
            return forest(rows, "difference to the plain answers, points", hashes)
        return curves(self._panels(), "λ", SCORE, hashes)

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        changed = self.plain_changes()
        lines = [f"Runs {', '.join(map(run_hash, self.runs))}; figures: {self.hashes}.", NOTE]
        if changed:
            lines.append(f"The plain answers to {plural(changed, 'question')} differ between runs.")
        for name, one in zip(setting_names(self.runs), self.found, strict=True):
            if any(one.failed):
                plain, cof = (plural(count, "answer") for count in one.failed)
                lines.append(f"{name}: failed and counted as wrong: plain {plain}, CoF {cof}.")
        return [*lines, *(f"{name} left out: {why}." for name, why in self.left_out.items())]

    def write(self, folder: Path, stem: str) -> list[Path]:
        """Write `stem`.md, .csv, .tex and .png into a folder."""
        return write_page(folder, stem, self.table, self.figure(), self.notes())

    def _panels(self) -> list[Panel]:
        """α (or the first other setting) is the line, the others the panel."""
        rest = [key for key in self.keys if key != WEIGHT]
        line_key = EXPAND if EXPAND in rest else rest[0] if rest else None
        panel_keys = [key for key in rest if key != line_key]
        points: dict[str, dict[str, list[tuple[float, Estimate]]]] = {}
        plain: dict[str, Estimate] = {}
        for run, one in zip(self.runs, self.found, strict=True):
            told, weight = values(run.config, self.keys), flatten(run.config).get(WEIGHT)
            if weight is None:
                continue
            title = ", ".join(f"{sign(key)} {told[key]}" for key in panel_keys if told[key])
            line = f"{sign(line_key)} {told[line_key]}" if line_key else "CoF"
            spots = points.setdefault(title, {}).setdefault(line, [])
            spots.append((float(weight), _beside_plain(one).times(100)))
            plain.setdefault(title, replace(one.before, low=None, high=None).times(100))
        return [
            Panel(title, [_curve(name, spots) for name, spots in lines.items()], plain[title])
            for title, lines in points.items()
        ]


def _beside_plain(one: Comparison) -> Estimate:
    """The score, with the interval of its difference to plain put around plain's score.

    The difference is paired, so that a band off the plain line tells more than two bands apart.
    """
    ends = (one.difference.low, one.difference.high)
    low, high = (None if end is None else min(max(one.before.value + end, 0), 1) for end in ends)
    return replace(one.after, low=low, high=high)


def _curve(name: str, spots: Sequence[tuple[float, Estimate]]) -> Curve:
    ordered = sorted(spots, key=lambda spot: spot[0])
    return Curve(name, tuple(x for x, _ in ordered), tuple(y for _, y in ordered))
