"""The committed results: their tables come out of their records again, byte for byte."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from committed import RESULTS, ROOT, unpacked

from cof.cli import main
from cof.store.pack import zipped
from cof_lab.study_page import overview

LIMIT = 4_000_000
"""Bytes that the whole folder may take."""


def called(script, folder, **settings):
    """The arguments of every `cof` that a script calls in a strange `folder`; none is run."""
    stub = folder / "python"
    says = '[[ "$1 $2" != "-m cof.cli" ]] || { shift 2; printf "%s\\n" "$@" ""; exit; }'
    stub.write_text(f'#!/usr/bin/env bash\n{says}\nexec "{sys.executable}" "$@"\n')
    stub.chmod(0o755)
    unset = ("RESULTS", "OUT", "MODEL", "SIZE", "GRID", "WEIGHT", "EXPAND")
    kept = {key: value for key, value in os.environ.items() if key not in unset}
    done = subprocess.run(
        ["bash", ROOT / script],
        env={**kept, "COF_PYTHON": "./python", **settings},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [block.splitlines() for block in done.stdout.strip().split("\n\n")]


def commands():
    """The arguments of every `cof report` of tables.sh; runs as `unpacked` has them."""
    with tempfile.TemporaryDirectory() as folder:
        found = called("results/tables.sh", Path(folder), TMPDIR=folder)
        found = [command for command in found if command[0] == "report"]
        place = re.compile(re.escape(folder) + r"/[^/]+")  # where the script unpacked them
        return [[place.sub(str(unpacked()), part) for part in command] for command in found]


def name(arguments):
    """Of a report: its folder."""
    return Path(arguments[arguments.index("--out") + 1]).relative_to(RESULTS).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", commands(), ids=name)
def test_tables_are_rebuilt_byte_for_byte(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("cof.analyse.report.save", lambda figure, path: path)
    place = arguments.index("--out") + 1
    committed = Path(arguments[place])
    again = [*arguments[:place], str(tmp_path), *arguments[place + 1 :]]
    done = CliRunner().invoke(main, again)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.md").read_bytes() == (committed / "report.md").read_bytes()


def test_evidence_runs_from_any_folder_and_takes_the_callers_paths(tmp_path):
    (tmp_path / "kept" / "mme-fine").mkdir(parents=True)
    shutil.copy(RESULTS / "mme-fine" / "runs.zip", tmp_path / "kept" / "mme-fine")
    done = called(
        "examples/eval_scripts/evidence.sh",
        tmp_path,
        OUT="mine",
        RESULTS="kept",
        SIZE="4",
        GRID="2",
    )
    counts = {"data": 3, "controls": 2, "sweep": 5, "eval": 1, "pack": 8, "report": 10}
    assert [one[0] for one in done] == [name for name in counts for _ in range(counts[name])]
    assert done[3][1] == "examples/configs/evidence.yaml"
    assert f"out={tmp_path / 'mine'}" in done[3]
    assert all(one[-1].startswith(str(tmp_path / "kept")) for one in done if one[0] == "pack")


def test_the_ablation_refuses_what_its_grid_would_override(tmp_path):
    with pytest.raises(AssertionError, match="use WEIGHTS and EXPANDS, not WEIGHT and EXPAND"):
        called("examples/eval_scripts/ablation_mme.sh", tmp_path, WEIGHT="2")


def test_every_run_is_in_a_table():
    named = {Path(part) for command in commands() for part in command}
    kept = {path.parent for path in unpacked().rglob("records.jsonl.gz")}
    assert kept
    assert kept <= named


def test_what_the_page_shows_is_in_the_committed_tables():
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    reports = "".join(path.read_text(encoding="utf-8") for path in RESULTS.rglob("report.md"))
    known = set(reports.splitlines())
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows
    assert [row for row in rows if row not in known] == []


QUOTED = re.compile(r"([+−]\d+\.\d)\s+\[([+−]\d+\.\d),\s+([+−]\d+\.\d)\](?=(.{0,120}))", re.S)


PAGES = ("README.md", "docs/experiments.md", "docs/laboratory.md", "results/README.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_interval_in_prose_is_in_the_records_and_has_a_p_beside_it(page):
    made = [path.read_text(encoding="utf-8") for path in RESULTS.rglob("re[ps]*.md")]
    made.append(overview(sorted(path for path in (RESULTS / "laboratory").iterdir())))
    text = (ROOT / page).read_text(encoding="utf-8")
    said = page == "results/README.md"  # whose table holds claims, not numbers of a report
    prose = "\n".join(line for line in text.splitlines() if said or not line.startswith("|"))
    quoted = QUOTED.findall(prose)
    assert quoted
    for value, low, high, after in quoted:
        shown = f"{value} [{low}, {high}]".replace("−", "-")
        assert any(shown in one for one in made), shown
        assert re.search(r"\bp\s|Holm", after), shown


def test_the_folder_stays_small_and_names_no_place():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT
    for path in [*files, *unpacked().rglob("*.*")]:
        if path.suffix in (".json", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            assert not any(place in text for place in ('"/', " /", "/home", "/tmp")), path


def test_names_are_plain_and_an_experiment_is_one_archive():
    for path in RESULTS.rglob("*"):
        assert not set("=, ") & set(path.name), path
    archives = sorted(RESULTS.glob("*/runs.zip"))
    assert [path.parent.name for path in archives] == sorted(
        path.name
        for path in RESULTS.iterdir()
        if path.is_dir() and path.name not in ("laboratory", "methods")
    )
    for path in archives:
        assert zipped(unpacked() / path.parent.name) == path.read_bytes()
