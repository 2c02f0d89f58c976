"""`cof score`: score answer files, LLaVA's or ours, and runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from tabulate import tabulate

from cof.analyse.scores import notes, without_answers
from cof.cli._config import bench_config
from cof.config import plugins
from cof.errors import RunError


@click.command()
@click.argument("benchmark")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.argument("options", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    *("--ground-truth", "--labels", "--tsv", "root"),
    help="Where the right answers are, if not in PATH: file or folder.",
)
@click.option("--questions", help="LLaVA's question file, where the benchmark has one.")
@click.option("--allow-missing", is_flag=True, help="Score what is answered, say what is not.")
@click.option("--json", "as_json", is_flag=True, help="Print every metric with all digits.")
def score(
    benchmark: str,
    path: Path,
    options: tuple[str, ...],
    root: str | None,
    questions: str | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Score the answers in PATH by the published rules of BENCHMARK.

    PATH is an answer file or folder in a published format, or a run folder of `cof eval`.
    KEY=VALUE sets an option of the benchmark's config, as in `parser=word` for POPE. Exit code: 1
    where every answer of a pass failed, so that it has no score.
    """
    bench = plugins.load("bench", benchmark)
    if (path / "config.yaml").is_file():
        scores, text = _run(bench, benchmark, path, options, allow_missing)
    else:
        named = {"root": root or "", "questions": questions}
        config = bench_config(bench, benchmark, named, options)
        found = bench.read_answers(path, config, allow_missing)
        scores = bench.score(found.questions, found.texts, config)
        scores |= {"unanswered": len(found.missing)} if found.missing else {}
        text = tabulate(bench.table(scores), ["", "points", "n"], floatfmt=".2f")
    click.echo(json.dumps(scores, indent=2) if as_json else text)
    for note in notes(scores):
        click.echo(f"note: {note}", err=True)
    if "failed" in scores and without_answers(scores):
        sys.exit(1)


def _run(
    bench: ModuleType, name: str, path: Path, options: tuple[str, ...], allow_missing: bool
) -> tuple[dict[str, Any], str]:
    """Scores of a run from its records alone, as JSON and as text."""
    from cof.analyse.scores import summary, table
    from cof.store.dataset import own_keys
    from cof.store.run import load_run, unfinished

    run = load_run(path)
    if run.config["bench"]["name"] != name:
        raise RunError(f"{path}: a run of {run.config['bench']['name']}, not of {name}")
    section = own_keys(run.config["bench"])
    missing = unfinished(run)
    if missing and not (allow_missing and run.results):
        total = len(run.results) + missing
        raise RunError(
            f"{path}: {len(run.results)} of {total} questions have a record; `cof eval` goes on "
            "with the others, --allow-missing scores without them"
        )
    config = bench_config(bench, name, section, options)
    scores = summary(bench, run.results, run.config["plain"], run.config["seed"], config)
    scores |= {"unanswered": missing} if missing else {}
    return scores, table(bench, scores, run.results)
