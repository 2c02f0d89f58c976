"""`cof tune`: values that are chosen on data of their own, never on those that are reported."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click

from cof.cli._options import place, quiet
from cof.cli.tune_heads import heads
from cof.errors import ConfigError


@click.group()
def tune() -> None:
    """Choose a setting on a development split."""


tune.add_command(heads)


@tune.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN_OR_CONFIG")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--within",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Points of accuracy given away for asking fewer.",
)
@click.option(
    "--share", type=click.FloatRange(0, 1), help="Ask about this share instead, as 0.2 is a fifth."
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    callback=place,
    help="Also write the whole config with the gate in it; then set bench.root to other data.",
)
@quiet
def gate(
    source: Path,
    overrides: tuple[str, ...],
    within: float,
    share: float | None,
    write: Path | None,
) -> None:
    """Choose the threshold of the doubt gate on the answers of a run.

    RUN is the folder of one made with gate.threshold=null and plain=true, which asks every
    question; of a CONFIG such a run is made first. Prints the `gate` section. It names the data
    that chose it, and a run over those data is refused.
    """
    from cof.analyse.gate import choose_on
    from cof.config import identity, schema
    from cof.config.general import Gate
    from cof.config.yaml import dump_yaml
    from cof.evaluate.runner import Options, run
    from cof.files import write_whole
    from cof.store.dataset import benchmark_hash
    from cof.store.run import load_run

    if source.is_dir():
        if overrides:
            raise ConfigError(f"{source}: a run is what it is; KEY=VALUE goes with a config")
        done = load_run(source)
        config = schema.resolve(identity.renamed(done.config))
    else:
        config = schema.load(source, overrides)
        asks_all = config.with_({"gate.threshold": None, "plain": True})
        done = run(asks_all, Options(command=shlex.join(["cof", *sys.argv[1:]])))
    chosen = choose_on(done, within / 100, share)
    found = Gate(chosen.threshold, benchmark_hash(config))
    click.echo(dump_yaml({"gate": asdict(found)}), nl=False)
    click.echo(
        f"# asks {100 * chosen.asked:.1f} % of {chosen.n} questions; accuracy on them: plain "
        f"{100 * chosen.plain:.2f}, gated {100 * chosen.gated:.2f}, all asked "
        f"{100 * chosen.all:.2f} %"
    )
    if write:
        settings = {**config.as_dict(), "gate": asdict(found), "name": None}
        write_whole(write, dump_yaml(settings))
