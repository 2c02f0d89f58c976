"""`cof sweep`: a grid of settings over the same questions, a run folder a cell.

    runs/<sweep>/weight=1.3,expand=1/      a run folder as `cof eval` writes it; one each cell
    runs/<sweep>/sweep.md, .csv, .tex, .png    from the cells' records (`cof report` makes more)
    runs/replies.sqlite                    coarse replies, shared by all sweeps below `runs`

Cells that share model, decoding and batch size are answered together, batch by batch, so that
vision, the plain pass and each coarse stage run once. A sweep that is called again, also with more
values, goes on with the cells that are not finished.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.analyse.settings import SHORT, as_file_name, show
from cof.config import schema
from cof.config.identity import NOT_RESULTS, counting
from cof.config.schema import RunConfig
from cof.config.yaml import parse_value
from cof.errors import ConfigError, cut, shown
from cof.evaluate.runner import Options, run_cells
from cof.store import origin
from cof.store.dataset import questions_hash, read_questions
from cof.store.run import Run

CACHE = "replies.sqlite"
_INDICES = ("refine.layers", "refine.heads")
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})$")
MOST_LAYERS = 1_000
"""No model has so many layers, or heads."""

MOST_CELLS = 2_000
"""Most settings of one sweep; each has a folder, and all of them share every batch."""


@dataclass(frozen=True)
class Axis:
    """One setting and the values that it takes."""

    name: str
    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Sweep:
    """A finished grid: where it lies, and the runs of its cells."""

    folder: Path
    runs: tuple[Run, ...]


def parse_axis(text: str) -> Axis:
    """`weight=1,1.3,2`, `layers=all,0-15,[3, 7]`, `limits.max_new_tokens=8,16`.

    Values are YAML. For layers and heads `all` is null and `0-15` those sixteen.

    Raises:
        ConfigError: no `=`, no value, or one value twice.
    """
    name, equals, listed = text.partition("=")
    found = parse_value(f"[{listed}]", name) if equals else None
    if not found:
        raise ConfigError(f"{shown(text)} is no axis; write NAME=VALUE,VALUE as in weight=1,2,4.5")
    key = SHORT.get(name, name)
    if key in _INDICES:
        found = [_indices(value) for value in found]
    words = Counter(show(key, value) for value in found)
    twice = next((cut(word) for word, count in words.items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"{name}: the value {twice} is given twice")
    return Axis(name, key, tuple(found))


def parse_settings(texts: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """A command line's settings: those with one value as overrides, those with several as axes.

    Raises:
        ConfigError: see `parse_axis`.
    """
    overrides, axes = [], []
    for text in texts:
        name, _, value = text.partition("=")
        if "," not in value and SHORT.get(name, name) not in _INDICES:
            overrides.append(f"{SHORT.get(name, name)}{text.removeprefix(name)}")
            continue
        axis = parse_axis(text)
        if len(axis.values) > 1:
            axes.append(axis)
        else:
            overrides.append(f"{axis.key}={json.dumps(axis.values[0])}")
    return overrides, axes


def _indices(value: Any) -> Any:
    """A value of `layers` or `heads`."""
    span = _RANGE.match(value) if isinstance(value, str) else None
    if span:
        first, last = int(span[1]), int(span[2])
        if not first <= last < MOST_LAYERS:
            raise ConfigError(
                f"{value}: no range of layers or heads (0-15), all below {MOST_LAYERS}"
            )
        return list(range(first, last + 1))
    return None if value == "all" else [value] if isinstance(value, int) else value


def run_sweep(
    path: Path, overrides: Sequence[str], axes: Sequence[Axis], options: Options | None = None
) -> Sweep:
    """Run the grid, or what is missing of it.

    Args:
        path: the config that the cells start from.
        overrides: `key=value` for all cells.
        axes: the grid; the last one varies fastest.
        options: see `cof.evaluate.runner.run_cells`.

    Raises:
        ConfigError: an axis twice, a key of `bench`, or a value that the config refuses.
        RunError: see `run_cells`.
    """
    keys = [axis.key for axis in axes]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: is given twice")
    if not axes:
        raise ConfigError("no setting has several values; write NAME=VALUE,VALUE as in weight=1,2")
    for key in keys:
        if key.startswith("bench.") or key in NOT_RESULTS:
            raise ConfigError(f"{key}: cannot be swept; every cell asks the same questions")
    cells = math.prod(len(axis.values) for axis in axes)
    if cells > MOST_CELLS:
        raise ConfigError(f"{cells} settings; a sweep takes {MOST_CELLS} at most")
    base = schema.load(path, overrides)
    folder = Path(base.general.out) / (base.general.name or _name(base, keys))
    cache = base.general.cache or str(Path(base.general.out) / CACHE)
    shared = base.with_({"out": str(folder), "cache": cache})
    settings = [_setting(shared, axes, point) for point in _points(axes)]
    return Sweep(folder, tuple(run_cells(settings, options)))


def _points(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of values, by axis name."""
    grid = itertools.product(*(axis.values for axis in axes))
    return [dict(zip((axis.name for axis in axes), point, strict=True)) for point in grid]


def _setting(shared: RunConfig, axes: Sequence[Axis], point: Mapping[str, Any]) -> RunConfig:
    """The config of one cell."""
    chosen = {axis.key: point[axis.name] for axis in axes}
    return shared.with_({**chosen, "name": as_file_name(point)})


def _name(base: RunConfig, keys: Sequence[str]) -> str:
    """Its hash is of what the cells share: settings, axes, questions."""
    sections = {key.partition(".")[0] for key in keys}
    identity = {} if "model" in sections else origin.identify(base)
    boxes = {} if "locate" in sections else origin.regions(base)
    settings = counting(base.as_dict(), identity)
    shared = {key: value for key, value in settings.items() if key not in keys}
    asked = questions_hash(read_questions(base))
    parts = [shared, identity.get("weights"), boxes, sorted(keys), asked]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return origin.run_name(base, "sweep", digest)
