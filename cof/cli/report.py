"""`cof report`: tables, figures and a gallery of runs, from their records."""

from __future__ import annotations

from pathlib import Path

import click

from cof.cli._options import SEED, folder


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=folder,
    help="Folder; default: report/ in the first run.",
)
@click.option("--latex", is_flag=True, help="Also tables/*.tex (booktabs) and figures/*.pdf.")
@click.option("--csv", is_flag=True, help="Also tables/*.csv, all digits.")
@click.option("--brief", is_flag=True, help="Without what concerns one run alone, for large grids.")
@click.option(
    "--gallery",
    type=click.IntRange(0),
    default=6,
    show_default=True,
    help="Most pictures of a kind and run.",
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="The benchmark's folder, where it has moved."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the intervals.")
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    latex: bool,
    csv: bool,
    brief: bool,
    gallery: int,
    images: Path | None,
    seed: int,
) -> None:
    """Write report.md about run folders: every number with its n and interval."""
    from cof.analyse.report import ReportOptions, write_report
    from cof.store.run import load_run

    loaded = [load_run(path) for path in runs]
    options = ReportOptions(latex, csv, gallery, images, seed, brief)
    written = write_report(loaded, out or runs[0] / "report", options)
    for path in written:
        click.echo(path)
