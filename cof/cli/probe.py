"""`cof probe`: where a run's answer passes looked, before and after the highlight."""

from __future__ import annotations

from pathlib import Path

import click

from cof.cli._options import COUNT, folder, quiet
from cof.errors import ConfigError, RunError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--limit", type=COUNT, default=100, show_default=True, help="Most questions, evenly spaced."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=folder,
    help="Folder; default: that of the run.",
)
@quiet
def probe(run: Path, limit: int, out: Path | None) -> None:
    """Load the model of RUN again and measure attention on the tokens that it highlighted.

    Writes attention.md, .csv, .tex and .png.
    """
    from cof.analyse import attention
    from cof.analyse.naming import hash_names
    from cof.analyse.page import write_page
    from cof.config import plugins, schema
    from cof.evaluate.probe import measure
    from cof.evaluate.progress import progress
    from cof.store.dataset import pictures
    from cof.store.origin import identify, identity_of
    from cof.store.run import load_run, run_hash

    loaded = load_run(run)
    if not loaded.results:
        raise RunError(f"{run}: no records yet")
    config = schema.resolve(loaded.config)
    if config.names["refine"] != "highlight":
        raise ConfigError(
            f"{run}: refine.name is {config.names['refine']!r}; probes highlight only"
        )
    there, here = identity_of(loaded.manifest).get("weights"), identify(config)["weights"]
    if there not in (None, here):
        raise RunError(f"{run}: made with other weights ({there} there, {here} here)")
    lit = [result for result in loaded.results if result.cells]
    if not lit:
        raise RunError(f"{run}: no question of which a visual token was highlighted")
    chosen = [
        lit[place * len(lit) // min(limit, len(lit))] for place in range(min(limit, len(lit)))
    ]
    model = plugins.load("models", config.names["model"]).load(config.model)
    exif = schema.exif_of(loaded.config)
    found = measure(model, chosen, pictures(config), config.refine, exif)
    masses = []
    with progress(len(chosen), "question", run.name) as bar:
        for mass in found:
            masses.append(mass)
            bar.update()
    whose = attention.QUERIES if model.space == "cross" else attention.LAST
    table = attention.table(masses, whose)
    figure = attention.figure(masses, hash_names([run_hash(loaded)]))
    note = f"{len(chosen)} of {len(lit)} questions with a highlight, run {run_hash(loaded)}."
    written = write_page(out or run, "attention", table, figure, [note])
    click.echo(f"{table.text()}\n\n{note}\nwritten: {', '.join(map(str, written))}")
