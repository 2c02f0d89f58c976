"""`cof cache`: the coarse replies that are kept between runs."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT = Path("runs") / "replies.sqlite"


@click.group()
def cache() -> None:
    """List or clear the coarse replies that are kept between runs."""


@cache.command("list")
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT)
def list_replies(file: Path) -> None:
    """Print how many replies FILE holds for each model."""
    from tabulate import tabulate

    from cof.store.replies import ReplyCache

    rows = ReplyCache(file).rows()
    click.echo(tabulate(rows, ("model", "stage", "replies")) if rows else f"{file}: no replies")


@cache.command()
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT)
@click.option("--model", help="Only the replies of this model.")
def clear(file: Path, model: str | None) -> None:
    """Forget the replies in FILE."""
    from cof.store.replies import ReplyCache

    click.echo(f"{file}: {ReplyCache(file).clear(model)} replies forgotten")
