"""Build the documentation as a site: the documents of the repository, and the public docstrings.

    python scripts/build_site.py OUT

The documents are laid out in a temporary folder as in the repository, so that their links hold.
What they link to comes along: documents and pictures as they are, notebooks and source files as
pages, folders as lists of the documents in them. A link that leads nowhere ends the build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import messages

import cof

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "docs" / "mkdocs.yml"
FIRST = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "results/README.md",
    "base_models/README.md",
    "examples/tour.ipynb",
    "docs/site.css",
)
"""Files besides the documents of docs/ that are part of the site by themselves."""

LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
NOTEBOOK = ".ipynb"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".json": "json", "": "text"}
PYTHON = "docs/python.md"
"""The page made from docstrings."""
MESSAGES = "docs/messages.md"
"""The page made from the texts of errors."""


def lay_out(folder: Path) -> None:
    """Write all documents, and what they link to, below a folder.

    Raises:
        SystemExit: a link leads nowhere, or out of the repository.
    """
    waiting = [*FIRST, *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
    done: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in done:
            done.add(name)
            waiting += bring(name, folder)
    write(folder / PYTHON, python_page())
    write(folder / MESSAGES, messages.page())


def bring(name: str, folder: Path) -> list[str]:
    """Lay out one path of the repository; returns what it links to.

    A document comes with its links rewritten, a folder as a list of the documents in it, a source
    file as a page, anything else as it is.
    """
    source = ROOT / name
    if source.is_dir():
        pages = sorted(source.rglob("*.md"))
        paths = [page.relative_to(source).as_posix() for page in pages]
        lines = [f"- [{path}]({path})" for path in paths]
        write(folder / name / "index.md", "\n".join([f"# {name}", "", *lines, ""]))
        return [page.relative_to(ROOT).as_posix() for page in pages]
    if source.suffix in LANGUAGES:
        fence = f"````{LANGUAGES[source.suffix]}\n{source.read_text(encoding='utf-8')}\n````\n"
        write(folder / f"{name}.md", f"# {name}\n\n{fence}")
        return []
    if source.suffix in (".md", NOTEBOOK):
        text = source.read_text(encoding="utf-8")
        if source.suffix == NOTEBOOK:
            page, text = folder / f"{name}.md", notebook(json.loads(text)["cells"])
        else:
            page = folder / name
        write(page, LINK.sub(lambda found: rewritten(name, found), text))
        return list(targets(name, text))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder / name)
    return []


def notebook(cells: list[dict[str, Any]]) -> str:
    """The cells of a notebook as one document, with what they printed and drew."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        outputs = cell.get("outputs", [])
        if printed := "".join("".join(one.get("text", "")) for one in outputs):
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for one in outputs:
            for kind, drawn in one.get("data", {}).items():
                if kind.startswith("image/"):
                    data = "".join("".join(drawn).split())
                    parts.append(f'<img src="data:{kind};base64,{data}" alt="figure">')
    return "\n\n".join([*parts, ""])


def targets(name: str, text: str) -> Iterator[str]:
    """What a document links to within the repository, as paths from its root."""
    for found in LINK.finditer(text):
        if not found[2].startswith(("http:", "https:", "mailto:")):
            yield target_of(name, found[2])


def target_of(name: str, link: str) -> str:
    """The path that a relative link of a document means, from the repository's root."""
    path = os.path.normpath(os.path.join(os.path.dirname(name), link))
    if path.startswith("..") or not (ROOT / path).exists():
        sys.exit(f"{name}: the link {link} leads nowhere")
    return path


def rewritten(name: str, found: re.Match[str]) -> str:
    """A link as the site has it: of a source file or a folder the page that shows it."""
    before, link, anchor, after = found[1], found[2], found[3] or "", found[4]
    if link.startswith(("http:", "https:", "mailto:")):
        return found[0]
    target = ROOT / target_of(name, link)
    if target.is_dir():
        link = f"{link.rstrip('/')}/index.md"
    elif target.suffix in (*LANGUAGES, NOTEBOOK):
        link = f"{link}.md"
    return f"{before}{link}{anchor}{after}"


def python_page() -> str:
    """The public names, each with the docstring of where it is defined."""
    parts = [
        "# Python",
        "",
        "What `from cof import ...` gives, and the `Outcome` that a `CoF` returns;",
        "[From Python](api.md) shows them in use.",
        "",
    ]
    places = {"CoF": "", "Outcome": "cof.outcome.outcome", **cof._PUBLIC}
    for name, module in places.items():
        parts += [f"::: {module}.{name}", ""]
    return "\n".join(parts)


def unlisted() -> list[str]:
    """Documents of docs/ that the navigation does not name; they stand at its end."""
    listed = CONFIG.read_text(encoding="utf-8")
    pages = [f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in pages if f": {page}\n" not in listed]


def write(file: Path, text: str) -> None:
    """Write a file, its folder too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def build(out: Path) -> None:
    """Build the site.

    Raises:
        mkdocs.exceptions.Abort: a warning, such as a link or an anchor that leads nowhere.
    """
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "documents"
        lay_out(folder)
        config = load_config(
            str(CONFIG), docs_dir=str(folder), site_dir=str(out.resolve()), strict=True
        )
        config.nav += [{"More": unlisted()}] if unlisted() else []
        config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(ROOT)]
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build_site(config)
        finally:
            config.plugins.on_shutdown()


def main() -> None:
    """Build into the folder that is named."""
    parser = argparse.ArgumentParser(description="Build the documentation as a site.")
    parser.add_argument("out", type=Path, help="folder of the site; what is there is replaced")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
