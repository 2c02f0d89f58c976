"""Tables and figures of the laboratory, from its CSV files alone; see `cof_lab.study`."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cof.analyse.attention import LINES
from cof.analyse.figures import Curve, Panel, curves, save
from cof.analyse.significance import Change, change, holm, mcnemar
from cof.analyse.statistics import difference, mean
from cof.analyse.tables import INTERVALS, TESTED, Cell, Number, Table, percent, points
from cof.files import write_whole
from cof_lab.study import MAIN, REGIONS, WEIGHTS
from cof_lab.study_records import RegimeRecords, pooled, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 0
"""Of the permutation tests: the same records give the same page."""

TESTS = "p: permutation over images, Holm"
HIT = 0.5
"""IoU of its own boxes with the true ones from which a question counts as hit."""


def write(folder: Path) -> list[Path]:
    """results.md and the figures of a folder of records; the same bytes for the same records."""
    found = read(folder)
    digest = hashlib.sha256()
    for records in found:
        digest.update((folder / f"{records.regime}.csv").read_bytes())
    stamp = f"records {digest.hexdigest()[:8]}"
    parts = ["# Laboratory: results", f"All tables and figures come from the CSV files ({stamp})."]
    figures = {"curves": effect_figure(found, stamp)}
    parts += [table.markdown() for table in (plain_table(found), main_table(found))]
    parts += ["![Change against λ](curves.png)"]
    parts += [table.markdown() for table in (weights_table(found), expand_table(found))]
    parts += [split_table(found).markdown(), subtask_table(found).markdown()]
    attention = attention_table(folder, found)
    if attention:
        parts += [attention.markdown()]
    paths = [folder / "results.md"]
    write_whole(paths[0], "\n\n".join(parts) + "\n")
    return paths + [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def plain_table(found: Sequence[RegimeRecords]) -> Table:
    """The plain model: accuracy by subtask, and how often its own boxes hit."""
    kinds = list(dict.fromkeys(kind for one in found for kind in one.subtasks))
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        cells: list[Cell] = []
        for kind in (None, *kinds):
            places = [k for k, name in enumerate(one.subtasks) if kind in (None, name)]
            images = [one.images[place] for place in places]
            cells.append(percent(mean(one.some(places, "plain"), images)) if places else None)
        absent = [k for k, iou in enumerate(one.own_iou) if iou is None]
        boxed = [float(one.own_boxes[k] > 0) for k in absent]
        wrong = percent(mean(boxed, [one.images[k] for k in absent]), n=True) if absent else None
        rows.append((one.regime, len(one.images), *cells, _hits(one), wrong))
    head = ("regime", "n", "all, %", *(f"{kind}, %" for kind in kinds), "own boxes hit, %")
    head += ("absent things given a box, %",)
    caption = f"The plain model, and its own boxes at IoU 0.5; {INTERVALS}"
    return Table("plain", caption, head, tuple(rows))


def overview(folders: Sequence[Path]) -> str:
    """Markdown of the main comparison of several checkpoints, a folder of records each.

    Raises:
        DataError: a folder has no records.
    """
    rows: list[tuple[Cell, ...]] = []
    for folder in folders:
        found = read(folder)
        for one in (*found, *pooled(found)):
            plain = percent(mean(one.credits["plain"], one.images))
            changes = _corrected([[_change(one, f"{region} λ={MAIN:g}") for region in REGIONS]])[0]
            rows.append(
                (folder.resolve().name, one.regime, len(one.images), plain, _hits(one), *changes)
            )
    head = ("checkpoint", "regime", "n", "plain, %", "own boxes hit, %", *REGIONS)
    caption = (
        f"Change of accuracy in points at λ = {MAIN:g}, α = 1; {TESTS} over the row; {INTERVALS}"
    )
    return Table("overview", caption, head, tuple(rows)).markdown() + "\n"


def _hits(one: RegimeRecords) -> Cell:
    """How often its own boxes hit, where something is there to be found."""
    known = [k for k, iou in enumerate(one.own_iou) if iou is not None]
    hits = [float((one.own_iou[k] or 0) >= HIT) for k in known]
    return percent(mean(hits, [one.images[k] for k in known]), n=True)


def main_table(found: Sequence[RegimeRecords]) -> Table:
    """The declared main comparison: λ = 4.5, every region, with its tests."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        changes = [_change(one, f"{region} λ={MAIN:g}") for region in REGIONS]
        corrected = holm([one.p for one in changes if one])
        for region, changed, p in zip(REGIONS, changes, corrected, strict=True):
            if changed:
                counts = (changed.gained, changed.lost)
                ps = (changed.p, p, mcnemar(*counts))
                rows.append((one.regime, region, points(changed.estimate), *counts, *ps))
    tests = (TESTED, "p (Holm)", "p (McNemar)")
    head = ("regime", "region", "change, points", "gained", "lost", *tests)
    caption = (
        f"Change of accuracy against the plain pass at λ = {MAIN:g}, α = 1; Holm by regime; "
        f"{INTERVALS}"
    )
    return Table("main", caption, head, tuple(rows))


def weights_table(found: Sequence[RegimeRecords]) -> Table:
    """Change in points for every region and λ; λ = 1 is run with the model's own boxes."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        changes = [
            [_change(one, f"{region} λ={weight:g}") for weight in (1.0, *WEIGHTS)]
            for region in REGIONS
        ]
        rows += _rows(one, list(REGIONS), changes)
    head = ("regime", "region", *(f"λ = {weight:g}" for weight in (1.0, *WEIGHTS)))
    caption = f"Change of accuracy in points; {TESTS} by regime; {INTERVALS}"
    return Table("weights", caption, head, tuple(rows))


def expand_table(found: Sequence[RegimeRecords]) -> Table:
    """Change in points for wider boxes, at the main λ."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        changes = [
            [_change(one, f"{region} λ={MAIN:g}{wider}") for wider in ("", " α=1.5", " α=2")]
            for region in ("truth", "own")
        ]
        rows += _rows(one, ["truth", "own"], changes)
    head = ("regime", "region", "α = 1", "α = 1.5", "α = 2")
    caption = f"The same for wider boxes, λ = {MAIN:g}; {TESTS} by regime"
    return Table("expand", caption, head, tuple(rows))


def _change(one: RegimeRecords, name: str, places: Sequence[int] | None = None) -> Change | None:
    """Change of one setting; None where it was not run or there is no such question."""
    chosen = range(len(one.images)) if places is None else places
    if name not in one.credits or not chosen:
        return None
    images = [one.images[place] for place in chosen]
    return change(one.some(chosen, "plain"), one.some(chosen, name), images, SEED)


def _corrected(
    changes: Sequence[Sequence[Change | None]], n: bool = False
) -> list[list[Number | None]]:
    """Cells of a table, their p corrected over all of them; `n`: with what they rest on."""
    ps = iter(holm([one.p for row in changes for one in row if one]))
    return [
        [points(one.estimate, n=n, p=next(ps)) if one else None for one in row] for row in changes
    ]


def _rows(
    one: RegimeRecords,
    regions: Sequence[str],
    changes: Sequence[Sequence[Change | None]],
    n: bool = False,
) -> list[tuple[Cell, ...]]:
    """Rows of one regime, a region each."""
    cells = zip(regions, _corrected(changes, n), strict=True)
    return [(one.regime, region, *row) for region, row in cells]


def split_table(found: Sequence[RegimeRecords]) -> Table:
    """The effect of its own boxes where they hit, where they miss, and where nothing is there."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        groups: list[list[int]] = [[], [], []]
        for place, iou in enumerate(one.own_iou):
            groups[2 if iou is None else int(iou < HIT)].append(place)
        rows += _split(one, groups)
    head = ("regime", "region", "own boxes hit", "own boxes miss", "nothing there")
    caption = (
        f"Change in points by hit and miss of the model's own boxes, λ = {MAIN:g}; {TESTS} by "
        f"regime; {INTERVALS}"
    )
    return Table("split", caption, head, tuple(rows))


def _split(one: RegimeRecords, groups: Sequence[Sequence[int]]) -> list[tuple[Cell, ...]]:
    """Rows of one regime for own and true boxes, a column a group of questions."""
    regions = ["own", "truth"]
    changes = [[_change(one, f"{name} λ={MAIN:g}", part) for part in groups] for name in regions]
    return _rows(one, regions, changes, n=True)


def subtask_table(found: Sequence[RegimeRecords]) -> Table:
    """The effect by subtask, at the main λ."""
    kinds = list(dict.fromkeys(kind for one in found for kind in one.subtasks))
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        groups = [[k for k, name in enumerate(one.subtasks) if name == kind] for kind in kinds]
        rows += _split(one, groups)
    caption = f"Change in points by subtask, λ = {MAIN:g}; {TESTS} by regime; {INTERVALS}"
    return Table("subtask", caption, ("regime", "region", *kinds), tuple(rows))


def attention_table(folder: Path, found: Sequence[RegimeRecords]) -> Table | None:
    """Where the answer pass looks, layer by layer; None where it was not recorded."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        path = folder / f"{one.regime}_attention.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                rows += _layers(one.regime, list(csv.DictReader(file)))
    head = ("regime", "layer", "n", "region of the image, %", *(f"{v}, %" for v in LINES.values()))
    caption = (
        "Attention of the last prompt position on the true region, mean over heads, before and "
        f"after λ = {MAIN:g}; {INTERVALS}"
    )
    return Table("attention", caption, head, tuple(rows)) if rows else None


def _layers(regime: str, rows: list[dict[str, str]]) -> Iterator[tuple[Cell, ...]]:
    for layer in sorted({int(row["layer"]) for row in rows}):
        chosen = [row for row in rows if int(row["layer"]) == layer]
        images = [row["image"] for row in chosen]
        columns = [[float(row[key]) for row in chosen] for key in ("lit", *LINES)]
        shares = [percent(mean(column, images)) for column in columns]
        yield (regime, layer, len(chosen), *shares)


def effect_figure(found: Sequence[RegimeRecords], stamp: str) -> Figure:
    """Change in points against λ: a panel a regime, a line a region, 95 % bands."""
    panels = []
    for one in found:
        before = one.credits["plain"]
        lines = []
        for region in REGIONS:
            names = [f"{region} λ={weight:g}" for weight in WEIGHTS]
            changes = [difference(before, one.credits[name], one.images) for name in names]
            lines.append(Curve(region, WEIGHTS, tuple(change.times(100) for change in changes)))
        panels.append(Panel(one.regime, lines))
    return curves(panels, "λ", "change of accuracy, points", stamp)
