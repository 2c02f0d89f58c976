"""The laboratory's CSV files as `cof_lab.study` wrote them, read back."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cof.errors import DataError
from cof_lab.study import REGIMES

HARD = ("fine", "crowded", "noise")


@dataclass(frozen=True)
class RegimeRecords:
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


def read(folder: Path) -> list[RegimeRecords]:
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


def _read(path: Path) -> RegimeRecords:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = list(rows[0])[5:]
    return RegimeRecords(
        path.stem,
        tuple(row["image"] for row in rows),
        tuple(row["subtask"] for row in rows),
        tuple(int(row["own_boxes"]) for row in rows),
        tuple(float(row["own_iou"]) if row["own_iou"] else None for row in rows),
        {name: tuple(float(row[name]) for row in rows) for name in settings},
    )


def pooled(found: Sequence[RegimeRecords]) -> list[RegimeRecords]:
    """The hard regimes as one; none if only one of them is there.

    They share scenes, so an image counts once: its name is the cluster, whatever the regime.
    """
    hard = [one for one in found if one.regime in HARD]
    if len(hard) < 2:
        return []
    names = [name for name in hard[0].credits if all(name in one.credits for one in hard)]
    return [
        RegimeRecords(
            "+".join(one.regime for one in hard),
            tuple(image for one in hard for image in one.images),
            tuple(kind for one in hard for kind in one.subtasks),
            tuple(boxes for one in hard for boxes in one.own_boxes),
            tuple(iou for one in hard for iou in one.own_iou),
            {name: tuple(x for one in hard for x in one.credits[name]) for name in names},
        )
    ]
