"""The bench of methods: its records are the runs' own, its tables are its records' alone."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import pytest

from cof.analyse.passes import scored_pass
from cof.errors import ConfigError, DataError
from cof.store.run import load_run
from cof_lab import methods, methods_page
from cof_lab.methods import BenchConfig, run

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "base_models" / "cof-tiny"
SMALL = BenchConfig(
    sets=("fine", "vstar"),
    questions=4,
    kinds=("color",),
    coarse=("own", "truth"),
    fine=("highlight 4.5", "guided", "plain+crop"),
    counted=4,
)


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("methods")
    run(CHECKPOINT, out, SMALL)
    return out


def test_every_credit_is_the_runs_own(done):
    found = rows(done / "fine.csv.gz")
    assert [row["id"] for row in found] == [f"color/000{k // 2}.jpg#{k % 2 + 1}" for k in range(4)]
    pairs = [(c, f) for c in SMALL.coarse for f in SMALL.fine]
    pairs += [(c, f) for c in methods.CONTROLS for f in ("highlight 4.5", "plain+crop")]
    assert SMALL.settings("fine") == pairs
    for coarse, fine in pairs:
        made = load_run(done / "runs" / "fine" / f"{coarse}, {fine}")
        credits = [float(row[f"{coarse}, {fine}"]) for row in found]
        assert credits == list(scored_pass(made, "cof").credits)
        assert made.config["locate"]["name"] == methods.COARSE[coarse]["name"]
        assert made.config["refine"]["name"] == methods.FINE[fine]["name"]
    assert [row["IoU truth"] for row in found] == ["1.0000"] * 4
    assert "own, guided" not in rows(done / "vstar.csv.gz")[0]


def test_costs_are_counted(done):
    with (done / "costs.csv").open(newline="") as file:
        costs = {row.pop("setting"): row for row in csv.DictReader(file)}
    assert list(costs) == ["plain", *(f"{c}, {f}" for c in SMALL.coarse for f in SMALL.fine)]
    images = {name: float(row["images"]) for name, row in costs.items()}
    assert images["plain"] == images["own, highlight 4.5"] == images["truth, guided"] == 0.5
    assert images["truth, plain+crop"] > 0.5
    positions = {name: float(row["positions"]) for name, row in costs.items()}
    assert positions["own, highlight 4.5"] > positions["truth, highlight 4.5"] > 0


def test_pages_need_the_records_alone_and_a_second_run_nothing(done, monkeypatch):
    page = methods_page.write(done).read_bytes()
    monkeypatch.setattr(methods, "run_cells", None)
    monkeypatch.setattr(methods, "CoF", None)
    run(CHECKPOINT, done, SMALL)
    assert methods_page.write(done).read_bytes() == page
    plain = [float(row["plain"]) for row in rows(done / "fine.csv.gz")]
    assert f"{100 * sum(plain) / 4:.1f} too few (2)" in page.decode()


def test_tables_by_hand(tmp_path):
    one = methods_page.SetRecords(
        "fine",
        tuple(f"{k // 2}.jpg" for k in range(80)),
        {
            "plain": (1.0, 0.0) * 40,
            methods.PUBLISHED: (1.0, 0.0) * 40,
            "own, crop": (1.0, 1.0) * 20 + (0.0, 0.0) * 20,
        },
        {"own": (0.5, None) * 20 + (0.25, None) * 20},
    )
    head, *body = methods_page.main_table(one).rows
    assert (head[1], head[2].estimate.value) == ("plain", 50.0)
    by_name = {row[1]: row for row in body}
    crop = by_name["crop"]
    assert (crop[3].estimate.value, crop[4], crop[5], crop[8].estimate.value) == (0.0, 20, 20, 0.0)
    assert by_name["highlight 4.5"][8] is None, "CoF is not compared with itself"
    place = methods_page.localisation_table([one]).rows[0]
    assert place[:3] == ("fine", "own", 40)
    assert [cell.estimate.value for cell in place[3:]] == [37.5, 50.0]


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "results" / "methods").iterdir()), ids=lambda path: path.name
)
def test_committed_tables_are_their_records(folder, tmp_path):
    for path in folder.glob("*.csv*"):
        shutil.copy(path, tmp_path)
    assert methods_page.write(tmp_path).read_bytes() == (folder / "results.md").read_bytes()


def test_what_it_refuses(done):
    with pytest.raises(ConfigError, match=r"fine: 'zoom'; there are highlight 4\.5, "):
        BenchConfig(fine=("zoom",))
    with pytest.raises(DataError, match="records with seed 401, not 7; choose another folder"):
        run(CHECKPOINT, done, BenchConfig(**{**vars(SMALL), "seed": 7}))
    with pytest.raises(DataError, match=r"no <set>\.csv\.gz"):
        methods_page.write(done / "runs")
    assert json.loads((done / "methods.json").read_text())["seed"] == 401
