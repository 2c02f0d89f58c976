"""Finished runs made small, to be kept beside code: config, manifest and compressed records.

Everything that `cof report`, `compare` and `score` read is in them; scores.json and answers/ are
left behind, since records give them anew.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from cof.errors import RunError
from cof.runs.folder import CONFIG, MANIFEST, load_run
from cof.runs.shards import PACKED, RECORDS
from cof.runs.sides import unfinished


def pack(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write `out`/<name>/ for each run; equal records give equal bytes. Returns the folders.

    Raises:
        RunError: no run folder, one that is not finished or packed already, or two of one name.
    """
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RunError(f"two runs are called {twice!r}; pack them into different folders")
    return [_pack(run, out / run.name) for run in runs]


def _pack(run: Path, target: Path) -> Path:
    loaded = load_run(run)
    if not loaded.results or unfinished(loaded):
        raise RunError(f"{run}: not finished; the run's own command goes on with it")
    if not (run / RECORDS).is_file():
        raise RunError(f"{run}: is packed already")
    if target.resolve() == run.resolve():
        raise RunError(f"{run}: cannot be packed into its own folder; name another one")
    target.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, MANIFEST):
        (target / name).write_bytes((run / name).read_bytes())
    (target / PACKED).write_bytes(gzip.compress((run / RECORDS).read_bytes(), mtime=0))
    return target
