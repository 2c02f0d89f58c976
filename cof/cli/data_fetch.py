"""`cof data fetch`: a benchmark from the Hugging Face Hub into its published layout."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cof.cli._options import folder, quiet


@click.command()
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path), callback=folder)
@click.option("--from", "repository", default="", help="Another copy: REPOSITORY or a folder.")
@click.option("--split", default="", help="refcoco: val, testA, ...; mmbench: en/dev, cn/dev, ...")
@quiet
def fetch(name: str, out: Path, repository: str, split: str) -> None:
    """Write benchmark NAME below OUT, as `cof data check` and `cof eval` expect it.

    Needs a network and `pip install 'cof[hub]'` (the package `datasets`).
    """
    from cof.bench.common.hub import fetch_benchmark
    from cof.evaluate.progress import drawn

    if not drawn():  # read by both libraries when they are imported
        os.environ |= {f"HF_{one}_DISABLE_PROGRESS_BARS": "1" for one in ("DATASETS", "HUB")}
    click.echo(f"written: {fetch_benchmark(name, out, repository, split)}")
