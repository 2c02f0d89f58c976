"""`cof sweep`: a grid of settings, a run folder a cell, one table and one figure."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from cof.cli._options import COUNT, quiet


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE[,VALUE]...")
@click.option(
    "--rows", type=COUNT, default=64, show_default=True, help="Most rows in one fine pass (memory)."
)
@click.option("--strict", is_flag=True, help="Stop at the first question that fails.")
@click.option("--overwrite", is_flag=True, help="Start anew where cells exist.")
@click.option("--retry-failed", is_flag=True, help="Ask the questions again that failed.")
@quiet
def sweep(
    config: Path,
    settings: tuple[str, ...],
    rows: int,
    strict: bool,
    overwrite: bool,
    retry_failed: bool,
) -> None:
    """Run the YAML file CONFIG once for every combination of values.

    weight=1,1.3,2 expand=1,1.5 scope=all,text layers=all,0-15 locate=prompt,oracle, any other
    setting by its dotted key. One value (bench.limit=50) holds for all. The same command goes on
    where it was stopped; further values add to the grid.
    """
    from cof.analyse.failures import message, spoilt
    from cof.analyse.grid import Grid
    from cof.evaluate.runner import Options
    from cof.evaluate.sweep import parse_settings, run_sweep
    from cof.store.launch import Ranks

    command = shlex.join(["cof", *sys.argv[1:]])
    options = Options(strict, overwrite, retry_failed, command, rows)
    done = run_sweep(config, *parse_settings(settings), options)
    if not Ranks.here().leads:
        return
    left_out = {run.path.name: why for run in done.runs if (why := spoilt(run))}
    kept = [run for run in done.runs if run.path.name not in left_out]
    if kept:
        grid = Grid(kept, left_out=left_out)
        written = grid.write(done.folder, "sweep")
        click.echo(grid.table.text())
        names = ", ".join(path.name for path in written)
        click.echo(f"written to {done.folder}: {names}, and {len(done.runs)} run folders")
    for name, why in left_out.items():
        click.echo(f"cof: {name} has no score: {why}", err=True)
    failed = message(done.runs)
    if failed:
        click.echo(f"cof: {failed}", err=True)
    sys.exit(int(bool(failed)))
