"""Time the cases in interleaved rounds and hold the ratios against the bars.

On the CPU the process's CPU time is taken, which other programs on the machine disturb least; on
CUDA the wall time between synchronisations. A ratio is the median over rounds of a case's time a
question over its unit's in the same round.
"""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cof.attention import NAME
from cof.evaluate.progress import progress
from cof.models.base import Limits
from cof_speed.breakdown import DECODE_RATIO, Step
from cof_speed.cases import COARSE, LONG, TWO, WEIGHTS, Case, Workload

MIB = 1 << 20


@dataclass(frozen=True)
class Timing:
    """One case, measured.

    Attributes:
        name: the case.
        ratio: time a question over the unit's.
        low: smallest ratio of a round.
        high: largest ratio of a round.
        seconds: median seconds a question.
        mib: highest memory while it ran, MiB (CUDA: allocated; CPU: resident).
    """

    name: str
    ratio: float
    low: float
    high: float
    seconds: float
    mib: float


@dataclass(frozen=True)
class Bar:
    """A limit on a ratio; `met` where the value does not exceed it."""

    name: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit


def measure(cases: Iterable[Case], device: torch.device, rounds: int) -> list[Timing]:
    """Run every case once a round, in turn, after a warm-up.

    Of the units; on CUDA of all that is ours, so that no round pays for the capture of a step.
    """
    cases = list(cases)
    for case in cases:
        ours = not case.name.startswith("published")
        if case.unit == case.name or (device.type == "cuda" and ours):
            case.run()
    spent: dict[str, list[float]] = {case.name: [] for case in cases}
    peaks: dict[str, float] = dict.fromkeys(spent, 0.0)
    turns = [
        case
        for number in range(rounds)
        for case in cases
        if not (case.once and number and device.type == "cuda")
    ]
    with progress(len(turns), "case", "bench") as bar:
        for case in turns:
            seconds, mib = _once(case.run, device)
            spent[case.name].append(seconds / case.questions)
            peaks[case.name] = max(peaks[case.name], mib)
            bar.update()
    return [_timing(case, spent, peaks[case.name]) for case in cases]


def _timing(case: Case, spent: dict[str, list[float]], mib: float) -> Timing:
    pairs = zip(spent[case.name], spent[case.unit], strict=False)  # one that is timed once
    ratios = [own / unit for own, unit in pairs]
    median = statistics.median
    return Timing(
        case.name, median(ratios), min(ratios), max(ratios), median(spent[case.name]), mib
    )


def _once(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds and peak memory of one run."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        run()
        torch.cuda.synchronize(device)
        return time.perf_counter() - started, torch.cuda.max_memory_allocated(device) / MIB
    with _Resident() as memory:
        started = time.process_time()
        run()
        seconds = time.process_time() - started
    return seconds, memory.peak


def resident() -> float:
    """MiB that this process has in memory; where the system has no /proc, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / MIB
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


class _Resident:
    """Peak resident memory of this process inside the block, sampled."""

    def __enter__(self) -> _Resident:
        self.peak, self.stop = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, resident())
            if self.stop.wait(0.05):
                return

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def bars(
    timings: Iterable[Timing], work: Workload, steps: Iterable[Step], cuda: bool
) -> tuple[list[Bar], list[Bar]]:
    """The project's bars on this kind of device, and the goals beyond them.

    Args:
        timings: of all cases.
        work: what was timed.
        steps: of the breakdown.
        cuda: bars of a GPU, or else of the CPU.
    """
    ratio = {timing.name: timing.ratio for timing in timings}
    stock = Bar("inactive outputs that differ from the stock model", inactive_differs(work), 0)
    if cuda:
        return [stock, *_cuda_bars(ratio, work, steps)], []
    required, goals = _cpu_bars(ratio, work)
    return [required[0], stock, *required[1:]], goals


def _cpu_bars(ratio: Mapping[str, float], work: Workload) -> tuple[list[Bar], list[Bar]]:
    batch = f"batch {work.batch}"
    long, usual, two = f"published, {LONG} tokens", f"published, {COARSE} tokens", "two questions"
    sweep = len(WEIGHTS) * ratio[usual]  # published: both stages anew for every weight

    def ours(scope: str, note: str = "") -> float:
        return ratio[f"ours {scope}, {batch}{note}"]

    active, one = ratio["plain with the highlight active"], ratio["ours all, batch 1"]
    count = len(WEIGHTS)
    required = [
        Bar("highlight active / plain", active, 1.05),
        Bar(f"batch 1, all / published at {COARSE} tokens", one / ratio[usual], 0.75),
        Bar(f"batch 1, all / published at {LONG} tokens", one / ratio[long], 0.40),
        Bar(f"{batch}, all / plain", ours("all"), 2.3),
        Bar(f"{batch}, text / plain", ours("text"), 1.5),
        Bar(f"{batch}, {two}, text / plain", ours("text", TWO), 1.0),
        Bar(f"sweep of {count}, all / published", ratio["sweep, ours all"] / sweep, 0.30),
        Bar(f"sweep of {count}, text / published", ratio["sweep, ours text"] / sweep, 0.12),
    ]
    goals = [
        Bar(f"{batch}, {two}, all / plain", ours("all", TWO), 1.5),
        Bar(f"{batch}, {two}, text / plain, grammar", ours("text", f"{TWO}, grammar"), 0.85),
        Bar(f"sweep of {count}, all / plain, batch 1", ratio["sweep, ours all"], 4.5),
    ]
    return required, goals


def _cuda_bars(ratio: Mapping[str, float], work: Workload, steps: Iterable[Step]) -> list[Bar]:
    """Those of one H100, random 7B weights, float16; coarse replies as `grammar` decodes them."""
    batch, free = f"batch {work.batch}", {step.name: step.value for step in steps}

    def ours(scope: str, note: str = "") -> float:
        return ratio[f"ours {scope}, {batch}{note}, grammar"]

    usual = ratio[f"published, {COARSE} tokens"]
    found = [
        Bar(f"{batch}, highlight active / plain", ratio[f"plain, {batch}, highlight active"], 1.03),
        Bar(
            f"batch 1, all / published at {COARSE} tokens",
            ratio["ours all, batch 1, grammar"] / usual,
            0.35,
        ),
        Bar(f"sweep of {len(WEIGHTS)}, all / plain", ratio["sweep, ours all, grammar"], 5.0),
    ]
    captured = free.get(DECODE_RATIO)
    if work.batch == 8 and captured is not None:
        found.append(Bar(f"{batch}, {DECODE_RATIO}", captured, 0.35))
    if work.batch == 32:
        look = (free["look, the tower aside"] or 0.0) + (free["tower"] or 0.0)
        found += [
            Bar("look, ms an image", look, 2.0),
            Bar(f"{batch}, all / plain", ours("all"), 2.0),
            Bar(f"{batch}, text / plain", ours("text"), 1.5),
            Bar(f"{batch}, two questions, all / plain", ours("all", TWO), 1.5),
            Bar(f"{batch}, two questions, text / plain", ours("text", TWO), 1.1),
        ]
    return found


def inactive_differs(work: Workload) -> int:
    """How many logits of a pass outside any highlight differ from the stock model's (sdpa)."""
    decoder, encoded = work.model.decoder, work.encode(1)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # else one path differs from itself in float16
    try:
        ours = work.model.greedy(encoded, 2, keep_logits=True)[0].logits
        decoder.set_attn_implementation("sdpa")
        stock = work.model.greedy(encoded, 2, keep_logits=True)[0].logits
    finally:
        decoder.set_attn_implementation(NAME)
        torch.use_deterministic_algorithms(before)
    return int((torch.stack(ours) != torch.stack(stock)).sum())


def flip_rate(work: Workload, tokens: int = 8, batches: int = 4) -> float:
    """Share of answers that differ between batch 1 and the large batch; rounding alone."""
    seen, model = work.model.look(work.images), work.model
    limits, differ = Limits(tokens), []
    for number in range(batches):
        words = range(number, number + len(seen))
        texts = [f"{work.question} ({'really ' * count})" for count in words]
        together = model.generate(model.encode(seen, texts), limits)
        for view, text, one in zip(seen, texts, together, strict=True):
            alone = model.generate(model.encode([view], [text]), limits)[0]
            differ.append(alone.tokens != one.tokens)
    return statistics.mean(differ)


def machine(device: torch.device) -> dict[str, Any]:
    """Where the numbers come from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def as_json(
    timings: list[Timing],
    required: list[Bar],
    goals: list[Bar],
    steps: list[Step],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Everything, all digits."""

    def rows(found: list[Bar]) -> list[dict[str, Any]]:
        return [{**asdict(bar), "met": bar.met} for bar in found]

    return {
        "machine": about,
        "timings": [asdict(timing) for timing in timings],
        "breakdown": [asdict(step) for step in steps],
        "bars": rows(required),
        "goals": rows(goals),
    }
