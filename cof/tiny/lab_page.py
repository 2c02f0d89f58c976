"""Tables and figures of the laboratory, from its CSV files alone; see `cof.tiny.lab`."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cof.errors import DataError
from cof.files import write_whole
from cof.runs.attention import LINES
from cof.runs.figures import Curve, Panel, curves, save
from cof.runs.statistics import difference, holm, mcnemar, mean
from cof.runs.tables import Cell, Table, percent, points
from cof.tiny.lab import MAIN, REGIMES, REGIONS, WEIGHTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARD = ("fine", "crowded", "noise")
HIT = 0.5
"""IoU of its own boxes with the true ones from which a question counts as hit."""


@dataclass(frozen=True)
class Records:
    """One regime's questions.

    Attributes:
        regime: its name.
        images: of each question; intervals are over them.
        subtasks: of each question.
        own_boxes: how many boxes the model itself gave.
        own_iou: of the model's own boxes, None where nothing is there to be found.
        credits: setting -> 0..1 of each question; `plain`, `own λ=2`, `truth λ=4.5 α=2`.
    """

    regime: str
    images: tuple[str, ...]
    subtasks: tuple[str, ...]
    own_boxes: tuple[int, ...]
    own_iou: tuple[float | None, ...]
    credits: dict[str, tuple[float, ...]]

    def some(self, places: Sequence[int], name: str) -> list[float]:
        """Credits of some questions."""
        return [self.credits[name][place] for place in places]


def read(folder: Path) -> list[Records]:
    """All regimes recorded in a folder, in their declared order.

    Raises:
        DataError: none is there.
    """
    found = [_read(folder / f"{name}.csv") for name in REGIMES if (folder / f"{name}.csv").exists()]
    if not found:
        raise DataError(
            f"{folder}: no <regime>.csv; `cof tiny lab CHECKPOINT {folder}` writes them"
        )
    return found


def _read(path: Path) -> Records:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = list(rows[0])[5:]
    return Records(
        path.stem,
        tuple(row["image"] for row in rows),
        tuple(row["subtask"] for row in rows),
        tuple(int(row["own_boxes"]) for row in rows),
        tuple(float(row["own_iou"]) if row["own_iou"] else None for row in rows),
        {name: tuple(float(row[name]) for row in rows) for name in settings},
    )


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


def plain_table(found: Sequence[Records]) -> Table:
    """The plain model: accuracy by subtask, and how often its own boxes hit."""
    kinds = list(dict.fromkeys(kind for one in found for kind in one.subtasks))
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        cells: list[Cell] = []
        for kind in (None, *kinds):
            places = [k for k, name in enumerate(one.subtasks) if kind in (None, name)]
            images = [one.images[place] for place in places]
            cells.append(percent(mean(one.some(places, "plain"), images, 0)) if places else None)
        absent = [k for k, iou in enumerate(one.own_iou) if iou is None]
        boxed = [float(one.own_boxes[k] > 0) for k in absent]
        wrong = percent(mean(boxed, [one.images[k] for k in absent], 0), n=True) if absent else None
        rows.append((one.regime, len(one.images), *cells, _hits(one), wrong))
    head = ("regime", "n", "all, %", *(f"{kind}, %" for kind in kinds), "own boxes hit, %")
    head += ("absent things given a box, %",)
    return Table(
        "plain", "The plain model, and its own boxes at IoU 0.5; 95 % intervals", head, tuple(rows)
    )


def overview(folders: Sequence[Path]) -> str:
    """Markdown of the main comparison of several checkpoints, a folder of records each.

    Raises:
        DataError: a folder has no records.
    """
    rows: list[tuple[Cell, ...]] = []
    for folder in folders:
        found = read(folder)
        for one in (*found, *_pooled(found)):
            plain = percent(mean(one.credits["plain"], one.images, 0))
            changes = [_change(one, f"{region} λ={MAIN:g}") for region in REGIONS]
            rows.append(
                (folder.resolve().name, one.regime, len(one.images), plain, _hits(one), *changes)
            )
    head = ("checkpoint", "regime", "n", "plain, %", "own boxes hit, %", *REGIONS)
    caption = f"Change of accuracy in points at λ = {MAIN:g}, α = 1; 95 % intervals over images"
    return Table("overview", caption, head, tuple(rows)).markdown() + "\n"


def _pooled(found: Sequence[Records]) -> list[Records]:
    """The hard regimes as one; none if only one of them is there.

    They share scenes, so an image counts once: its name is the cluster, whatever the regime.
    """
    hard = [one for one in found if one.regime in HARD]
    if len(hard) < 2:
        return []
    names = [name for name in hard[0].credits if all(name in one.credits for one in hard)]
    return [
        Records(
            "+".join(one.regime for one in hard),
            tuple(image for one in hard for image in one.images),
            tuple(kind for one in hard for kind in one.subtasks),
            tuple(boxes for one in hard for boxes in one.own_boxes),
            tuple(iou for one in hard for iou in one.own_iou),
            {name: tuple(x for one in hard for x in one.credits[name]) for name in names},
        )
    ]


def _hits(one: Records) -> Cell:
    """How often its own boxes hit, where something is there to be found."""
    known = [k for k, iou in enumerate(one.own_iou) if iou is not None]
    hits = [float((one.own_iou[k] or 0) >= HIT) for k in known]
    return percent(mean(hits, [one.images[k] for k in known], 0), n=True)


def main_table(found: Sequence[Records]) -> Table:
    """The declared main comparison: λ = 4.5, every region, with McNemar's test."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        tests = []
        for region in REGIONS:
            before, after = one.credits["plain"], one.credits[f"{region} λ={MAIN:g}"]
            gained = sum(b > a for a, b in zip(before, after, strict=True))
            lost = sum(b < a for a, b in zip(before, after, strict=True))
            change = points(difference(before, after, one.images, 0))
            tests.append((one.regime, region, change, gained, lost, mcnemar(gained, lost)))
        corrected = holm([float(row[-1]) for row in tests])
        rows += [(*row, p) for row, p in zip(tests, corrected, strict=True)]
    head = ("regime", "region", "change, points", "gained", "lost", "p (McNemar)", "p (Holm)")
    caption = f"Change of accuracy against the plain pass at λ = {MAIN:g}, α = 1; Holm by regime"
    return Table("main", caption, head, tuple(rows))


def weights_table(found: Sequence[Records]) -> Table:
    """Change in points for every region and λ; λ = 1 is run with the model's own boxes."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        for region in REGIONS:
            cells = [_change(one, f"{region} λ={weight:g}") for weight in (1.0, *WEIGHTS)]
            rows.append((one.regime, region, *cells))
    head = ("regime", "region", *(f"λ = {weight:g}" for weight in (1.0, *WEIGHTS)))
    return Table("weights", "Change of accuracy in points; 95 % intervals", head, tuple(rows))


def expand_table(found: Sequence[Records]) -> Table:
    """Change in points for wider boxes, at the main λ."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        for region in ("truth", "own"):
            names = [f"{region} λ={MAIN:g}{wider}" for wider in ("", " α=1.5", " α=2")]
            rows.append((one.regime, region, *(_change(one, name) for name in names)))
    head = ("regime", "region", "α = 1", "α = 1.5", "α = 2")
    return Table("expand", f"The same for wider boxes, λ = {MAIN:g}", head, tuple(rows))


def _change(one: Records, name: str, places: Sequence[int] | None = None) -> Cell:
    """Change against plain of one setting, over some of the questions."""
    if name not in one.credits:
        return None
    chosen = range(len(one.images)) if places is None else places
    if not chosen:
        return None
    images = [one.images[place] for place in chosen]
    before, after = one.some(chosen, "plain"), one.some(chosen, name)
    return points(difference(before, after, images, 0), n=places is not None)


def split_table(found: Sequence[Records]) -> Table:
    """The effect of its own boxes where they hit, where they miss, and where nothing is there."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        groups: list[list[int]] = [[], [], []]
        for place, iou in enumerate(one.own_iou):
            groups[2 if iou is None else int(iou < HIT)].append(place)
        for region in ("own", "truth"):
            cells = [_change(one, f"{region} λ={MAIN:g}", places) for places in groups]
            rows.append((one.regime, region, *cells))
    head = ("regime", "region", "own boxes hit", "own boxes miss", "nothing there")
    caption = f"Change in points by hit and miss of the model's own boxes, λ = {MAIN:g}"
    return Table("split", caption, head, tuple(rows))


def subtask_table(found: Sequence[Records]) -> Table:
    """The effect by subtask, at the main λ."""
    kinds = list(dict.fromkeys(kind for one in found for kind in one.subtasks))
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        groups = [[k for k, name in enumerate(one.subtasks) if name == kind] for kind in kinds]
        for region in ("own", "truth"):
            cells = [_change(one, f"{region} λ={MAIN:g}", places) for places in groups]
            rows.append((one.regime, region, *cells))
    caption = f"Change in points by subtask, λ = {MAIN:g}"
    return Table("subtask", caption, ("regime", "region", *kinds), tuple(rows))


def attention_table(folder: Path, found: Sequence[Records]) -> Table | None:
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
        f"after λ = {MAIN:g}"
    )
    return Table("attention", caption, head, tuple(rows)) if rows else None


def _layers(regime: str, rows: list[dict[str, str]]) -> Iterator[tuple[Cell, ...]]:
    for layer in sorted({int(row["layer"]) for row in rows}):
        chosen = [row for row in rows if int(row["layer"]) == layer]
        images = [row["image"] for row in chosen]
        columns = [[float(row[key]) for row in chosen] for key in ("lit", *LINES)]
        shares = [percent(mean(column, images, 0)) for column in columns]
        yield (regime, layer, len(chosen), *shares)


def effect_figure(found: Sequence[Records], stamp: str) -> Figure:
    """Change in points against λ: a panel a regime, a line a region, 95 % bands."""
    panels = []
    for one in found:
        before = one.credits["plain"]
        lines = []
        for region in REGIONS:
            names = [f"{region} λ={weight:g}" for weight in WEIGHTS]
            changes = [difference(before, one.credits[name], one.images, 0) for name in names]
            lines.append(Curve(region, WEIGHTS, tuple(change.times(100) for change in changes)))
        panels.append(Panel(one.regime, lines))
    return curves(panels, "λ", "change of accuracy, points", stamp)
