"""Text of models, data and file names on our pages: it stands there as text and does nothing.

Answers, question ids, categories and folder names come from outside; a page must not show a picture
from the net because a model wrote `![](http://...)`. Plain text escapes to itself.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Signs that turn the direction of what follows, so that it reads as something else."""

_MARKDOWN = {
    **{sign: f"\\{sign}" for sign in "\\|`*[]"},
    **{"&": "&amp;", "<": "&lt;"},
}
_BLOCK = re.compile(r"^(\s*)(#+(?=\s)|>|[-+](?=\s))")
"""What makes a line a heading, a quotation or an item of a list."""
_FORMULA = tuple("=+-@＝＋－＠")


def clean(text: str) -> str:
    """On one line, without control signs, changes of direction and halves of characters."""
    return "".join(_visible(sign) for sign in text)


def _visible(sign: str) -> str:
    if sign in _LINE_ENDS:
        return " "
    hidden = sign in _BIDI or unicodedata.category(sign) in ("Cc", "Cs")
    return "\ufffd" if hidden else sign


def markdown(text: str) -> str:
    """For a cell, a heading, a caption or a line of text: no HTML, links, pictures or columns."""
    line = "".join(_MARKDOWN.get(sign, sign) for sign in clean(text))
    return _BLOCK.sub(r"\1\\\2", line)


def code(text: str) -> str:
    """For between backticks."""
    return clean(text).replace("`", "'")


def latex(text: str) -> str:
    """For LaTeX, as tabulate escapes its cells."""
    from tabulate import LATEX_ESCAPE_RULES

    return "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in clean(text))


def cell(text: str) -> str:
    """For CSV: what a spreadsheet would take for a formula is text; numbers stay numbers."""
    line = clean(text)
    formula = line.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(line.strip())
    return f"'{line}" if formula else line


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")
