"""Learning curves of a training folder as one PNG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cof.files import whole


def rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines of a file, none where it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def plot(folder: Path) -> Path:
    """Write curves.png: training loss and dev accuracies over language steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    log = [row for row in rows(folder / "log.jsonl") if row["stage"] == "language"]
    dev = [row for row in rows(folder / "dev.jsonl") if row["stage"] == "language"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    looks = sorted({key for row in log for key in row if key.startswith("look")})
    for name in ("reply", "hints", "names", *looks, "point"):
        points = [(row["step"], row[name]) for row in log if name in row]
        left.plot(*zip(*points, strict=True), label=name) if points else None
    left.set(xlabel="language step", title="training (teacher-forced)")
    kinds = sorted({key for row in dev for key in row if key.startswith("easy/acc/")})
    for key in kinds:
        points = [(row["step"], row[key]) for row in dev if key in row]
        right.plot(*zip(*points, strict=True), marker=".", label=key.removeprefix("easy/acc/"))
    right.set(xlabel="language step", title="dev accuracy, easy", ylim=(0, 1.02))
    for axis in (left, right):
        axis.legend(fontsize=7)
    path = folder / "curves.png"
    with whole(path) as fresh:
        figure.savefig(fresh, dpi=110)
    pyplot.close(figure)
    return path
