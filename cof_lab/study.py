"""The laboratory: one checkpoint, every region and every λ, over the declared regimes.

    OUT/lab.json                 of which weights, with which settings
    OUT/<regime>.csv             a line a question: credit of the plain pass and of every setting
    OUT/<regime>_attention.csv   attention on the true region, layer by layer, plain and highlighted
    OUT/results.md, *.png        tables and figures, from those files alone (`cof_lab.study_page`)
    OUT/runs/                    the full run folders, with every reply; large, and not needed later

What is run was declared in docs/laboratory_diary.md before there were results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cof.analyse import localisation
from cof.analyse.attention import LINES
from cof.analyse.passes import scored_pass
from cof.config import plugins, schema
from cof.config.schema import RunConfig
from cof.errors import ConfigError
from cof.evaluate.probe import measure
from cof.evaluate.runner import run_cells
from cof.models.common.checkpoint import digest
from cof.store.dataset import pictures
from cof.store.run import Run
from cof_lab.kept import pin, write_csv
from cof_lab.mini import mme
from cof_lab.mini.common import MiniConfig
from cof_lab.questions import YES_NO_KINDS

REGIMES = ("easy", "fine", "crowded", "noise")
WEIGHTS = (1.3, 2.0, 3.0, 4.5, 8.0, 16.0)
EXPANDS = (1.5, 2.0)
MAIN = 4.5
REGIONS = {
    "truth": "oracle",
    "own": "prompt",
    "random": "random",
    "shuffled": "shuffled",
    "whole": "whole",
}
"""Name of a region -> the coarse stage that gives it."""


@dataclass(frozen=True)
class StudyConfig:
    """What to run.

    size: images of each subtask and regime, a yes and a no question each.
    kinds: MME subtasks; a checkpoint of the `study` preset was taught only some.
    attention: questions a regime whose attention is recorded.
    """

    regimes: tuple[str, ...] = REGIMES
    size: int = 40
    kinds: tuple[str, ...] = YES_NO_KINDS
    seed: int = 0
    attention: int = 60
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name, given, known in (
            ("regime", self.regimes, REGIMES),
            ("kind", self.kinds, YES_NO_KINDS),
        ):
            wrong = [word for word in given if word not in known]
            if wrong or not given:
                shown = repr(wrong[0]) if wrong else "nothing"
                raise ConfigError(f"{shown} is no {name}; there are {', '.join(known)}")


def run(checkpoint: Path, out: Path, config: StudyConfig) -> None:
    """Run every regime that has no record yet; a run that was killed goes on where it stood.

    Raises:
        DataError: `out` holds records of another checkpoint, or made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    told = {key: value for key, value in asdict(config).items() if key != "regimes"}
    pin(out / "lab.json", {"weights": digest(checkpoint), **told})
    for regime in config.regimes:
        if not (out / f"{regime}.csv").exists():
            _run_regime(checkpoint, out, regime, config)


def _run_regime(checkpoint: Path, out: Path, regime: str, config: StudyConfig) -> None:
    data = out / "runs" / regime / "MiniMME"
    if not (data / "regions.jsonl").exists():
        mini = MiniConfig(seed=config.seed, size=config.size, difficulty=regime)
        mme.write(data, mini, config.kinds)
    base = _base(checkpoint, data, config)
    first = [_setting(base, "own", 1.0)]
    first += [_setting(base, name, w) for name in ("own", "truth", "whole") for w in WEIGHTS]
    first += [_setting(base, name, MAIN, wider) for name in ("own", "truth") for wider in EXPANDS]
    runs = run_cells(first)
    own = runs[0].path
    second = [_setting(base, name, w, of=own) for name in ("random", "shuffled") for w in WEIGHTS]
    runs += run_cells(second)
    truth = next(one for one in runs if one.path.name == _name("truth", MAIN, 1.0))
    _write_attention(truth, out / f"{regime}_attention.csv", config.attention)
    _write_credits(runs, out / f"{regime}.csv")


def _base(checkpoint: Path, data: Path, config: StudyConfig) -> RunConfig:
    return schema.resolve(
        {
            "model": {"name": "llava", "path": str(checkpoint)},
            "bench": {"name": "mme", "root": str(data)},
            "boxes": {"rules": "clean"},
            "limits": {"max_new_tokens": 16},
            "batch_size": config.batch_size,
            "out": str(data.parent),
            "cache": str(data.parent / "replies.sqlite"),
        }
    )


def _name(region: str, weight: float, expand: float) -> str:
    return f"{region} λ={weight:g}" + (f" α={expand:g}" if expand != 1 else "")


def _setting(
    base: RunConfig, region: str, weight: float, expand: float = 1.0, of: Path | None = None
) -> RunConfig:
    changes = {
        "name": _name(region, weight, expand),
        "locate": REGIONS[region],
        "boxes.expand": expand,
        "refine.weight": weight,
    }
    return base.with_(changes | ({"locate.of": str(of)} if of else {}))


def _write_credits(runs: Sequence[Run], path: Path) -> None:
    """One line a question: id, image, subtask, its own boxes and their IoU, every pass's credit."""
    columns: dict[str, Sequence[float]] = {"plain": scored_pass(runs[0], "plain").credits}
    columns |= {run.path.name: scored_pass(run, "cof").credits for run in runs}
    rows = []
    for place, result in enumerate(runs[0].results):
        question = result.question
        measured = localisation.measure(result) if question.boxes else None
        iou = f"{measured.iou:.4f}" if measured and measured.iou is not None else ""
        credits = [f"{column[place]:g}" for column in columns.values()]
        boxes = len(result.region.boxes) if result.region else 0
        rows.append([question.id, question.image, question.category, boxes, iou, *credits])
    write_csv(path, ["id", "image", "subtask", "own_boxes", "own_iou", *columns], rows)


def _write_attention(run: Run, path: Path, limit: int) -> None:
    """Attention of evenly spaced questions on their true regions, one line a question and layer."""
    lit = [result for result in run.results if result.cells]
    chosen = [lit[k * len(lit) // limit] for k in range(limit)] if len(lit) > limit else lit
    config = schema.resolve(run.config)
    model = plugins.load("models", config.names["model"]).load(config.model)
    rows = []
    exif = schema.exif_of(run.config)
    masses = measure(model, chosen, pictures(config), config.refine, exif)
    for result, mass in zip(chosen, masses, strict=True):
        lines = zip(mass.before, mass.after, mass.image_before, mass.image_after, strict=True)
        for layer, line in enumerate(lines):
            shares = [f"{value:.5f}" for value in (mass.lit, *line)]
            rows.append([result.question.id, mass.image, layer, *shares])
    write_csv(path, ["id", "image", "layer", "lit", *LINES], rows)
