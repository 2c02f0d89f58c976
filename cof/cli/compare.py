"""`cof compare`: paired differences between runs, or between a run's two passes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cof.cli._options import SEED


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--pass",
    "which",
    type=click.Choice(["cof", "plain"]),
    default="cof",
    show_default=True,
    help="Which answers of the runs are compared.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the permutation test.")
@click.option("--allow-missing", is_flag=True, help="Compare what both have, say what is left out.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, all ids and all digits.")
def compare(
    runs: tuple[Path, ...], which: str, seed: int, allow_missing: bool, as_json: bool
) -> None:
    """Compare run folders question by question.

    One RUN: its CoF answers against its plain ones. Two: the second against the first. More: each
    against the first, p-values corrected by Holm's method. Below, of yes-or-no benchmarks: which
    answers were given, and how surely.
    """
    from cof.analyse.compare import compare_with_first, comparison_text, family_text
    from cof.analyse.naming import folder_names
    from cof.analyse.passes import scored_passes
    from cof.analyse.sections import explain
    from cof.store.run import load_run

    loaded = [load_run(path) for path in runs]
    passes: list[Any] = [(run, which) for run in loaded]
    if len(loaded) == 1:
        passes = [(loaded[0], "plain"), (loaded[0], "cof")]
    found = compare_with_first(scored_passes(passes, allow_missing), seed, allow_missing)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2, default=list))
        return
    click.echo(comparison_text(found[0]) if len(found) == 1 else family_text(found))
    tables, notes = explain(loaded, folder_names(loaded))
    for text in (*(f"{table.caption}\n\n{table.text()}" for table in tables), *notes):
        click.echo(f"\n{text}")
