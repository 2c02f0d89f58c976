"""A setting beside its controls: which regions they get, what is compared, what is left out."""

import json

import pytest
from click.testing import CliRunner
from fakes import StubModel, make_mme

from cof.cli import main
from cof.config import schema
from cof.errors import DataError, RunError
from cof.evaluate.controls import CONTROLS, ControlsPage, run_controls
from cof.evaluate.runner import Options, run

IMAGES = 6
OWN = '{"box": [0.0, 0.0, 0.5, 0.25]}'


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An MME folder whose questions all have a true box, and a model that finds half of it."""
    data = make_mme(tmp_path / "mme", IMAGES)
    rows = [
        {
            "image": f"{('existence/images', 'color')[i % 2]}/{i:04}.png",
            "question": f"Is there a thing {i}{end} Please answer yes or no.",
            "boxes": [[0.0, 0.0, 0.2, 0.25]],
        }
        for i in range(IMAGES)
        for end in "?!"
    ]
    (data / "regions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("cof.models.llava.load", lambda settings: StubModel(OWN))
    path = tmp_path / "c.yaml"
    bench = {"name": "mme", "root": str(data)}
    settings = {"bench": bench, "out": str(tmp_path / "runs"), "name": "x", "batch_size": 4}
    path.write_text(json.dumps(settings))
    return path


def test_every_control_looks_where_it_should(file):
    done = run_controls(file, [])
    assert list(done.runs) == ["own", *CONTROLS]
    assert done.skipped == {}
    cells = {name: {result.cells for result in one.results} for name, one in done.runs.items()}
    assert cells["own"] == {(0, 1)}
    assert cells["oracle"] == {(0,)}
    assert cells["whole"] == {tuple(range(16))}
    assert cells["shuffled"] == {(0, 1)}  # every question's own box is the same
    assert not any({0, 1} & set(lit) for lit in cells["random"])
    (box,) = done.runs["centre"].results[0].region.boxes
    assert (box.x1 - box.x0) * (box.y1 - box.y0) == pytest.approx(0.5 * 0.25)


def test_the_questions_and_plain_answers_are_the_same_everywhere(file):
    done = run_controls(file, [])
    assert len({tuple(r.question for r in one.results) for one in done.runs.values()}) == 1
    assert len({tuple(r.plain.text for r in one.results) for one in done.runs.values()}) == 1
    assert ControlsPage(done).grid.plain_changes() == 0


def test_the_table_sets_each_control_beside_plain_and_own(file):
    table = ControlsPage(run_controls(file, [])).table()
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == ["plain", "own", *CONTROLS]
    cells = {name: dict(zip(table.head, row, strict=True)) for name, row in rows.items()}
    own, oracle = cells["own"], cells["oracle"]
    assert str(own["hit, %"]) == "0.0 too few (6) (n = 12)"  # its centre is off the true box
    assert str(oracle["hit, %"]) == "100.0 too few (6) (n = 12)"
    assert str(cells["whole"]["tokens lit, %"]).startswith("100.0")
    assert own["own minus this, points"] is None
    # the stub says Yes wherever it is highlighted
    assert oracle["own minus this, points"].estimate.value == 0
    tests = [head for head in table.head if head.startswith("p (")]
    assert tests == [
        "p (Holm), this against plain",
        "p (permutation over images), own against this",
        "p (Holm), own against this",
        "p (McNemar), own against this",
    ]
    assert [oracle[head] for head in tests[1:]] == [1.0] * 3


@pytest.mark.slow
def test_a_control_that_the_benchmark_cannot_have_is_left_out_and_said(file, tmp_path):
    (tmp_path / "mme" / "regions.jsonl").unlink()
    done = run_controls(file, ["bench.limit=1"])
    assert list(done.runs) == ["own", "whole", "random", "centre"]
    notes = "\n".join(ControlsPage(done).notes())
    assert "Left out: oracle (locate.name=oracle: mme has no ground-truth boxes" in notes
    assert "Left out: shuffled (" in notes


def test_a_second_call_asks_nothing(file, monkeypatch):
    first = run_controls(file, [])
    monkeypatch.setattr("cof.models.llava.load", None)
    assert run_controls(file, []) == first


@pytest.mark.slow
def test_the_command_writes_a_page_and_prints_it(file, tmp_path):
    done = CliRunner().invoke(main, ["controls", str(file), "refine.weight=2"])
    assert done.exit_code == 0, done.output
    assert "own minus this, points" in done.output
    names = {path.name for path in (tmp_path / "runs" / "x").iterdir()}
    assert names == {
        "own",
        *CONTROLS,
        *(f"controls.{kind}" for kind in ("md", "csv", "tex", "png")),
    }


@pytest.mark.slow
def test_other_questions_have_a_folder_of_their_own(file, tmp_path):
    other = make_mme(tmp_path / "other", IMAGES)
    roots = [[], [f"bench.root={other}"]]
    folders = {run_controls(file, ["name=null", *root]).folder for root in roots}
    assert len(folders) == 2


@pytest.mark.parametrize(("stage", "key"), [("file", "path"), ("random", "of"), ("shuffled", "of")])
def test_a_changed_boxes_file_is_not_mixed_into_an_old_run(file, tmp_path, stage, key):
    own = run(schema.load(file, [f"out={tmp_path / 'own'}"]))
    overrides = [f"locate.name={stage}", f"locate.{key}={own.path}", f"name={stage}"]
    first = run(schema.load(file, overrides))
    assert len(first.manifest["dataset"]["regions"]) == 64
    records = own.path / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    lines[3]["seconds"]["cof"] += 1  # says nothing about boxes
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(schema.load(file, overrides)) == first
    lines[3]["region"]["boxes"] = [[0.1, 0.1, 0.4, 0.4]]
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=r"another dataset \(regions: \w{12} there, \w{12} here\)"):
        run(schema.load(file, overrides))
    again = run(schema.load(file, overrides), Options(overwrite=True))
    assert again.manifest["dataset"]["regions"] != first.manifest["dataset"]["regions"]


def test_cof_eval_names_the_subtasks_that_the_data_lacks(file):
    done = CliRunner().invoke(main, ["eval", str(file)])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("note:")]
    assert line.startswith("note: not in this data, and not in the sums: count, position, posters")


def test_cof_eval_refuses_a_stage_before_it_loads_a_model(file, tmp_path, monkeypatch):
    (tmp_path / "mme" / "regions.jsonl").unlink()
    monkeypatch.setattr("cof.models.llava.load", None)
    with pytest.raises(DataError, match="mme has no ground-truth boxes"):
        run(schema.load(file, ["locate.name=oracle"]))
    assert not (tmp_path / "runs").exists()
