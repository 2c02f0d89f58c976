"""Documents made from the code, the site, and the notebook."""

import ast
import html
import json
import re
import runpy
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from cof import Box, CoF
from cof.config import plugins, schema
from cof.config.general import SUBSET
from cof.config.schema import resolve
from cof.config.sections import KINDS
from cof.errors import CofError
from cof.images import load_image
from cof.store.records import to_record
from cof.types import Gated, Question, Result

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
LINK = re.compile(r"\]\(([^)#\s]+)")


def script(name):
    sys.path.insert(0, str(ROOT / "scripts"))  # as `python scripts/NAME.py` has it
    try:
        return runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))
    finally:
        sys.path.pop(0)


def rows(page):
    """The cells of every table row of a page that begins with something quoted."""
    body = [line for line in page.splitlines() if line.startswith("| `")]
    return [[one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


class TestConfigReference:
    def test_the_page_is_current(self):
        found = script("config_reference")["page"]()
        assert (DOCS / "config.md").read_text(encoding="utf-8") == found, (
            "python scripts/config_reference.py writes it"
        )

    def test_every_section_is_there(self):
        text = (DOCS / "config.md").read_text()
        own = {one.name for one in fields(schema.RunConfig)} - {"general", "names", "sources"}
        assert set(re.findall(r"^## `(\w+)`$", text, re.M)) == own - {"subset"}

    def test_every_key_has_a_meaning(self):
        assert not [one for one in rows((DOCS / "config.md").read_text()) if not one[3]]

    @pytest.mark.parametrize("section", KINDS)
    def test_keys_and_defaults_are_those_of_a_resolved_config(self, section):
        text = (DOCS / "config.md").read_text()
        for name in plugins.names(KINDS[section]):
            part = re.split(r"^##", text.split(f"`{section}.name: {name}`")[1], flags=re.M)[0]
            told = {one[0].strip("`"): one[2] for one in rows(part)}
            needed = {key for key, default in told.items() if default == "required"}
            data = {"bench": {"name": "mme", "root": "."}}
            data[section] = {"name": name, **{key.partition(".")[2]: "x" for key in needed}}
            resolved = schema.resolve(data).as_dict()[section]
            for key in SUBSET if section == "bench" else ():
                resolved.pop(key)
            assert set(told) == {f"{section}.{key}" for key in resolved if key != "name"}
            for key, value in resolved.items():
                default = told.get(f"{section}.{key}", "required").strip("`")
                if default != "required" and not isinstance(value, dict | list):
                    assert default in (json.dumps(value), value and str(value).replace("\n", "\\n"))


def test_the_index_of_errors_quotes_the_code():
    said = set()
    for file in (ROOT / "cof").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                fixed = [one.value for one in node.values if isinstance(one, ast.Constant)]
                said.add("".join(fixed))
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
    whole = "\n".join(said)
    quoted = [one[0].strip("`") for one in rows((DOCS / "errors.md").read_text())]
    assert len(quoted) > 20
    assert not [one for one in quoted if one not in whole]


@pytest.mark.parametrize(
    "call",
    [
        lambda: CoF.from_pretrained("cof-tiny", wieght=2),
        lambda: resolve({"bench": {"name": "mme", "root": "."}, "locate": {"name": "promt"}}),
        lambda: Box(0, 0, 0, 1),
        lambda: load_image("nowhere.jpg"),
    ],
)
def test_an_error_that_is_met_is_on_the_page_of_messages(call):
    with pytest.raises((CofError, ValueError)) as met:
        call()
    page = script("messages")["page"]()
    texts = [html.unescape(one) for one in re.findall(r"^\| <code>(.*)</code>", page, re.M)]
    patterns = [".*".join(map(re.escape, one.split("…"))) for one in texts]
    assert any(re.fullmatch(one, str(met.value), re.S) for one in patterns)


def test_the_page_about_runs_names_every_key_of_a_record():
    part = (DOCS / "read_a_run.md").read_text().split("## A record")[1]
    told = {name for one in rows(part) for name in re.findall(r"`(\w+)`", one[0])}
    record = to_record(
        0, Result(Question("1", "a.png", "?"), gate=Gated(1.0, True)), {"config": ""}
    )
    assert told == set(record)


class TestSite:
    @pytest.fixture(scope="class")
    def laid_out(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("site")
        script("build_site")["lay_out"](folder)
        return folder

    def test_every_link_leads_to_something_that_came_along(self, laid_out):
        pages = list(laid_out.rglob("*.md"))
        assert {
            "README.md",
            "docs/config.md",
            "cof/batch.py.md",
            "results/laboratory/index.md",
        } <= {page.relative_to(laid_out).as_posix() for page in pages}
        for page in pages:
            if page.suffixes[:-1]:  # a source file, whose text holds no links of ours
                continue
            for link in LINK.findall(page.read_text(encoding="utf-8")):
                if not link.startswith("http"):
                    there = (page.parent / link).resolve()
                    assert there.is_file(), f"{page.name}: {link}"
                    assert there.is_relative_to(laid_out)

    def test_a_notebook_is_a_page_with_what_it_printed_and_drew(self, laid_out):
        page = (laid_out / "examples" / "tour.ipynb.md").read_text(encoding="utf-8")
        assert "](../cof/bench/__init__.py.md)" in page
        for cell in TestNotebook.cells:
            for out in cell.get("outputs", []):
                assert "".join(out.get("text", "")).strip() in page
                drawn = out.get("data", {}).get("image/jpeg")
                assert drawn is None or "".join(drawn).strip() in page

    def test_what_the_navigation_names_is_there(self, laid_out):
        named = re.findall(r": (\S+\.md)$", (DOCS / "mkdocs.yml").read_text(), re.M)
        assert len(named) > 15
        assert not [name for name in named if not (laid_out / name).is_file()]

    @pytest.mark.parametrize("link", ["nowhere.md", "../../outside.md"])
    def test_a_link_that_leads_nowhere_ends_the_build(self, link):
        with pytest.raises(
            SystemExit, match=f"docs/a.md: the link {re.escape(link)} leads nowhere"
        ):
            list(script("build_site")["targets"]("docs/a.md", f"[x]({link})"))

    @pytest.mark.slow
    def test_the_site_is_built_and_a_wrong_anchor_is_refused(self, tmp_path):
        exceptions = pytest.importorskip("mkdocs.exceptions")
        pytest.importorskip("mkdocstrings_handlers.python")
        pytest.importorskip("material")
        build = script("build_site")["build"]
        build(tmp_path / "site")
        python = (tmp_path / "site/docs/python/index.html").read_text(encoding="utf-8")
        assert "from_pretrained" in python
        assert 'href="../site.css"' in python
        assert "no such keyword" in (tmp_path / "site/docs/errors/index.html").read_text("utf-8")
        inner = build.__globals__

        def broken(folder, lay_out=inner["lay_out"]):
            lay_out(folder)
            with (folder / "docs" / "api.md").open("a", encoding="utf-8") as page:
                page.write("\n[x](config.md#no-such-place)\n")

        inner["lay_out"] = broken
        with pytest.raises(exceptions.Abort):
            build(tmp_path / "other")


class TestNotebook:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]

    def test_it_is_small_and_its_links_lead_somewhere(self):
        assert NOTEBOOK.stat().st_size < 60_000
        text = "\n".join(
            "".join(one["source"]) for one in self.cells if one["cell_type"] == "markdown"
        )
        links = LINK.findall(text)
        assert links
        assert all((NOTEBOOK.parent / link).exists() for link in links)

    def test_no_output_is_an_error_or_names_a_place(self):
        outputs = [out for one in self.cells for out in one.get("outputs", [])]
        assert outputs
        assert not [out for out in outputs if out["output_type"] == "error"]
        assert not re.search(r"/(tmp|home|root|work|Users)/", json.dumps(outputs))

    @pytest.mark.slow
    def test_it_runs_and_says_what_it_said(self, tmp_path):
        nbformat = pytest.importorskip("nbformat")
        client = pytest.importorskip("nbclient")
        pytest.importorskip("ipykernel")
        shutil.copy(ROOT / "examples" / "scene.jpg", tmp_path)
        book = nbformat.read(NOTEBOOK, 4)
        before = printed(book)
        where = {"metadata": {"path": str(tmp_path)}}
        client.NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
        for old, new in zip(before, printed(book), strict=True):
            assert words(new) == words(old)
            assert numbers(new) == pytest.approx(numbers(old), abs=0.03)


def printed(book):
    """What each cell prints."""
    return [
        "".join(out.text for out in cell.outputs if out.get("name") == "stdout")
        for cell in book.cells
        if cell.cell_type == "code"
    ]


def words(text):
    return re.findall(r"[^\W\d_]+", text)


def numbers(text):
    return [float(one) for one in re.findall(r"\d+\.\d+", text)]
