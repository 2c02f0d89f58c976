"""The doubt gate: margins against sorted logits, sure answers kept for nothing."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import StubModel, make_mme
from PIL import Image

from cof import load_run
from cof.analyse.gate import choose, gate_table
from cof.analyse.statistics import Estimate
from cof.batch import Batch
from cof.cli import main
from cof.config import schema
from cof.config.general import Gate
from cof.config.identity import content_hash
from cof.config.yaml import dump_yaml, parse_yaml
from cof.errors import ConfigError, ModelError
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import plain
from cof.store.record_check import result_of
from cof.store.records import comparable, to_record
from cof.types import Box, Gated, Question

TEXTS = ("What is it?", "Where is the red cup?", "Is it?", "How many are there?")
CONFIG = {"bench": {"name": "mme", "root": "somewhere"}}


@pytest.fixture(scope="module")
def asked():
    return [Question(str(number), f"{number}.png", text) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 256, (4, 48, 64, 3), generator=generator)
    return [Image.fromarray(one.to(torch.uint8).numpy()) for one in noise]


def settings(threshold, **more):
    return Settings(limits=Limits(3), gate=Gate(threshold), **more)


def forwards(model, work):
    before = model.counters.forwards
    return work(), model.counters.forwards - before


class TestMargin:
    def test_is_the_least_gap_between_the_two_best_tokens(self, llava, asked, pictures):
        batch = Batch.of(llava, asked, pictures, Limits(3))
        rows = llava.greedy(batch.encode(), 3, keep_logits=True)
        for row, said in zip(rows, batch.plain, strict=True):
            gaps = []
            for logits in row.logits[: len(said.tokens)]:
                first, second, *_ = sorted(logits.log_softmax(-1).tolist(), reverse=True)
                gaps.append(first - second)
            assert said.margin == pytest.approx(min(gaps), abs=1e-5)
        assert len({round(said.margin, 4) for said in batch.plain}) == len(TEXTS)

    def test_of_weighed_options_is_the_gap_of_their_losses(self, llava, asked, pictures):
        options = ("red", "a cup", "two of them")
        weighed = [replace(one, options=options, choose=True) for one in asked]
        batch = Batch.of(llava, weighed, pictures, Limits(3))
        for said, every in zip(batch.plain, batch.weigh(batch.encode()), strict=True):
            losses = sorted(-sum(one.logprobs) / len(one.logprobs) for one in every)
            assert said.margin == pytest.approx(losses[1] - losses[0], abs=1e-5)

    def test_beams_have_none(self, llava, asked, pictures):
        batch = Batch.of(llava, asked[:1], pictures[:1], Limits(2, num_beams=2))
        assert batch.plain[0].margin is None


class TestGate:
    def test_sure_answers_are_the_plain_ones_and_doubtful_ones_as_without_a_gate(
        self, llava, asked, pictures
    ):
        free = CoF(llava, Settings(limits=Limits(3))).answer_batch(asked, pictures)
        margins = [said.margin for said in Batch.of(llava, asked, pictures, Limits(3)).plain]
        threshold = sorted(margins)[1]
        found = CoF(llava, settings(threshold)).answer_batch(asked, pictures)
        assert sorted(one.gate.asked for one in found) == [False, False, True, True]
        for one, ungated, margin in zip(found, free, margins, strict=True):
            assert one.gate.margin == pytest.approx(margin, abs=1e-5)
            assert one.gate.asked == (margin <= threshold)
            assert one.plain.tokens == ungated.plain.tokens
            if one.gate.asked:
                assert one.cof.tokens == ungated.cof.tokens
                assert (one.region.reply, one.cells) == (ungated.region.reply, ungated.cells)
            else:
                assert one.cof.tokens == one.plain.tokens
                assert (one.region, one.cells, one.cof.seconds) == (None, (), 0.0)
            assert one.kept != one.gate.asked
            assert not one.error

    def test_what_is_kept_costs_one_plain_pass(self, llava, asked, pictures):
        only = Settings(refine=plain.Config(), limits=Limits(3))
        batch = Batch.of(llava, asked, pictures, Limits(3))
        _, base = forwards(llava, lambda: batch.plain)
        kept = CoF(llava, settings(0.0))
        found, spent = forwards(llava, lambda: kept.answer_batch(asked, pictures))
        assert spent == base
        assert all(one.gate.forwards == (base / 4, 0) for one in found)
        _, ungated = forwards(llava, lambda: CoF(llava, only).answer_batch(asked, pictures))
        assert ungated > base  # the coarse pass is run for an answer that ignores it

    def test_each_question_alone_pays_for_itself(self, llava, asked, pictures):
        every = [
            forwards(llava, lambda pair=pair: _alone(llava, None, pair))
            for pair in zip(asked[:2], pictures, strict=False)
        ]
        threshold = min(one.gate.margin for one, _ in every)
        for pair, (full, cost) in zip(zip(asked, pictures, strict=True), every, strict=False):
            one, spent = forwards(llava, lambda pair=pair: _alone(llava, threshold, pair))
            first, then = full.gate.forwards
            assert first + then == cost
            assert then > 0
            assert spent == (cost if full.gate.margin <= threshold else first)
            assert sum(one.gate.forwards) == spent

    def test_null_asks_all_and_a_given_box_is_always_used(self, llava, pictures):
        all_asked = CoF(llava, settings(None))(pictures[0], list(TEXTS))
        assert all(one.result.gate.asked for one in all_asked)
        outcome = CoF(llava, settings(0.0))(pictures[0], "Is it?", box=Box(0.1, 0.1, 0.5, 0.5))
        assert outcome.result.gate.asked
        assert outcome.boxes
        assert outcome.mask.any()
        kept = CoF(llava, settings(0.0))(pictures[0], "Is it?", plain=True)
        assert kept.text == kept.plain
        assert not kept.boxes
        assert not kept.mask.any()

    def test_a_plain_answer_that_failed_is_in_doubt(self, llava, asked, pictures):
        long = replace(asked[0], text="<image> what?")
        found = CoF(llava, settings(0.0)).answer_batch([long, asked[1]], pictures[:2])
        assert [one.gate.asked for one in found] == [True, False]
        assert found[0].gate.margin is None
        assert found[0].error

    def test_refuses_what_leaves_no_margin(self, llava, asked, pictures):
        for limits in (Limits(5, num_beams=2), Limits(5, temperature=1.0)):
            with pytest.raises(ConfigError, match="gate needs limits"):
                CoF(llava, replace(settings(1.0), limits=limits))
        with pytest.raises(ModelError, match="stub: its answers have no margin"):
            CoF(StubModel(), settings(1.0)).answer_batch(asked, pictures)

    def test_the_record_gives_it_back_and_has_no_key_without_a_gate(self, llava, asked, pictures):
        for threshold in (None, 0.0):
            one = CoF(llava, settings(threshold)).answer_batch(asked[:1], pictures[:1])[0]
            record = to_record(0, one)
            gate = result_of(record).gate
            assert gate.asked == one.gate.asked
            assert gate.positions == one.gate.positions
            assert gate.margin == pytest.approx(one.gate.margin, abs=1e-6)
            assert comparable(record)["gate"] is gate.asked
        free = CoF(llava, Settings(limits=Limits(2))).answer_batch(asked[:1], pictures[:1])[0]
        assert "gate" not in to_record(0, free)


def _alone(llava, threshold, pair):
    question, image = pair
    return CoF(llava, settings(threshold)).answer_batch([question], [image])[0]


class TestConfig:
    def test_a_config_without_a_gate_is_what_it_was(self):
        for data in (CONFIG, {**CONFIG, "gate": None}):
            assert "gate" not in schema.resolve(data).as_dict()

    def test_the_threshold_tells_runs_apart_and_who_chose_it_does_not(self):
        free, one, same, other = (
            content_hash(schema.resolve({**CONFIG, **gate}).as_dict(), {})
            for gate in (
                {},
                {"gate": {"threshold": 1.5}},
                {"gate": {"threshold": 1.5, "chosen_on": "abc"}},
                {"gate": {"threshold": None}},
            )
        )
        assert one == same
        assert len({free, one, other}) == 3

    @pytest.mark.parametrize("value", [-1.0, "high", True])
    def test_an_impossible_threshold_is_refused(self, value):
        with pytest.raises(ConfigError, match=r"gate.*threshold"):
            schema.resolve({**CONFIG, "gate": {"threshold": value}})


class TestChoose:
    def test_by_hand(self):
        margins = [0.5, 3.0, 1.0, 2.0]
        before, after = [0, 1, 0, 1], [1, 0, 1, 1]  # asked in turn: +1, +1, 0, -1
        found = choose(margins, before, after, within=0.0)
        assert found == (1.5, 0.5, 0.5, 1.0, 0.75, 4)
        assert choose(margins, before, after, within=0.25).threshold == 0.75
        assert choose(margins, before, after, within=0.5).asked == 0
        assert choose(margins, before, after, share=0.75)[:2] == (2.5, 0.75)

    @pytest.mark.parametrize("seed", range(20))
    def test_against_every_threshold_there_is(self, seed):
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randint(1, 8, (12,), generator=generator).double() / 4  # with ties
        before, after = torch.randint(0, 2, (2, 12), generator=generator).double().tolist()
        found = choose(draw.tolist(), before, after, within=0.1)
        marks = sorted({0.0, *draw.tolist(), 9.0})
        tries = [
            (round(_credit(draw, before, after, cut), 9), -int((draw <= cut).sum()), cut)
            for cut in ((low + high) / 2 for low, high in pairwise(marks))
        ]
        good = [one for one in tries if one[0] >= max(tries)[0] - 0.1 - 1e-9]
        fewest = max(good, key=lambda one: one[1])
        assert found.asked == -fewest[1] / 12
        assert found.gated == pytest.approx(fewest[0])
        assert _credit(draw, before, after, found.threshold) == pytest.approx(found.gated)


def _credit(margins, before, after, cut):
    pairs = zip(margins.tolist(), before, after, strict=True)
    return sum(two if margin <= cut else one for margin, one, two in pairs) / len(before)


class TestReport:
    def test_the_table_by_hand(self, tmp_path):
        data = make_mme(tmp_path / "mme", 2)
        run = make_run(
            tmp_path / "runs",
            data,
            right_with(0.5, 0.5),
            gate={"threshold": 1.25, "chosen_on": "0123456789"},
        )
        assert gate_table([replace(run, config={**run.config, "gate": None})], ["r"]) is None
        notes = [
            Gated(0.5, True, (1.0, 6.0), (40.0, 120.0)),
            Gated(2.0, False, (1.0, 0.0), (40.0, 0.0)),
            Gated(9.0, False, (1.0, 0.0), (40.0, 0.0)),
            Gated(None, True, (1.0, 4.0), (40.0, 120.0)),
        ]
        pairs = zip(run.results, notes, strict=True)
        table = gate_table([replace(run, results=[replace(r, gate=g) for r, g in pairs])], ["r"])
        row = dict(zip(table.head, table.rows[0], strict=True))
        assert (row["threshold, nats"], row["chosen on"], row["n"]) == ("1.25", "01234567", 4)
        assert isinstance(row["asked, %"].estimate, Estimate)
        assert row["asked, %"].estimate.value == 50
        assert row["forwards a question"] == "1.0 + 2.5"
        assert row["positions a question"] == "40.0 + 60.0"
        assert row["positions saved, %"] == "37.5"  # 100 of 160


class TestTune:
    def test_chosen_on_one_set_refused_there_and_used_on_another(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for seed, name in ((1, "dev"), (2, "test")):
            _cof(f"data mini {name} --size 2 --seed {seed} --only MiniMME")
        (tmp_path / "c.yaml").write_text(
            "bench: {name: mme, root: dev/MiniMME, limit: 6}\n"
            "limits: {max_new_tokens: 4}\nbatch_size: 16\n"
        )
        said = _cof("tune gate c.yaml name=all --share 0.5 --write gated.yaml")
        assert "# asks 50.0 % of 12 questions" in said
        gate = schema.load(tmp_path / "gated.yaml").gate
        assert f"threshold: {gate.threshold}" in said
        again = _cof("tune gate runs/all --share 0.5")
        assert again.strip() in said
        for part in ("bench.limit=6", "bench.limit=1", "bench.limit=null"):
            assert "holds the questions that chose" in _cof(f"eval gated.yaml {part}", 2)
        said = _cof("eval gated.yaml bench.root=test/MiniMME name=gated plain=false")
        kept = sum(one.kept for one in load_run("runs/gated").results)
        assert f"the gate kept {kept} plain answers, for which the first two were not run" in said
        assert "run it with gate.threshold=null" in _cof("tune gate runs/gated", 2)
        for stage, key in (("file", "path"), ("random", "of"), ("shuffled", "of")):
            source = f"locate.name={stage} locate.{key}=runs/gated"
            refused = _cof(f"eval c.yaml bench.root=test/MiniMME {source}", 2)
            assert f"kept the plain answers of {kept} of its" in refused
            _cof(f"eval c.yaml bench.root=test/MiniMME --dry-run {source} locate.truth=true")
        said = _cof("compare runs/all")
        assert "none, all are asked" in said

    def test_a_config_without_plain_answers_gets_them_to_choose_by(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _cof("data mini dev --size 2 --only MiniMME")
        (tmp_path / "c.yaml").write_text(
            "bench: {name: mme, root: dev/MiniMME, limit: 2}\n"
            "limits: {max_new_tokens: 4}\nplain: false\n"
        )
        said = _cof("tune gate c.yaml name=all --share 0.5 --write gated.yaml")
        assert "of 4 questions" in said
        assert load_run("runs/all").config["plain"]
        assert not schema.load(tmp_path / "gated.yaml").general.plain
        said = _cof("eval gated.yaml --dry-run gate.chosen_on=x")
        assert "passes     plain, locate=prompt, refine=highlight" in said
        threshold = schema.load(tmp_path / "gated.yaml").gate.threshold
        assert f"gate       only plain answers with a margin up to {threshold:g} nats" in said
        said = _cof("eval c.yaml --dry-run gate.threshold=null")
        assert "gate       open: every question" in said
        said = _cof("eval c.yaml --dry-run")
        assert "passes     locate=prompt, refine=highlight" in said
        assert "gate" not in said
        again = CliRunner().invoke(main, ["tune", "gate", "c.yaml", "name=other", "--quiet"])
        assert (again.exit_code, again.stderr) == (0, "")

    def test_an_older_run_has_its_limit_under_the_new_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _cof("data mini dev --size 2 --only MiniMME")
        (tmp_path / "c.yaml").write_text(
            "bench: {name: mme, root: dev/MiniMME, limit_first: 2}\n"
            "limits: {max_new_tokens: 4}\nname: old\ngate: {threshold: null}\n"
        )
        _cof("eval c.yaml --quiet")
        saved = tmp_path / "runs" / "old" / "config.yaml"
        config = parse_yaml(saved)
        config["bench"] |= {"limit": config["bench"].pop("limit_first")}
        del config["bench"]["limit_seed"]
        saved.write_text(dump_yaml(config))
        _cof("tune gate runs/old --share 0.5 --write gated.yaml")
        subset = schema.load(tmp_path / "gated.yaml").subset
        assert (subset.limit, subset.limit_first) == (None, 2)
        said = _cof(f"eval {saved}", 2)
        assert "bench.limit: 'absent' there, 2 here; bench.limit_first: 2 there, None here" in said
        assert "so give bench.limit=null bench.limit_first=2;" in said
        _cof(f"eval {saved} bench.limit=null bench.limit_first=2")
        said = _cof(f"eval {saved} bench.limit=1", 2)
        assert "bench.limit_first: 2 there, None here); choose another name=" in said

    def test_what_it_cannot_use(self, tmp_path):
        data = make_mme(tmp_path / "mme", 2)
        run = make_run(tmp_path / "runs", data, right_with(0.5, 0.5))
        assert "hold no margins" in _cof(f"tune gate {run.path}", 2)
        assert "a run is what it is" in _cof(f"tune gate {run.path} refine.weight=2", 2)

    def test_a_benchmark_of_regions_has_no_gate(self, mini):
        config = f"bench.root={mini}/grounding gate.threshold=1"
        said = _cof(f"eval examples/configs/grounding.yaml {config}", 2)
        assert "gate: refcoco scores regions" in said


def _cof(words, code=0):
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == code, done.output
    return done.output
