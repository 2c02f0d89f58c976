"""`cof pack`: finished runs made small, to be committed beside code."""

from __future__ import annotations

from pathlib import Path

import click

from cof.cli._options import folder


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=folder,
    help="Their folder.",
)
def pack(runs: tuple[Path, ...], out: Path) -> None:
    """Copy finished run folders to OUT, their records compressed, to be kept beside code.

    What `cof report`, `compare` and `score` need stays; they read packed runs as they are.
    """
    from cof.store.pack import pack_runs

    for packed in pack_runs(runs, out):
        click.echo(packed)
