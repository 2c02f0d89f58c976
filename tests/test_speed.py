"""The benchmark: its yardstick gives our answers, its table and bars are complete."""

import json
import re
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cof.cli import main
from cof.models.base import Limits
from cof.refine import highlight
from cof.regions.bias import log_weight
from cof.regions.mask import token_mask
from cof_speed import breakdown, cases, forced, measure, published, shapes

NANO = (
    {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16},
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    | {"vocab_size": 128},
)


@pytest.fixture
def nano(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "nano", NANO)
    return shapes.random_llava("nano", "cpu", torch.float32)


def test_the_published_way_gives_our_answers(llava):
    """The yardstick and the product compute the same thing, one of them slowly."""
    image = Image.linear_gradient("L").convert("RGB").resize((90, 60))
    view = llava.look([image])[0]
    mask = token_mask([forced.BOX], view.cells)
    question = "What color is it?"
    encoded = llava.encode([view], [question])
    with llava.highlighted(highlight.plan(encoded, [mask], highlight.Config(4.5))):
        ours = llava.generate(encoded, Limits(6))[0].tokens
    with published.eager(llava):
        theirs = published.answer(llava, image, question, mask * log_weight(4.5), 3, 6)
    assert list(ours) == theirs[: len(ours)]
    assert llava.decoder.config._attn_implementation == "cof_highlight"


def test_every_case_answers_with_the_same_number_of_tokens(nano):
    work = cases.Workload(nano, batch=2)
    assert len(work.published()) == cases.FINE
    assert {len(answer.tokens) for answer in work.plain(2)} == {cases.FINE}
    results = work.ours("text", 2, 2, (2.0, 4.5))
    assert [len(row) for row in results] == [2, 2]
    assert {len(result.cof.tokens) for row in results for result in row} == {cases.FINE}
    assert all(result.status == "boxes" for row in results for result in row)


def test_bars_are_read_off_the_ratios(nano):
    work = cases.Workload(nano, batch=2)
    timings = measure.measure(work.cases(), torch.device("cpu"), 1)
    assert timings[0].ratio == 1
    assert all(timing.seconds > 0 and timing.mib > 0 for timing in timings)
    slow = [replace(timing, ratio=1000.0) for timing in timings]
    steps = breakdown.breakdown(work, torch.device("cpu"), 1)
    required, goals = measure.bars(slow, work, steps, cuda=False)
    by_name = {bar.name: bar for bar in [*required, *goals]}
    assert not by_name["batch 2, all / plain"].met
    assert by_name["sweep of 6, text / published"].value == pytest.approx(1 / 6)
    assert by_name["inactive outputs that differ from the stock model"].value == 0
    assert len(required) == 9
    assert not by_name["batch 2, two questions, text / plain, grammar"].met


@pytest.mark.parametrize(("batch", "count"), [(2, 4), (8, 5), (32, 9)])
def test_bars_of_a_gpu_speak_of_its_batches(nano, batch, count):
    work = cases.Workload(nano, batch=2)
    work.batch = batch
    names = [case.name for case in work.cases()]
    timings = [measure.Timing(name, 1.0, 1.0, 1.0, 0.1, 1.0) for name in names]
    found = {
        "look, the tower aside": 0.4,
        "tower": 1.0,
        breakdown.DECODE_RATIO: 0.3,
    }
    steps = [breakdown.Step(name, value, "") for name, value in found.items()]
    required, goals = measure.bars(timings, work, steps, cuda=True)
    assert (len(required), goals) == (count, [])
    limits = {bar.name: (bar.value, bar.limit) for bar in required}
    if batch == 8:
        assert limits["batch 8, decode, captured / eager"] == (0.3, 0.35)
    if batch == 32:
        assert limits["look, ms an image"] == (1.4, 2.0)
        assert limits["batch 32, two questions, text / plain"] == (1.0, 1.1)


def test_what_takes_minutes_is_timed_once_on_a_gpu(monkeypatch):
    ran = []
    monkeypatch.setattr(measure, "_once", lambda run, device: (run() or 1.0, 1.0))
    made = [
        cases.Case("unit", lambda: ran.append("unit"), 1, "unit"),
        cases.Case("published", lambda: ran.append("published"), 1, "unit", once=True),
    ]
    measure.measure(made, torch.device("cuda"), 3)
    assert ran.count("published") == 1
    assert ran.count("unit") == 4


def test_steps_are_timed_one_by_one(nano):
    before = nano.network.get_image_features
    *steps, host = breakdown.breakdown(cases.Workload(nano, batch=2), torch.device("cpu"), 1)
    assert all(step.value > 0 for step in steps[:2])
    assert host.value is None
    assert nano.network.get_image_features == before


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], None),
        ([(3, 3)], None),
        ([(0, 2), (2, 4)], 0),
        ([(6, 8), (0, 4), (1, 3)], 0.25),
        ([(0, 9), (1, 2), (10, 12)], pytest.approx(1 / 12)),
    ],
)
def test_gaps_are_what_no_kernel_covers(spans, share):
    assert breakdown.gaps(spans) == share


def test_flip_rate_is_zero_in_float32(nano):
    assert measure.flip_rate(cases.Workload(nano, batch=3)) == 0


def test_command_prints_json_and_fails_on_a_missed_bar(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "nano", NANO)
    command = ["bench", "--shape", "nano", "--batch", "2", "--rounds", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, [*command, "--json"])
    said = json.loads(result.stdout)
    assert {"name", "value", "limit", "met"} == set(said["bars"][0])
    names = [step["name"].split(",")[0] for step in said["breakdown"]]
    assert names[:3] == ["preprocess", "look", "tower"]
    assert names[3:] == ["prefill", "decode", "decode", "host gaps of prefill and decode"]
    assert result.exit_code == (0 if all(bar["met"] for bar in said["bars"]) else 1)
    monkeypatch.setattr(measure.Bar, "met", property(lambda self: False))
    printed = CliRunner().invoke(main, command)
    assert printed.exit_code == 1
    assert re.search(r"\ndecode +-?\d+\.\d\d  ms a token of 2 replies\n", printed.stdout)
    assert re.search(r"\nhost gaps of prefill and decode +n/a  share of the time", printed.stdout)


def test_an_unknown_shape_is_named():
    result = CliRunner().invoke(main, ["bench", "--shape", "huge"])
    assert result.exit_code == 2
    assert "huge" in result.output
    assert "llava-1.5-7b" in result.output
