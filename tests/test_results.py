"""The committed results: their tables come out of their records again, byte for byte."""

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cof.cli import main

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "examples" / "results"
LIMIT = 3_000_000
"""Bytes that the whole folder may take."""


def commands():
    """The arguments of every `cof report` of the documented command."""
    script = f'cof() {{ printf "%s\\n" "$@" ""; }}; . "{RESULTS / "tables.sh"}"'
    shell = ["bash", "-c", script]
    done = subprocess.run(
        shell, env={**os.environ, "RESULTS": str(RESULTS)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [block.splitlines() for block in done.stdout.strip().split("\n\n")]


def name(arguments):
    """Of a report: its folder."""
    return Path(arguments[arguments.index("--out") + 1]).relative_to(RESULTS).as_posix()


@pytest.mark.parametrize("arguments", commands(), ids=name)
def test_tables_are_rebuilt_byte_for_byte(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("cof.runs.report.save", lambda figure, path: path)  # tables, not pictures
    place = arguments.index("--out") + 1
    committed = Path(arguments[place])
    again = [*arguments[:place], str(tmp_path), *arguments[place + 1 :]]
    done = CliRunner().invoke(main, again)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.md").read_bytes() == (committed / "report.md").read_bytes()


def test_every_run_is_in_a_table():
    named = {Path(part) for command in commands() for part in command}
    kept = {path.parent for path in RESULTS.rglob("records.jsonl.gz")}
    assert kept
    assert kept <= named


def test_what_the_page_shows_is_in_the_committed_tables():
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    reports = "".join(path.read_text(encoding="utf-8") for path in RESULTS.rglob("report.md"))
    known = set(reports.splitlines())
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows
    assert [row for row in rows if row not in known] == []


def test_the_folder_stays_small_and_names_no_place():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT
    for path in files:
        if path.suffix in (".json", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            assert not any(place in text for place in ('"/', " /", "/home", "/tmp")), path
