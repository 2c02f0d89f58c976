"""Text from models, data and visitors as HTML, in which it does nothing but stand there."""

from __future__ import annotations

import html

from cof.analyse.escape import clean

_TEMPLATE = {"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"}
"""Signs that a template of the page might take for its own."""


def safe(text: str, most: int = 4000) -> str:
    """A text for HTML, quotes included, cut behind `most` characters."""
    shown = clean(text if len(text) <= most else f"{text[:most]} …")
    return "".join(_TEMPLATE.get(sign, sign) for sign in html.escape(shown))
