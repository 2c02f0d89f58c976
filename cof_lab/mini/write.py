"""The mini benchmarks in one folder, with a README that says how they were drawn, and hashes."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from cof.errors import DataError
from cof.evaluate.progress import progress as show
from cof.files import write_whole
from cof_lab.mini.common import DRAWN, MiniConfig, write_hashes

PARTS = {
    "MiniMME": "mme",
    "MiniPOPE": "pope",
    "MiniMMBench": "mmbench",
    "MiniVStar": "vstar",
    "grounding": "grounding",
}
"""Mini benchmark -> its module; `cof_lab.mini.<module>.write` draws it."""

COMMAND = "cof data mini OUT --seed {seed} --size {size} --difficulty {difficulty}"

README = """# Mini benchmarks

Procedural scenes with exact answers and exact regions, in the layouts of the benchmarks they are
named after, so that the same readers and scorers serve both.

Written by `{command}`.
The same command writes the same files; sha256.json holds their hashes. `regions.jsonl` beside the
published files holds the boxes of each answer, (x0, y0, x1, y1) as fractions of the image.

{table}
"""


def write_all(
    out: Path, config: MiniConfig, only: Sequence[str] = tuple(PARTS), progress: bool = False
) -> dict[str, int]:
    """Draw mini benchmarks into `out`, each whole or not at all; one that is there is kept.

    A folder may so be drawn piece by piece, and a killed call repeated: the files are those of one
    call that draws them all.

    Args:
        out: the folder.
        config: how they are drawn.
        only: names of `PARTS`.
        progress: show on stderr how far it is.

    Returns: the number of questions of each benchmark of `only`.

    Raises:
        DataError: `out` holds other files, or benchmarks drawn with other settings.
    """
    counts = _there(out, config)
    with show(None, "scene", "drawing", shown=progress) as bar:
        token = DRAWN.set(bar.update)
        try:
            for name in only:
                bar.set_description(name)
                if name not in counts:
                    _draw(out, name, config, counts)
        finally:
            DRAWN.reset(token)
    write_hashes(out)
    return {name: counts[name] for name in only}


def _draw(out: Path, name: str, config: MiniConfig, counts: dict[str, int]) -> None:
    """Add one benchmark beside those in `counts`; its folder appears when all of it is there."""
    fresh = out / f".{name}"
    shutil.rmtree(fresh, ignore_errors=True)
    part = importlib.import_module(f"cof_lab.mini.{PARTS[name]}")
    counts[name] = part.write(fresh, config)
    write_whole(out / "README.md", _readme(config, counts))
    shutil.rmtree(out / name, ignore_errors=True)  # of a call that was killed right here
    fresh.rename(out / name)


def _command(config: MiniConfig) -> str:
    return COMMAND.format(seed=config.seed, size=config.size, difficulty=config.difficulty)


def _readme(config: MiniConfig, counts: dict[str, int]) -> str:
    names = [name for name in PARTS if name in counts]
    missing = len(names) < len(PARTS)
    only = "".join(f" --only {name}" for name in names) if missing else ""
    table = "\n".join(f"- {name}: {counts[name]} questions" for name in names)
    return README.format(command=_command(config) + only, table=table)


def _there(out: Path, config: MiniConfig) -> dict[str, int]:
    """Questions of the benchmarks that `out` holds already, as its README says."""
    names = [path.name for path in out.iterdir()] if out.exists() else []
    if all(name.startswith(".") for name in names):  # what a killed call left
        return {}
    readme = out / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    if not re.search(f"`{re.escape(_command(config))}( --only [^`]*)?`", text):
        raise DataError(
            f"{out}: is not empty, and not drawn by `{_command(config)}`; choose another folder"
        )
    counted = re.findall(r"^- (\w+): (\d+) questions$", text, re.M)
    return {name: int(count) for name, count in counted if (out / name).is_dir()}
