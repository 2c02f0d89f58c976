"""`cof tiny lab`: records of every region and λ, and pages that come from the records alone."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cof.cli import main
from cof.errors import ConfigError, DataError
from cof_lab import study_page
from cof_lab.study import REGIONS, WEIGHTS, StudyConfig, run
from cof_lab.study_page import overview

pytestmark = pytest.mark.slow

TINY = Path(__file__).resolve().parents[1] / "base_models" / "cof-tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("lab") / "out"
    words = ["tiny", "lab", str(TINY), str(out), "--regimes", "noise", "--kinds", "OCR,color"]
    done = CliRunner().invoke(main, [*words, "--size", "2", "--threads", "1"])
    assert done.exit_code == 0, done.output
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_records_hold_every_setting_and_weight_one_is_plain(folder):
    rows = table(folder / "noise.csv")
    assert [row["id"][:3] for row in rows] == ["col"] * 4 + ["OCR"] * 4
    wanted = {f"{region} λ={weight:g}" for region in REGIONS for weight in WEIGHTS}
    assert wanted <= set(rows[0])
    assert all(row["own λ=1"] == row["plain"] for row in rows)
    assert {row[name] for row in rows for name in wanted} <= {"0", "1"}


def test_attention_is_recorded_layer_by_layer_and_rises_on_the_region(folder):
    rows = table(folder / "noise_attention.csv")
    assert [int(row["layer"]) for row in rows] == [0, 1, 2, 3, 4] * (len(rows) // 5)
    lowest = [row for row in rows if row["layer"] == "0"]
    assert all(float(row["after"]) > float(row["before"]) for row in lowest)


def test_pages_are_rebuilt_byte_for_byte(folder):
    names = ("results.md", "curves.png")
    before = [(folder / name).read_bytes() for name in names]
    for name in names:
        (folder / name).unlink()
    words = ["tiny", "lab", "nowhere", str(folder), "--pages-only"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert before == [(folder / name).read_bytes() for name in names]


def test_split_by_hit_and_miss_counts_every_question(tmp_path):
    lines = ["id,image,subtask,own_boxes,own_iou,plain,own λ=4.5,truth λ=4.5"]
    lines += [
        "a,1,OCR,1,0.5,0,1,1",
        "b,1,OCR,1,0.49,1,0,1",
        "c,2,OCR,2,,1,1,1",
        "d,2,OCR,1,0.9,0,0,1",
    ]
    (tmp_path / "fine.csv").write_text("\n".join(lines) + "\n")
    found = study_page.read(tmp_path)
    assert study_page.plain_table(found).rows[0][-1].estimate.value == 100.0  # of one absent thing
    own, truth = study_page.split_table(found).rows
    values = [(cell.estimate.value, cell.estimate.n) for cell in own[2:]]
    assert values == [(50.0, 2), (-100.0, 1), (0.0, 1)]
    assert [cell.estimate.value for cell in truth[2:]] == [100.0, 0.0, 0.0]


def test_records_of_other_weights_or_settings_are_not_taken_for_these(folder):
    config = StudyConfig(("noise",), 2, ("OCR", "color"))
    with pytest.raises(DataError, match="size 2, not 3"):
        run(TINY, folder, replace(config, size=3))
    told = json.loads((folder / "lab.json").read_text())
    other = folder.parent / "other"
    other.mkdir()
    (other / "lab.json").write_text(json.dumps({**told, "weights": "sha256:0"}))
    with pytest.raises(DataError, match="weights 'sha256:0'"):
        run(TINY, other, config)


@pytest.mark.parametrize("wrong", [{"regimes": ("hard",)}, {"kinds": ("ocr",)}, {"kinds": ()}])
def test_unknown_regimes_and_kinds_are_named(wrong):
    with pytest.raises(ConfigError, match="easy, fine" if "regimes" in wrong else "OCR"):
        StudyConfig(**wrong)


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(DataError, match="cof tiny lab"):
        study_page.read(tmp_path)


def test_overview_pools_the_hard_regimes_by_image(tmp_path):
    head = "id,image,subtask,own_boxes,own_iou,plain," + ",".join(f"{r} λ=4.5" for r in REGIONS)
    rows = {"easy": "1,0,0,0,0,0", "fine": "0,1,0,0,0,0", "noise": "0,1,1,0,0,0"}
    for regime, credits in rows.items():
        lines = [head, f"a,1,OCR,1,0.9,{credits}", f"b,2,OCR,1,0.1,{credits}"]
        (tmp_path / f"{regime}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "overview.md"
    done = CliRunner().invoke(main, ["tiny", "overview", str(tmp_path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    lines = [line for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = {line.split("|")[2].strip(): line.split("|")[3:] for line in lines[2:]}
    assert list(cells) == ["easy", "fine", "noise", "fine+noise"]
    n, plain, hit, truth, own = (cell.split()[0] for cell in cells["fine+noise"][:5])
    assert (n, plain, hit, truth, own) == ("4", "0.0", "50.0", "+100.0", "+50.0")
    assert "(n = 4)" in cells["fine+noise"][2]
    # both regimes show image 1 and image 2: two clusters, alike but for the one gain of own boxes
    rows = list(csv.DictReader((tmp_path / "fine.csv").open(encoding="utf-8")))
    assert [row["image"] for row in rows] == ["1", "2"]
    opposite = (tmp_path / "noise.csv").read_text(encoding="utf-8").replace("0,1,1,", "1,0,1,")
    (tmp_path / "noise.csv").write_text(opposite, encoding="utf-8")
    pooled = overview([tmp_path]).strip().splitlines()[-1]
    assert "+0.0 too few (2), p 1.000" in pooled.split("|")[6]


LABS = TINY.parents[1] / "results" / "laboratory"


@pytest.mark.parametrize("name", sorted(path.name for path in LABS.iterdir() if path.is_dir()))
def test_committed_pages_come_from_the_committed_records(name, tmp_path, monkeypatch):
    monkeypatch.setattr(study_page, "save", lambda figure, path: path)  # tables, not pictures
    committed = LABS / name
    for path in committed.glob("*.csv"):
        shutil.copy(path, tmp_path)
    study_page.write(tmp_path)
    assert (tmp_path / "results.md").read_bytes() == (committed / "results.md").read_bytes()


def test_the_page_shows_the_overview_that_the_records_give():
    page = (TINY.parents[1] / "docs" / "laboratory.md").read_text(encoding="utf-8")
    (command,) = [line for line in page.splitlines() if "cof tiny overview {" in line]
    folders = [LABS / name for name in command.split("{")[1].split("}")[0].split(",")]
    assert {path.name for path in folders} == {
        path.name for path in LABS.iterdir() if path.is_dir()
    }
    shown = {line for line in page.splitlines() if line.startswith("|")}
    made = [line for line in overview(folders).splitlines() if line.startswith("|")]
    assert [line for line in made if line not in shown] == []
