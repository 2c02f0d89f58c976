"""`cof data check`: is a benchmark's folder complete, and what it should be?"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click
from tabulate import tabulate

from cof.bench.common.completeness import FolderCheck, check_folder
from cof.cli._config import bench_config
from cof.config import plugins


@click.command()
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("options", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--open",
    "open_images",
    is_flag=True,
    help="Also decode every image, and compare annotated sizes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    name: str, root: Path, options: tuple[str, ...], open_images: bool, as_json: bool
) -> None:
    """Count the questions and images of benchmark NAME in ROOT, and verify known hashes.

    Says what is missing and where to get it. Exit code: 0 all is well, 1 it is not.
    """
    bench = plugins.load("bench", name)
    config = bench_config(bench, name, {"root": str(root)}, options)
    found = check_folder(bench, config, open_images)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "source": bench.SOURCE}, indent=2))
    else:
        click.echo(_text(name, found))
        for problem in found.problems:
            click.echo(f"problem: {problem}")
        if found.problems:
            click.echo(f"get {name} from: {bench.SOURCE}")
    sys.exit(int(bool(found.problems)))


def _text(name: str, found: FolderCheck) -> str:
    """Counts a category, then the totals."""
    rows = [(category or name, count) for category, count in found.questions.items()]
    total = f"{sum(found.questions.values())} questions, {found.images} images"
    return (
        f"{tabulate(rows, ['category', 'questions'])}\n\n{total}, {found.verified} files verified"
    )
