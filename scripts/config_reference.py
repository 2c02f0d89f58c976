"""Write docs/config.md: every key of a config, from the dataclasses that read it.

python scripts/config_reference.py          # write it
python scripts/config_reference.py --check  # exit code 1 where it is not current
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from cof.config import plugins
from cof.config.general import Gate, General, Images, Subset
from cof.config.sections import DEFAULT_NAMES, KINDS
from cof.models.base import Limits
from cof.regions.boxes import BoxConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "config.md"

HEAD = """# Keys of a config

Made from the code by `scripts/config_reference.py`; a test keeps it current. A config is YAML with
the sections below, and [forkme.yaml](../examples/configs/forkme.yaml) is one to copy. On a command
line `section.key=value` sets any key. What is left out has its default; an unknown key, a wrong
type or an impossible value is an error that says what exists. From Python the keys are keywords of
`CoF.from_pretrained` ([API](api.md#keywords)).
"""

SECTIONS = {
    "model": "Which model: `model.name` is one of `cof/models/`, or a module or file of yours.",
    "bench": "Which benchmark: `bench.name` is one of `cof/bench/`, or yours. It has to be named.",
    "locate": "The coarse stage: `locate.name` is one of `cof/locate/`, or yours.",
    "refine": "The fine stage: `refine.name` is one of `cof/refine/`, or yours.",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## The run\nKeys outside any section.\n", table(General, "")]
    for section, kind in KINDS.items():
        parts += [f"## `{section}`\n{SECTIONS[section]}\n", *plug_ins(section, kind)]
    for section, kind, said in (
        ("images", Images, "How pictures are opened."),
        ("boxes", BoxConfig, "From boxes to visual tokens."),
        ("limits", Limits, "Decoding of the answers, plain and highlighted alike."),
        ("gate", Gate, "Only doubtful questions are asked again; without this section all are."),
    ):
        parts += [f"## `{section}`\n{said}\n", table(kind, section)]
    return "\n".join(parts)


def plug_ins(section: str, kind: str) -> Iterator[str]:
    """A part for each plug-in of a section, the default first."""
    usual = DEFAULT_NAMES.get(section, "")
    for name in sorted(plugins.names(kind), key=lambda one: (one != usual, one)):
        module = plugins.load(kind, name)
        first = (inspect.getdoc(module) or "").split("\n\n")[0]
        default = " (the default)" if name == usual else ""
        yield f"### `{section}.name: {name}`{default}\n{first}\n"
        yield table(module.Config, section)
    if section == "bench":
        yield "### With every benchmark\n"
        yield table(Subset, section)


def table(kind: type[Any], section: str) -> str:
    """A row a key: name, type, default, meaning."""
    rows = [row(kind, one, section) for one in fields(kind)]
    if not rows:
        return "No keys.\n"
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def row(kind: type[Any], one: Field[Any], section: str) -> str:
    """One key."""
    name = f"{section}.{one.name}" if section else one.name
    made = one.default_factory
    value = one.default if made is MISSING else made()
    default = "required" if value is MISSING else f"`{cell(yaml(value))}`"
    hint = typing.get_type_hints(kind)[one.name]
    return f"| `{name}` | {cell(spelled(hint))} | {default} | {cell(meaning(kind, one.name))} |"


def yaml(value: Any) -> str:
    """A default as a config has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return '""' if not value else value.replace("\n", "\\n")
    if is_dataclass(value):
        keys = sorted(asdict(value).items(), key=lambda one: one[0] != "name")
        kept = [f"{key}: {yaml(one)}" for key, one in keys if key == "name" or len(keys) < 4]
        return f"{{{', '.join(kept)}}}" if kept else "its defaults"
    return f"[{', '.join(map(yaml, value))}]" if isinstance(value, tuple) else str(value)


NAMES = {int: "integer", float: "number", str: "text", bool: "true, false", type(None): "null"}


def spelled(hint: Any) -> str:
    """A type in words."""
    if hint in NAMES:
        return NAMES[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{yaml(one)}`" for one in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(spelled, inner))
    if origin in (tuple, list):
        return f"list of {spelled(inner[0])}"
    return f"keys of `{plugin_of(hint)}`"


def plugin_of(kind: type[Any]) -> str:
    """Which stage a `Config` inside another is of."""
    named = [one.default for one in fields(kind) if one.name == "name"]
    return str(named[0]) if named else kind.__module__.rpartition(".")[2]


def meaning(kind: type[Any], name: str) -> str:
    """What a docstring says of a key, its own class's before those that it derives from."""
    for one in kind.__mro__:
        doc = inspect.cleandoc(one.__doc__ or "") if "__doc__" in vars(one) else ""
        found = re.search(
            rf"^ *(?:`\w+\.{name}`|{name}): (.*(?:\n {{4,}}(?! *\w+: ).*)*)", doc, re.M
        )
        if found:
            return " ".join(found[1].split())
    return ""


def cell(text: str) -> str:
    """A text that stays in its cell."""
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page, or hold it against the code."""
    parser = argparse.ArgumentParser(description="Write docs/config.md from the code.")
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.name} is not current; python scripts/config_reference.py writes it")


if __name__ == "__main__":
    main()
