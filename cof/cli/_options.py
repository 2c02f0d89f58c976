"""Values of options, refused before any work begins: numbers in their range, places to write to."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from cof.errors import ConfigError

SEED = click.IntRange(0, 2**31 - 1)
COUNT = click.IntRange(1, 10**6)
"""Of questions, rows, images, rounds: what is looped over."""


class Positive(click.FloatRange):
    """A finite number above zero; click's own range lets `nan` through."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            click.BadParameter: zero, below, not finite, or no number.
        """
        number = click.FLOAT.convert(value, param, ctx)
        if not 0 < number < math.inf:
            self.fail(f"{value} must be positive and finite.", param, ctx)
        return number


def _quiet(ctx: click.Context, _option: click.Parameter, given: bool) -> None:
    """Keep progress away until the command ends."""
    if given:
        from cof.evaluate.progress import quiet as no_progress

        ctx.with_resource(no_progress())


quiet = click.option(
    "--quiet", is_flag=True, expose_value=False, callback=_quiet, help="No progress on stderr."
)
"""Decorator: an option of commands that show how far they are."""


def place(_ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """A callback for a file or folder that is written at the end.

    Raises:
        ConfigError: nothing can be made there.
    """
    if path is not None:
        there = next(one for one in (path.absolute(), *path.absolute().parents) if _exists(one))
        if there != path.absolute() and not there.is_dir():
            raise ConfigError(f"{name_of(option)} {path}: {there} is no folder")
        if not os.access(there, os.W_OK):
            raise ConfigError(f"{name_of(option)} {path}: {there} cannot be written (read-only)")
    return path


def folder(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """A callback for a folder that is written into, made where it does not exist.

    Raises:
        ConfigError: it cannot be one, or cannot be written.
    """
    if path is not None and _exists(path) and not path.is_dir():
        raise ConfigError(f"{name_of(option)} {path}: is no folder")
    return place(ctx, option, path)


def picture(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """A callback for a picture that matplotlib writes, in a folder that exists.

    Raises:
        ConfigError: an ending that it has no writer for, or nothing can be written there.
    """
    if path is None:
        return None
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise ConfigError(f"{name_of(option)} {path}: the ending must be one of {', '.join(kinds)}")
    if not _exists(path.absolute().parent):
        raise ConfigError(f"{name_of(option)} {path}: there is no folder {path.parent}")
    return place(ctx, option, path)


def name_of(option: click.Parameter) -> str:
    """What the user calls it: `--out`, `OUT`."""
    return option.opts[0] if isinstance(option, click.Option) else option.human_readable_name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long, or a part of it that may not be looked into
        raise ConfigError(f"{path}: {error.strerror}") from None
