"""The methods of the field on one bench: every declared pair of stages on the same questions.

    OUT/methods.json   of which weights, on which questions
    OUT/<set>.csv.gz   a line a question: credit of the plain pass and of every setting, boxes' IoU
    OUT/costs.csv      what each setting computed for the same few questions, counted
    OUT/results.md     the tables, from those files alone (`cof_lab.methods_page`)
    OUT/runs/          the run folders and drawn scenes; large, and not needed later

Which settings there are was declared in docs/laboratory_diary.md before they were run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.analyse import localisation
from cof.analyse.passes import scored_pass
from cof.batch import Batch
from cof.config import plugins, schema
from cof.config.schema import RunConfig
from cof.config.settings import settings_of
from cof.errors import ConfigError
from cof.evaluate.runner import run_cells
from cof.files import write_whole
from cof.images import load_image
from cof.models.base import Counters
from cof.models.common.checkpoint import digest
from cof.pipeline import CoF
from cof.store.dataset import pictures, read_questions
from cof.store.run import Run
from cof.types import Question, Result
from cof_lab.kept import pin, write_csv
from cof_lab.mini import mme, pope, vstar
from cof_lab.mini.common import MiniConfig
from cof_lab.questions import YES_NO_KINDS

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 16
SETS = ("fine", "noise", "crowded", "pope", "vstar")
"""MiniMME of three difficulties; MiniPOPE and MiniVStar, drawn as `fine`."""

WRITERS: dict[str, tuple[Callable[[Path, MiniConfig], int], int]] = {
    "pope": (pope.write, 3 * 2 * pope.EACH),
    "vstar": (vstar.write, len(vstar.KINDS)),
}
"""Of the sets that are not MiniMME: what draws them, and their questions for each unit of size."""

HEAD = ("id", "image", "category")

HEADS_FROM = "847c49f37643a3e6928ebfa6d18218e6178a0184a57ab05d9047cf56a3e45550"
"""Hash of the benchmark on which `cof tune heads` found cof-tiny's heads (docs/methods.md)."""

COARSE: dict[str, dict[str, Any]] = {
    "own": {"name": "prompt"},
    "iterate": {"name": "iterate"},
    "attention": {"name": "attention", "heads": [[2, 2], [1, 1], [2, 0]], "chosen_on": HEADS_FROM},
    "gradient": {"name": "gradient"},
    "truth": {"name": "oracle"},
    "random": {"name": "random"},
    "shuffled": {"name": "shuffled"},
}
"""Where the region comes from, as a config has it. The last two are made from `own`."""

CONTROLS = ("random", "shuffled")

FINE: dict[str, dict[str, Any]] = {
    "highlight 4.5": {"name": "highlight", "weight": 4.5},
    "highlight 2": {"name": "highlight", "weight": 2.0},
    "guided": {"name": "guided"},
    "blur": {"name": "overlay", "draw": "blur"},
    "crop": {"name": "crop"},
    "plain+crop": {"name": "mean", "first": {"name": "plain"}, "second": {"name": "crop"}},
    "highlight+crop": {
        "name": "mean",
        "first": {"name": "highlight", "weight": 4.5},
        "second": {"name": "crop"},
    },
}
"""What is done with it."""

PUBLISHED = "own, highlight 4.5"
"""CoF as published: what every other setting is compared with too."""


@dataclass(frozen=True)
class BenchConfig:
    """What to run.

    Attributes:
        sets: of `SETS`; costs are counted on the first.
        questions: of each set, at least; a few more where a set's parts must be equal.
        seed: of the scenes.
        kinds: MME subtasks.
        coarse: of `COARSE`; controls go with the first, so that a run with them has `own`.
        fine: of `FINE`.
        controlled: fine stages that are run with `CONTROLS` too.
        counted: questions of the first set whose costs are counted.
    """

    sets: tuple[str, ...] = SETS
    questions: int = 1200
    seed: int = 401
    kinds: tuple[str, ...] = YES_NO_KINDS
    coarse: tuple[str, ...] = ("own", "iterate", "attention", "gradient", "truth")
    fine: tuple[str, ...] = tuple(FINE)
    controlled: tuple[str, ...] = ("highlight 4.5", "crop", "plain+crop")
    counted: int = 96

    def __post_init__(self) -> None:
        for key, known in (("sets", SETS), ("coarse", COARSE), ("fine", FINE)):
            wrong = [name for name in getattr(self, key) if name not in known]
            if wrong or not getattr(self, key):
                shown = repr(wrong[0]) if wrong else "nothing"
                raise ConfigError(f"{key}: {shown}; there are {', '.join(known)}")

    def settings(self, bench: str) -> list[tuple[str, str]]:
        """(coarse, fine) of one set; a mean of losses takes no guided answers, so V* has fewer."""
        fine = [name for name in self.fine if not (bench == "vstar" and name == "guided")]
        plain = [(c, f) for c in self.coarse if c not in CONTROLS for f in fine]
        return plain + [(c, f) for c in CONTROLS for f in self.controlled if f in fine]


def run(checkpoint: Path, out: Path, config: BenchConfig) -> None:
    """Run every set that has no record yet; a run that was killed goes on where it stood.

    Raises:
        DataError: `out` holds records of another checkpoint, or made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    pin(out / "methods.json", {"weights": digest(checkpoint), **asdict(config)})
    for bench in config.sets:
        if not (out / f"{bench}.csv.gz").exists():
            _run_set(checkpoint, out, bench, config)
    if not (out / "costs.csv").exists():
        _count(checkpoint, out, config)


def _run_set(checkpoint: Path, out: Path, bench: str, config: BenchConfig) -> None:
    base = _base(checkpoint, _drawn(out, bench, config), bench)
    pairs = config.settings(bench)
    own = [pair for pair in pairs if pair[0] not in CONTROLS]
    runs = dict(zip(own, run_cells([_setting(base, *pair) for pair in own]), strict=True))
    controls = [pair for pair in pairs if pair[0] in CONTROLS]
    if controls:
        of = runs["own", config.fine[0]].path
        made = run_cells([_setting(base, *pair, of=of) for pair in controls])
        runs |= dict(zip(controls, made, strict=True))
    _write_credits(runs, out / f"{bench}.csv.gz")


def _drawn(out: Path, bench: str, config: BenchConfig) -> Path:
    """The set's folder, drawn where it is missing."""
    data = out / "runs" / bench / "data"
    if not (data / "drawn").exists():
        difficulty = bench if bench in ("noise", "crowded") else "fine"
        writer, each = WRITERS.get(
            bench, (partial(mme.write, kinds=config.kinds), 2 * len(config.kinds))
        )
        size = math.ceil(config.questions / each)
        writer(data, MiniConfig(seed=config.seed, size=size, difficulty=difficulty))
        write_whole(data / "drawn", "")
    return data


def _base(checkpoint: Path, data: Path, bench: str) -> RunConfig:
    return schema.resolve(
        {
            "model": {"name": "llava", "path": str(checkpoint)},
            "bench": {"name": bench if bench in WRITERS else "mme", "root": str(data)},
            "boxes": {"rules": "clean"},
            "limits": {"max_new_tokens": 16},
            "batch_size": BATCH,
            "out": str(data.parent),
            "cache": str(data.parent / "replies.sqlite"),
        }
    )


def _setting(base: RunConfig, coarse: str, fine: str, of: Path | None = None) -> RunConfig:
    locate = COARSE[coarse] | ({"of": str(of)} if of else {})
    changes = {"name": f"{coarse}, {fine}", "locate": locate, "refine": FINE[fine]}
    return base.with_(changes)


def _write_credits(runs: dict[tuple[str, str], Run], path: Path) -> None:
    """One line a question: every setting's credit, and the IoU of every coarse stage's boxes."""
    first = next(iter(runs.values()))
    columns: dict[str, Sequence[float]] = {"plain": scored_pass(first, "plain").credits}
    columns |= {run.path.name: scored_pass(run, "cof").credits for run in runs.values()}
    by_coarse = {coarse: run for (coarse, _), run in reversed(runs.items())}
    rows = []
    for place, result in enumerate(first.results):
        question = result.question
        ious = [_iou(run.results[place]) for run in by_coarse.values()]
        credits = [f"{column[place]:g}" for column in columns.values()]
        told = (question.id, question.image, question.category)
        rows.append([*told, *credits, *ious])
    write_csv(path, [*HEAD, *columns, *(f"IoU {name}" for name in by_coarse)], rows)


def _iou(result: Result) -> str:
    measured = localisation.measure(result) if result.question.boxes else None
    return f"{measured.iou:.4f}" if measured and measured.iou is not None else ""


@dataclass(frozen=True)
class Cost:
    """What some questions cost, beside nothing: the mean a question.

    Attributes:
        setting: coarse and fine stage, or `plain`.
        images: that went through the vision tower.
        positions: of the decoder, padding included.
        forwards: calls of the decoder, at batch 16.
        seconds: of one thread.
    """

    setting: str
    images: float
    positions: float
    forwards: float
    seconds: float


def _count(checkpoint: Path, out: Path, config: BenchConfig) -> None:
    """Every setting alone, from pixels to answers; coarse replies are not taken from a cache."""
    bench = config.sets[0]
    base = _base(checkpoint, _drawn(out, bench, config), bench).with_({"plain": False})
    model = plugins.load("models", base.names["model"]).load(base.model)
    batches = _batches(base, config.counted)

    def plainly(questions: Sequence[Question], images: Sequence[Image]) -> object:
        return Batch.of(model, questions, images, base.limits).plain

    costs = [_cost("plain", model.counters, plainly, batches)]
    for coarse, fine in config.settings(bench):
        if coarse not in CONTROLS:
            made = CoF(model, settings_of(_setting(base, coarse, fine)))
            costs.append(_cost(f"{coarse}, {fine}", model.counters, made.answer_batch, batches))
    head = [field.name for field in fields(Cost)]
    write_csv(out / "costs.csv", head, [astuple(one) for one in costs])


Asked = tuple[list[Question], "list[Image]"]


def _batches(base: RunConfig, count: int) -> list[Asked]:
    """Evenly spaced questions with their images, 16 at a time; one object an image."""
    questions = read_questions(base)
    count = min(count, len(questions))
    chosen = [questions[k * len(questions) // count] for k in range(count)]
    root = pictures(base)
    images = {one.image: load_image(root / one.image) for one in chosen}
    parts = [chosen[k : k + BATCH] for k in range(0, count, BATCH)]
    return [(part, [images[one.image] for one in part]) for part in parts]


def _cost(
    name: str, counters: Counters, call: Callable[..., object], batches: Sequence[Asked]
) -> Cost:
    """The mean a question of what `call` computes for these batches."""
    before, begun = replace(counters), time.perf_counter()
    for questions, images in batches:
        call(questions, images)
    seconds, n = time.perf_counter() - begun, sum(len(questions) for questions, _ in batches)
    spent = [
        getattr(counters, key) - getattr(before, key) for key in ("images", "positions", "forwards")
    ]
    return Cost(name, *(round(value / n, 4) for value in (*spent, seconds)))
