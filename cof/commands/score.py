"""`cof score`: score answer files, ours or LLaVA's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import yaml
from tabulate import tabulate

from cof import plugins
from cof.errors import ConfigError


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

    KEY=VALUE sets an option of the benchmark's config, as in `parser=word` for POPE.
    """
    module = plugins.load("bench", benchmark)
    named = {"root": root, "questions": questions}
    config = _config(module, benchmark, named, options)
    found = module.read_answers(path, config, allow_missing)
    scores = module.score(found.questions, found.texts, config)
    if found.missing:
        scores = {**scores, "unanswered": len(found.missing)}
    click.echo(json.dumps(scores, indent=2) if as_json else _text(module.table(scores)))
    _notes(scores)


def _config(
    module: Any, benchmark: str, named: dict[str, str | None], options: tuple[str, ...]
) -> Any:
    """The benchmark's Config from the options that were given."""
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"{option!r} is not KEY=VALUE")
        given[key] = yaml.safe_load(value)
    known = [field.name for field in dataclasses.fields(module.Config)]
    for key in given:
        if key not in known:
            raise ConfigError(f"{benchmark} has no option {key!r}; there is: {', '.join(known)}")
    return module.Config(**{"root": "", **given})


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
