"""`cof bench`: what CoF costs, in units of one plain pass."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from cof.cli._options import COUNT, quiet

if TYPE_CHECKING:
    from cof.models.common.graphs import Decode
    from cof.models.llava.model import Llava


@click.command()
@click.option("--shape", default="mid", show_default=True, help="mid, llava-1.5-7b, llava-1.5-13b.")
@click.option("--model", help="Time this checkpoint instead of random weights.")
@click.option(
    "--batch", type=COUNT, default=8, show_default=True, help="Size of the large batches."
)
@click.option("--rounds", type=COUNT, default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option(
    "--decode",
    type=click.Choice(["auto", "graph", "eager"]),
    default="auto",
    show_default=True,
    help="Captured decode steps or the eager loop; auto is graph on CUDA.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@quiet
def bench(
    shape: str,
    model: str | None,
    batch: int,
    rounds: int,
    device: str,
    dtype: str,
    decode: Decode,
    as_json: bool,
) -> None:
    """Time plain, published and our passes; exit with 1 where a bar is missed."""
    from cof.models.common.determinism import WORKSPACE
    from cof_speed import measure
    from cof_speed.breakdown import breakdown
    from cof_speed.cases import Workload

    os.environ.setdefault(WORKSPACE, ":4096:8")  # for the bar that needs deterministic kernels
    loaded = _model(shape, model, device, dtype, decode)
    work = Workload(loaded, batch)
    place = loaded.network.device
    timings = measure.measure(work.cases(), place, rounds)
    steps = breakdown(work, place, rounds)
    required, goals = measure.bars(timings, work, steps, place.type == "cuda")
    about = measure.machine(place) | loaded.describe() | {"rounds": rounds, "batch": batch}
    if about["dtype"] != "float32":
        about["flip_rate"] = measure.flip_rate(work)
    click.echo(
        json.dumps(measure.as_json(timings, required, goals, steps, about), indent=2)
        if as_json
        else _text(timings, required, goals, steps, about)
    )
    raise SystemExit(0 if all(bar.met for bar in required) else 1)


def _model(shape: str, model: str | None, device: str, dtype: str, decode: Decode) -> Llava:
    from cof.errors import ConfigError
    from cof.models.common.loading import pick_device, pick_dtype
    from cof.models.llava import Config, load
    from cof_speed.shapes import SHAPES, random_llava

    if model is not None:
        return load(Config(model, device, dtype, decode=decode))
    if shape not in SHAPES:
        raise ConfigError(f"--shape {shape!r}: there is {', '.join(SHAPES)}")
    return random_llava(shape, pick_device(device), pick_dtype(dtype, device), decode=decode)


def _text(timings: Any, required: Any, goals: Any, steps: Any, about: dict[str, Any]) -> str:
    from tabulate import tabulate

    rows = [(t.name, t.ratio, f"{t.low:.2f}-{t.high:.2f}", t.seconds, t.mib) for t in timings]
    heads = ("case", "x plain", "range", "seconds a question", "peak MiB")
    table = tabulate(rows, heads, floatfmt=("", ".2f", "", ".3f", ".0f"))
    bars = [
        (kind, bar.name, bar.value, bar.limit, "met" if bar.met else "MISSED")
        for kind, found in (("bar", required), ("goal", goals))
        for bar in found
    ]
    limits = tabulate(bars, ("", "", "value", "limit", ""), floatfmt=".3f")
    parts = [
        (step.name, "n/a" if step.value is None else f"{step.value:.2f}", step.unit)
        for step in steps
    ]
    spent = tabulate(parts, ("step", "", ""), colalign=("left", "right", "left"))
    where = ", ".join(f"{key} {value}" for key, value in about.items())
    return f"{table}\n\n{spent}\n\n{limits}\n\n{where}"
