import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from fakes import StubModel, StubPipeline, make_mme
from hypothesis import given
from hypothesis import strategies as st

from cof import load_run
from cof.cli import main
from cof.config import identity, schema
from cof.errors import DataError, ModelError, RunError
from cof.evaluate import runner
from cof.evaluate.runner import Options, run
from cof.store import manifest
from cof.store.dataset import fingerprint, plan_batches, read_questions
from cof.store.folder import RunFolder
from cof.store.records import comparable, from_record, to_record
from cof.types import Answer, Box, Question, Region, Result

IMAGES = 5
BUILD = runner.build_pipeline


@pytest.fixture
def data(tmp_path):
    return make_mme(tmp_path / "mme", IMAGES)


@pytest.fixture
def pipelines(monkeypatch):
    """Every pipeline that a run built, in order."""
    built = []

    def build(settings):
        built.append(StubPipeline(settings.general.plain))
        return built[-1]

    monkeypatch.setattr(runner, "build_pipeline", build)
    return built


@pytest.fixture
def settings(data, tmp_path, pipelines):
    def make(**top):
        return schema.resolve(
            {
                "bench": {"name": "mme", "root": str(data), "limit": top.pop("limit", None)},
                "refine": {"name": "plain"},
                "out": str(tmp_path / "runs"),
                "name": "r",
                "batch_size": 4,
                **top,
            }
        )

    return make


def lines(path):
    return [json.loads(line) for line in (Path(path) / "records.jsonl").read_text().splitlines()]


def compared(path):
    return [comparable(record) for record in lines(path)]


class TestRun:
    def test_every_question_has_one_record_in_plan_order(self, settings, pipelines):
        got = run(settings())
        questions = read_questions(settings())
        assert [record["index"] for record in lines(got.path)] == list(range(2 * IMAGES))
        assert [result.question for result in got.results] == questions
        assert [len(batch) for batch in pipelines[0].batches] == [4, 4, 2]

    def test_what_the_pipeline_said_is_what_load_run_gives_back(self, settings):
        got = run(settings())
        result = got.results[3]
        batch = [result.question for result in got.results[:4]]
        from cof.images import load_image

        images = [load_image(Path(settings().bench.root) / asked.image) for asked in batch]
        expected = StubPipeline().answer_batch(batch, images)[3]
        assert comparable(to_record(3, result)) == comparable(to_record(3, expected))
        assert load_run(got.path) == got

    def test_the_folder_says_what_ran(self, settings, data):
        got = run(settings(), Options(command="cof eval x.yaml"))
        assert schema.resolve(got.config) == settings()
        kept = got.manifest
        assert kept["config_hash"] == identity.content_hash(got.config, kept["identity"])
        assert kept["dataset"] == fingerprint(read_questions(settings()), data)
        assert (kept["dataset"]["question_count"], kept["dataset"]["image_count"]) == (10, 5)
        assert (kept["model"], kept["command"]) == ({"name": "stub"}, "cof eval x.yaml")
        assert kept["versions"]["cof"] == "0.1.0"
        assert kept["resumed"] == []

    def test_two_runs_differ_in_seconds_alone(self, settings):
        one, two = run(settings(name="one")), run(settings(name="two"))
        assert compared(one.path) == compared(two.path)
        assert lines(one.path) != lines(two.path)
        assert one.manifest == two.manifest
        assert one.scores == two.scores

    def test_scores_are_the_benchmarks(self, settings):
        got = run(settings())
        from cof.bench import mme

        questions = [result.question for result in got.results]
        assert got.scores["cof"] == mme.score(questions, [r.cof.text for r in got.results])
        assert got.scores["plain"]["subtasks"]["color"]["score"] == 50
        right = [mme.credit(result.question, result.cof.text) for result in got.results]
        assert got.scores["paired"]["cof"] == pytest.approx(sum(right) / len(right))
        assert got.scores["paired"]["plain"] == 0.5
        assert sum(got.scores["status"].values()) == 10

    def test_the_written_answers_score_as_the_run_does(self, settings):
        got = run(settings())
        path = got.path / "answers" / "cof" / "eval_tool"
        done = CliRunner().invoke(main, ["score", "mme", str(path), "--json"])
        assert json.loads(done.stdout)["subtasks"] == got.scores["cof"]["subtasks"]

    def test_without_the_plain_pass_there_is_no_comparison(self, settings):
        got = run(settings(plain=False))
        assert (got.scores["plain"], got.scores["paired"]) == (None, None)
        assert all(result.plain is None for result in got.results)

    def test_a_limit_keeps_whole_images(self, settings):
        assert len(run(settings(limit=2)).results) == 4

    def test_a_finished_run_is_scored_again_without_a_model(self, settings, pipelines):
        got = run(settings())
        (got.path / "scores.json").unlink()
        assert run(settings()) == got
        assert len(pipelines) == 1

    def test_the_made_up_name_depends_on_config_and_questions(self, settings, data):
        one, same = run(settings(name=None)), run(settings(name=None))
        other = run(settings(name=None, seed=3))
        fewer = run(settings(name=None, limit=2))
        assert one.path == same.path
        assert len({one.path, other.path, fewer.path}) == 3
        assert one.path.name.startswith("mme-cof-tiny-plain-")


class TestRealStages:
    """The pipeline that the runner builds, around a stub that says Yes where it is highlighted."""

    @pytest.fixture
    def ask(self, settings, monkeypatch):
        monkeypatch.setattr(runner, "build_pipeline", BUILD)

        def run_with(loaded, **top):
            monkeypatch.setattr("cof.models.llava.load", lambda config: loaded)
            return run(settings(**{"refine": {"name": "highlight"}, **top}))

        return run_with

    def test_cof_answers_highlighted_and_plain_does_not(self, ask):
        got = ask(StubModel('{"box": [0.25, 0.25, 0.5, 0.5]}'))
        assert {result.cof.text for result in got.results} == {"Yes"}
        assert {result.plain.text for result in got.results} == {"No"}
        assert {result.cells for result in got.results} == {(5,)}
        assert got.scores["status"] == {"boxes": 10, "no_box": 0, "whole": 0, "empty": 0}
        assert got.results[0].region.reply == '{"box": [0.25, 0.25, 0.5, 0.5]}'

    def test_a_reply_without_a_box_is_a_plain_pass_and_counted(self, ask):
        got = ask(StubModel("I cannot say."))
        assert {result.cof.text for result in got.results} == {"No"}
        assert got.scores["status"]["no_box"] == 10

    def test_the_whole_image_as_region_asks_nothing_and_highlights_all(self, ask):
        model = StubModel()
        got = ask(model, locate={"name": "whole"}, plain=False)
        assert got.scores["status"]["whole"] == 10
        assert len(model.seen) == 10
        assert all(seen.highlighted for seen in model.seen)

    def test_a_cache_spares_another_run_the_coarse_stage(self, ask, tmp_path):
        asked = []
        for name, weight in (("a", 2.0), ("b", 3.0)):
            model = StubModel()
            refine = {"name": "highlight", "weight": weight}
            got = ask(model, name=name, refine=refine, cache=str(tmp_path / "replies"))
            asked.append(sum("bounding box" in seen.prompt for seen in model.seen))
            assert got.scores["status"]["boxes"] == 10
        assert asked == [10, 0]

    def test_the_tiny_llava_runs_and_resumes(self, ask, golden):
        from cof.models import llava

        model = llava.load(llava.Config(str(golden / "checkpoint"), device="cpu", dtype="float32"))
        tiny = {"limits": {"max_new_tokens": 4}, "model": {"path": str(golden / "checkpoint")}}
        whole = ask(model, **tiny)
        before = compared(whole.path)
        data = (whole.path / "records.jsonl").read_bytes()
        (whole.path / "records.jsonl").write_bytes(data[: len(data) // 2])
        assert compared(ask(model, **tiny).path) == before
        assert whole.manifest["model"]["dtype"] == "float32"


class TestResume:
    def test_any_cut_of_the_records_is_completed_exactly(self, settings, pipelines):
        whole = run(settings())
        data = (whole.path / "records.jsonl").read_bytes()
        ends = [place + 1 for place, byte in enumerate(data) if byte == ord("\n")]
        cuts = [0, 1, ends[0] - 1, ends[0], ends[2] + 40, ends[3], ends[-2] + 1, ends[-1] - 1]
        for cut in cuts:
            (whole.path / "records.jsonl").write_bytes(data[:cut])
            (whole.path / "scores.json").unlink()
            again = run(settings())
            kept = sum(end <= cut for end in ends)
            assert compared(again.path) == [comparable(json.loads(x)) for x in data.splitlines()]
            assert lines(again.path)[:kept] == [json.loads(x) for x in data.splitlines()[:kept]]
            assert again.scores == whole.scores

    def test_a_torn_line_is_cut_off_at_every_byte(self, tmp_path):
        folder = RunFolder(tmp_path)
        record = to_record(0, Result(Question("a", "b.png", "c\n“d”")))
        folder.append([record, {**record, "index": 1}])
        data = (tmp_path / "records.jsonl").read_bytes()
        first = data.index(b"\n") + 1
        for cut in range(len(data)):
            (tmp_path / "records.jsonl").write_bytes(data[:cut])
            folder.repair()
            kept = 0 if cut < first else first
            assert (tmp_path / "records.jsonl").read_bytes() == data[:kept]

    def test_a_part_of_a_batch_is_answered_in_its_whole_company(self, settings, pipelines):
        whole = run(settings())
        kept = lines(whole.path)[:5]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        (whole.path / "records.jsonl").write_text(text)
        run(settings())
        assert pipelines[1].batches == pipelines[0].batches[1:]
        assert [record["index"] for record in lines(whole.path)] == list(range(10))

    def test_damage_before_the_last_line_is_an_error(self, settings):
        path = run(settings()).path / "records.jsonl"
        rows = path.read_text().splitlines(keepends=True)
        path.write_text("".join([rows[0], rows[1][:50] + "\n", *rows[2:]]))
        with pytest.raises(RunError, match=r"line 2 is damaged"):
            run(settings())
        path.write_text("".join([*rows, rows[4]]) + "\n")
        with pytest.raises(RunError, match=r"line 11 is damaged or a repetition"):
            load_run(path.parent)

    def test_ctrl_c_leaves_a_run_that_goes_on(self, settings, pipelines, monkeypatch, tmp_path):
        answer = StubPipeline.answer_batch

        def stop_at_second(self, questions, images):
            if self is pipelines[0] and len(self.batches) == 1:
                raise KeyboardInterrupt
            return answer(self, questions, images)

        monkeypatch.setattr(StubPipeline, "answer_batch", stop_at_second)
        file = tmp_path / "c.yaml"
        file.write_text(json.dumps(settings().as_dict()))
        stopped = CliRunner().invoke(main, ["eval", str(file)])
        assert stopped.exit_code == 130
        assert "the same command goes on from here" in stopped.stderr
        assert len(lines(tmp_path / "runs" / "r")) == 4
        done = CliRunner().invoke(main, ["eval", str(file)])
        assert (done.exit_code, len(lines(tmp_path / "runs" / "r"))) == (0, 10)

    def test_another_environment_is_written_down(self, settings, pipelines, monkeypatch):
        path = run(settings()).path
        (path / "records.jsonl").write_text(json.dumps(lines(path)[0]) + "\n")
        monkeypatch.setattr(manifest, "versions", lambda: {"torch": "other"})
        kept = run(settings()).manifest
        assert kept["resumed"] == [{"records": 1, "versions": {"torch": "other"}}]
        assert kept["versions"]["cof"] == "0.1.0"


class TestRefusal:
    def test_another_config_is_refused_by_its_keys(self, settings):
        run(settings())
        with pytest.raises(RunError, match=r"another config \(seed: 0 there, 2 here\)"):
            run(settings(seed=2))

    def test_other_questions_are_refused(self, settings, data):
        run(settings())
        text = data / "color" / "0001.txt"
        text.write_text(text.read_text().replace("thing", "thong"))
        with pytest.raises(RunError, match=r"another dataset \(questions: "):
            run(settings())

    def test_other_pixels_are_refused(self, settings, data):
        run(settings())
        shutil.copy(data / "color" / "0001.png", data / "color" / "0003.png")
        with pytest.raises(RunError, match=r"another dataset \(images: "):
            run(settings())

    def test_other_weights_are_refused_half_way(self, settings, pipelines, monkeypatch):
        path = run(settings()).path
        (path / "records.jsonl").write_text(json.dumps(lines(path)[0]) + "\n")
        said = {"name": "stub", "revision": "2"}
        other = SimpleNamespace(**vars(StubPipeline.model) | {"describe": lambda: said})
        monkeypatch.setattr(StubPipeline, "model", other)
        with pytest.raises(RunError, match="cof-tiny: its files changed while it was loaded"):
            run(settings())
        other.describe = lambda: {"name": "stub", "attention": "2"}
        with pytest.raises(
            RunError, match=r"another model \(model\.attention: 'absent' there, '2'"
        ):
            run(settings())
        assert len(lines(path)) == 1

    @pytest.mark.parametrize("used", [False, True])
    def test_a_template_that_came_later_counts_where_it_is_used(self, settings, monkeypatch, used):
        """LLaVA's prompts follow `conv`: a run goes on when its checkpoint gets a template."""
        said = {"name": "stub", **({} if used else {"conv": "vicuna_v1"}), "chat_template": None}
        model = SimpleNamespace(**vars(StubPipeline.model) | {"describe": lambda: said})
        monkeypatch.setattr(StubPipeline, "model", model)
        path = run(settings()).path
        (path / "records.jsonl").write_text(json.dumps(lines(path)[0]) + "\n")
        model.describe = lambda: {**said, "chat_template": "vicuna"}
        if used:
            with pytest.raises(RunError, match="chat_template: None there, 'vicuna' here"):
                run(settings())
        else:
            assert len(lines(run(settings()).path)) > 1

    def test_a_mended_image_is_told_from_another_dataset(self, settings, data):
        run(settings())
        shutil.copy(data / "color" / "0001.png", data / "color" / "0003.png")
        with pytest.raises(RunError, match="--retry-failed"):
            run(settings())

    def test_a_run_that_recorded_nothing_takes_the_corrected_config(self, settings, monkeypatch):
        def broken(config):
            raise ModelError("no model at 'typo'")

        with monkeypatch.context() as patch:
            patch.setattr(runner, "build_pipeline", broken)
            with pytest.raises(ModelError, match="typo"):
                run(settings(batch_size=2))
        assert len(run(settings()).results) == 10

    def test_an_error_of_the_model_is_not_blamed_on_the_folder(self, settings, monkeypatch):
        def broken(config):
            raise OSError("weights are gone")

        monkeypatch.setattr(runner, "build_pipeline", broken)
        with pytest.raises(OSError, match="weights are gone"):
            run(settings())

    def test_overwrite_starts_anew(self, settings):
        run(settings())
        got = run(settings(batch_size=2), Options(overwrite=True))
        assert got.config["batch_size"] == 2
        assert len(got.results) == 10

    def test_somebody_elses_folder_is_left_alone(self, settings, tmp_path):
        path = tmp_path / "runs" / "r"
        path.mkdir(parents=True)
        (path / "thesis.tex").write_text("x")
        with pytest.raises(RunError, match=r"holds 'thesis.tex' but no run"):
            run(settings(), Options(overwrite=True))
        assert [file.name for file in path.iterdir()] == ["thesis.tex"]

    def test_one_writer_at_a_time(self, settings):
        path = run(settings()).path
        with (
            RunFolder(path).locked(),
            pytest.raises(RunError, match="another process is writing"),
        ):
            run(settings())

    def test_no_run_folder(self, tmp_path):
        with pytest.raises(RunError, match=r"not a run folder \(no config\.yaml\)"):
            load_run(tmp_path)

    def test_a_folder_that_cannot_be_made(self, settings, tmp_path):
        (tmp_path / "runs").write_text("a file")
        with pytest.raises(RunError, match="cannot be written"):
            run(settings())


class TestBrokenImages:
    @pytest.fixture
    def broken(self, data):
        path = data / "color" / "0001.png"
        kept = path.read_bytes()
        path.write_bytes(kept[:20])
        return path, kept

    def test_its_questions_fail_alone(self, settings, broken):
        got = run(settings())
        assert [result.question.image for result in got.failed] == ["color/0001.png"] * 2
        assert all("0001.png" in result.error for result in got.failed)
        assert [bool(result.cof) for result in got.results] == [
            not result.error for result in got.results
        ]
        assert (got.scores["errors"], sum(got.scores["status"].values())) == (2, 8)

    def test_the_command_says_so(self, settings, broken, tmp_path):
        file = tmp_path / "c.yaml"
        file.write_text(json.dumps(settings().as_dict()))
        for _ in range(2):
            done = CliRunner().invoke(main, ["eval", str(file)])
            assert done.exit_code == 1
            assert "2 questions failed" in done.stderr
            assert "0001.png" in done.stderr

    def test_strict_stops_at_once_and_keeps_the_rest(self, settings, broken, tmp_path):
        file = tmp_path / "c.yaml"
        file.write_text(json.dumps({**settings().as_dict(), "batch_size": 1}))
        done = CliRunner().invoke(main, ["eval", str(file), "--strict"])
        assert done.exit_code == 2
        assert "0001.png" in done.stderr
        assert "Traceback" not in done.stderr
        found = lines(tmp_path / "runs" / "r")
        assert not any(record["error"] for record in found)
        assert len(found) < 10

    def test_a_mended_image_is_asked_again(self, settings, broken, data):
        path, kept = broken
        run(settings())
        path.write_bytes(kept)
        mended = run(settings(), Options(retry_failed=True))
        assert not mended.failed
        assert [r.question for r in mended.results] == read_questions(settings())
        assert mended.manifest["resumed"][0]["records"] == 6
        assert run(settings()) == mended
        whole = run(settings(name="whole"))
        assert [comparable(to_record(0, r)) for r in mended.results] == [
            comparable(to_record(0, r)) for r in whole.results
        ]

    def test_images_of_answered_questions_may_not_change(self, settings, broken, data, caplog):
        path, kept = broken
        done = run(settings())
        assert list(done.manifest["failed_images"]["files"]) == ["color/0001.png"]
        other = data / "color" / "0003.png"
        answered = other.read_bytes()
        path.write_bytes(kept)
        other.write_bytes(kept)
        before = (done.path / "records.jsonl").read_bytes()
        with pytest.raises(RunError, match="others than those of failed questions were changed"):
            run(settings(), Options(retry_failed=True))
        assert (done.path / "records.jsonl").read_bytes() == before
        other.write_bytes(answered)
        mended = run(settings(), Options(retry_failed=True))
        assert mended.manifest["failed_images"]["files"] == {}
        assert "it is not known which images changed" not in caplog.text

    def test_an_older_run_does_not_know_which_images_failed(self, settings, broken, data, caplog):
        path, kept = broken
        file = run(settings()).path / "manifest.json"
        older = json.loads(file.read_text())
        del older["failed_images"]
        file.write_text(json.dumps(older))
        path.write_bytes(kept)
        assert not run(settings(), Options(retry_failed=True)).failed
        assert "it is not known which images changed" in caplog.text

    def test_two_questions_of_one_id_are_refused(self, settings, monkeypatch):
        from cof.bench import mme

        monkeypatch.setattr(mme, "read", lambda config: [Question("a", "b", "c")] * 2)
        with pytest.raises(DataError, match="two questions have the id 'a'"):
            run(settings())


names = st.text("abc", min_size=1, max_size=1)


@given(st.lists(names, max_size=30), st.integers(1, 8))
def test_a_plan_holds_every_question_once_with_its_image_together(images, size):
    questions = [Question(str(number), image, "?") for number, image in enumerate(images)]
    batches = plan_batches(questions, size)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows, key=lambda row: row[0]) == list(enumerate(questions))
    assert all(1 <= len(batch) <= size for batch in batches)
    assert all(len(batch) == size for batch in batches[:-1])
    turns = [image for image, _ in itertools.groupby(question.image for _, question in rows)]
    assert len(turns) == len(set(images))


texts = st.text(max_size=20)
spans = st.tuples(st.floats(0, 0.5, exclude_max=True), st.floats(0.5, 1))
boxes = st.lists(st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1]), spans, spans), max_size=3)
answers = st.builds(Answer, texts, st.lists(st.integers(0, 99)).map(tuple), st.just(0.125))
questions = st.builds(
    Question, texts, texts, texts, texts, texts, boxes.map(tuple), st.lists(texts).map(tuple)
)
regions = st.builds(Region, boxes.map(tuple), texts, texts, texts, st.just(0.5))
results = st.builds(
    Result,
    questions,
    st.none() | regions,
    boxes.map(tuple),
    st.lists(st.integers(0, 99)).map(tuple),
    st.integers(0, 99),
    st.sampled_from(["boxes", "no_box", "whole", "empty"]),
    st.none() | answers,
    st.none() | answers,
    texts,
)


@given(results, st.integers(0, 10**6))
def test_a_record_gives_back_its_result(result, index):
    record = json.loads(json.dumps(to_record(index, result)))
    assert from_record(record) == result
    assert record["index"] == index
