"""Values out of foreign files as messages show them: one line, no control characters, cut."""

from __future__ import annotations

import reprlib
from typing import Any

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
