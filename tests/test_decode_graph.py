"""Decoding in steps on fixed memory: the eager loop's tokens, whatever ends, moves, or goes wrong.

On the CPU the steps run without capture; what only a GPU can show is marked `gpu`.
"""

import logging
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from minis import FOLDERS
from PIL import Image

from cof.bench.common.containers import places
from cof.config import plugins
from cof.evaluate.parity import Parity
from cof.images import load_image
from cof.locate import prompt
from cof.models.base import Limits
from cof.models.common import graphs as module
from cof.models.common.decoding import positions
from cof.models.common.graphs import Graphs, graphs_for, length_for, size_for
from cof.models.common.recording import record_attention
from cof.models.common.step import Step
from cof.models.llava import Config
from cof.models.llava import model as llava_model
from cof.models.llava.model import load
from cof.pipeline import CoF, Settings
from cof.refine import highlight

STEPS = 12
TEXTS = [
    *("What is it?", "Is there a very small dog behind the big red chair?", "Hi"),
    *("Where is the cup?", "Why?", "How many of them are red?", "Who is this?", "No?", "And now?"),
]
KINDS = {
    "plain": None,
    "all": highlight.Config(4.5),
    "text": highlight.Config(4.5, "text"),
    "layers": highlight.Config(4.5, layers=(1,)),
    "heads": highlight.Config(4.5, heads=(0, 3)),
    "layers and heads": highlight.Config(4.5, "text", layers=(0,), heads=(1,)),
}


@pytest.fixture(scope="module")
def views(llava):
    wave = Image.linear_gradient("L").convert("RGB")
    two = llava.look([wave.resize(size) for size in ((90, 60), (50, 50))])
    llava.greedy(llava.encode(two, TEXTS[:2]), 1)  # the shared prefix is there from now on
    return [two[row % 2] for row in range(9)]


@pytest.fixture
def steps(llava, monkeypatch):
    """The model decodes in steps, not captured."""
    found = graphs_for(llava.network, llava.decoder, "graph")
    monkeypatch.setattr(llava, "graphs", found)
    return found


class Replay:
    """What a captured graph is to a step, without a GPU."""

    def __init__(self, step):
        self.step, self.replays = step, 0

    def replay(self):
        self.replays += 1
        self.step._compute()

    def pool(self):
        return "pool"


@pytest.fixture
def captured(steps, monkeypatch):
    """As on a GPU: the pools that each capture was given."""
    pools = []

    def capture(self, pool=None):
        pools.append(pool)
        self._compute()
        self.graph = Replay(self)

    monkeypatch.setattr(Step, "capture", capture)
    steps.capture = True
    return pools


def prompts(llava, views, count, share=True):
    encoded = llava.encode(views[:count], TEXTS[:count])
    return encoded if share else replace(encoded, shared=None)


def plan(encoded, config, weights=None):
    """Another region in every row."""
    masks = torch.zeros(len(encoded), 576, dtype=torch.bool)
    for row in range(len(masks)):
        masks[row, 40 * row : 40 * row + 60] = True
    return highlight.plan(encoded, list(masks), config, weights)


def decode(llava, encoded, limit=STEPS, lit=None, **how):
    if lit is None:
        return llava.greedy(encoded, limit, keep_logits=True, **how)
    with llava.highlighted(lit):
        return llava.greedy(encoded, limit, keep_logits=True, **how)


def eagerly(llava, *given, **how):
    """The same without steps: its rows and the forward passes that it took."""
    graphs, llava.graphs = llava.graphs, None
    before = llava.counters.forwards
    try:
        rows = decode(llava, *given, **how)
    finally:
        llava.graphs = graphs
    return rows, llava.counters.forwards - before


def check(rows, expected, atol=5e-5):
    for one, other in zip(rows, expected, strict=True):
        assert (one.index, one.tokens, one.sound) == (other.index, other.tokens, other.sound)
        assert one.logprobs == pytest.approx(other.logprobs, abs=atol, nan_ok=True)
        for ours, theirs in zip(one.logits, other.logits, strict=True):
            assert torch.allclose(ours, theirs, atol=atol, equal_nan=True)


def compare(llava, *given, **how):
    """Hold the steps against the eager loop; its rows."""
    expected, forwards = eagerly(llava, *given, **how)
    before = llava.counters.forwards
    check(decode(llava, *given, **how), expected)
    assert llava.counters.forwards - before == forwards
    assert llava.graphs.steps
    return expected


def spread(rows):
    """Ending ids under which the rows end one after the other, where their replies allow it."""
    return frozenset(row.tokens[min(1 + row.index, STEPS - 2)] for row in rows)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_three_rows_that_end_in_turn(llava, steps, views, kind, share, monkeypatch):
    encoded = prompts(llava, views, 3, share)
    lit = None if KINDS[kind] is None else plan(encoded, KINDS[kind])
    rows = compare(llava, encoded, lit=lit)
    monkeypatch.setitem(llava.__dict__, "stops", spread(rows))
    ended = compare(llava, encoded, lit=lit)
    assert len({len(row.tokens) for row in ended}) > 1


@pytest.mark.parametrize("count", [1, 3, 5, 9])
@pytest.mark.parametrize("kind", ["plain", "text", "layers and heads"])
def test_batches_move_to_smaller_steps(llava, steps, views, count, kind, monkeypatch):
    """Under another weight in each row."""
    encoded, config = prompts(llava, views, count), KINDS[kind]
    weights = [1.0 + row for row in range(count)]
    lit = None if config is None else plan(encoded, config, weights)
    rows = compare(llava, encoded, lit=lit)
    assert [key[0] for key in steps.steps] == [size_for(count)]
    monkeypatch.setitem(llava.__dict__, "stops", spread(rows))
    compare(llava, encoded, lit=lit)
    assert count == 1 or len({key[0] for key in steps.steps}) > 1


def test_highlighted_and_plain_batches_in_turn(llava, steps, views):
    """Nothing of a highlight stays in a step; a narrowed one has steps of its own."""
    encoded = prompts(llava, views, 3)
    for kind in [*KINDS, *reversed(KINDS)]:
        compare(llava, encoded, 3, None if KINDS[kind] is None else plan(encoded, KINDS[kind]))
    assert len(steps.steps) == 4


@pytest.mark.parametrize(("count", "block", "limit"), [(1, 32, 80), (3, 32, 80), (3, 128, 150)])
def test_replies_that_outgrow_a_step_move_on(llava, steps, views, count, block, limit, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    encoded, rows = prompts(llava, views, count), size_for(count)
    lit = plan(encoded, KINDS["layers"])
    needed = encoded.keys + limit - 1
    for _ in range(2):  # while the memory grows the shorter steps go; then all of them stay
        compare(llava, encoded, limit, lit)
        compare(llava, encoded, limit)
    lengths = sorted(key[1] for key in steps.steps if key[0] == rows and key[2] == "([1], None)")
    assert len(lengths) > 1
    assert lengths[-1] - block < needed <= lengths[-1]


def pairs(scores):
    """2 x the first row of each three less the third, for all three."""
    threes = scores.view(-1, 3, scores.shape[1])
    return (2 * threes[:, 0] - threes[:, 2]).repeat_interleave(3, dim=0)


@pytest.mark.parametrize("ends", [False, True])
def test_mixed_rows(llava, steps, views, ends, monkeypatch):
    """Six rows in a step of eight: the two others are nobody's business."""
    encoded = prompts(llava, views, 6)
    rows = compare(llava, encoded, mix=pairs)
    assert rows[0].tokens == rows[2].tokens != rows[3].tokens
    if ends:
        monkeypatch.setitem(llava.__dict__, "stops", frozenset({rows[0].tokens[2]}))
        lit = plan(encoded, KINDS["heads"])
        compare(llava, encoded, mix=pairs)
        compare(llava, encoded, lit=lit, mix=pairs)


def test_a_mix_may_do_what_no_graph_can(llava, captured, views):
    """It counts its calls and reads numbers back; it is called at each step, not at the capture."""

    def fading():
        calls = iter(range(99))
        return lambda scores: scores * (1 + 0.01 * next(calls) * float(scores[0].max() > 0))

    encoded = prompts(llava, views, 3)
    expected, _ = eagerly(llava, encoded, mix=fading())
    check(decode(llava, encoded, mix=fading()), expected)
    assert captured


def test_rows_end_early_where_their_text_is_complete(llava, steps, views, monkeypatch):
    encoded = prompts(llava, views, 5)
    monkeypatch.setitem(llava.__dict__, "closing", frozenset(range(1280)))
    texts = [llava.text(row.tokens) for row in eagerly(llava, encoded)[0]]
    lengths = {text: 2 + place for place, text in enumerate(texts)}

    def done(text):
        return any(full.startswith(text) and len(text) >= lengths[full] for full in texts)

    ended = compare(llava, encoded, done=done)
    assert min(len(row.tokens) for row in ended) < STEPS


def test_refused_and_broken_rows_harm_nobody(llava, steps, views):
    """NaN that a batch leaves in the memory does not reach the next, whatever its shape."""
    views = list(views)
    encoded = prompts(llava, views, 5)
    embeds = encoded.inputs["inputs_embeds"].clone()
    embeds[1, 50, 0] = torch.nan
    broken = replace(encoded, inputs={"inputs_embeds": embeds}, shared=None)
    rows = compare(llava, broken)
    assert [row.sound for row in rows] == [True, False, True, True, True]
    late = replace(prompts(llava, views, 5), shared=None)
    head, calls = llava.network.lm_head.forward, iter(range(99))

    def spoil(hidden):
        logits = head(hidden)
        if next(calls) == 3:
            logits[0, 5] = torch.nan
        return logits

    llava.network.lm_head.forward = spoil
    try:
        expected, _ = eagerly(llava, late)
        calls = iter(range(99))
        check(decode(llava, late), expected)
    finally:
        del llava.network.lm_head.forward
    assert [row.sound for row in expected] == [False, True, True, True, True]
    for count in (3, 5):
        compare(llava, prompts(llava, views, count))
    asked = [TEXTS[0], "What is <image>?", TEXTS[2]]
    refused = llava.encode(views[:3], asked)
    assert list(refused.refused) == [1]
    compare(llava, refused)


def test_given_positions_are_counted_on(llava, steps, views):
    encoded = prompts(llava, views, 3, share=False)
    compare(llava, replace(encoded, positions=positions(encoded) * 3))


def test_all_rows_of_a_step_are_counted(llava, steps, views):
    encoded = prompts(llava, views, 5, share=False)
    llava.counters.__init__()
    decode(llava, encoded, 4)
    assert llava.counters.forwards == 4
    assert llava.counters.positions == 5 * encoded.keys + 3 * 8


def test_one_token_needs_no_step(llava, steps, views):
    decode(llava, prompts(llava, views, 1), 1)
    assert not steps.steps


def test_watched_attention_is_the_eager_loops(llava, steps, views):
    encoded = prompts(llava, views, 1)
    with record_attention() as seen:
        decode(llava, encoded, 3)
    assert not steps.steps
    assert seen[0].shape[-1] == encoded.keys + 2


def test_few_steps_are_kept(llava, steps, views, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    encoded = prompts(llava, views, 9)
    monkeypatch.setitem(llava.__dict__, "stops", spread(eagerly(llava, encoded)[0]))
    for _ in range(2):
        compare(llava, encoded)
        assert len(steps.steps) <= 2
    latest = next(reversed(steps.steps.values()))
    compare(llava, prompts(llava, views, latest.size))
    assert next(reversed(steps.steps.values())) is latest


def test_steps_lie_on_one_memory(llava, steps, views):
    for count in (5, 3, 1):
        compare(llava, prompts(llava, views, count))
    places = {one.cache.layers[0].memory.data_ptr() for one in steps.steps.values()}
    assert len(steps.steps) == 3
    assert len(places) == 1


def test_steps_are_captured_once_and_replayed(llava, captured, views):
    encoded = prompts(llava, views, 3)
    for times in (1, 2):
        compare(llava, encoded)
        (step,) = llava.graphs.steps.values()
        assert step.graph.replays == times * (STEPS - 1)
    compare(llava, prompts(llava, views, 1))
    assert captured == [None, "pool"]


def test_other_weights_have_other_steps(llava, captured, views, monkeypatch):
    encoded, head = prompts(llava, views, 2), llava.network.lm_head
    compare(llava, encoded)
    (old,) = llava.graphs.steps.values()
    monkeypatch.setitem(llava.network._modules, "lm_head", deepcopy(head))
    compare(llava, encoded)
    (new,) = llava.graphs.steps.values()
    assert new is not old


def test_hooks_are_not_passed_by(llava, captured, views):
    encoded, calls = prompts(llava, views, 2), []
    hook = llava.decoder.layers[1].register_forward_hook(lambda *given: calls.append(1))
    try:
        decode(llava, encoded)
    finally:
        hook.remove()
    assert len(calls) == STEPS
    assert not captured


def test_a_failed_capture_is_said_once_and_costs_no_answer(
    llava, steps, views, monkeypatch, caplog
):
    def capture(self, pool=None):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(Step, "capture", capture)
    steps.capture = True
    encoded = prompts(llava, views, 5)
    expected, _ = eagerly(llava, encoded)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            check(decode(llava, encoded), expected)
    (line,) = caplog.messages
    assert line.endswith("could not be captured: operation not permitted when stream is capturing")
    assert not steps.held


def test_a_capture_that_fails_half_way_goes_on_eagerly(llava, captured, views, monkeypatch):
    encoded, capture = prompts(llava, views, 5), Step.capture

    def smaller(self, pool=None):
        if self.size < 8:
            raise RuntimeError("no")
        capture(self, pool)

    monkeypatch.setattr(Step, "capture", smaller)
    monkeypatch.setitem(llava.__dict__, "stops", spread(eagerly(llava, encoded)[0]))
    expected, _ = eagerly(llava, encoded, lit=plan(encoded, KINDS["layers"]))
    check(decode(llava, encoded, lit=plan(encoded, KINDS["layers"])), expected)
    assert captured == [None]
    assert llava.graphs.off


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("where", ["capture", "_memories"])
@pytest.mark.parametrize("times", [1, 99])
def test_steps_that_find_no_memory(llava, captured, views, where, times, hidden, monkeypatch):
    """All are dropped, it is tried once more, and then goes on eagerly; the next batch tries."""
    owner = Step if where == "capture" else Graphs
    inner, fails = getattr(owner, where), iter([True] * times)
    encoded = prompts(llava, views, 3)
    compare(llava, prompts(llava, views, 1))

    def full(*given):
        if next(fails, False):
            try:
                raise torch.OutOfMemoryError
            finally:
                if hidden and where == "capture":  # as the end of a broken capture does
                    raise RuntimeError("operation failed due to a previous error")
        return inner(*given)

    monkeypatch.setattr(owner, where, full)
    expected, _ = eagerly(llava, encoded)
    check(decode(llava, encoded), expected)
    assert [key[0] for key in llava.graphs.steps] == ([4] if times == 1 else [])
    assert not llava.graphs.off
    fails = iter(())
    compare(llava, encoded)


def test_a_pass_without_memory_gets_what_the_steps_hold(llava, steps, views, monkeypatch):
    encoded, fails = prompts(llava, views, 3, share=False), iter([True])
    expected, _ = eagerly(llava, encoded)
    decode(llava, encoded)
    assert steps.held
    head, inner = llava.network.lm_head, llava.network.lm_head.forward

    def full(hidden):
        if next(fails, False):
            raise torch.OutOfMemoryError
        return inner(hidden)

    monkeypatch.setattr(head, "forward", full)
    check(decode(llava, encoded), expected)
    steps.drop()
    fails = iter([True])
    with pytest.raises(torch.OutOfMemoryError):
        decode(llava, encoded)


def test_shapes_are_few():
    assert [size_for(rows) for rows in (1, 2, 3, 5, 9, 33, 64, 65, 200)] == [
        *(1, 2, 4, 8, 16, 64, 64, 128, 256)
    ]
    assert [length_for(*pair) for pair in ((1, 1), (127, 9), (128, 1), (600, 25), (620, 99))] == [
        *(128, 256, 256, 640, 768)
    ]


def test_who_decodes_in_steps(llava):
    network, decoder = llava.network, llava.decoder
    assert graphs_for(network, decoder, "auto") is None
    assert graphs_for(network, decoder, "eager") is None
    found = graphs_for(network, decoder, "graph")
    assert (found.capture, found.off) == (False, False)
    assert llava.describe()["decode"] == "eager"


def test_layers_of_another_kind_have_no_steps(llava, monkeypatch, caplog):
    monkeypatch.setattr(llava.decoder.config, "layer_types", ["chunked_attention"], raising=False)
    assert graphs_for(llava.network, llava.decoder, "graph") is None
    assert "chunks" in caplog.text


def test_what_outgrows_a_window_is_decoded_eagerly(llava, steps, views, monkeypatch, caplog):
    """And as long as it does not, in steps; it is said once."""
    encoded = prompts(llava, views, 3)
    compare(llava, encoded)
    [(_, expected, *_)] = steps.steps
    steps.window = expected
    compare(llava, encoded)
    steps.drop()
    steps.window = expected - 1
    for _ in range(2):
        check(decode(llava, encoded), eagerly(llava, encoded)[0])
    assert not steps.steps
    assert caplog.text.count("outgrow the window") == 1


@pytest.mark.parametrize(
    ("change", "window"),
    [
        ({}, None),
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 64, "layer_types": ["full_attention"] * 2}, None),
        ({"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}, 64),
        ({"layer_types": ["full_attention", "linear_attention"]}, 0),
    ],
)
def test_windows_of_a_config(change, window):
    assert module.window_of(SimpleNamespace(**change)) == window


def test_parity_with_the_published_code(golden, monkeypatch):
    made = []

    def always(network, decoder, decode):
        made.append(graphs_for(network, decoder, "graph"))
        return made[-1]

    monkeypatch.setattr(llava_model, "graphs_for", always)
    report = Parity(golden, device="cpu").run()
    assert report.passed, report.rows()
    assert any(graphs.steps for graphs in made)


@pytest.fixture(scope="module")
def tiny():
    return load(Config("cof-tiny", device="cpu", dtype="float32", decode="graph"))


@pytest.mark.parametrize("name", FOLDERS)
def test_mini_benchmarks_have_the_eager_loops_answers(tiny, mini, name, monkeypatch):
    """Boxes, plain answers and highlighted ones, under several settings in one batch."""
    bench = plugins.load("bench", name)
    config = bench.Config(str(mini / FOLDERS[name]))
    questions = bench.read(config)[:10]
    root = places(bench, config)
    images = [load_image(root / question.image) for question in questions]
    refines = [highlight.Config(2.0), highlight.Config(8.0), highlight.Config(4.5, layers=(1,))]
    settings = Settings(locate=prompt.Config(), limits=Limits(8))
    variants = [replace(settings, refine=refine) for refine in refines]
    ours = CoF(tiny, settings).answer_many(questions, images, variants)
    assert tiny.graphs.steps
    assert tiny.describe()["decode"] == "graph"
    monkeypatch.setattr(tiny, "graphs", None)
    theirs = CoF(tiny, settings).answer_many(questions, images, variants)
    for one, other in zip(chain(*ours), chain(*theirs), strict=True):
        assert (one.region.reply, one.error) == (other.region.reply, other.error)
        assert one.plain.tokens == other.plain.tokens
        assert one.cof.tokens == other.cof.tokens


@pytest.fixture(scope="module")
def on_gpu(golden):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return load(Config(str(golden / "checkpoint"), device="cuda", dtype="float32"))


@pytest.fixture(scope="module")
def gpu_views(on_gpu):
    wave = Image.linear_gradient("L").convert("RGB")
    return on_gpu.look([wave.resize((90 - row, 60)) for row in range(9)])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 5, 9])
def test_captured_steps_give_the_eager_loops_tokens(on_gpu, gpu_views, kind, count, monkeypatch):
    encoded = prompts(on_gpu, gpu_views, count)
    lit = None if KINDS[kind] is None else plan(encoded, KINDS[kind])
    rows = compare(on_gpu, encoded, lit=lit)
    monkeypatch.setitem(on_gpu.__dict__, "stops", spread(rows))
    compare(on_gpu, encoded, lit=lit)
    assert not on_gpu.graphs.off
    assert all(step.graph is not None for step in on_gpu.graphs.steps.values())


@pytest.mark.gpu
def test_captured_steps_with_mix_and_long_replies(on_gpu, gpu_views):
    compare(on_gpu, prompts(on_gpu, gpu_views, 6), mix=pairs)
    compare(on_gpu, prompts(on_gpu, gpu_views, 3), 150)
    assert not on_gpu.graphs.off


@pytest.mark.gpu
def test_graphs_are_replayed(on_gpu, gpu_views, monkeypatch):
    """At a second batch of the same shape nothing runs but replays: one a token."""
    encoded = prompts(on_gpu, gpu_views, 3)
    expected = decode(on_gpu, encoded)
    computed = []
    monkeypatch.setattr(Step, "_compute", lambda self: computed.append(self))
    before = on_gpu.counters.forwards
    check(decode(on_gpu, encoded), expected)
    assert not computed
    assert on_gpu.counters.forwards - before == STEPS


@pytest.mark.gpu
def test_dropping_gives_the_memory_back(on_gpu, gpu_views):
    on_gpu.graphs.drop()
    before = torch.cuda.memory_allocated()
    decode(on_gpu, prompts(on_gpu, gpu_views, 9))
    assert torch.cuda.memory_allocated() > before
    on_gpu.graphs.drop()
    assert torch.cuda.memory_allocated() - before < 1 << 22
