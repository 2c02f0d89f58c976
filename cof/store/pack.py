"""Finished runs made small, to be kept beside code: config, manifest and compressed records.

Everything that `cof report`, `compare` and `score` read is in them; scores.json and answers/ are
left behind, since records give them anew. Packed runs are folders, or one zip archive of such
folders, which any tool unpacks (`python -m zipfile -e runs.zip FOLDER`).
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cof.errors import RunError
from cof.files import blamed, write_whole
from cof.store import origin
from cof.store.folder import CONFIG, FLIPS, MANIFEST
from cof.store.record_files import PACKED, write_in_order
from cof.store.run import Run, load_run, unfinished

ARCHIVE = ".zip"
"""Ending of the name of an archive."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive: the first that a zip can hold."""


def pack_runs(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write `out`/<name>/ for each run; equal records give equal bytes. Returns the folders.

    Raises:
        RunError: no run folder, one that is not finished or packed already, two of one name, or
            another run in the place of one.
    """
    names = [run.resolve().name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RunError(f"two runs are called {twice!r}; pack them into different folders")
    return [_pack(run, out / name) for run, name in zip(runs, names, strict=True)]


def pack_archive(runs: Sequence[Path], out: Path) -> Path:
    """Write one zip of packed runs, a folder <name>/ each; equal records give equal bytes.

    Runs that the archive holds already stay in it, as they would in a folder.

    Raises:
        RunError: as `pack_runs`; `out` is there and no archive.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if out.exists():
            _unpack(out, folder)
        try:
            pack_runs(runs, folder)
        except RunError as error:
            raise RunError(str(error).replace(str(folder), str(out))) from None
        write_whole(out, zipped(folder))
    return out


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with blamed(archive, "read"), zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except zipfile.BadZipFile as error:
        raise RunError(f"{archive}: no archive of runs, or damaged ({error})") from None


def zipped(folder: Path) -> bytes:
    """A zip of all files below `folder`, in order of their names.

    Stored as they are: records are compressed already, and no version of zlib changes the bytes.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, path in sorted(files.items()):
            if path.is_file():
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # on any system
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _pack(run: Path, target: Path) -> Path:
    loaded = load_run(run)
    if not loaded.results or unfinished(loaded):
        raise RunError(f"{run}: not finished; the run's own command goes on with it")
    if (run / PACKED).exists():
        raise RunError(f"{run}: is packed already")
    if target.resolve() == run.resolve():
        raise RunError(f"{run}: cannot be packed into its own folder; name another one")
    _check_target(loaded, target)
    records = io.BytesIO()
    write_in_order(run, records)
    write_whole(target / PACKED, gzip.compress(records.getvalue(), mtime=0))
    for name in (MANIFEST, CONFIG, *[FLIPS] * (run / FLIPS).is_file()):
        write_whole(target / name, (run / name).read_bytes())
    return target


def _check_target(run: Run, target: Path) -> None:
    """Refuse a folder with a run that is not packed, or of another config or other questions."""
    if any(target.glob("records*.jsonl")):
        raise RunError(f"{target}: holds a run that is not packed; choose another --out")
    if not (target / CONFIG).is_file():
        return
    there = load_run(target)
    made = [origin.made_of(one.config, one.manifest) for one in (there, run) if one.manifest]
    if any(one != made[-1] for one in made):
        raise RunError(f"{target}: holds another run than {run.path}; choose another --out")
