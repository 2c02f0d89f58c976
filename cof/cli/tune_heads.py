"""`cof tune heads`: which attention heads localise, for `locate: {name: attention}`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cof.cli._options import COUNT, quiet

if TYPE_CHECKING:
    from cof.types import Question

SHOWN = 10
"""Heads in the table."""


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--top", type=COUNT, default=3, show_default=True, help="Heads that are taken, the best."
)
@quiet
def heads(config: Path, overrides: tuple[str, ...], top: int) -> None:
    """Rank the model's heads by how much of their attention lies in true boxes.

    CONFIG names the model and a development benchmark that has boxes. Prints the best heads and
    the `locate` section that takes them. It names the data that chose it, and a run over those
    data is refused.
    """
    import yaml

    from cof.config import plugins, schema
    from cof.evaluate.heads import rank
    from cof.evaluate.progress import progress
    from cof.locate import attention
    from cof.store.dataset import benchmark_hash, read_questions

    run = schema.load(config, overrides)
    questions = [one for one in read_questions(run) if one.boxes]
    model = plugins.load("models", run.names["model"]).load(run.model)
    with progress(len(questions), "question", "heads") as bar:
        found = rank(model, run, _told(questions, bar.update))
    over = getattr(run.locate, "over", attention.GENERIC)
    section = {
        "name": "attention",
        "over": over,
        "heads": [[one.layer, one.head] for one in found.heads[:top]],
        "chosen_on": benchmark_hash(run),
    }
    click.echo("# layer head  share in true boxes, %  hottest token in one, %")
    for one in found.heads[:SHOWN]:
        row = f"{one.layer:7} {one.head:4} {100 * one.share:22.1f} {100 * one.hits:24.1f}"
        click.echo(f"#{row[1:]}")
    click.echo(
        f"# {found.questions} questions with boxes, {found.failed} more failed; a map that is even "
        f"has {100 * found.chance:.1f} % in them"
    )
    said = yaml.safe_dump({"locate": section}, sort_keys=False, default_flow_style=None)
    click.echo(said, nl=False)


def _told(questions: Sequence[Question], update: Callable[[], None]) -> Iterator[Question]:
    """The questions, each counted when it is done."""
    for question in questions:
        yield question
        update()
