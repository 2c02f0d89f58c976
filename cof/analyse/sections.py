"""The tables of a report, each from records alone."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cof.analyse import gate, localisation, yes_no
from cof.analyse.failures import by_pass
from cof.analyse.gather import IMAGES, PARTS, Wanted, gather, overview
from cof.analyse.metrics import paired, published
from cof.analyse.passes import bench_of, has_both, scored_pass
from cof.analyse.scores import STATUSES
from cof.analyse.significance import holm
from cof.analyse.statistics import Estimate
from cof.analyse.tables import INTERVALS, Cell, Number, Table, metric, percent, points
from cof.errors import cut
from cof.store.folder import FLIPS, RunFolder
from cof.store.manifest import latest
from cof.store.run import Run, run_hash
from cof.types import Result

if TYPE_CHECKING:
    import numpy as np

MEASURES = {
    "parsed": "parsed, %",
    "boxes": "boxes a reply",
    "area": "area, %",
    "lit": "tokens lit, %",
    "hit": "hit, %",
    "iou": "IoU, %",
    "recall": "recall of target tokens, %",
}
"""Measure of `cof.analyse.localisation` -> head of its column."""


def scores_table(run: Run, name: str, seed: int) -> Table:
    """The benchmark's own metrics of one run, plain beside CoF."""
    caption = f"{name}: the benchmark's own metrics; {INTERVALS}"
    caption += (
        f"; failed, counted as wrong: {by_pass([run])}" if overview(run.results).errors else ""
    )
    rows: list[tuple[Cell, ...]]
    if not has_both(run):
        found = published(run, "cof", seed)
        rows = [(key, one.n, metric(one)) for key, one in found.items()]
        what = "coarse stage" if hasattr(bench_of(run)[0], "region_answer") else "CoF"
        return Table("scores", caption, ("metric", "n", what), tuple(rows))
    rows = []
    for key, both in paired(run, seed).items():
        change = metric(both.difference, signed=True)
        rows.append((key, both.plain.n, metric(both.plain), metric(both.cof), change))
    return Table("scores", caption, ("metric", "n", "plain", "CoF", "difference"), tuple(rows))


def coarse_table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """The coarse stage of each run, see `cof.analyse.localisation`."""
    rows: list[tuple[Cell, ...]] = []
    for run, name in zip(runs, names, strict=True):
        found = localisation.summarise(run.results)
        rows.append((name, *(_measured(key, found.get(key)) for key in MEASURES)))
    caption = f"The coarse stage: boxes before expansion, tokens as highlighted; {INTERVALS}"
    return Table("coarse", caption, ("run", *MEASURES.values()), tuple(rows))


def _measured(name: str, one: Estimate | None) -> Number | None:
    if one is None:
        return None
    return Number(one, digits=2, n=True) if name == "boxes" else percent(one, n=True)


def effect_table(runs: Sequence[Run], names: Sequence[str], seed: int) -> Table:
    """CoF's effect where its region was right, where it was wrong, where no truth is known."""
    found = []
    for run in runs:
        before, after = (scored_pass(run, which, True).credits for which in ("plain", "cof"))  # type: ignore[arg-type]
        found.append(localisation.effect_by_hit(run.results, before, after, seed))
    ps = iter(holm([change.p for groups in found for change in groups.values()]))
    shown = [
        {name: points(change.estimate, n=True, p=next(ps)) for name, change in groups.items()}
        for groups in found
    ]
    groups = tuple(localisation.GROUPS.values())
    rows = [
        (name, *(cells.get(group) for group in groups))
        for name, cells in zip(names, shown, strict=True)
    ]
    caption = (
        "CoF minus plain in points of accuracy, by whether the region hit; p: permutation over "
        f"images, Holm over the table; {INTERVALS}"
    )
    return Table("effect", caption, ("run", *groups), tuple(rows))


def status_table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """How regions became masks, and what failed: counts of questions."""
    rows: list[tuple[Cell, ...]] = []
    for run, name in zip(runs, names, strict=True):
        seen = overview(run.results)
        found = [seen.status[status] for status in STATUSES]
        failed: Cell = f"{seen.errors} ({by_pass([run])})" if seen.errors else 0
        rows.append((name, run_hash(run), len(run.results), *found, failed))
    head = ("run", "hash", "n", *STATUSES, "failed")
    return Table("status", "How regions became masks: questions", head, tuple(rows))


def explain(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Table], list[str]]:
    """Where gains and losses come from: the doubt gate, yes or no; and what leaks."""
    gates = gate.gate_table(runs, names)
    tables, notes = yes_no.tables(runs, names)
    return [*([gates] if gates else []), *tables], [*notes, *yes_no.leaks(runs, names)]


SHOWN_FLIPS = 8
"""Most flipped answers that a report shows of each pass; flips.json has all."""


def flips_table(runs: Sequence[Run], names: Sequence[str]) -> Table | None:
    """Answers that half precision moved: of the questions asked again alone; None without any run.

    See `cof.evaluate.flips`.
    """
    rows: list[tuple[Cell, ...]] = []
    for run, name in zip(runs, names, strict=True):
        found = RunFolder(run.path).read_json(FLIPS)
        for kind in ("coarse", "plain", "cof") if found else ():
            flipped = found[kind]
            shown = [f"{one['id']}: {one['batch']} → {one['alone']}" for one in flipped]
            more = [f"and {len(shown) - SHOWN_FLIPS} more"] * (len(shown) > SHOWN_FLIPS)
            which = "; ".join(map(cut, [*shown[:SHOWN_FLIPS], *more])) or "none"
            share = 100 * len(flipped) / found["asked"] if found["asked"] else None
            rows.append((name, kind, found["asked"], len(flipped), share, which))
    if not rows:
        return None
    head = ("run", "pass", "asked again", "flipped", "%", "in its batch → alone")
    caption = "Half precision: answers that differ between the run's batches and batch 1"
    return Table("flips", caption, head, tuple(rows))


def seconds_table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """Mean seconds a question of each part, its share of its batch."""
    rows: list[tuple[Cell, ...]] = []
    for run, name in zip(runs, names, strict=True):
        spent, images = gather(run.results, {**SECONDS, **IMAGES})
        row: list[Cell] = [name]
        for part in PARTS:
            found = localisation.mean_of_known(spent[part], images, math.inf)
            row.append(Number(found, digits=4, n=True) if found else None)
        rows.append(tuple(row))
    caption = f"Seconds a question; a coarse reply from the cache takes none; {INTERVALS}"
    return Table("seconds", caption, ("run", "locating", "CoF answer", "plain answer"), tuple(rows))


class _Seconds:
    """What each question took in each part, NaN where that failed or was not run."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {part: array("d") for part in PARTS}

    def add(self, result: Result) -> None:
        for part, column in self._columns.items():
            said = getattr(result, part)
            run = said is not None and not (part == "cof" and result.kept)
            column.append(said.seconds if run else math.nan)

    def found(self) -> dict[str, np.ndarray]:
        import numpy as np

        return {part: np.asarray(column) for part, column in self._columns.items()}


SECONDS: Wanted = {"seconds": _Seconds}


def details(run: Run) -> Wanted:
    """What these tables need of a run beside `tally_of`, to be gathered in one go."""
    gates = gate.GATE if run.config.get("gate") else {}
    return {**localisation.GROUNDING, **SECONDS, **yes_no.wanted(run), **gates}


def provenance_table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """Under what each run was made, from its manifest."""
    rows: list[tuple[Cell, ...]] = []
    for run, name in zip(runs, names, strict=True):
        made = latest(run.manifest)
        code, model, versions = made["code"], made["model"], made["versions"]
        commit = f"{str(code['commit'])[:8]}{' with changes' if code['dirty'] else ''}"
        where = [model.get(key) for key in ("name", "revision", "dtype", "device")]
        told = ", ".join(str(part) for part in where if part)
        hashes = (run.path.name, made["config_hash"][:8])
        rows.append((name, *hashes, commit, told, _versions(versions)))
    head = ("run", "folder", "config", "commit", "model", "versions")
    return Table("provenance", "Under what the runs were made", head, tuple(rows))


def _versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{key} {versions.get(key)}" for key in ("cof", "torch", "transformers"))
