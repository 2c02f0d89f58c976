"""`cof pack`: finished runs made small, to be committed beside code."""

from __future__ import annotations

from pathlib import Path

import click

from cof.cli._options import folder, place


def _out(ctx: click.Context, option: click.Parameter, path: Path) -> Path | None:
    """A callback: a file where the name says so, else a folder."""
    return (place if path.suffix == ".zip" else folder)(ctx, option, path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=_out,
    help="A folder for their folders, or NAME.zip: one archive of them.",
)
def pack(runs: tuple[Path, ...], out: Path) -> None:
    """Copy finished run folders to OUT, their records compressed, to be kept beside code.

    What `cof report`, `compare` and `score` need stays; they read packed runs as they are. An
    archive is unpacked first: python -m zipfile -e NAME.zip FOLDER.
    """
    from cof.store import pack as packing

    archive = out.suffix == packing.ARCHIVE
    for packed in [packing.pack_archive(runs, out)] if archive else packing.pack_runs(runs, out):
        click.echo(packed)
