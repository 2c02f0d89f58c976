"""Everything that needs a GPU, in one go: parity, the GPU tests, the main job, and the costs.

`bash tests/gpu.sh [--minutes N]` calls this. It writes `docs/performance_gpu.md` and, beside it,
`docs/performance_gpu.json`. Without a GPU it says so and ends with 0.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance_gpu.md"
BENCHES = (("llava-1.5-7b", 8), ("llava-1.5-7b", 32), ("llava-1.5-13b", 8))
"""Shapes and batch sizes that are timed, in float16; what does not fit or end in time is said."""


@dataclass
class Part:
    """One thing that was tried.

    Attributes:
        name: what.
        verdict: `ok`, `FAILED`, `not run` or `no time`.
        seconds: what it took.
        said: one line for the table.
        found: its numbers.
    """

    name: str
    verdict: str = "not run"
    seconds: float = 0.0
    said: str = ""
    found: dict[str, Any] = field(default_factory=dict)


def call(words: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run this Python with some arguments in the checkout, for at most so many seconds."""
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=seconds
    )


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def parity(seconds: float) -> Part:
    """The published code's numbers, in float32."""
    done = call(
        ["-m", "cof.cli", "doctor", "--parity", "tests/data/golden", "--device", "cuda", "--json"],
        seconds,
    )
    part = Part("parity with the published code, float32", "FAILED", said=last_line(done.stderr))
    if done.stdout.startswith("{"):
        part.found = json.loads(done.stdout)
        worst = max(check["worst"] for check in part.found["checks"])
        wrong = sum(check["mismatches"] for check in part.found["checks"])
        part.said = f"largest difference {worst:.1e}, {wrong} mismatches"
        part.verdict = "ok" if done.returncode == 0 else "FAILED"
    return part


def gpu_tests(seconds: float) -> Part:
    """The tests that need a GPU."""
    done = call(["-m", "pytest", "-m", "gpu", "tests"], seconds)
    verdict = "ok" if done.returncode == 0 else "FAILED"
    return Part("tests marked gpu", verdict, said=last_line(done.stdout))


def main_job(seconds: float) -> Part:
    """cof-tiny on 30 images of MiniMME, float32, on both devices: how many answers differ."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        draw = [
            "-m",
            "cof.cli",
            "data",
            "mini",
            f"{folder}/data",
            "--only",
            "MiniMME",
            "--size",
            "6",
        ]
        call(draw, seconds)
        for device in ("cpu", "cuda"):
            settings = (
                f"bench.root={folder}/data/MiniMME",
                f"model.device={device}",
                "model.dtype=float32",
                f"out={folder}",
                f"name={device}",
            )
            config = "examples/configs/mme_tiny.yaml"
            done = call(["-m", "cof.cli", "eval", config, *settings], until - time.monotonic())
            if done.returncode:
                return Part("cof-tiny, GPU against CPU", "FAILED", said=last_line(done.stderr))
        rows = [
            [json.loads(line) for line in (Path(folder) / device / "records.jsonl").open()]
            for device in ("cpu", "cuda")
        ]
    pairs = list(zip(*rows, strict=True))
    differ = {
        name: sum(one[name]["text"] != other[name]["text"] for one, other in pairs)
        for name in ("plain", "cof")
    }
    spent = sum(sum(other["seconds"].values()) for _, other in pairs) / len(pairs)
    said = f"of {len(pairs)} answers {differ['plain']} plain and {differ['cof']} CoF differ"
    found = {"questions": len(pairs), **differ, "seconds_a_question": spent}
    return Part("cof-tiny, GPU against CPU", "ok", said=said, found=found)


def bench(shape: str, batch: int, seconds: float) -> Part:
    """Costs on random weights of a shape."""
    words = ["-m", "cof.cli", "bench", "--shape", shape, "--batch", str(batch), "--json"]
    done = call([*words, "--device", "cuda", "--dtype", "float16"], seconds)
    part = Part(f"costs, {shape}, batch {batch}, float16", "FAILED", said=last_line(done.stderr))
    if done.stdout.lstrip().startswith("{"):
        part.found = json.loads(done.stdout)
        missed = [bar["name"] for bar in part.found["bars"] if not bar["met"]]
        part.verdict = "FAILED" if missed else "ok"
        part.said = f"missed: {'; '.join(missed)}" if missed else "every limit is met"
    return part


def parts() -> list[tuple[str, Callable[[float], Part]]]:
    """What is tried, in order, with its name."""
    benches = [
        (f"costs, {shape}, batch {batch}", lambda left, s=shape, b=batch: bench(s, b, left))
        for shape, batch in BENCHES
    ]
    return [
        ("parity", parity),
        ("tests marked gpu", gpu_tests),
        ("cof-tiny, GPU against CPU", main_job),
        *benches,
    ]


def run(minutes: float) -> list[Part]:
    """Every part, one after the other, until the time is over."""
    until, found = time.monotonic() + 60 * minutes, []
    for name, attempt in parts():
        left, started = until - time.monotonic(), time.monotonic()
        if left < 5:
            found.append(Part(name, "no time"))
            continue
        try:
            part = attempt(left)
        except subprocess.TimeoutExpired:
            part = Part(name, "no time", said="did not end in what was left")
        part.seconds = time.monotonic() - started
        found.append(part)
        sys.stderr.write(f"{part.verdict:8} {part.name}: {part.said}\n")
    return found


def machine() -> dict[str, str]:
    """Card, driver, versions."""
    import torch

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        said = "unknown"
    return {
        "card": torch.cuda.get_device_name(0),
        "memory": f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB",
        "driver": said.splitlines()[0].strip() if said else "unknown",
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "python": platform.python_version(),
    }


def page(about: Mapping[str, str], found: Sequence[Part]) -> str:
    """The Markdown page."""
    lines = [
        "# On a GPU",
        "",
        "Written by `bash tests/gpu.sh`, from `performance_gpu.json` beside it. Costs are of",
        "random weights: times are those of real ones, answers are not.",
        "",
        *(f"- {key}: {value}" for key, value in about.items()),
        "",
        "| what | result | seconds | |",
        "|---|---|---|---|",
        *(f"| {one.name} | {one.verdict} | {one.seconds:.0f} | {one.said} |" for one in found),
        "",
    ]
    for one in found:
        if "timings" in one.found:
            lines += [f"## {one.name}", "", *_costs(one.found), ""]
    return "\n".join(lines)


def _costs(found: Mapping[str, Any]) -> list[str]:
    head = ["| case | × plain | seconds a question | peak MiB |", "|---|---|---|---|"]
    rows = [
        f"| {row['name']} | {row['ratio']:.2f} | {row['seconds']:.4f} | {row['mib']:.0f} |"
        for row in found["timings"]
    ]
    limits = ["", "| limit | value | at most | |", "|---|---|---|---|"]
    words = {True: "met", False: "missed"}
    bars = [
        f"| {bar['name']} | {bar['value']:.3f} | {bar['limit']:g} | {words[bar['met']]} |"
        for bar in (*found["bars"], *found["goals"])
    ]
    return [*head, *rows, *limits, *bars]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 where nothing failed, or where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="most minutes, 4 by default")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("cof: no GPU is visible to torch; nothing was run")
        return 0
    about, found = machine(), run(options.minutes)
    data = {"machine": about, "parts": [asdict(one) for one in found]}
    PAGE.with_suffix(".json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(about, found), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)} and {PAGE.with_suffix('.json').name}")
    return int(any(one.verdict == "FAILED" for one in found))


if __name__ == "__main__":
    sys.exit(main())
