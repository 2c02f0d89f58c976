"""Memory and time of reading large runs: writes made-up runs, measures `cof` commands on them.

    python scripts/large_runs.py FOLDER --sizes 10000 100000 --benches mme pope

Prints a Markdown table: peak resident memory and seconds of `cof score`, `cof compare` (a run's two
passes; two runs), `cof report` and of what `cof eval` does when the last question is answered.
No benchmark and no model is needed: records are written as a run of 576 visual tokens has them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cof.config import schema
from cof.store import origin
from cof.store.folder import RunFolder
from cof.store.records import to_record
from cof.types import Answer, Box, Question, Region, Result

GRID, LIT = 24, 40
TRUE, OTHER = Box(0.25, 0.25, 0.5, 0.5), Box(0.5, 0.5, 1.0, 1.0)
IDENTITY = {"weights": "made-up", "dtype": "float32", "device": "cpu"}

Kind = Callable[[int, int], tuple[Question, tuple[str, str]]]
"""From a question's number and how many there are to it, with a right and a wrong answer."""


def _mme(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    task = ("existence", "color", "posters", "OCR")[4 * number // total]
    image, turn = f"{task}/images/{number // 2:07d}.jpg", number % 2
    truth, wrong = ("Yes", "No")[:: 1 - 2 * turn]
    text = f"Is there thing {number} in the picture?\nAnswer the question using a single word."
    asked = Question(f"{image}#{turn + 1}", image, text, task, truth, boxes=(TRUE,))
    return asked, (truth, wrong)


def _pope(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    third = -(-total // 3)
    setting, place = ("random", "popular", "adversarial")[number // third], number % third
    image = f"val2014/COCO_val2014_{place // 6:012d}.jpg"
    truth, wrong = ("yes", "no")[:: 1 - 2 * (place % 2)]
    text = f"Is there a thing{place % 6} in the image?\nAnswer the question using a single word."
    asked = Question(f"{setting}/{place}", image, text, setting, truth, boxes=(TRUE,))
    return asked, (truth.title(), wrong.title())


def _mmbench(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    base, turn = number % -(-total // 4), number // -(-total // 4)
    image, options = f"mmbench_images/{base}.jpg", ("a cat", "a dog", "two birds", "no animal")
    shown = options[turn:] + options[:turn]
    letter, other = "ABCD"[(base - turn) % 4], "ABCD"[(base + 1) % 4]
    text = "What is it?\n" + "\n".join(f"{a}. {b}" for a, b in zip("ABCD", shown, strict=True))
    category = f"broad{base % 6}/fine{base % 20}"
    name = str(base + turn * 1_000_000)
    return Question(name, image, text, category, letter, options=shown), (letter, other)


def _vstar(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    kind = ("direct_attributes", "relative_position")[number % 2]
    image = f"{kind}/sa_{number}.jpg"
    letter, options = "AB"[number % 3 % 2], ("red", "blue")
    text = "Which colour?\nA. red\nB. blue\nAnswer with the option's letter."
    asked = Question(image[:-4], image, text, kind, letter, (TRUE,), options)
    return asked, (letter, "B" if letter == "A" else "A")


def _gqa(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    kind = ("query/attr", "verify/rel", "choose/obj")[number % 3]
    image = f"images/n{number // 20}.jpg"
    return Question(f"2{number:08d}", image, "What is it?", kind, "table"), ("Table.", "chair")


def _textvqa(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    said = json.dumps(["stop"] * (1 + number % 4) + ["halt"] * (9 - number % 4))
    image = f"train_images/{number // 2:016x}.jpg"
    return Question(str(number), image, "What does it say?", reference=said), ("stop", "go")


def _refcoco(number: int, total: int) -> tuple[Question, tuple[str, str]]:
    image = f"train2014/COCO_train2014_{number // 3:012d}.jpg"
    return Question(f"r{number}", image, "the thing", "val", boxes=(TRUE,)), ("", "")


BENCHES: dict[str, Kind] = {
    "mme": _mme,
    "pope": _pope,
    "mmbench": _mmbench,
    "vstar": _vstar,
    "gqa": _gqa,
    "textvqa": _textvqa,
    "refcoco": _refcoco,
}


def results(bench: str, total: int, seed: int) -> Iterator[Result]:
    """Made-up answers: plain is right in 60 of 100, CoF in 65, one in 1000 questions failed."""
    rng = random.Random(seed)
    plainly = bench != "refcoco"
    for number in range(total):
        asked, (right, wrong) = BENCHES[bench](number, total)
        steady = random.Random(number).random()
        box = Box(0.25, 0.25, round(rng.uniform(0.4, 0.9), 3), 0.5)
        box = box if rng.random() < 0.7 else OTHER
        first = int(rng.random() * (GRID * GRID - LIT))
        failed = rng.random() < 0.001
        said = right if rng.random() < 0.65 else wrong
        yield Result(
            question=asked,
            region=Region((box,), "prompt", str(list(box.as_tuple())), "padded_square", 0.21),
            focus_boxes=(box,),
            cells=tuple(range(first, first + LIT)),
            tokens=GRID * GRID,
            status="boxes",
            cof=None if failed else Answer(said, (3869, 2), rng.random(), logprobs=(-0.1, -0.01)),
            plain=Answer(right if steady < 0.6 else wrong, (1939, 2), 0.05) if plainly else None,
            error="CoF: made up to fail" if failed else "",
            target=(200, 201) if asked.boxes else (),
            grid=(GRID, GRID),
            frame=(0.0, -0.1, 1.0, 1.1),
        )


def write_run(folder: Path, bench: str, total: int, seed: int = 0) -> Path:
    """A finished run without scores.json, as it lies on disk before `cof eval` scores it."""
    config = schema.resolve(
        {
            "bench": {"name": bench, "root": str(folder.parent / "no-data")},
            "out": str(folder.parent),
            "name": folder.name,
            "seed": seed,
            "plain": bench != "refcoco",
            "refine": {"name": "highlight", "weight": 2.0 + seed},
        }
    )
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.write_config(config.as_dict())
    asked = {"questions": "made-up", "images": "made-up"}
    dataset = {**asked, "question_count": total, "image_count": total}
    made = origin.made(config.as_dict(), IDENTITY, dataset)
    told = {"name": "made-up", "frame": "padded_square", "revision": "made-up"}
    empty = {"code": {"commit": None, "dirty": None}, "versions": {}, "resumed": []}
    head = {"config_hash": "made-up", "dataset": dataset, "identity": IDENTITY, "model": told}
    run.write_json("manifest.json", head | empty)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for index, result in enumerate(results(bench, total, seed)):
            file.write(json.dumps(to_record(index, result, made)) + "\n")
    return folder


FINISH = """
import sys; from pathlib import Path
from cof.config import schema; from cof.evaluate.runner import _score
from cof.store.folder import RunFolder
folder = RunFolder(Path(sys.argv[1])); _score(folder, schema.resolve(folder.config()))
"""
COMMAND = "import runpy; runpy.run_module('cof.cli', run_name='__main__')"
PEAK = """
import atexit, re
def tell():
    status = open("/proc/self/status").read()
    open({file!r}, "w").write(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
atexit.register(tell)
"""
"""What a process says of itself; what its parent hears of it includes the parent's own memory."""


def measure(code: str, arguments: list[str], scratch: Path) -> tuple[float, float, int]:
    """Peak resident memory in MiB, seconds and exit code of Python code."""
    start, file = time.perf_counter(), scratch / "peak"
    code = PEAK.format(file=str(file)) + code
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.stderr.write(done.stderr[-2000:])
    return int(file.read_text()) / 1024, time.perf_counter() - start, done.returncode


def commands(bench: str, one: Path, two: Path, out: Path) -> dict[str, tuple[str, list[str]]]:
    """Name -> Python code and its arguments."""
    report = ["report", str(one), "--out", str(out / "report"), "--gallery", "0"]
    found = {
        "score": (COMMAND, ["score", bench, str(one)]),
        "compare passes": (COMMAND, ["compare", str(one)]),
        "compare runs": (COMMAND, ["compare", str(one), str(two)]),
        "report": (COMMAND, report),
        "end of eval": (FINISH, [str(one)]),
    }
    if bench == "refcoco":
        del found["compare passes"]
    if bench == "mmbench":  # its submission sheet repeats the table, which is not there
        del found["end of eval"]
    return found


def main() -> int:
    """Write the runs, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs are written, and deleted")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--benches", nargs="+", choices=BENCHES, default=["mme"])
    parser.add_argument("--only", nargs="+", help="measure these commands alone")
    parser.add_argument("--keep", action="store_true", help="keep the runs, and use those there")
    chosen = parser.parse_args()
    print("| benchmark | records | command | peak MiB | seconds |\n|---|---|---|---|---|")
    for bench in chosen.benches:
        for size in chosen.sizes:
            pair = [chosen.folder / f"{bench}-{size}-{seed}" for seed in (0, 1)]
            for seed, run in enumerate(pair):
                needed = seed == 0 or not chosen.only or "compare runs" in chosen.only
                if needed and not run.exists():
                    write_run(run, bench, size, seed)
            for name, (code, arguments) in commands(bench, *pair, chosen.folder).items():
                if not chosen.only or name in chosen.only:
                    peak, seconds, exit_code = measure(code, arguments, chosen.folder)
                    note = f" (exit {exit_code})" if exit_code not in (0, 1) else ""
                    row = f"| {bench} | {size} | {name}{note} | {peak:.0f} | {seconds:.1f} |"
                    print(row, flush=True)
            for run in [] if chosen.keep else pair:
                shutil.rmtree(run, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
