"""`cof data`: mini benchmarks of the embedded world."""

from __future__ import annotations

from pathlib import Path

import click

from cof.cli._options import COUNT, SEED, folder, quiet
from cof.cli.data_check import check
from cof.cli.data_fetch import fetch


@click.group()
def data() -> None:
    """Mini benchmarks, checks of benchmark folders."""


data.add_command(check)
data.add_command(fetch)


@data.command()
@click.argument("out", type=click.Path(path_type=Path), callback=folder)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Other seeds give other scenes."
)
@click.option("--size", type=COUNT, default=60, show_default=True, help="Images of each part.")
@click.option(
    "--difficulty",
    type=click.Choice(["easy", "fine", "crowded", "noise"]),
    default="fine",
    show_default=True,
    help="Large objects; small targets; many distractors; the same under noise.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["MiniMME", "MiniPOPE", "MiniMMBench", "MiniVStar", "grounding"]),
    help="This one alone, or several: --only MiniMME --only MiniPOPE. Default: all.",
)
@quiet
def mini(out: Path, seed: int, size: int, difficulty: str, only: tuple[str, ...]) -> None:
    """Draw MiniMME, MiniPOPE, MiniMMBench, MiniVStar and a grounding set into OUT.

    What OUT holds already, drawn with the same settings, is kept.
    """
    from cof_lab.mini.common import MiniConfig
    from cof_lab.mini.write import PARTS, write_all

    config = MiniConfig(seed=seed, size=size, difficulty=difficulty)
    counts = write_all(out, config, only or tuple(PARTS), progress=True)
    for name, count in counts.items():
        click.echo(f"{out / name}: {count} questions")
