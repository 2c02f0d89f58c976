"""The committed runs: what the archives of results/ hold, unpacked once a process."""

import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"

_place = TemporaryDirectory(prefix="cof-committed-")  # removed when the process ends


@cache
def unpacked() -> Path:
    """A folder an experiment, in it a packed run each."""
    for archive in sorted(RESULTS.glob("*/runs.zip")):
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(Path(_place.name) / archive.parent.name)
    return Path(_place.name)
