"""The tables of `cof_lab.methods`, from its CSV files alone."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cof.analyse.significance import change, holm
from cof.analyse.statistics import difference, mean
from cof.analyse.tables import INTERVALS, Cell, Table, percent, points
from cof.errors import DataError
from cof.files import write_whole
from cof_lab.methods import HEAD, PUBLISHED, SETS, Cost

SEED = 0
"""Of the permutation tests: the same records give the same page."""

MME = ("fine", "noise", "crowded")
TESTS = "p: permutation over images"
IOU = "IoU "


@dataclass(frozen=True)
class SetRecords:
    """One set's questions.

    Attributes:
        name: of the set.
        images: of each question; intervals are over them.
        credits: `plain` and every setting -> 0..1 of each question.
        ious: coarse stage -> of each question, None where nothing is there to be found.
    """

    name: str
    images: tuple[str, ...]
    credits: dict[str, tuple[float, ...]]
    ious: dict[str, tuple[float | None, ...]]


def write(folder: Path) -> Path:
    """results.md of a folder of records; the same bytes for the same records.

    Raises:
        DataError: none is there.
    """
    found = [
        _read(folder / f"{name}.csv.gz") for name in SETS if (folder / f"{name}.csv.gz").exists()
    ]
    if not found:
        raise DataError(
            f"{folder}: no <set>.csv.gz; `cof tiny methods CHECKPOINT {folder}` writes them"
        )
    tables = [main_table(one) for one in _pooled(found)]
    tables += [sets_table(found), localisation_table(found)]
    tables += [main_table(one) for one in found]
    if (folder / "costs.csv").exists():
        tables.append(costs_table(folder / "costs.csv"))
    parts = ["# Methods: results", "Every number comes from the CSV files of this folder."]
    path = folder / "results.md"
    write_whole(path, "\n\n".join([*parts, *(table.markdown() for table in tables)]) + "\n")
    return path


def _read(path: Path) -> SetRecords:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in HEAD]
    return SetRecords(
        path.name.split(".")[0],
        tuple(row["image"] for row in rows),
        {
            name: tuple(float(row[name]) for row in rows)
            for name in names
            if not name.startswith(IOU)
        },
        {
            name.removeprefix(IOU): tuple(float(r[name]) if r[name] else None for r in rows)
            for name in reversed(names)
            if name.startswith(IOU)
        },
    )


def _pooled(found: Sequence[SetRecords]) -> list[SetRecords]:
    """MiniMME's three difficulties as one set; none if only one of them is there.

    They share scenes, so an image counts once: its name is the cluster, whatever the difficulty.
    """
    parts = [one for one in found if one.name in MME]
    if len(parts) < 2:
        return []
    images = tuple(image for one in parts for image in one.images)
    credits = {
        name: tuple(x for one in parts for x in one.credits[name])
        for name in parts[0].credits
        if all(name in one.credits for one in parts)
    }
    return [SetRecords(" + ".join(one.name for one in parts), images, credits, {})]


def main_table(one: SetRecords) -> Table:
    """Every setting against the plain pass, with its tests, and against CoF as published."""
    plain = one.credits["plain"]
    names = [name for name in one.credits if name != "plain"]
    changes = [change(plain, one.credits[name], one.images, SEED) for name in names]
    corrected = holm([made.p for made in changes])
    first: tuple[Cell, ...] = ("", "plain", percent(mean(plain, one.images)))
    rows: list[tuple[Cell, ...]] = [(*first, *[None] * 6)]
    for name, made, p in zip(names, changes, corrected, strict=True):
        coarse, fine = name.split(", ", 1)
        credits = one.credits[name]
        cells = (percent(mean(credits, one.images)), points(made.estimate), made.gained, made.lost)
        base = one.credits.get(PUBLISHED) if name != PUBLISHED else None
        against = points(difference(base, credits, one.images)) if base else None
        rows.append((coarse, fine, *cells, made.p, p, against))
    head: tuple[str, ...] = (
        "region",
        "fine stage",
        "accuracy, %",
        "minus plain, points",
        "gained",
        "lost",
    )
    head += (TESTS, "p (Holm)", "minus CoF, points")
    count = len(set(one.images))
    caption = f"{one.name}: {len(one.images)} questions about {count} images; {INTERVALS}"
    return Table(one.name, caption, head, tuple(rows))


def sets_table(found: Sequence[SetRecords]) -> Table:
    """The change in points of every setting on every set."""
    names = list(dict.fromkeys(name for one in found for name in one.credits if name != "plain"))
    accuracies = [percent(mean(one.credits["plain"], one.images)) for one in found]
    rows: list[tuple[Cell, ...]] = [("", "plain, %", *accuracies)]
    for name in names:
        cells = [
            points(difference(one.credits["plain"], one.credits[name], one.images))
            if name in one.credits
            else None
            for one in found
        ]
        rows.append((*name.split(", ", 1), *cells))
    caption = f"Change of accuracy in points against the plain pass; {INTERVALS}"
    head = ("region", "fine stage", *(one.name for one in found))
    return Table("sets", caption, head, tuple(rows))


def localisation_table(found: Sequence[SetRecords]) -> Table:
    """Mean IoU of each coarse stage with the true boxes, and how often it is 0.5 or more."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        for coarse, ious in one.ious.items():
            known = [k for k, iou in enumerate(ious) if iou is not None]
            images = [one.images[k] for k in known]
            values = [ious[k] or 0.0 for k in known]
            hits = [float(value >= 0.5) for value in values]
            cells = (percent(mean(values, images)), percent(mean(hits, images)))
            rows.append((one.name, coarse, len(known), *cells))
    head = ("set", "region", "n", "mean IoU, %", "IoU of at least 0.5, %")
    caption = f"Regions against true boxes, as unions, where there are true boxes; {INTERVALS}"
    return Table("localisation", caption, head, tuple(rows))


def costs_table(path: Path) -> Table:
    """What a question costs under each setting."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [field.name for field in fields(Cost)][1:]
    body = [(row["setting"], *(round(float(row[name]), 3) for name in numbers)) for row in rows]
    head = ("setting", "images seen", "decoder positions", "decoder calls at batch 16", "seconds")
    caption = (
        "The mean cost of a question, from pixels to its answer and without the plain pass for "
        "comparison; seconds are of the machine that made the records"
    )
    return Table("costs", caption, head, tuple(body))
