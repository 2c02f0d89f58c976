"""The doubt gate: margins against sorted logits, sure answers kept for nothing."""

from dataclasses import replace

import pytest
import torch
from fake_runs import make_run, right_with
from fakes import StubModel, make_mme
from PIL import Image

from cof.analyse.gate import gate_table
from cof.analyse.statistics import Estimate
from cof.batch import Batch
from cof.config import schema
from cof.config.general import Gate
from cof.config.identity import content_hash
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
