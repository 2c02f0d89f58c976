"""`cof controls`: a setting beside its controls, to tell "the region was right" from "any will do".

    runs/<name>/own/         the setting itself, a run folder as `cof eval` writes it
    runs/<name>/oracle/ ...  the same with another coarse stage; all controls share their batches
    runs/<name>/controls.md, .csv, .tex, .png

| control | region |
|---|---|
| oracle | the benchmark's true boxes |
| whole | every visual token |
| random | the setting's own boxes moved elsewhere, same size |
| shuffled | the setting's own boxes of another question |
| centre | one box in the middle, of the mean area of the setting's own boxes |

The plain answers come from the same model over the same batches; questions whose plain answer is
not the same in all runs are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cof.analyse import localisation
from cof.analyse.compare import EVIDENCE, Comparison, compare, corrected, evidence
from cof.analyse.failures import spoilt
from cof.analyse.figures import forest
from cof.analyse.grid import Grid
from cof.analyse.page import write_page
from cof.analyse.passes import scored_pass
from cof.analyse.statistics import Estimate
from cof.analyse.tables import INTERVALS, Cell, Table, percent, points
from cof.analyse.yes_no import leaks
from cof.config import plugins, schema
from cof.config.schema import RunConfig
from cof.errors import DataError, RunError
from cof.evaluate.runner import Options, run_cells
from cof.store import origin
from cof.store.dataset import questions_hash, read_questions
from cof.store.run import Run
from cof.types import Question

CONTROLS = ("oracle", "whole", "random", "shuffled", "centre")
OWN = "own"


@dataclass(frozen=True)
class Controls:
    """A setting's run and those of its controls.

    Attributes:
        folder: that holds them.
        runs: `own` first.
        skipped: control -> why this benchmark cannot have it.
    """

    folder: Path
    runs: dict[str, Run]
    skipped: dict[str, str] = field(default_factory=dict)


def run_controls(path: Path, overrides: Sequence[str], options: Options | None = None) -> Controls:
    """Run a setting, then its controls, or what is missing of them.

    Args:
        path: the config of the setting.
        overrides: `key=value`.
        options: see `cof.evaluate.runner.run_cells`.

    Raises:
        ConfigError, DataError, ModelError, RunError: see `run_cells`.
    """
    base = schema.load(path, overrides)
    questions = read_questions(base)
    folder = Path(base.general.out) / (base.general.name or _name(base, questions))
    shared = base.with_({"out": str(folder), "plain": True})
    own = run_cells([shared.with_({"name": OWN})], options)[0]
    if why := spoilt(own):
        raise RunError(f"{own.path}: {why}; controls of no answers say nothing")
    cells, skipped = [], {}
    for name in CONTROLS:
        cell = shared.with_({"name": name, **_region(name, own)})
        reason = _refusal(cell, questions)
        if reason:
            skipped[name] = reason
        else:
            cells.append(cell)
    runs = run_cells(cells, options)
    return Controls(folder, {OWN: own} | {run.path.name: run for run in runs}, skipped)


def _region(control: str, own: Run) -> dict[str, Any]:
    """A control's coarse stage, as changes of the setting's config."""
    changes: dict[str, Any] = {"locate": control}
    if control in ("random", "shuffled"):
        changes["locate.of"] = str(own.path)
    if control == "centre":
        measured = map(localisation.measure, own.results)
        areas = [one.area for one in measured if one is not None and one.area > 0]
        if areas:
            changes["locate.area"] = round(sum(areas) / len(areas), 4)
    return changes


def _refusal(cell: RunConfig, questions: Sequence[Question]) -> str:
    """Why a control cannot be had on this benchmark, "" where it can."""
    stage = plugins.load("locate", cell.names["locate"])
    try:
        if hasattr(stage, "check_dataset"):
            stage.check_dataset(cell.names["bench"], questions, cell.locate)
    except DataError as error:
        return str(error)
    return ""


def _name(base: RunConfig, questions: Sequence[Question]) -> str:
    asked = {"questions": questions_hash(questions), **origin.regions(base)}
    made = origin.made(base.as_dict(), origin.identify(base), asked)
    return origin.run_name(base, "controls", origin.digest(made))


class ControlsPage:
    """The controls side by side.

    Args:
        done: the runs.
        seed: of the tests, and of the groups of the jackknife.
    """

    def __init__(self, done: Controls, seed: int = 0) -> None:
        self.done, self.seed = done, seed
        left_out = {name: why for name, run in done.runs.items() if (why := spoilt(run))}
        self.runs = {name: run for name, run in done.runs.items() if name not in left_out}
        self.grid = Grid(list(self.runs.values()), seed, left_out=left_out)
        own = scored_pass(self.runs[OWN], "cof")
        others = [scored_pass(run, "cof") for name, run in self.runs.items() if name != OWN]
        self.to_own = corrected([compare(other, own, seed, by_category=False) for other in others])

    def table(self) -> Table:
        """One row a coarse stage, under the plain answers."""
        tests = [f"{name}, own against this" for name in EVIDENCE[2:]]
        head = ["region", "n", "%", "difference to plain, points", "p (Holm), this against plain"]
        head += ["own minus this, points", *tests, "hit, %", "tokens lit, %"]
        plain = self.grid.found[0].before
        nothing: list[Cell] = [None] * 8
        rows: list[tuple[Cell, ...]] = [("plain", plain.n, percent(plain), *nothing)]
        against: list[Comparison | None] = [None, *self.to_own]
        for (name, run), one, own in zip(self.runs.items(), self.grid.found, against, strict=True):
            measured = localisation.summarise(run.results)
            seen = [measured.get(key) for key in ("hit", "lit")]
            rows.append(
                (
                    name,
                    one.after.n,
                    percent(one.after),
                    points(one.difference),
                    one.p_holm,
                    points(own.difference) if own else None,
                    *(evidence(own)[2:] if own else [None] * 3),
                    *(percent(value, n=True) if value else None for value in seen),
                )
            )
        caption = (
            "The setting's own regions and its controls; accuracy (mean credit); Holm: permutation "
            f"over images, corrected over the column; {INTERVALS}"
        )
        return Table("controls", caption, tuple(head), tuple(rows))

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        skipped = [f"Left out: {name} ({why})." for name, why in self.done.skipped.items()]
        return [*self.grid.notes(), *leaks(list(self.runs.values()), list(self.runs)), *skipped]

    def write(self) -> list[Path]:
        """Write controls.md, .csv, .tex and .png."""
        rows: dict[str, Estimate] = {
            name: one.difference.times(100)
            for name, one in zip(self.runs, self.grid.found, strict=True)
        }
        figure = forest(rows, "difference to the plain answers, points", self.grid.hashes)
        return write_page(self.done.folder, "controls", self.table(), figure, self.notes())
