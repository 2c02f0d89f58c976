"""Families of transformers' own models: the same five for each, on tiny random checkpoints.

Inactive it is stock, bit by bit; highlighted it is an oracle in double precision; as many tokens as
the stock processor makes; a changed block of pixels changes the tokens whose rectangle it touches;
the plain answer is stock `generate`'s.
"""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from committed import ROOT
from families import BOX, SIZES, TEXTS, TINY, lit, logits, maker, picture, worst
from PIL import Image

from cof import CoF, prompts
from cof.batch import Batch
from cof.config import plugins, schema
from cof.errors import ModelError
from cof.evaluate.family.moved import apart, misplaced
from cof.evaluate.family.stock import oracle
from cof.locate import prompt
from cof.models.base import Limits
from cof.models.common.family import Family
from cof.prompts import spans_of
from cof.refine.highlight import perturbed
from cof.regions.bias import Highlight
from cof.regions.mask import token_mask
from cof.types import Answer, Question

TOLERANCE = 5e-5
STEPS = 4


@pytest.fixture(scope="module", params=TINY)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> folder, stock, model; each built once."""
    return maker(tmp_path_factory)


@pytest.fixture(scope="module")
def folder(made, name):
    return made(name)[0]


@pytest.fixture(scope="module")
def stock(made, name):
    return made(name)[1]


@pytest.fixture(scope="module")
def model(made, name):
    return made(name)[2]


@pytest.fixture(scope="module")
def views(model):
    return model.look([picture(size, i) for i, size in enumerate(SIZES)])


@torch.no_grad()
def test_inactive_is_bitwise_stock(stock, model):
    given = stock.inputs(picture(SIZES[0]), TEXTS[0])
    assert torch.equal(model.network(**given).logits, stock.network(**given).logits)
    encoded = model.encode(model.look([picture(SIZES[0])]), TEXTS[:1])
    nothing = Highlight(torch.zeros(1, encoded.keys))
    with model.highlighted(nothing):
        found = model.network(**given).logits
    assert (found - stock.network(**given).logits).abs().max() < TOLERANCE


def test_prompts_and_plain_answers_are_stocks(stock, model, views):
    encoded = model.encode(views, TEXTS)
    rows = model.greedy(encoded, 8, keep_logits=True)
    for row, size in enumerate(SIZES):
        given = stock.inputs(picture(size, row), TEXTS[row])
        real = encoded.attention_mask[row].bool()
        assert encoded.inputs["input_ids"][row, real].tolist() == given["input_ids"][0].tolist()
        said = stock.network.generate(
            **given,
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = said.sequences[0, given["input_ids"].shape[1] :].tolist()
        assert rows[row].tokens == tokens
        assert worst(logits([rows[row]]), [torch.cat(said.logits).double()]) <= 1e-5


def rows_of(stock, encoded, bias, rows):
    """What `oracle` takes, padding cut off."""
    for row, size in enumerate(SIZES):
        real = encoded.attention_mask[row].bool()
        yield stock.inputs(picture(size, row), TEXTS[row]), bias[row, real], rows[row].tokens


def test_highlighted_it_is_the_oracle(stock, model, views):
    encoded = model.encode(views, TEXTS)
    chosen = lit(model, encoded, views)
    with model.highlighted(chosen):
        rows = model.greedy(encoded, STEPS, keep_logits=True)
    lit_up = oracle(stock.network, rows_of(stock, encoded, chosen.bias, rows))
    plain = oracle(stock.network, rows_of(stock, encoded, chosen.bias * 0, rows))
    assert worst(logits(rows), lit_up) <= TOLERANCE
    assert worst(logits(rows), plain) > 1e3 * TOLERANCE


def test_rows_do_not_depend_on_their_company(model, views):
    together = model.greedy(model.encode(views, TEXTS), 6, keep_logits=True)
    alone = [
        model.greedy(model.encode([view], [text]), 6, keep_logits=True)[0]
        for view, text in zip(views, TEXTS, strict=True)
    ]
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert worst(logits(together), logits(alone)) <= 1e-5


def test_tokens_are_as_many_as_the_stock_processor_makes(stock, model):
    generator = np.random.default_rng(3)
    for number in range(100):
        width, height = (int(2 ** generator.uniform(3.4, 8.4)) for _ in range(2))
        given = stock.inputs(Image.new("RGB", (width, height)), "?")
        count = int((given["input_ids"] == model.token_id).sum())
        shape = model.family.shape((width, height))
        assert len(shape.cells) == count, (number, width, height)
        assert shape.grid is None or math.prod(shape.grid) == count


@pytest.mark.parametrize("size", [(112, 84), (97, 61), (60, 150), (200, 190)])
def test_a_block_of_pixels_moves_the_tokens_that_it_touches(model, name, size):
    """By its rectangle: no token elsewhere moves much, none inside stays as it was."""
    with apart(model.network) as could:
        assert could
        assert misplaced(model, size, blur=TINY[name].blur) == []


def test_cof_asks_locates_and_answers(folder, name):
    cof = CoF.from_pretrained(folder, family=TINY[name].family, device="cpu", max_new_tokens=5)
    answer = cof(picture(SIZES[0]), TEXTS[0], plain=True)
    assert answer.text is not None
    given = cof(picture(SIZES[1], 1), TEXTS[1], box=BOX.as_tuple(), plain=True)
    assert given.focus.status == "boxes"
    assert 0 < given.focus.mask.sum() < len(given.focus.mask)


def test_several_weights_are_several_passes(model):
    asked = [Question(str(i), "", text) for i, text in enumerate(TEXTS)]
    shown = [picture(size, i) for i, size in enumerate(SIZES)]
    batch = Batch.of(model, asked, shown, Limits(5))
    masks = [token_mask([BOX], view.cells) for view in batch.views]
    encoded = batch.encode()
    plain = model.generate(encoded, Limits(5))
    assert [one.tokens for one in batch.plain] == [one.tokens for one in plain]
    twice = perturbed(encoded, masks, 0.01)
    changed = model.greedy(twice, 3, keep_logits=True)
    unchanged = model.greedy(perturbed(encoded, masks, 1.0), 3, keep_logits=True)
    assert worst(logits(changed)[:1], logits(unchanged)[:1]) > 1e-3


@pytest.mark.parametrize("change", [{"num_beams": 3}, {"temperature": 0.7}])
def test_beams_and_sampling_can_be_repeated(stock, model, views, change):
    """`generate` expands the features that it is given in place: they are new each time."""
    encoded = model.encode(views, TEXTS)
    limits = Limits(5, **change)
    first, second = (model.generate(encoded, limits) for _ in range(2))
    assert [one.tokens for one in first] == [one.tokens for one in second]
    if "num_beams" in change:
        for row, size in enumerate(SIZES):
            given = stock.inputs(picture(size, row), TEXTS[row])
            said = stock.network.generate(
                **given, max_new_tokens=5, do_sample=False, num_beams=change["num_beams"]
            )
            tokens = said[0, given["input_ids"].shape[1] :].tolist()
            assert list(first[row].tokens) == tokens[: len(first[row].tokens)]
        with model.highlighted(lit(model, encoded, views)):
            bright = model.generate(encoded, limits)
        assert [one.tokens for one in first] != [one.tokens for one in bright]


def test_given_answers_are_weighed_as_they_would_be_generated(model, views):
    encoded = model.encode(views, TEXTS)
    weighed = model.score(encoded, ["Yes", "a dog"])
    for row, one in enumerate(weighed):
        assert not one.error
        ids = [*encoded.inputs["input_ids"][row].tolist(), *one.tokens]
        assert model.tokenizer.decode(one.tokens[:-1]).strip() == one.text
        alone = model.encode([views[row]], [TEXTS[row]])
        again = model.score(alone, [one.text])[0]
        assert again.logprobs == pytest.approx(one.logprobs, abs=1e-4)
        assert len(ids) == encoded.keys + len(one.tokens)
    [first] = model.greedy(model.encode(views[:1], TEXTS[:1]), 1, keep_logits=True)
    logprobs = first.logits[0].log_softmax(-1)
    assert weighed[0].logprobs[0] == pytest.approx(float(logprobs[weighed[0].tokens[0]]), abs=1e-4)


def test_questions_that_cannot_be_asked_are_refused_by_themselves(model, views):
    token = model.family.token
    encoded = model.encode([views[0], views[1], views[0]], [f"a{token}b", TEXTS[1], "x" * 5000])
    assert set(encoded.refused) == {0, 2}
    assert token in encoded.refused[0]
    assert "positions" in encoded.refused[2]
    bad, good, long = model.generate(encoded, Limits(3))
    assert bad.error
    assert long.error
    [alone] = model.generate(model.encode([views[1]], [TEXTS[1]]), Limits(3))
    assert good.tokens == alone.tokens
    assert model.generate(model.encode(views[:1], TEXTS[:1]), Limits(1))[0].error == ""
    pairs = model.encode([*views[:2], *views[:2]], [f"a{token}b", *TEXTS, TEXTS[0]])
    mixed = model.generate(pairs, Limits(2), mix=lambda some: some[::2].repeat_interleave(2, 0))
    assert [token in one.error for one in mixed] == [True, True, False, False]


def test_it_says_what_it_is(model, name, folder):
    said = model.describe()
    module = plugins.load("models", TINY[name].family)
    known = module.identify(module.Config(str(folder), device="cpu"))
    assert known == {"weights": said["revision"], "dtype": "float32", "device": "cpu"}
    assert model.identity().items() <= said.items()
    assert ("assumed" in said["frame"]) == model.frame.assumed
    assert "{question}" in model.grounding


def test_an_assumed_frame_is_logged_and_can_be_declared(folder, name, caplog):
    module = plugins.load("models", TINY[name].family)
    with caplog.at_level(logging.WARNING):
        plain = module.load(module.Config(str(folder), device="cpu"))
    assert ("documented nowhere" in caplog.text) == plain.frame.assumed
    caplog.clear()
    declared = module.load(module.Config(str(folder), device="cpu", frame="thousandths"))
    assert not caplog.text
    assert declared.describe()["frame"] == "thousandths"
    assert declared.identity() != plain.identity() or not plain.frame.assumed


REPLIES = {
    "qwen2_vl": "the cup<|box_start|>(250,500),(500,1000)<|box_end|>",
    "qwen2_5_vl": '```json\n[{"bbox_2d": [W/4, H/2, W/2, H], "label": "cup"}]\n```',
    "qwen3_vl": '[{"bbox_2d": [250, 500, 500, 1000], "label": "cup"}]',
    "internvl": "the cup<box>[[250, 500, 500, 1000]]</box>",
}


def test_replies_are_read_in_the_family_s_frame(model, name, views):
    for view in views:
        reply = REPLIES.get(name, "[0.25, 0.5, 0.5, 1.0]")
        for letter, edge in zip("WH", view.shown, strict=True):
            for part in (4, 2):
                reply = reply.replace(f"{letter}/{part}", f"{edge / part:.0f}")
            reply = reply.replace(letter, str(edge))
        [box] = model.boxes(reply, view)
        assert box.as_tuple() == pytest.approx((0.25, 0.5, 0.5, 1.0), abs=0.01)


@pytest.mark.parametrize("name", [*REPLIES, "gemma3"])
def test_special_tokens_that_mark_boxes_stay_in_a_reply(made, name):
    """As it comes from the ids; the end and the others go."""
    model = made(name)[2]
    reply = REPLIES.get(name, "[0.25, 0.5, 0.5, 1.0]")
    ids = model.tokenizer(reply, add_special_tokens=False).input_ids
    begin = model.tokenizer.convert_tokens_to_ids(TINY[name].special[4])
    assert model.text([begin, *ids, min(model.stops)]) == reply
    assert model.text([*ids[:3], min(model.stops)]) == reply[:3]


def test_a_padded_square_can_be_declared(folder, name):
    module = plugins.load("models", TINY[name].family)
    model = module.load(module.Config(str(folder), device="cpu", frame="padded_square"))
    [view] = model.look([Image.new("RGB", (100, 50))])
    [box] = model.boxes("[0.0, 0.25, 0.5, 0.75]", view)
    assert box.as_tuple() == pytest.approx((0.0, 0.0, 0.5, 1.0))


def test_its_own_request_is_asked_where_the_config_names_none(model, views, monkeypatch):
    asked = []
    monkeypatch.setattr(model, "encode", lambda _, texts: asked.extend(texts))
    monkeypatch.setattr(model, "generate", lambda *_: [Answer("no box")])
    one = Question("0", "", "What is it?\nAnswer shortly.")
    batch = Batch(model, [one], [picture(SIZES[0])], views[:1])
    prompt.locate(batch, prompt.Config(prompt=""))
    prompt.locate(batch, prompt.Config())
    assert asked == [
        model.grounding.replace("{question}", "What is it?"),
        prompts.GROUNDING.replace("{question}", "What is it?"),
    ]


def test_what_reaches_back_to_the_image_s_start_says_so(model, views):
    """`Highlight.untouched` must not call anything plain that a later key has changed."""
    encoded = model.encode(views[:1], TEXTS[:1])
    bias = torch.zeros(1, encoded.keys)
    last = int(encoded.visual[0][-1])
    bias[0, last] = 3.0
    first = Highlight(bias).untouched(encoded.sees)
    assert first == (last if encoded.sees is None else int(encoded.visual[0][0]))


@pytest.mark.parametrize("name", ["internvl"])
def test_a_suffix_of_ones_own_stands_in_place_of_llavas(made, name):
    folder, _, usual = made(name)
    module = plugins.load("models", TINY[name].family)
    model = module.load(module.Config(str(folder), device="cpu", suffix=" Yes or no?"))
    [view] = usual.look([picture(SIZES[0])])
    for line in prompts.SUFFIXES:
        assert model.ids(view, f"Is it?{line}") == usual.ids(view, "Is it? Yes or no?")
        assert usual.ids(view, f"Is it?{line}") != usual.ids(view, "Is it? Yes or no?")
    assert model.ids(view, "Is it?\nWhere?") == usual.ids(view, "Is it?\nWhere?")
    assert model.identity() != usual.identity()


@pytest.mark.parametrize("family", sorted({tiny.family for tiny in TINY.values()}))
def test_every_family_has_a_config_of_its_own(family):
    """Its own request where one is documented, a declared frame where none is; and it says so."""
    file = ROOT / "examples" / "configs" / f"mme_{family}.yaml"
    config = schema.load(file)
    module = plugins.load("models", family)
    assert isinstance(config.model, module.Config)
    assert config.model.path == module.Config().path
    [kind] = {
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Family) and one.__module__ == module.__name__
    }
    assumed = kind.frame.assumed and family != "qwen_vl"  # whose frame depends on the checkpoint
    assert bool(config.model.frame) == assumed
    assert (config.locate.prompt == "") == (not assumed)
    assert config.model.suffix in (None, " Please answer yes or no.")
    assert "No real weights were run" in file.read_text(encoding="utf-8")


def test_another_family_is_refused(made, name, tmp_path):
    others = [tiny.family for tiny in TINY.values() if tiny.family != TINY[name].family]
    for other in {*others}:
        module = plugins.load("models", other)
        with pytest.raises(ModelError, match=rf"use model.name={TINY[name].family} .* is of"):
            module.load(module.Config(str(made(name)[0]), device="cpu"))
    own = f"is not a LLaVA-1.5 checkpoint; use model.name={TINY[name].family} "
    with pytest.raises(ModelError, match=own):
        CoF.from_pretrained(made(name)[0], device="cpu")


def test_words_of_a_question_are_found(model, views):
    texts = ["Where is the red cup?", " Red, or is it Red? \n"]
    encoded = model.encode(views, texts)
    spans = [spans_of(text, ["red cup", "red"]) for text in texts]
    found = model.words(encoded, texts, spans)
    read = [
        model.tokenizer.decode(encoded.inputs["input_ids"][row, places])
        for row, places in enumerate(found)
    ]
    assert read == ["red cup", "RedRed"]


@torch.no_grad()
def test_a_gradient_is_the_norm_of_the_slopes_along_each_axis(model, views):
    view, step = views[0], 1e-2
    encoded = model.encode([view], TEXTS[1:])
    heat = model.gradient(encoded)
    assert len(heat) == len(view.cells)
    peak, tokens = int(heat.argmax()), view.features.tokens
    width = tokens.shape[1]
    moved = tokens.repeat(2 * width, 1, 1)
    moved[:, peak] += step * torch.cat([torch.eye(width), -torch.eye(width)])
    features = [replace(view.features, tokens=one) for one in moved]
    seen = [replace(view, features=one, shared=None) for one in features]
    rows = model.greedy(model.encode(seen, TEXTS[1:] * len(seen)), 1, keep_logits=True)
    token = int(model.greedy(encoded, 1)[0].tokens[0])
    logs = torch.stack(logits(rows))[:, 0].log_softmax(-1)[:, token]
    slopes = (logs[:width] - logs[width:]) / (2 * step)
    assert float(heat[peak]) == pytest.approx(float(slopes.norm()), rel=0.01)
