"""The error texts that the package's code spells out, as a page of the site."""

from __future__ import annotations

import ast
import html
import inspect
from collections.abc import Iterator
from pathlib import Path

from cof import errors

ROOT = Path(__file__).resolve().parents[1]
KINDS = {name for name, _ in inspect.getmembers(errors, inspect.isclass)} | {
    *("DiskError", "ValueError", "BadParameter", "UsageError")
}
FILLED = "…"
"""Stands for what a message fills in."""


def page() -> str:
    """The document: a table for each package, the messages in alphabetical order."""
    parts = [
        "# Every message",
        "",
        "The texts of errors as they stand in the code: a browser's search finds the one you have.",
        f"{FILLED} stands for what is filled in. [Errors](errors.md) explains the common ones.",
    ]
    found: dict[str, set[tuple[str, str]]] = {}
    for file in sorted((ROOT / "cof").rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        for text in messages(file.read_text(encoding="utf-8")):
            found.setdefault("/".join(name.split("/")[:-1][:2]), set()).add((text, name))
    for package, rows in found.items():
        parts += ["", f"## {package}", "", "| message | raised in |", "|---|---|"]
        parts += [f"| {cell(text)} | `{name}` |" for text, name in sorted(rows, key=by_words)]
    return "\n".join([*parts, ""])


def by_words(row: tuple[str, str]) -> str:
    """What a message is sorted by: not by what it fills in."""
    return row[0].lstrip(f"{FILLED}: ").lower()


def cell(text: str) -> str:
    """A message in a cell of a table."""
    escaped = html.escape(text, quote=False).replace("|", "&#124;").replace("`", "&#96;")
    return f"<code>{' '.join(escaped.split())}</code>"


def messages(source: str) -> Iterator[str]:
    """The texts that a module's exceptions, and `error=` of results, are made with.

    None where the text comes from elsewhere.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = node.args[:1] if called(node.func) in KINDS else []
            given += [one.value for one in node.keywords if one.arg == "error"]
            yield from filter(says_something, map(written, given))


def says_something(text: str) -> bool:
    """Whether there is more to it than what is filled in."""
    return bool(text.strip(f"{FILLED} :()"))


def called(node: ast.expr) -> str:
    """The last name of what is called."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def written(node: ast.expr) -> str:
    """What of an expression is text in the code."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return FILLED
