"""Errors that a user can cause and mend: one line that says what was wrong, the value, the fix.

Values out of foreign files stand in it on one line, without control characters, and cut.
"""

from __future__ import annotations

import reprlib
from typing import Any


class CofError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""


class ConfigError(CofError):
    """A config names an unknown key, has a wrong type or an impossible value."""


class DataError(CofError):
    """A benchmark folder, image, or answer file is not what it should be; names the file."""


class ModelError(CofError):
    """A checkpoint cannot be found, recognised or loaded."""


class AnswerError(CofError):
    """A question cannot be answered: it is empty or too long, or a pass computed NaN or inf."""


class RunError(CofError):
    """A run folder belongs to another config, is incomplete, or had questions that failed."""


MOST = 80
"""Characters of a value in a message."""

_REPR = reprlib.Repr()  # and not `repr`, which a deeply nested value takes beyond Python's stack
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = MOST
_REPR.maxlist = _REPR.maxdict = _REPR.maxtuple = 20


def shown(value: Any) -> str:
    """A value as Python writes it, at most `MOST` characters."""
    return cut(_REPR.repr(value))


def cut(text: str, most: int = MOST) -> str:
    """A text on one line, at most `most` characters; what cannot be printed is escaped."""
    signs = (sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text.split()))
    line = "".join(signs)
    return line if len(line) <= most else f"{line[: most - 3]}..."
