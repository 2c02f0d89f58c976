"""A pass with NaN or inf is no answer: it fails alone, is counted, and never looks like a score."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_runs import make_run
from fakes import make_mme
from safetensors.torch import load_file, save_file

from cof.analyse.scores import summary, table
from cof.bench import vstar
from cof.cli import main
from cof.errors import RunError
from cof.evaluate import runner
from cof.images import load_image
from cof.locate import oracle, prompt
from cof.models.base import Limits
from cof.models.common.checks import Watch, finite
from cof.models.common.embedded import embedded_model_path
from cof.models.llava import Config
from cof.models.llava.model import load
from cof.pipeline import CoF, Settings
from cof.refine import highlight
from cof.store.records import from_record, to_record
from cof.store.replies import ReplyCache
from cof.store.run import load_run
from cof.types import Answer, Box, Question, Region, Result
from cof_lab.mini import mme, pope
from cof_lab.mini import vstar as mini_vstar
from cof_lab.mini.common import MiniConfig

NAN, INF = float("nan"), float("inf")
PERTURB = 1e39
"""Finite, but beyond float32: what 100000 is in float16."""
LIMITS = {
    "greedy": Limits(8),
    "beams": Limits(8, num_beams=2),
    "sampling": Limits(8, temperature=1.0, seed=3),
}


@pytest.fixture(scope="module")
def tiny():
    return load(Config("cof-tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """cof-tiny with one NaN in its lm_head."""
    folder = tmp_path_factory.mktemp("poisoned") / "model"
    shutil.copytree(embedded_model_path(), folder)
    weights = load_file(folder / "model.safetensors")
    weights["language_model.lm_head.weight"][7, 0] = NAN
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini")
    size = MiniConfig(size=2, difficulty="fine")
    mini_vstar.write(root / "vstar", size)
    mme.write(root / "mme", size, kinds=["color"])
    pope.write(root / "pope", MiniConfig(size=1))
    return root


@pytest.fixture(scope="module")
def batch(mini):
    """Four questions about four images, each with its true box."""
    questions = vstar.read(vstar.Config(str(mini / "vstar"), mode="likelihood"))
    return questions, [load_image(mini / "vstar" / question.image) for question in questions]


def chosen(questions, choose):
    return [replace(question, choose=choose) for question in questions]


def cof(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def write_config(folder, mini, bench, **settings):
    """A run config as a file."""
    options = {"mode": "likelihood"} if bench == "vstar" else {}
    config = {
        "model": {"path": "cof-tiny", "device": "cpu", "dtype": "float32"},
        "bench": {"name": bench, "root": str(mini / bench), **options},
        "limits": {"max_new_tokens": 8},
        "batch_size": 4,
        "out": str(folder / "runs"),
        "name": "r",
        "cache": str(folder / "replies.sqlite"),
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config | settings))
    return file


@pytest.mark.parametrize(
    ("row", "sound"),
    [
        ([1.0, -3.0, 2.0], True),
        ([60000.0] * 3, True),  # the sum is beyond float16
        ([1.0, NAN, 2.0], False),
        ([1.0, INF, 2.0], False),
        ([1.0, -INF, 2.0], False),
        ([INF, -INF, 2.0], False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_row_is_sound_when_all_of_it_is_finite(row, sound, dtype):
    rows = torch.tensor([[0.0, 0.0, 0.0], row], dtype=dtype)
    assert finite(rows).tolist() == [True, sound]
    assert finite(rows[None]).tolist() == [[True, sound]]


@pytest.mark.parametrize("bench", ["vstar", "pope", "mme"])
def test_nan_in_the_weights_scores_nothing(bench, mini, poisoned, tmp_path):
    file = write_config(tmp_path, mini, bench, model={"path": str(poisoned), "device": "cpu"})
    for _ in range(2):  # answered, then read back
        done = cof("eval", file)
        assert done.exit_code == 1, done.output
        run = load_run(tmp_path / "runs" / "r")
        total = len(run.results)
        assert total > 0
        assert [run.scores[key] for key in ("cof", "plain", "paired")] == [None] * 3
        assert run.scores["failed"] == {"plain": total, "cof": total}
        assert len(run.failed) == total
        assert "every answer failed" in done.stdout
        assert not re.search(r"\d\.\d", done.stdout), "no number that looks like a score"
        assert f"{total} questions failed" in done.stderr
        assert run.results[0].question.id in done.stderr
        for result in run.results:
            assert result.error.startswith("coarse pass and plain pass: non-finite logits (NaN")
            assert (result.region, result.cof, result.plain) == (None, None, None)
    assert ReplyCache(tmp_path / "replies.sqlite").rows() == []
    answers = (tmp_path / "runs" / "r" / "answers").rglob("*.jsonl")
    assert all(path.read_text() == "" for path in answers)


@pytest.mark.parametrize(
    ("dtype", "perturb"), [("float32", PERTURB), ("float16", 100000.0)], ids=["float32", "float16"]
)
def test_nan_in_the_cof_pass_leaves_the_plain_answers(dtype, perturb, mini, tmp_path):
    model = {"path": "cof-tiny", "device": "cpu", "dtype": dtype}
    fixed = {"model": model, "locate": {"name": "oracle"}}
    sound = write_config(tmp_path, mini, "vstar", **fixed, name="sound")
    assert cof("eval", sound).exit_code == 0
    broken = write_config(tmp_path, mini, "vstar", **fixed, refine={"perturb": perturb})
    done = cof("eval", broken)
    assert done.exit_code == 1
    healthy, run = (load_run(tmp_path / "runs" / name) for name in ("sound", "r"))
    assert run.scores["plain"] == healthy.scores["plain"]
    assert run.scores["cof"] is run.scores["paired"] is None
    assert run.scores["failed"] == {"plain": 0, "cof": 4}
    assert "(plain 0, CoF 4)" in done.stdout
    overall = next(line for line in done.stdout.splitlines() if line.startswith("overall"))
    assert overall.split() == ["overall", "4", overall.split()[2], "failed", "failed"]
    before = [result.plain.text for result in healthy.results]
    assert [result.plain.text for result in run.results] == before
    hint = "try dtype=float32" if dtype == "float16" else "refine.perturb"
    for result in run.results:
        assert result.error.startswith(f"CoF pass: non-finite logits (NaN or inf) in {dtype}")
        assert hint in result.error
        assert result.region is not None


@pytest.mark.parametrize("how", LIMITS)
@pytest.mark.parametrize("choose", [False, True])
def test_a_broken_row_does_not_touch_the_rows_beside_it(how, choose, tiny, batch, monkeypatch):
    """One image's features hold a NaN: its question fails in every pass, the others are equal."""
    questions, images = chosen(batch[0], choose), batch[1]
    settings = Settings(locate=prompt.Config(max_new_tokens=40), limits=LIMITS[how])
    healthy = CoF(tiny, settings).answer_batch(questions, images)
    look = tiny.look

    @torch.inference_mode()
    def spoil(pictures):
        views = look(pictures)
        views[1].features[3, 0] = NAN
        views[1].shared.rows[0][0].embeds[1, -1, 0] = NAN
        return views

    monkeypatch.setattr(tiny, "look", spoil)
    results = CoF(tiny, settings).answer_batch(questions, images)
    assert results[1].error.startswith("coarse pass and plain pass: non-finite logits")
    assert (results[1].region, results[1].cof, results[1].plain) == (None, None, None)
    for row in (0, 2, 3):
        assert results[row].error == ""
        assert results[row].region.reply == healthy[row].region.reply
        if how != "sampling":  # a broken row ends early, which moves the generator
            assert results[row].cof.text == healthy[row].cof.text
            assert results[row].plain.text == healthy[row].plain.text


@pytest.mark.parametrize("how", LIMITS)
@pytest.mark.parametrize("choose", [False, True])
def test_only_highlighted_rows_of_a_broken_highlight_fail(how, choose, tiny, batch):
    """Several settings in one batch; two questions have no box, so nothing of them is perturbed."""
    questions, images = chosen(batch[0], choose), batch[1]
    questions = [replace(one, boxes=one.boxes if k % 2 else ()) for k, one in enumerate(questions)]
    refines = [
        highlight.Config(2.0, perturb=PERTURB),
        highlight.Config(4.5),
        highlight.Config(4.5, perturb=PERTURB),
        highlight.Config(1.0),
    ]
    base = Settings(locate=oracle.Config(), limits=LIMITS[how])
    variants = [replace(base, refine=one) for one in refines]
    found = CoF(tiny, base).answer_many(questions, images, variants)
    for refine, results in zip(refines, found, strict=True):
        for k, result in enumerate(results):
            broken = refine.perturb == PERTURB and k % 2 == 1
            assert (result.cof is None) == broken
            assert result.error.startswith("CoF pass: non-finite") == broken
            assert result.plain is not None
            assert result.region is not None


@pytest.mark.parametrize("how", ["beams", "sampling"])
def test_watching_changes_nothing_in_a_healthy_model(how, tiny, batch):
    questions, images = batch
    encoded = tiny.encode(tiny.look(images), [question.text for question in questions])
    limits = LIMITS[how]
    watch = Watch(min(tiny.stops))
    watched = tiny.generate_raw(encoded, limits, logits_processor=[watch])
    assert torch.equal(watched, tiny.generate_raw(encoded, limits))
    assert watch.sound(len(questions)) == [True] * 4


def test_a_late_nan_fails_too_and_one_behind_the_end_does_not(tiny, batch, monkeypatch):
    """The first row breaks at its second token; what follows a finished reply is not looked at."""
    questions, images = batch
    encoded = tiny.encode(tiny.look(images), [question.text for question in questions])
    healthy = tiny.generate(encoded, Limits(8))
    lengths = [len(answer.tokens) for answer in healthy]
    assert min(lengths) > 1
    head, steps = tiny.network.lm_head.forward, iter(range(99))

    def spoil(hidden):
        logits, step = head(hidden), next(steps)
        if step == 1:
            logits[0, 5] = NAN
        return logits

    monkeypatch.setattr(tiny.network.lm_head, "forward", spoil)
    found = tiny.generate(encoded, Limits(8))
    assert found[0].error.startswith("non-finite")
    assert (found[0].text, found[0].tokens) == ("", ())
    assert [one.tokens for one in found[1:]] == [one.tokens for one in healthy[1:]]


def losses(model, encoded, texts):
    """Mean token losses; NaN for a row that failed."""
    return [
        float("nan") if one.error else -sum(one.logprobs) / len(one.logprobs)
        for one in model.score(encoded, texts)
    ]


def test_padding_behind_a_short_option_may_be_anything(tiny, batch, monkeypatch):
    questions, images = batch
    encoded = tiny.encode(tiny.look(images[:2]), [question.text for question in questions[:2]])
    options = ["red", "It is a red circle to the left of the star"]
    expected = losses(tiny, encoded, options)
    head = tiny.network.lm_head.forward

    def spoil(hidden):
        logits = head(hidden)
        logits[0, -1] = NAN
        return logits

    monkeypatch.setattr(tiny.network.lm_head, "forward", spoil)
    assert losses(tiny, encoded, options) == expected
    later = losses(tiny, encoded, options[::-1])
    assert [torch.tensor(loss).isnan().item() for loss in later] == [True, False]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_loss_is_none_where_any_logit_is_not_finite(bad, tiny, batch, monkeypatch):
    """Minus infinity for another word would leave the loss finite, and a number like others."""
    questions, images = batch
    encoded = tiny.encode(tiny.look(images[:2]), [question.text for question in questions[:2]])
    head = tiny.network.lm_head.forward

    def spoil(hidden):
        logits = head(hidden)
        logits[1, 0, 700] = bad
        return logits

    monkeypatch.setattr(tiny.network.lm_head, "forward", spoil)
    sound, broken = losses(tiny, encoded, ["red", "blue"])
    assert torch.tensor([sound, broken]).isnan().tolist() == [False, True]


def test_the_cache_keeps_sound_replies_alone(tiny, batch, tmp_path, monkeypatch):
    questions, images = batch
    cache = ReplyCache(tmp_path / "replies.sqlite")
    settings = Settings(limits=Limits(2))
    with monkeypatch.context() as patch:
        generate = tiny.generate

        def first_fails(encoded, limits, *done):
            """Of the coarse pass alone; the fine passes have no `done`."""
            answers = generate(encoded, limits, *done)
            return [Answer("", error="broke"), *answers[1:]] if done else answers

        patch.setattr(tiny, "generate", first_fails)
        results = CoF(tiny, settings, cache).answer_batch(questions, images)
    assert [result.region is None for result in results] == [True, False, False, False]
    assert [result.cof is None for result in results] == [True, False, False, False]
    assert all(result.plain for result in results), "the plain pass needs no region"
    assert [result.error for result in results] == ["coarse pass: broke", "", "", ""]
    assert (results[0].cells, results[0].focus_boxes) == ((), ())
    assert sum(count for *_, count in cache.rows()) == 3
    again = CoF(tiny, settings, cache).answer_batch(questions, images)
    assert (cache.hits, cache.misses) == (3, 5)
    assert all(result.region and result.cof for result in again)


def test_records_keep_a_failed_pass():
    result = Result(
        Question("q", "i", "What?"),
        region=Region((Box(0, 0, 1, 1),), "prompt", "all of it"),
        status="whole",
        plain=Answer("Yes", (1, 2)),
        error="CoF pass: broke",
    )
    record = json.loads(json.dumps(to_record(3, result)))
    assert from_record(record) == result
    assert (record["cof"], record["plain"]["text"]) == (None, "Yes")


FAILED = Answer("", error="non-finite logits")


def test_failed_questions_are_asked_again(tiny, mini, tmp_path, monkeypatch):
    file = write_config(tmp_path, mini, "vstar", locate={"name": "oracle"})
    pipeline = CoF(tiny, Settings(locate=oracle.Config(), limits=Limits(8)))
    monkeypatch.setattr(runner, "build_pipeline", lambda settings: pipeline)
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "score", lambda encoded, texts: [FAILED] * len(texts))
        assert cof("eval", file).exit_code == 1
    assert cof("eval", file).exit_code == 1, "what failed stays failed unless it is asked again"
    mended = cof("eval", file, "--retry-failed")
    assert mended.exit_code == 0, mended.output
    assert not load_run(tmp_path / "runs" / "r").failed
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "score", lambda encoded, texts: [FAILED] * len(texts))
        strict = cof("eval", file, "--overwrite", "--strict")
    assert strict.exit_code == 2
    assert "non-finite logits" in strict.stderr


def test_ask_says_it_in_one_line(poisoned, mini):
    image = next((mini / "vstar").rglob("*.jpg"))
    done = cof("ask", image, "What color is the circle?", "--model", poisoned, "--device", "cpu")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cof: coarse pass: non-finite logits (NaN or inf) in float32;")
    assert len(done.stderr.splitlines()) == 1


def test_some_failures_stand_beside_the_score(tmp_path):
    questions = [Question(f"{k}", f"{k}", "?", "color", "Yes") for k in range(4)]
    region, said = Region((), "stub"), Answer("Yes")
    results = [Result(one, region, cof=said, plain=said) for one in questions]
    results[0] = replace(results[0], cof=None, error="CoF pass: broke")
    from cof.bench import mme as bench

    scores = summary(bench, results, True, 0)
    assert scores["failed"] == {"plain": 0, "cof": 1}
    assert (scores["paired"]["plain"], scores["paired"]["cof"]) == (1.0, 0.75)
    assert "1 failed, counted as wrong in the pass that failed (plain 0, CoF 1)" in table(
        bench, scores, results
    )


class TestComparisons:
    @pytest.fixture
    def data(self, tmp_path):
        return make_mme(tmp_path / "data", 6)

    def broken(self, share):
        """All right, but CoF fails on the first so many images."""

        def say(question, rng):
            number = int(Path(question.image).stem)
            return question.reference, None if number < share else question.reference

        return say

    def test_compare_and_report_say_how_many_failed(self, data, tmp_path):
        make_run(tmp_path, data, self.broken(2))
        text = cof("compare", tmp_path / "r").stdout
        assert "failed, counted as wrong: r plain 0, r cof 4 (of 12)" in text
        found = json.loads(cof("compare", tmp_path / "r", "--json").stdout)[0]
        assert found["failed"] == [0, 4]
        assert len(found["lost"]) == 4
        alone = tmp_path / "alone"
        assert cof("report", tmp_path / "r", "--out", alone, "--gallery", 0).exit_code == 0
        page = (alone / "report.md").read_text()
        assert "; failed, counted as wrong: plain 0, CoF 4" in page
        assert "4 (plain 0, CoF 4) |" in page
        make_run(tmp_path, data, self.broken(0), name="s")
        make_run(tmp_path, data, self.broken(0), name="t")
        family = cof("compare", *(tmp_path / name for name in "str")).stdout
        assert "failed, counted as wrong: s cof 0, r cof 4 (of 12)" in family
        assert "t cof" not in family.split("failed, counted")[1]
        out = tmp_path / "report"
        done = cof("report", tmp_path / "r", tmp_path / "s", "--out", out, "--gallery", 0)
        assert done.exit_code == 0, done.output
        page = (out / "report.md").read_text()
        assert "failed and counted as wrong: plain 0 answers, CoF 4 answers" in page
        assert "| 0, 4" in page.replace("  ", " ")

    def test_a_pass_without_answers_is_not_compared(self, data, tmp_path):
        make_run(tmp_path, data, self.broken(6))
        for command in (("compare",), ("report", "--gallery", 0, "--out", tmp_path / "out")):
            done = cof(*command, tmp_path / "r")
            assert done.exit_code == 2
            assert "every CoF answer failed (" in done.stderr
            assert len(done.stderr.splitlines()) == 1

    def test_one_broken_setting_leaves_the_sweep_its_table(self, mini, tmp_path):
        file = write_config(tmp_path, mini, "vstar", locate={"name": "oracle"})
        done = cof("sweep", file, f"perturb=1,{PERTURB:.0e}", "weight=1,4.5")
        assert done.exit_code == 1, done.output
        page = (tmp_path / "runs" / "r" / "sweep.md").read_text()
        assert page.count("left out: every CoF answer failed") == 2
        assert sum(line.startswith("|") for line in page.splitlines()) == 2 + 3
        assert "has no score: every CoF answer failed" in done.stderr
        assert "8 questions failed" in done.stderr
        assert "(plain 0, CoF 8)" in done.stderr

    def test_controls_of_a_broken_setting_are_refused(self, mini, tmp_path):
        broken = {"locate": {"name": "oracle"}, "refine": {"perturb": PERTURB}}
        done = cof("controls", write_config(tmp_path, mini, "vstar", **broken))
        assert done.exit_code == 2
        assert "every CoF answer failed" in done.stderr
        assert "Traceback" not in done.stderr

    def test_report_without_any_score_raises_for_its_reader(self, data, tmp_path):
        from cof.analyse.passes import scored_pass

        run = make_run(tmp_path, data, self.broken(6))
        assert scored_pass(run, "plain").failures == 0
        with pytest.raises(RunError, match="there is no score"):
            scored_pass(run, "cof")
