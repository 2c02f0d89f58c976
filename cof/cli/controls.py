"""`cof controls`: a setting and all its controls over the same questions, side by side."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from cof.cli._options import COUNT, quiet


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--rows", type=COUNT, default=64, show_default=True, help="Most rows in one fine pass (memory)."
)
@click.option("--strict", is_flag=True, help="Stop at the first question that fails.")
@click.option("--overwrite", is_flag=True, help="Start anew where the run folders exist.")
@click.option("--retry-failed", is_flag=True, help="Ask the questions again that failed.")
@quiet
def controls(
    config: Path,
    overrides: tuple[str, ...],
    rows: int,
    strict: bool,
    overwrite: bool,
    retry_failed: bool,
) -> None:
    """Run the YAML file CONFIG, then the same with other regions, and compare.

    Controls: the true boxes, the whole image, the own boxes moved elsewhere, another question's
    boxes, the centre. The same command goes on where it was stopped.
    """
    from cof.analyse.failures import message
    from cof.evaluate.controls import ControlsPage, run_controls
    from cof.evaluate.runner import Options
    from cof.store.launch import Ranks

    command = shlex.join(["cof", *sys.argv[1:]])
    done = run_controls(config, overrides, Options(strict, overwrite, retry_failed, command, rows))
    if not Ranks.here().leads:
        return
    page = ControlsPage(done)
    written = page.write()
    click.echo("\n".join([page.table().text(), "", *page.notes()]))
    folders = ", ".join(f"{name}/" for name in done.runs)
    click.echo(f"written to {done.folder}: {', '.join(path.name for path in written)}, {folders}")
    failed = message(list(done.runs.values()))
    if failed:
        click.echo(f"cof: {failed}", err=True)
    sys.exit(int(bool(failed)))
