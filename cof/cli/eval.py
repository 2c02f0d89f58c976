"""`cof eval`: plain and CoF over a benchmark, from a YAML config."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from cof.cli._options import COUNT, quiet
from cof.errors import ConfigError

STOPPED = 130
"""Exit code after Ctrl-C, as a shell has it."""


@click.command(name="eval")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--strict", is_flag=True, help="Stop at the first question that fails.")
@click.option("--overwrite", is_flag=True, help="Start anew where the run folder exists.")
@click.option("--retry-failed", is_flag=True, help="Ask the questions again that failed.")
@click.option("--dry-run", is_flag=True, help="Say what would be asked, and write nothing.")
@click.option("--trial", type=COUNT, help="With --dry-run: time this many questions, too.")
@quiet
def eval(
    config: Path,
    overrides: tuple[str, ...],
    strict: bool,
    overwrite: bool,
    retry_failed: bool,
    dry_run: bool,
    trial: int | None,
) -> None:
    """Ask a benchmark's questions plainly and with CoF, as the YAML file CONFIG says.

    KEY=VALUE changes the config, as in refine.weight=2. The same command goes on where it was
    stopped. Exit code: 0 all answered, 1 some questions failed, 2 the run could not be made,
    130 stopped by Ctrl-C. Started by torchrun or accelerate launch, processes share the work.
    """
    if trial and not dry_run:
        raise ConfigError(f"--trial {trial}: belongs to --dry-run")
    try:
        if dry_run:
            _dry_run(config, overrides, overwrite, trial)
            return
        failed = _eval(config, overrides, strict, overwrite, retry_failed)
    except KeyboardInterrupt:
        click.echo("cof: stopped; the same command goes on from here", err=True)
        sys.exit(STOPPED)
    sys.exit(int(failed))


def _eval(
    path: Path, overrides: tuple[str, ...], strict: bool, overwrite: bool, retry_failed: bool
) -> bool:
    from cof.analyse.failures import message
    from cof.analyse.gather import overview
    from cof.analyse.scores import notes, table
    from cof.config import plugins, schema
    from cof.evaluate.runner import Options, run
    from cof.store.folder import ANSWERS, FILES
    from cof.store.launch import Ranks

    settings = schema.load(path, overrides)
    command = shlex.join(["cof", *sys.argv[1:]])
    done = run(settings, Options(strict, overwrite, retry_failed, command))
    if not Ranks.here().leads:
        return False
    bench = plugins.load("bench", settings.names["bench"])
    click.echo(table(bench, done.scores, done.results))
    click.echo(f"written to {done.path}: {', '.join(FILES)}, {ANSWERS}/")
    for note in notes(done.scores):
        click.echo(f"note: {note}", err=True)
    if overview(done.results).errors:
        click.echo(f"cof: {message([done])}", err=True)
    return bool(overview(done.results).errors)


def _dry_run(
    path: Path, overrides: tuple[str, ...], overwrite: bool, questions: int | None
) -> None:
    from cof.config import schema
    from cof.evaluate import dry_run

    settings = schema.load(path, overrides)
    plan = dry_run.plan(settings, overwrite)
    left = sum(map(len, plan.left))
    lines = plan.lines()
    if not left:
        lines.append("time       nothing is left to ask")
    elif questions:
        lines += dry_run.trial(settings, plan.left, questions).lines(left)
    else:
        lines.append("time       and memory are not known without a trial: add --trial 32")
    click.echo("\n".join(lines))
