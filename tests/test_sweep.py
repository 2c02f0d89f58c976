"""Grids: axes, cells that share batches, folders of their own, resuming, table and figure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import StubModel, make_mme
from PIL import Image

from cof import load_run
from cof.analyse.grid import Grid
from cof.analyse.naming import setting_names
from cof.analyse.settings import as_file_name, differing, show, values
from cof.cli import main
from cof.config import identity, schema
from cof.errors import ConfigError, RunError
from cof.evaluate import answering
from cof.evaluate.runner import Options, run_cells
from cof.evaluate.sweep import Axis, parse_axis, parse_settings, run_sweep
from cof.store.folder import RunFolder
from cof.store.records import comparable

IMAGES = 5


class CountingModel(StubModel):
    """Counts what sharing is about: images looked at, and prompts generated from."""

    def __init__(self):
        super().__init__()
        self.looked = 0

    def look(self, images):
        self.looked += len(images)
        return super().look(images)

    def count(self, coarse):
        return sum(("bounding box" in seen.prompt) == coarse for seen in self.seen)


@pytest.fixture
def file(tmp_path):
    data = make_mme(tmp_path / "mme", IMAGES)
    path = tmp_path / "c.yaml"
    bench = {"name": "mme", "root": str(data)}
    path.write_text(json.dumps({"bench": bench, "out": str(tmp_path / "runs"), "batch_size": 4}))
    return path


@pytest.fixture
def model(monkeypatch):
    made = CountingModel()
    monkeypatch.setattr("cof.models.llava.load", lambda settings: made)
    return made


def swept(file, *settings, options=None):
    return run_sweep(file, *parse_settings(settings), options)


def records(run):
    lines = (run.path / "records.jsonl").read_text().splitlines()
    return [comparable(json.loads(line)) for line in lines]


class TestAxes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("weight=1,1.3", Axis("weight", "refine.weight", (1, 1.3))),
            ("scope=all,text", Axis("scope", "refine.scope", ("all", "text"))),
            (
                "layers=all,0-2,[1, 3],7",
                Axis("layers", "refine.layers", (None, [0, 1, 2], [1, 3], [7])),
            ),
            ("locate=prompt,oracle", Axis("locate", "locate.name", ("prompt", "oracle"))),
            ("square=true,false", Axis("square", "boxes.square", (True, False))),
            ("limits.max_new_tokens=8,9", Axis(*["limits.max_new_tokens"] * 2, (8, 9))),
        ],
    )
    def test_values_are_yaml(self, text, expected):
        assert parse_axis(text) == expected

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("weight", "'weight' is no axis"),
            ("weight=", "'weight=' is no axis"),
            ("weight=1,2,1.0", "weight: the value 1 is given twice"),
            ("weight=[1", "weight: '.*' is not YAML"),
        ],
    )
    def test_nonsense_is_named(self, text, message):
        with pytest.raises(ConfigError, match=message):
            parse_axis(text)

    def test_one_value_holds_for_all(self):
        overrides, axes = parse_settings(["weight=1,2", "expand=1.5", "layers=0-1", "out=a b"])
        assert overrides == ["boxes.expand=1.5", "refine.layers=[0, 1]", "out=a b"]
        assert [axis.name for axis in axes] == ["weight"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["weight=1"], "no setting has several values"),
            (["weight=1,2", "refine.weight=3,4"], "refine.weight: is given twice"),
            (["bench.limit=1,2"], "bench.limit: cannot be swept"),
            (["name=a,b"], "name: cannot be swept"),
            (["weight=1,-2"], r"weight .* must be positive and finite, got -2"),
            (["colour=1,2"], "colour: unknown key"),
        ],
    )
    def test_what_cannot_be_swept(self, file, settings, message):
        with pytest.raises(ConfigError, match=message):
            swept(file, *settings)

    def test_names_of_folders(self):
        assert as_file_name({"weight": 1.0, "expand": 1.5}) == "weight=1,expand=1.5"
        assert as_file_name({"layers": None, "x": "a/b c"}) == "layers=all,x=a_b_c"
        assert [show("heads", one) for one in ([0, 1, 2], [1, 5], [3])] == ["0-2", "1+5", "3"]
        assert show("heads", [[2, 1], [0, 3], [1, 0]]) == "2.1+0.3+1.0"
        assert show("queries", ["cup", "dog", "hat"]) == "cup+dog+hat"


class TestCells:
    def test_a_folder_a_cell_as_cof_eval_writes_it(self, file, model):
        done = swept(file, "weight=1,2", "expand=1,1.5,3")
        names = [f"weight={w},expand={a}" for w in (1, 2) for a in (1, 1.5, 3)]
        assert [run.path.name for run in done.runs] == names
        for run in done.runs:
            assert len(run.results) == 2 * IMAGES
            hashed = identity.content_hash(run.config, run.manifest["identity"])
            assert run.manifest["config_hash"] == hashed
            assert run.scores["questions"] == 2 * IMAGES
            assert (run.path / "answers" / "cof").is_dir()
        answers = [{result.cof.text for result in run.results} for run in done.runs]
        assert answers == [{"No"}] * 3 + [{"Yes"}] * 3

    def test_vision_plain_and_coarse_stage_run_once(self, file, model):
        swept(file, "weight=1,2,3", "expand=1,1.5", "scope=all,text")
        questions, cells, batches = 2 * IMAGES, 12, 3
        assert model.looked <= IMAGES + batches - 1  # an image may fall into two batches
        assert model.count(coarse=True) == questions
        assert model.count(coarse=False) == questions * (1 + cells)

    def test_a_cell_is_the_run_of_its_config_alone(self, file, model, tmp_path):
        done = swept(file, "weight=2,4", "locate=prompt,whole")
        for cell in done.runs:
            alone = schema.resolve({**cell.config, "out": str(tmp_path / "alone")})
            assert records(run_cells([alone])[0]) == records(cell)

    def test_coarse_stages_differ_within_a_batch(self, file, model):
        done = swept(file, "locate=prompt,whole,centre", "weight=2,3")
        lit = [len(run.results[0].cells) for run in done.runs]
        assert lit == [1, 1, 16, 16, 4, 4]
        assert model.count(coarse=True) == 2 * IMAGES
        assert model.count(coarse=False) == 2 * IMAGES * 7

    def test_a_finished_sweep_asks_nothing_and_more_values_ask_for_themselves(self, file, model):
        first = swept(file, "weight=1,2")
        model.seen.clear()
        assert swept(file, "weight=1,2").runs == first.runs
        assert not model.seen
        more = swept(file, "weight=1,2,3")
        assert more.folder == first.folder
        assert more.runs[:2] == first.runs
        assert model.count(coarse=True) == 0  # the replies were kept
        assert model.count(coarse=False) == 2 * IMAGES * 2

    def test_other_questions_have_a_folder_of_their_own(self, file, model, tmp_path):
        other = f"bench.root={make_mme(tmp_path / 'other', IMAGES + 1)}"
        folders = {swept(file, "weight=1,2", *more).folder for more in ([], [other])}
        assert len(folders) == 2

    def test_rows_bound_a_fine_pass(self, file, model, monkeypatch):
        sizes = []
        encode = StubModel.encode

        def watched(self, views, questions):
            sizes.append(len(views))
            return encode(self, views, questions)

        monkeypatch.setattr(CountingModel, "encode", watched)
        swept(file, "weight=1,2,3,4,5", options=Options(rows=9))
        assert max(sizes) == 8  # two settings of four questions
        assert model.count(coarse=False) == 2 * IMAGES * 6

    def test_models_and_decodings_that_differ_do_not_share(self, file, model):
        done = swept(file, "limits.max_new_tokens=1,3", "weight=1,2")
        texts = [run.results[0].cof.text for run in done.runs]
        assert texts == ["N", "Y", "No", "Yes"]

    def test_settings_over_other_questions_are_refused(self, file, model):
        settings = [schema.load(file, [f"bench.limit={n}", f"name=r{n}"]) for n in (1, 2)]
        with pytest.raises(ConfigError, match="must ask the same questions"):
            run_cells(settings)


class TestResume:
    SETTINGS = ("weight=1,2,3",)

    @pytest.mark.slow
    def test_any_cut_is_completed_exactly(self, file, model, monkeypatch):
        whole = swept(file, *self.SETTINGS)
        expected = [records(run) for run in whole.runs]
        files = [run.path / "records.jsonl" for run in whole.runs]
        lines = [path.read_bytes().splitlines(keepends=True) for path in files]
        answered = []
        ask = answering.answered
        monkeypatch.setattr(
            answering, "answered", lambda *args: answered.append(args[2]) or ask(*args)
        )
        for cut in ((0, 0, 0), (4, 4, 0), (8, 4, 4), (10, 10, 9), (10, 8, 8), (6, 4, 4)):
            for run, path, count, text in zip(whole.runs, files, cut, lines, strict=True):
                path.write_bytes(b"".join(text[:count]) + b'{"index": ')
                (run.path / "scores.json").unlink()
            again = swept(file, *self.SETTINGS)
            assert [records(run) for run in again.runs] == expected
            assert [run.scores for run in again.runs] == [run.scores for run in whole.runs]
        assert set(answered) == {3}  # always in the company of all cells

    def test_ctrl_c_between_the_cells_of_a_batch(self, file, model, monkeypatch):
        append, calls = RunFolder.append, []

        def stop(self, rows):
            calls.append(self.path.name)
            if len(calls) == 5:
                raise KeyboardInterrupt
            append(self, rows)

        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "append", stop)
            with pytest.raises(KeyboardInterrupt):
                swept(file, *self.SETTINGS)
        done = swept(file, *self.SETTINGS)
        assert [len(run.results) for run in done.runs] == [10] * 3
        assert all(not run.manifest["resumed"] for run in done.runs)

    def test_a_broken_image_fails_in_every_cell_alone(self, file, model, tmp_path):
        (tmp_path / "mme" / "color" / "0001.png").write_bytes(b"x")
        done = swept(file, *self.SETTINGS)
        assert [len(run.failed) for run in done.runs] == [2] * 3
        with pytest.raises(RunError, match=r"0001\.png.*\(--strict\)"):
            swept(file, *self.SETTINGS, options=Options(strict=True, overwrite=True))
        assert len(load_run(done.runs[0].path).results) < 10

    def test_mended_images_are_asked_again(self, file, model, tmp_path):
        image = tmp_path / "mme" / "color" / "0001.png"
        kept = image.read_bytes()
        image.write_bytes(b"x")
        swept(file, *self.SETTINGS)
        image.write_bytes(kept)
        done = swept(file, *self.SETTINGS, options=Options(retry_failed=True))
        assert [len(run.failed) for run in done.runs] == [0] * 3

    def test_another_dataset_is_refused(self, file, model, tmp_path):
        swept(file, *self.SETTINGS, "name=s")
        text = tmp_path / "mme" / "color" / "0001.txt"
        text.write_text(text.read_text().replace("thing", "thong"))
        with pytest.raises(RunError, match=r"weight=1: made with another dataset"):
            swept(file, *self.SETTINGS, "name=s")


class TestGrid:
    @pytest.fixture(scope="class")
    def runs(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("grid")
        data = make_mme(root / "mme", 40)
        return [
            make_run(
                root,
                data,
                right_with(0.5, 0.5 + weight / 10),
                f"w{weight}a{expand}",
                seed=int(weight + 10 * expand),
                refine={"name": "highlight", "weight": weight},
                boxes={"expand": expand},
            )
            for weight in (1.0, 2.0, 4.0)
            for expand in (1.0, 2.0)
        ]

    def test_the_keys_are_those_that_differ(self, runs):
        assert differing([run.config for run in runs]) == ["refine.weight", "boxes.expand"] or (
            differing([run.config for run in runs]) == ["boxes.expand", "refine.weight"]
        )
        assert setting_names(runs[:3:2]) == ["λ 1", "λ 2"]
        assert setting_names(runs[:1]) == ["w1.0a1.0"]

    def test_keys_of_one_plugin_only_do_not_count(self):
        base = {"locate": {"name": "prompt", "prompt": "x"}, "out": "a"}
        other = {"locate": {"name": "centre", "area": 0.25}, "out": "b"}
        more = {"locate": {"name": "centre", "area": 0.5}, "out": "b"}
        assert differing([base, other]) == ["locate.name"]
        assert differing([base, other, more]) == ["locate.name", "locate.area"]

    def test_heads_are_named_all_of_any_stage_and_what_chose_them_not_at_all(self):
        every = {"locate": {"name": "attention", "heads": None, "chosen_on": ""}}
        some = {"locate": {"name": "attention", "heads": [[2, 1], [0, 3]], "chosen_on": "a" * 64}}
        keys = differing([every, some])
        assert keys == ["locate.heads"]
        shown = [values(one, keys)["locate.heads"] for one in (every, some)]
        assert shown == ["all", "2.1+0.3"]

    def test_the_table_has_plain_and_a_row_a_run(self, runs):
        table = Grid(runs).table
        assert len(table.rows) == 1 + len(runs)
        assert table.head[:2] in (("λ", "α"), ("α", "λ"))
        assert table.rows[0][0] == "plain"
        assert "perception" in table.head

    @pytest.mark.slow
    def test_the_figure_has_a_line_a_second_setting(self, runs):
        (panel,) = Grid(runs)._panels()
        assert panel.title == ""
        assert [line.label for line in panel.lines] == ["α 1", "α 2"]
        assert [line.x for line in panel.lines] == [(1.0, 2.0, 4.0)] * 2
        one = Grid(runs).found[0]
        assert panel.plain == replace(one.before.times(100), low=None, high=None)
        spot = panel.lines[0].y[0]
        assert spot.value == 100 * one.after.value
        ends = [100 * (one.before.value + end) for end in (one.difference.low, one.difference.high)]
        assert [spot.low, spot.high] == pytest.approx(ends)
        assert all(0 <= y.low < y.high <= 100 for line in panel.lines for y in line.y)
        figure = Grid(runs).figure()
        assert figure.axes[0].get_xlabel() == "λ"
        assert figure.texts[-1].get_text() == Grid(runs).hashes

    def test_plain_answers_that_changed_are_counted(self, runs, tmp_path):
        data = Path(runs[0].config["bench"]["root"])
        other = make_run(tmp_path, data, right_with(0.9, 0.5), "other", seed=3)
        grid = Grid([runs[0], other])
        assert grid.plain_changes() > 0
        assert "plain, %" in grid.table.head
        assert len(grid.table.rows) == 2
        assert any("differ between runs" in note for note in grid.notes())
        assert Grid(runs).plain_changes() == 0

    def test_it_is_written_in_every_format(self, runs, tmp_path):
        written = Grid(runs).write(tmp_path, "sweep")
        assert [path.suffix for path in written] == [".csv", ".md", ".tex", ".png"]
        assert Image.open(written[-1]).width > 500
        assert "![" in written[1].read_text()


@pytest.mark.slow
def test_the_command_prints_the_table_and_goes_on(file, model):
    arguments = ["sweep", str(file), "weight=1,2", "bench.limit=4"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "p (Holm)" in done.output
    assert "sweep.csv, sweep.md, sweep.tex, sweep.png, and 2 run folders" in done.output
    assert CliRunner().invoke(main, arguments).exit_code == 0
    wrong = CliRunner().invoke(main, ["sweep", str(file), "weight=1"])
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (2, 1)
