"""Families: keys and values of an image computed once, and decoding in steps on fixed memory.

Sharing is held against the same prompts without it and against rows by themselves; steps against
the eager loop's tokens.
"""

import logging
from dataclasses import replace

import pytest
import torch
from families import BOX, SIZES, TEXTS, TINY, lit, logits, maker, picture, worst
from test_families import TOLERANCE

from cof import CoF
from cof.config import plugins
from cof.models.common.graphs import graphs_for
from cof.models.common.recording import record_attention
from cof.refine.highlight import perturbed
from cof.regions.mask import token_mask
from cof.types import Question

ASKED = (*TEXTS, "Why?")
SCOPES = {"plain": None, "all": {}, "text": {"scope": "text"}, "layers": {"layers": (1,)}}
WINDOWED = ("gemma3",)
VARIANTS = ("llava_onevision_whole", "smolvlm")
STEPS = 6


@pytest.fixture(scope="module", params=[one for one in TINY if one not in VARIANTS])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> folder, stock, model; each built once."""
    return maker(tmp_path_factory)


@pytest.fixture
def model(made, name):
    return made(name)[2]


@pytest.fixture
def views(model):
    """Two questions about the first image, one about the other."""
    first, second = model.look([picture(size, i) for i, size in enumerate(SIZES)])
    return [first, first, second]


def asked(name):
    """Where attention slides in windows, sharing needs questions of one length."""
    return tuple(f"{text:22}?" for text in ASKED) if name in WINDOWED else ASKED


def decode(model, encoded, chosen=None):
    with model.highlighted(chosen):
        return model.greedy(encoded, STEPS, keep_logits=True)


def first_differ(rows, others):
    """How far the logits of the first tokens are apart."""
    return worst([one[:1] for one in logits(rows)], [one[:1] for one in logits(others)])


def chosen_of(model, encoded, views, scope):
    return None if SCOPES[scope] is None else lit(model, encoded, views, **SCOPES[scope])


@pytest.mark.parametrize("scope", SCOPES)
def test_shared_is_unshared(model, name, views, scope):
    encoded = model.encode(views, asked(name))
    assert encoded.shared is not None
    chosen = chosen_of(model, encoded, views, scope)
    model.greedy(encoded, 1)  # from now on the openings are known
    rows = decode(model, encoded, chosen)
    apart = decode(model, replace(encoded, shared=None), chosen)
    assert [row.tokens for row in rows] == [row.tokens for row in apart]
    assert worst(logits(rows), logits(apart)) <= 1e-5
    assert (scope == "plain") == (first_differ(rows, decode(model, encoded)) <= TOLERANCE)


def test_shared_rows_are_rows_by_themselves(model, name, views):
    rows = decode(model, model.encode(views, asked(name)))
    for row, view, text in zip(rows, views, asked(name), strict=True):
        [alone] = decode(model, replace(model.encode([view], [text]), shared=None))
        assert row.tokens == alone.tokens
        assert worst(logits([row]), logits([alone])) <= 1e-5


def test_an_image_is_computed_once(model, name, views):
    """And a question costs no more than itself; a highlight what lies behind its first key."""
    encoded = model.encode(views, asked(name))
    lengths = [len(view.shared.ids) for view in views]
    counters, tail = model.counters, encoded.keys - encoded.shared.length
    before = counters.positions
    model.greedy(encoded, 1)
    assert counters.positions - before == lengths[0] + lengths[2] + 3 * tail
    before = counters.positions
    model.score(encoded, ["a", "b", "c"])
    model.greedy(encoded, 1)
    assert counters.positions - before == 3 * (2 * tail + len(model.answer_ids("a")) - 1)
    chosen = lit(model, encoded, views)
    usable = chosen.untouched(encoded.sees)
    before = counters.positions
    with model.highlighted(chosen):
        model.greedy(encoded, 1)
    known = 0 if encoded.sees is not None else usable
    assert counters.positions - before == 3 * (encoded.keys - known)


def test_a_highlight_alone_computes_no_opening(model, name, views):
    encoded = model.encode(views, asked(name))
    before = model.counters.forwards
    with model.highlighted(lit(model, encoded, views)):
        model.greedy(encoded, 1)
    assert model.counters.forwards == before + 1
    assert not any(view.shared.known for view in views)


def test_perturbed_rows_share_what_stands_before(model, name, views):
    encoded = model.encode(views, asked(name))
    masks = [token_mask([BOX], view.cells) for view in views]
    changed = perturbed(encoded, masks, 0.5)
    plain = decode(model, encoded)
    before = model.counters.positions
    model.greedy(changed, 1)
    first = min(int(at[lit][0]) for at, lit in zip(encoded.visual, masks, strict=True))
    known = 0 if encoded.sees is not None else first
    assert model.counters.positions - before == 3 * (encoded.keys - known)
    rows, apart = decode(model, changed), decode(model, replace(changed, shared=None))
    assert worst(logits(rows), logits(apart)) <= 1e-5
    assert first_differ(rows, plain) > TOLERANCE


def test_questions_of_other_lengths_share_where_padding_does_not_count(model, name, views):
    encoded = model.encode(views, ASKED)
    assert (encoded.shared is None) == (name in WINDOWED)
    inner = encoded.attention_mask.cumsum(1).where(encoded.attention_mask == 0, 0)
    assert (int(inner.max()) == 0) == (name in WINDOWED)


def test_a_prompt_that_begins_otherwise_is_not_shared(model, name, views, monkeypatch):
    """A template may put the question before the image."""
    empty = model.chat.text("")
    turned = replace(model.chat, template=None, default=lambda question: question + empty)
    monkeypatch.setattr(model, "chat", turned)
    encoded = model.encode(views, asked(name))
    assert encoded.shared is None
    rows = decode(model, encoded)
    [alone] = decode(model, model.encode(views[:1], asked(name)[:1]))
    assert worst(logits(rows[:1]), logits([alone])) <= 1e-5


@pytest.fixture
def steps(model, monkeypatch):
    """The model decodes in steps; where attention slides, in a window that holds them."""
    if model.windows:
        monkeypatch.setattr(model.decoder.config, "sliding_window", 512)
    monkeypatch.setattr(model, "graphs", graphs_for(model.network, model.decoder, "graph"))
    return model.graphs


@pytest.mark.parametrize("scope", SCOPES)
def test_steps_have_the_eager_loops_tokens(model, name, views, steps, scope, monkeypatch):
    encoded = model.encode(views, asked(name))
    chosen = chosen_of(model, encoded, views, scope)
    found = decode(model, encoded, chosen)
    assert steps.steps
    monkeypatch.setattr(model, "graphs", None)
    eager = decode(model, encoded, chosen)
    assert [row.tokens for row in found] == [row.tokens for row in eager]
    assert worst(logits(found), logits(eager)) <= 1e-5


def test_where_attention_slides_long_prompts_are_decoded_eagerly(made, caplog):
    _, _, model = made("gemma3")
    views = model.look([picture(SIZES[0])])
    encoded = model.encode(views, TEXTS[:1])
    eager = decode(model, encoded)
    model.graphs = graphs_for(model.network, model.decoder, "graph")
    try:
        with caplog.at_level(logging.WARNING):
            found = [decode(model, encoded) for _ in range(2)]
        assert not model.graphs.steps
    finally:
        model.graphs = None
    assert caplog.text.count("outgrow the window of 12") == 1
    assert all([row.tokens for row in one] == [row.tokens for row in eager] for one in found)


@pytest.mark.parametrize("name", ["qwen3_vl"])
def test_the_way_of_decoding_is_a_key(made, name):
    folder = made(name)[0]
    cof = CoF.from_pretrained(folder, family=TINY[name].family, device="cpu", decode="graph")
    assert cof.model.describe()["decode"] == "graph"
    assert made(name)[2].describe()["decode"] == "eager"
    assert "decode" not in cof.model.identity()  # in float32 both say the same
    with record_attention() as found:
        cof.answer_batch([Question("0", "", TEXTS[0])], [picture(SIZES[0])])
    assert found


@pytest.mark.gpu
@pytest.mark.parametrize("scope", SCOPES)
def test_captured_steps_have_the_eager_loops_tokens(made, name, scope, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    module = plugins.load("models", TINY[name].family)
    options = {"device": "cuda", "dtype": "float32", "decode": "eager"}
    model = module.load(module.Config(str(made(name)[0]), **options))
    if model.windows:
        monkeypatch.setattr(model.decoder.config, "sliding_window", 512)
    first, second = model.look([picture(size, i) for i, size in enumerate(SIZES)])
    shown = [first, first, second]
    encoded = model.encode(shown, asked(name))
    chosen = chosen_of(model, encoded, shown, scope)
    eager = decode(model, encoded, chosen)
    model.graphs = graphs_for(model.network, model.decoder, "graph")
    for _ in range(2):
        assert [row.tokens for row in decode(model, encoded, chosen)] == [
            row.tokens for row in eager
        ]
    assert not model.graphs.off
    assert all(step.graph is not None for step in model.graphs.steps.values())
