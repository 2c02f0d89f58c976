"""`cof score`: score answer files, ours or LLaVA's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from cof import plugins
from cof.errors import ConfigError


@click.command()
@click.argument("benchmark")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--ground-truth", "root", help="Where the right answers are, if not in PATH.")
@click.option("--questions", help="LLaVA's question file, where the benchmark has one.")
@click.option("--allow-missing", is_flag=True, help="Score what is answered, say what is not.")
@click.option("--json", "as_json", is_flag=True, help="Print every metric with all digits.")
def score(
    benchmark: str,
    path: Path,
    root: str | None,
    questions: str | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Score the answers in PATH by the published rules of BENCHMARK."""
    module = plugins.load("bench", benchmark)
    config = _config(module, benchmark, {"root": root or "", "questions": questions})
    found = module.read_answers(path, config, allow_missing)
    scores = module.score(found.questions, found.texts)
    if found.missing:
        scores = {**scores, "unanswered": len(found.missing)}
    click.echo(json.dumps(scores, indent=2) if as_json else _text(module.table(scores)))
    _notes(scores)


def _config(module: Any, benchmark: str, options: dict[str, str | None]) -> Any:
    """The benchmark's Config from the options that were given."""
    given = {name: value for name, value in options.items() if value is not None}
    known = [field.name for field in dataclasses.fields(module.Config)]
    for name in given:
        if name not in known:
            raise ConfigError(f"{benchmark} has no option {name!r}; there is: {', '.join(known)}")
    return module.Config(**given)


def _text(rows: list[tuple[str, float, int]]) -> str:
    """Rows as a table."""
    return tabulate(rows, headers=["measure", "value", "n"], floatfmt=".4f")


def _notes(scores: dict[str, Any]) -> None:
    """What a reader of the numbers has to know, on the error stream."""
    if scores.get("missing_subtasks"):
        names = ", ".join(scores["missing_subtasks"])
        click.echo(f"note: not in this data, and not in the sums: {names}", err=True)
    if scores.get("unanswered"):
        click.echo(f"note: {scores['unanswered']} questions without an answer left out", err=True)
