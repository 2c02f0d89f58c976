"""The `cof` command: a table of subcommands, each imported only when it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import click

from cof.errors import CofError

COMMANDS = {
    "ask": "One question about one image, in two passes.",
    "answer": "Your own questions about a folder of images, one line of JSON an answer.",
    "app": "A page for that in the browser, and to step through runs.",
    "eval": "Plain and CoF over a benchmark, from a YAML config.",
    "sweep": "A grid of settings over the same questions, one table, one figure.",
    "controls": "A setting beside its controls: was it the region?",
    "tune": "Values chosen on a development split: the gate's threshold, attention heads.",
    "compare": "Paired differences between runs, with intervals and tests.",
    "report": "Tables, figures and a gallery of runs, from their records.",
    "pack": "Finished runs made small, to be committed.",
    "probe": "Attention on the region, before and after the highlight.",
    "score": "Score answer files, ours or LLaVA's.",
    "data": "Mini benchmarks, checks of benchmark folders.",
    "tiny": "Train, examine and export the embedded model.",
    "cache": "List or clear the coarse replies kept between runs.",
    "bench": "What CoF costs, in units of one plain pass, against the bars.",
    "doctor": "Check this installation; --parity compares with recorded numbers.",
}
"""Subcommand -> one line of help. `cof/cli/<name>.py` holds the click command `<name>`."""

FAILED = 2
"""Exit code where a command could not do what it was asked to."""

LONGEST = 2000
"""Most characters of an error message."""


class LazyGroup(click.Group):
    """A click group that reads its table first and imports a subcommand when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Subcommands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `cof.cli.<name>` and take its command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cof.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run a subcommand; an error that a user can mend becomes one line and exit code 2."""
        try:
            return super().invoke(ctx)
        except CofError as error:
            _say(str(error))
            ctx.exit(FAILED)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; what the system refuses (a full disk, `> /dev/full`) is one line too.

        Errors without a number are no message of the system but a bug, and stay what they are; a
        reader that went away (`| head`) is click's business.
        """
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno is None:
                raise
            _say(f"{error.filename or 'output'}: {error.strerror}")
            _forget_output()
            sys.exit(FAILED)


def _say(message: str) -> None:
    """One line to the user, whatever file names and values are quoted in it."""
    line = "".join(sign if sign.isprintable() else " " for sign in " ".join(message.split()))
    with contextlib.suppress(OSError):  # then nothing can be said
        click.echo(f"cof: {line if len(line) < LONGEST else line[:LONGEST] + ' ...'}", err=True)


def _forget_output() -> None:
    """Drop what could not be written, or Python tries again at its end, with a traceback."""
    with contextlib.suppress(OSError, ValueError):  # no real file, as under a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cof", prog_name="cof")
def main() -> None:
    """Coarse-to-fine image understanding: locate, highlight, answer."""
    if sys.platform == "win32":
        _say("Linux and macOS are supported; on Windows use WSL")
        sys.exit(FAILED)
