"""A run never goes on with, or is read as, something else than what its records were made with."""

import functools
import gzip
import json
import shutil

import pytest
from click.testing import CliRunner
from committed import unpacked
from fake_runs import make_run, right_with
from fakes import StubModel, StubPipeline, make_mme

from cof import load_run
from cof.cli import main
from cof.config import schema
from cof.errors import RunError
from cof.evaluate import runner
from cof.evaluate.controls import run_controls
from cof.evaluate.runner import Options, run
from cof.store import origin
from cof.store.folder import RunFolder
from cof.store.records import comparable
from cof.store.run import run_hash
from cof_lab.mini import mme
from cof_lab.mini.common import MiniConfig

IMAGES = 4
TOTAL = 2 * IMAGES
KEPT = 5


@pytest.fixture
def weights(monkeypatch):
    """What lies at model.path: one revision, until the test says otherwise."""
    found = {"weights": "sha256:one", "dtype": "float32", "device": "cpu"}
    monkeypatch.setattr("cof.models.llava.identify", lambda settings: dict(found))
    monkeypatch.setattr(runner, "build_pipeline", lambda one: StubPipeline(one.general.plain))
    return found


@pytest.fixture
def settings(tmp_path, weights):
    data = make_mme(tmp_path / "mme", IMAGES)

    def make(**top):
        bench = {"name": "mme", "root": str(data)}
        base = {"bench": bench, "refine": {"name": "plain"}, "batch_size": 4, "name": "r"}
        return schema.resolve({**base, "out": str(tmp_path / "runs"), **top})

    return make


@pytest.fixture
def half(settings):
    """A run that was stopped after five of eight questions."""
    path = run(settings()).path
    cut(path)
    return path


def cut(path, keep=KEPT):
    records = path / "records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:keep]))
    (path / "scores.json").unlink()


def lines(path):
    return [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]


def write_lines(path, rows):
    (path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def invoke(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


class TestRecordsSayWhereTheyComeFrom:
    def test_each_line_has_settings_weights_and_dataset(self, half, settings):
        (made,) = {json.dumps(row["made"]) for row in lines(half)}
        made = json.loads(made)
        assert made["weights"] == "sha256:one"
        assert [len(made[key]) for key in ("config", "dataset")] == [12, 12]
        assert made == origin.made_of(load_run(half).config, load_run(half).manifest)

    def test_another_setting_other_weights_and_other_questions_each_change_their_part(
        self, settings, weights, tmp_path
    ):
        first = lines(run(settings(name="a")).path)[0]["made"]
        found = {"config": lines(run(settings(name="b", seed=1)).path)[0]["made"]}
        bench = {"name": "mme", "root": str(make_mme(tmp_path / "more", IMAGES + 1))}
        found["dataset"] = lines(run(settings(name="c", bench=bench)).path)[0]["made"]
        weights["weights"] = "sha256:two"
        found["weights"] = lines(run(settings(name="d")).path)[0]["made"]
        for key, made in found.items():
            assert [name for name in made if made[name] != first[name]] == [key]


class TestGoingOn:
    def test_with_the_same_all_is_well(self, half, settings):
        assert len(run(settings()).results) == TOTAL
        assert len({json.dumps(row["made"]) for row in lines(half)}) == 1

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"dataset": 5}', "[" * 9999])
    def test_a_damaged_manifest_is_never_made_anew(self, half, settings, content):
        (half / "manifest.json").write_text(content)
        before = (half / "records.jsonl").read_bytes()
        for read in (lambda: run(settings()), lambda: load_run(half)):
            with pytest.raises(RunError, match=r"manifest.json: damaged.*nothing else says what"):
                read()
        assert (half / "records.jsonl").read_bytes() == before
        assert (half / "manifest.json").read_text() == content

    def test_records_without_a_manifest_are_refused_by_every_reader(self, half, settings):
        (half / "manifest.json").unlink()
        with pytest.raises(RunError, match=r"r: records but no manifest.json; nothing else says"):
            run(settings())
        calls = [
            ("score", "mme", half),
            ("score", "mme", half, "--allow-missing"),
            ("compare", half, "--allow-missing"),
            ("report", half),
            ("probe", half),
            ("pack", half, "--out", half.parent / "packed"),
        ]
        for call in calls:
            done = invoke(*call)
            assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), call
            assert "records but no manifest.json" in done.stderr
            assert "bring the file back, or start anew with --overwrite" in done.stderr
        assert not (half / "manifest.json").exists()

    def test_overwrite_is_the_way_out(self, half, settings):
        for damage in ("manifest.json", "config.yaml"):
            (half / damage).write_text("{")
            assert len(run(settings(), Options(overwrite=True)).results) == TOTAL
        (half / "manifest.json").unlink()
        assert len(run(settings(), Options(overwrite=True)).results) == TOTAL

    @pytest.mark.parametrize("finished", [False, True])
    def test_other_weights_at_the_same_path_are_refused(self, settings, weights, finished):
        path = run(settings()).path
        if not finished:
            cut(path)
        weights["weights"] = "sha256:two"
        with pytest.raises(RunError, match=r"other weights \(sha256:one there, sha256:two here\)"):
            run(settings())

    def test_the_first_difference_is_named_though_the_manifest_agrees(self, half, settings):
        """Records and manifest of two runs, put together by hand."""
        for key, told in {
            "config": "settings",
            "weights": "weights",
            "dataset": "questions",
        }.items():
            rows = lines(half)
            write_lines(half, [{**row, "made": {**row["made"], key: "other"}} for row in rows])
            for read in (lambda: run(settings()), lambda: load_run(half)):
                with pytest.raises(
                    RunError, match=rf"other {told}.*\({key}: other there, \S+ here"
                ):
                    read()
            write_lines(half, rows)

    def test_an_edited_config_is_told_from_the_records(self, half, settings):
        text = (half / "config.yaml").read_text()
        (half / "config.yaml").write_text(text.replace("expand: 1.0", "expand: 1.5"))
        with pytest.raises(
            RunError, match=r"made with other settings \(config: \w+ there, \w+ here"
        ):
            load_run(half)

    def test_two_runs_in_one_folder_are_refused(self, half, settings, weights):
        rows = lines(half)
        rows[3]["made"]["weights"] = "sha256:two"
        write_lines(half, rows)
        message = r"records.jsonl: line 4: made with another weights than line 1 .*mixed"
        for read in (lambda: run(settings()), lambda: load_run(half)):
            with pytest.raises(RunError, match=message):
                read()
        write_lines(half, rows[:3])
        shard = half / "records-1.jsonl"
        shard.write_text(json.dumps(rows[3]) + "\n")
        with pytest.raises(RunError, match=r"mixed here"):
            list(RunFolder(half).records())

    def test_a_mended_image_keeps_the_origin(self, settings, tmp_path):
        image = tmp_path / "mme" / "color" / "0001.png"
        kept = image.read_bytes()
        image.write_bytes(b"x")
        before = lines(run(settings()).path)[0]["made"]
        image.write_bytes(kept)
        done = run(settings(), Options(retry_failed=True))
        assert not done.failed
        assert {json.dumps(row["made"]) for row in lines(done.path)} == {json.dumps(before)}


class TestOlderRuns:
    """Records that do not say where they come from, beside a manifest that does."""

    @pytest.fixture
    def old(self, half):
        write_lines(half, [{k: v for k, v in row.items() if k != "made"} for row in lines(half)])
        manifest = json.loads((half / "manifest.json").read_text())
        del manifest["identity"]
        manifest["model"] |= {"revision": "sha256:one", "dtype": "float32", "device": "cpu"}
        (half / "manifest.json").write_text(json.dumps(manifest))
        return half

    @pytest.fixture(autouse=True)
    def model(self, monkeypatch):
        told = {"name": "stub", "revision": "sha256:one", "dtype": "float32", "device": "cpu"}
        monkeypatch.setattr(StubPipeline.model, "describe", lambda: told)
        return told

    def test_they_go_on_where_the_manifest_agrees(self, old, settings):
        assert len(run(settings()).results) == TOTAL
        assert [("made" in row) for row in lines(old)] == [False] * KEPT + [True] * (TOTAL - KEPT)

    def test_and_only_there(self, old, settings, weights):
        weights["weights"] = "sha256:two"
        with pytest.raises(RunError, match=r"other weights \(sha256:one there, sha256:two here\)"):
            run(settings())
        (old / "manifest.json").unlink()
        with pytest.raises(RunError, match=r"records but no manifest"):
            run(settings())

    def test_other_questions_than_the_manifest_says_are_refused(self, settings):
        path = run(settings()).path
        rows = [{k: v for k, v in row.items() if k != "made"} for row in lines(path)]
        write_lines(path, [{**rows[0], "reference": "No way"}, *rows[1:]])
        with pytest.raises(RunError, match="records of other questions"):
            load_run(path)

    @pytest.mark.slow
    def test_the_committed_ones_load(self):
        kept = [path.parent for path in unpacked().rglob("records.jsonl.gz")]
        assert kept
        packed = [gzip.decompress((path / "records.jsonl.gz").read_bytes()) for path in kept]
        assert any(b'"made"' not in one for one in packed)
        assert all(load_run(path).results for path in kept)


class TestScoreOfHalfARun:
    def test_it_is_refused_and_said_where_it_is_allowed(self, half):
        done = invoke("score", "mme", half)
        assert done.exit_code == 2
        assert f"{KEPT} of {TOTAL} questions have a record" in done.stderr
        done = invoke("score", "mme", half, "--allow-missing")
        assert done.exit_code == 0, done.output
        assert f"note: {TOTAL - KEPT} questions without an answer left out" in done.stderr
        done = invoke("score", "mme", half, "--allow-missing", "--json")
        assert json.loads(done.stdout)["unanswered"] == TOTAL - KEPT

    def test_a_manifest_that_counts_nothing_is_damaged(self, half):
        manifest = json.loads((half / "manifest.json").read_text())
        for count in (0, -1, None, "8", KEPT - 1):
            manifest["dataset"]["question_count"] = count
            (half / "manifest.json").write_text(json.dumps(manifest))
            done = invoke("score", "mme", half, "--allow-missing")
            assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), count

    def test_a_run_that_recorded_nothing(self, half):
        (half / "records.jsonl").write_text("")
        for more in ([], ["--allow-missing"]):
            assert invoke("score", "mme", half, *more).exit_code == 2


class TestPlaces:
    """A folder may be moved, and equal runs in two places are equal."""

    @pytest.fixture
    def base(self, tmp_path, monkeypatch):
        data = make_mme(tmp_path / "mme", 6)
        monkeypatch.setattr("cof.models.llava.load", lambda settings: StubModel())
        path = tmp_path / "c.yaml"
        path.write_text(json.dumps({"bench": {"name": "mme", "root": str(data)}, "batch_size": 4}))
        return path

    def test_controls_go_on_where_their_folder_was_moved_to(self, base, tmp_path, monkeypatch):
        first = run_controls(base, [f"out={tmp_path / 'a'}"])
        shutil.move(tmp_path / "a", tmp_path / "b")
        monkeypatch.setattr("cof.models.llava.load", None)
        again = run_controls(base, [f"out={tmp_path / 'b'}"])
        assert list(again.runs) == list(first.runs)
        assert [one.results for one in again.runs.values()] == [
            one.results for one in first.runs.values()
        ]

    def test_equal_controls_in_two_places_are_equal(self, base, tmp_path):
        one, two = (run_controls(base, [f"out={tmp_path / place}"]) for place in "ab")
        assert one.folder.name == two.folder.name
        for name in one.runs:
            assert run_hash(one.runs[name]) == run_hash(two.runs[name])
            rows = [[comparable(row) for row in lines(done.runs[name].path)] for done in (one, two)]
            assert rows[0] == rows[1]
        assert len({run_hash(done) for done in one.runs.values()}) == len(one.runs)

    def test_a_model_in_two_places_is_one_and_another_one_there_is_not(
        self, settings, weights, tmp_path
    ):
        here = run(settings(name=None))
        there = run(settings(name=None, model={"path": str(tmp_path / "cof-tiny")}))
        assert there.path == here.path
        weights["weights"] = "sha256:two"
        assert run(settings(name=None)).path != here.path

    def test_weights_are_the_files_not_their_folder(self, tmp_path, golden):
        copy = shutil.copytree(golden / "checkpoint", tmp_path / "elsewhere")
        base = {"bench": {"name": "mme", "root": "x"}}
        one, two = (
            schema.resolve({**base, "model": {"path": str(path), "dtype": "float16"}})
            for path in (golden / "checkpoint", copy)
        )
        assert origin.identify(one) == origin.identify(two)
        assert origin.identify(one)["dtype"] == "float16"
        file = next(copy.glob("*.safetensors"), None) or next(copy.glob("*.bin"))
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        assert origin.identify(one)["weights"] != origin.identify(two)["weights"]


class TestBatchSize:
    """In float32 a record does not depend on the company it is asked in."""

    @pytest.fixture(scope="class")
    def alone(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("sizes")
        mme.write(root / "mme", MiniConfig(size=3))
        ask = functools.partial(self.ask, root)
        return ask, [comparable(row) for row in lines(ask(1).path)]

    @staticmethod
    def ask(root, size, **top):
        bench = {"name": "mme", "root": str(root / "mme"), "limit": 10}
        limits = {"max_new_tokens": 24}
        base = {"bench": bench, "limits": limits, "out": str(root), "name": f"size{size}"}
        return run(schema.resolve({**base, "batch_size": size, **top}))

    @pytest.mark.parametrize("size", [3, 8, "auto"])
    def test_records_are_the_same(self, alone, size):
        ask, expected = alone
        got = ask(size)
        assert [comparable(row) for row in lines(got.path)] == expected
        assert any(result.cells for result in got.results)

    def test_a_run_goes_on_with_a_smaller_batch(self, settings, half):
        done = run(settings(batch_size=2))
        assert len(done.results) == TOTAL
        assert done.manifest["resumed"] == [{"records": KEPT, "batch_size": 2}]
        assert run(settings(batch_size=2)) == done

    def test_in_half_precision_it_does_not(self, settings, weights, monkeypatch):
        monkeypatch.setattr("cof.evaluate.flips.due", lambda config, identity: False)
        weights["dtype"] = "float16"
        cut(run(settings()).path)
        with pytest.raises(RunError, match=r"another config \(batch_size: 4 there, 2 here\)"):
            run(settings(batch_size=2))


def test_the_hash_in_reports_is_the_runs_own(tmp_path):
    data = make_mme(tmp_path / "mme", IMAGES)
    made = make_run(tmp_path / "runs", data, right_with(0.5, 0.7))
    assert run_hash(made) == origin.digest(lines(made.path)[0]["made"])
