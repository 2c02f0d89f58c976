"""All mini benchmarks in one folder, with a README and hashes."""

from __future__ import annotations

import importlib
from pathlib import Path

from cof.errors import DataError
from cof.files import write_whole
from cof_lab.mini.common import MiniConfig, write_hashes

PARTS = {
    "MiniMME": "mme",
    "MiniPOPE": "pope",
    "MiniMMBench": "mmbench",
    "MiniVStar": "vstar",
    "grounding": "grounding",
}

README = """# Mini benchmarks

Procedural scenes with exact answers and exact regions, in the layouts of the benchmarks they are
named after, so that the same readers and scorers serve both.

Written by `cof data mini OUT --seed {seed} --size {size} --difficulty {difficulty}`.
The same command writes the same files; sha256.json holds their hashes. `regions.jsonl` beside the
published files holds the boxes of each answer, (x0, y0, x1, y1) as fractions of the image.

{table}
"""


def write_all(out: Path, config: MiniConfig) -> dict[str, int]:
    """Write every part below `out`; returns the number of questions by part.

    Raises:
        DataError: `out` exists and is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another folder")
    counts = {}
    for name, module in PARTS.items():
        part = importlib.import_module(f"cof_lab.mini.{module}")
        counts[name] = part.write(out / name, config)
    table = "\n".join(f"- {name}: {count} questions" for name, count in counts.items())
    text = README.format(
        seed=config.seed, size=config.size, difficulty=config.difficulty, table=table
    )
    write_whole(out / "README.md", text)
    write_hashes(out)
    return counts
