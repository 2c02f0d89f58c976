"""Where the time of a batch goes: one number for each step, on the model that was timed.

Medians of a few rounds, as in `cof_speed.measure`: of the process's CPU time, on CUDA of the wall
time. `preprocess` is what a worker does ahead of the model; the model's thread pays for it only
where workers do not keep up. A host gap is time in which a GPU has nothing to do because the CPU
has not launched the next kernel yet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from cof.models.base import Encoded
from cof.models.llava.model import Llava
from cof_speed.cases import Workload

DECODE_RATIO = "decode, captured / eager"

TOKENS = 16
"""Decode steps that are timed together."""


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Attributes:
        name: what is done.
        value: how much of `unit`; None where it cannot be measured on this device.
        unit: of the value.
    """

    name: str
    value: float | None
    unit: str


def breakdown(work: Workload, device: torch.device, rounds: int = 3) -> list[Step]:
    """Preprocess, look, tower, prefill, decode and host gaps of the large batch."""

    def milliseconds(run: Callable[[], object]) -> float:
        return statistics.median(_seconds(run, device) for _ in range(rounds)) * 1000

    model, count = work.model, work.batch
    ahead = [model.prepare(image) for image in work.images]
    encoded = work.encode(count)
    model.greedy(encoded, 2)
    prepare = milliseconds(lambda: [model.prepare(image) for image in work.images])
    look = milliseconds(lambda: model.look(work.images, ahead))
    with _tower_once(model):
        model.look(work.images, ahead)
        bare = milliseconds(lambda: model.look(work.images, ahead))
    prefill = milliseconds(lambda: model.greedy(encoded, 1))
    decode = milliseconds(lambda: model.greedy(encoded, 1 + TOKENS)) - prefill
    eager = _eager_decode(model, encoded, milliseconds)
    gaps = idle(lambda: model.greedy(encoded, 1 + TOKENS)) if device.type == "cuda" else None
    return [
        Step("preprocess, in one worker", prepare / count, "ms an image"),
        Step("look, the tower aside", bare / count, "ms an image"),
        Step("tower", (look - bare) / count, "ms an image"),
        Step("prefill", prefill / count, "ms a question"),
        Step("decode", decode / TOKENS, f"ms a token of {count} replies"),
        Step(DECODE_RATIO, decode / eager if eager else None, "of the time"),
        Step("host gaps of prefill and decode", gaps, "share of the time"),
    ]


def _eager_decode(
    model: Llava, encoded: Encoded, milliseconds: Callable[[Callable[[], object]], float]
) -> float | None:
    """What the decode steps take when nothing is captured; None where nothing is anyway."""
    graphs, model.graphs = model.graphs, None
    if graphs is None:
        return None
    try:
        first = milliseconds(lambda: model.greedy(encoded, 1))
        return milliseconds(lambda: model.greedy(encoded, 1 + TOKENS)) - first
    finally:
        model.graphs = graphs


@contextmanager
def _tower_once(model: Llava) -> Iterator[None]:
    """Inside, the vision tower runs for the first batch and gives its features for every other."""
    network, tower = model.network, model.network.get_image_features
    found: list[Any] = []

    def once(**pixels: Any) -> Any:
        if not found:
            found.append(tower(**pixels))
        return found[0]

    network.get_image_features = once
    try:
        yield
    finally:
        del network.get_image_features


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def idle(run: Callable[[], object]) -> float | None:
    """Share of the time between the first and the last kernel in which no kernel ran.

    None where the profiler saw no kernel. The profiler slows the CPU down, so this is a bit high.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize()
    events = (one for one in profiled.events() or [] if one.device_type == DeviceType.CUDA)
    return gaps((one.time_range.start, one.time_range.end) for one in events)


def gaps(spans: Iterable[tuple[float, float]]) -> float | None:
    """Share of the time from the first start to the last end that no span covers."""
    ordered = sorted(spans)
    if not ordered or ordered[0][0] == max(end for _, end in ordered):
        return None
    begin = reached = ordered[0][0]
    empty = 0.0
    for start, end in ordered:
        empty += max(0.0, start - reached)
        reached = max(reached, end)
    return empty / (reached - begin)
