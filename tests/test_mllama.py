"""Llama 3.2 Vision on a tiny random checkpoint: what `test_families.py` holds, for cross-attention.

Inactive it is stock, bit by bit; highlighted it is an oracle in double precision; as many patches
as the stock processor makes; a changed block of pixels changes the patches whose rectangle it
touches; the plain answer is stock `generate`'s.
"""

import json
import math

import numpy as np
import pytest
import torch
from crossed import BOX, PICTURES, TEXTS, check_block, logits, masks_of, worst
from PIL import Image
from tiny_mllama import KEYS, PATCHES, TILES, Stock, build, oracle

from cof.batch import Batch
from cof.errors import ConfigError, ModelError
from cof.locate import attention
from cof.models import mllama
from cof.models.base import Limits
from cof.models.common.recording import record_attention
from cof.models.mllama.load import chat
from cof.pipeline import CoF
from cof.prompts import SHORT_ANSWER
from cof.refine import guided, highlight
from cof.regions.bias import Highlight
from cof.types import Focus, Question

TOLERANCE = 5e-5
ONES = torch.ones(KEYS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("mllama"))


@pytest.fixture(scope="module")
def stock(folder):
    return Stock(folder)


@pytest.fixture(scope="module")
def model(folder):
    return mllama.load(mllama.Config(str(folder), device="cpu"))


@pytest.fixture(scope="module")
def views(model):
    return model.look(PICTURES)


def lit(encoded, views, weight=20.0):
    return highlight.plan(encoded, masks_of(views), highlight.Config(weight))


@torch.no_grad()
def test_inactive_is_bitwise_stock(stock, model):
    for image, text in zip(PICTURES, TEXTS, strict=True):
        given = stock.inputs(image, text)
        theirs = stock.network(**given, logits_to_keep=1).logits
        assert torch.equal(model.network(**given, logits_to_keep=1).logits, theirs)
        encoded = model.encode(model.look([image]), [text])
        [row] = model.greedy(encoded, 1, keep_logits=True)
        assert torch.equal(row.logits[0], theirs[0, -1])
        with model.highlighted(Highlight(torch.zeros(1, KEYS))):
            [row] = model.greedy(encoded, 1, keep_logits=True)
        assert torch.equal(row.logits[0], theirs[0, -1])


def test_plain_answers_are_stocks(stock, model, views):
    rows = model.greedy(model.encode(views, TEXTS), 8, keep_logits=True)
    for row, image in enumerate(PICTURES):
        given = stock.inputs(image, TEXTS[row])
        ids = given["input_ids"][0].tolist()
        assert model.chat.ids(model.chat.text(TEXTS[row])) == ids
        said = stock.network.generate(
            **given,
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert rows[row].tokens == said.sequences[0, len(ids) :].tolist()
        assert worst(logits([rows[row]]), [torch.cat(said.logits).double()]) <= TOLERANCE


def test_highlighted_it_is_the_oracle(stock, model, views):
    encoded = model.encode(views, TEXTS)
    chosen = lit(encoded, views)
    with model.highlighted(chosen):
        rows = model.greedy(encoded, 4, keep_logits=True)

    def expected(bias):
        parts = zip(PICTURES, TEXTS, bias, rows, strict=True)
        return oracle(stock, [(*some, ONES, row.tokens) for *some, row in parts])

    assert worst(logits(rows), expected(chosen.bias)) <= TOLERANCE
    assert worst(logits(rows), expected(chosen.bias * 0)) > 1e3 * TOLERANCE


def test_text_before_the_image_is_not_highlighted(model, views):
    encoded = model.encode(views, TEXTS)
    outputs = []
    hook = model.decoder.register_forward_hook(lambda *given: outputs.append(given[-1][0]))
    try:
        for chosen in (None, lit(encoded, views)):
            with model.highlighted(chosen):
                model.greedy(encoded, 1)
                model.generate_raw(encoded, Limits(1))
    finally:
        hook.remove()
    real, behind = encoded.attention_mask.bool(), encoded.inputs["opened"]
    assert (real & ~behind).any(1).all()
    plain, raw_plain, bright, raw_bright = outputs
    for one, other in ((plain, bright), (raw_plain, raw_bright)):
        moved = (one - other).abs().amax(-1)
        assert moved[real & ~behind].max() == 0
        assert moved[behind].max() > 0.01


def test_rows_do_not_depend_on_their_company(model, views):
    encoded = model.encode(views, TEXTS)
    chosen = lit(encoded, views)
    with model.highlighted(chosen):
        together = model.greedy(encoded, 6, keep_logits=True)
    for row, (view, text) in enumerate(zip(views, TEXTS, strict=True)):
        with model.highlighted(chosen.take(torch.tensor([row]))):
            [one] = model.greedy(model.encode([view], [text]), 6, keep_logits=True)
        assert one.tokens == together[row].tokens
        assert worst(logits([one]), logits([together[row]])) <= TOLERANCE


def test_rows_that_end_leave_the_others_alone(model, views, monkeypatch):
    """Rows are dropped once half of the batch has ended: their images and highlight with them."""
    rows = [0, 2, 1, 0]
    encoded = model.encode([views[row] for row in rows], [TEXTS[row] for row in rows])
    with model.highlighted(lit(encoded, [views[row] for row in rows])):
        whole = model.greedy(encoded, 8)
        loop = model.loop(encoded)
        monkeypatch.setattr(loop, "_ended", lambda row: row.index != 2)
        found = loop.run(encoded, 8)
    assert [len(one.tokens) for one in found] == [1, 1, 8, 1]
    assert found[2].tokens == whole[2].tokens
    assert len(loop.decoder.states) == 1


def test_patches_are_as_many_as_the_stock_processor_makes(stock, model):
    generator = np.random.default_rng(3)
    for number in range(100):
        size = tuple(int(2 ** generator.uniform(3.4, 8.4)) for _ in range(2))
        given = stock.inputs(Image.new("RGB", size), "?")
        tiles = int(given["aspect_ratio_mask"].sum())
        [view] = model.look([Image.new("RGB", size)]) if number < 10 else [None]
        cells = mllama.model.shape(size, model.processor, model.side).cells
        assert len(cells) == tiles * PATCHES
        assert view is None or view.features.present == tiles
    assert model.tiles == TILES


@pytest.mark.parametrize("size", [(112, 84), (60, 150), (20, 23)])
def test_a_block_of_pixels_moves_the_patches_that_it_touches(model, size):
    tower = model.network.model.vision_model
    kept = [one for name, one in tower.named_parameters() if "self_attn.o_proj" in name]
    assert len(kept) == 4
    places = model.encode(model.look([Image.new("RGB", size)]), [""]).visual[0]
    check_block(model, kept, size, lambda view: view.features.states[places])


def test_guided_answers_are_those_of_two_passes_by_hand(stock, model):
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    batch = Batch.of(model, asked, PICTURES, Limits(5))
    config = guided.Config(3.0, 1.7, log=True, perturb=0.25)
    focuses = [Focus(mask, (BOX,), "boxes") for mask in masks_of(batch.views)]
    found = guided.refine(batch, focuses, config)
    places = batch.encode().visual
    for row in range(3):
        spot = torch.zeros(KEYS)
        spot[places[row][focuses[row].mask]] = 1
        tokens = list(found[row].tokens)
        given = (PICTURES[row], TEXTS[row])
        first, second = oracle(
            stock,
            [
                (*given, spot * math.log(3.0), ONES, tokens),
                (*given, -spot * (2 + math.log(3.0)), 1 - spot * (1 - 0.25), tokens),
            ],
        )
        first, second = first.log_softmax(-1), second.log_softmax(-1)
        assert (1.7 * (first - second) + second).argmax(-1).tolist() == tokens
    assert [one.tokens for one in found] != [one.tokens for one in batch.plain]


def test_the_recorded_attention_is_that_of_the_cross_attentions(model, views):
    encoded = model.encode(views, TEXTS)
    found = []
    for chosen in (None, lit(encoded, views)):
        with model.highlighted(chosen), record_attention() as kept:
            model.generate(encoded, Limits(1))
        assert sorted(kept) == list(range(model.layers)) == [0, 1]
        assert kept[0].shape == (3, model.heads, KEYS)
        assert torch.allclose(kept[1].sum(-1), torch.ones(3, model.heads))
        hidden = torch.arange(KEYS) >= views[2].features.present * (1 + PATCHES)
        assert kept[0][2, :, hidden].max() == 0  # tiles that this image does not have
        found.append(kept[0].mean(1))
    for row, (places, mask) in enumerate(zip(encoded.visual, masks_of(views), strict=True)):
        before, after = (one[row, places[mask]].sum() for one in found)
        share = float(before)
        assert float(after) == pytest.approx(20 * share / (1 + 19 * share), rel=0.35)
    maps, _ = attention.attention_maps(
        Batch.of(model, [Question("0", "", TEXTS[0])], PICTURES[:1]), TEXTS[:1], attention.Config()
    )
    assert maps[0].shape == (2, len(views[0].cells))


def test_cof_asks_locates_and_answers(folder):
    cof = CoF.from_pretrained(folder, family="mllama", device="cpu", max_new_tokens=5)
    assert cof(PICTURES[0], TEXTS[0], plain=True).text is not None
    given = cof(PICTURES[1], TEXTS[1], box=BOX.as_tuple(), plain=True)
    assert given.focus.status == "boxes"
    assert given.attention().cof.shape == (2, len(given.view.cells))


def test_given_answers_are_weighed_as_they_would_be_generated(model, views):
    encoded = model.encode(views, TEXTS)
    texts = ["Yes", "a dog", "no"]
    with model.highlighted(lit(encoded, views)):
        rows = model.greedy(encoded, 1, keep_logits=True)
        weighed = model.score(encoded, texts)
    for row, one in enumerate(weighed):
        assert not one.error
        assert model.tokenizer.decode(one.tokens[:-1]).strip() == texts[row]
        chances = rows[row].logits[0].log_softmax(-1)
        assert one.logprobs[0] == pytest.approx(float(chances[one.tokens[0]]), abs=1e-4)
        alone = model.encode([views[row]], [TEXTS[row]])
        with model.highlighted(lit(alone, [views[row]])):
            [again] = model.score(alone, [texts[row]])
        assert again.logprobs == pytest.approx(one.logprobs, abs=1e-4)


def test_questions_that_cannot_be_asked_are_refused_by_themselves(model, views):
    encoded = model.encode([views[0], views[1], views[2]], ["a<|image|>b", TEXTS[1], "x" * 5000])
    assert "<|image|>" in encoded.refused[0]
    assert "positions" in encoded.refused[2]
    bad, good, _ = model.generate(encoded, Limits(3))
    assert bad.error
    [alone] = model.generate(model.encode([views[1]], [TEXTS[1]]), Limits(3))
    assert good.tokens == alone.tokens


@pytest.mark.parametrize("change", [{"layers": (0,)}, {"heads": (0,)}, {"scope": "text"}])
def test_a_highlight_of_some_layers_heads_or_queries_is_refused(model, views, change):
    with pytest.raises(ConfigError, match=r"cannot be narrowed|use scope=all"):
        highlight.check_model(model, highlight.Config(**change))
    plan = highlight.plan(model.encode(views, TEXTS), masks_of(views), highlight.Config(**change))
    with pytest.raises(ModelError, match="for all of its queries"):
        model.highlighted(plan)


@pytest.mark.parametrize("change", [{"num_beams": 3}, {"temperature": 0.7}])
def test_beams_and_sampling_can_be_repeated(stock, model, views, change):
    encoded = model.encode(views, TEXTS)
    limits = Limits(5, **change)
    first, second = (model.generate(encoded, limits) for _ in range(2))
    assert [one.tokens for one in first] == [one.tokens for one in second]
    with model.highlighted(lit(encoded, views)):
        bright = model.generate(encoded, limits)
        one = model.generate_raw(encoded, Limits(5)).tolist()
        assert one == [row.tokens for row in model.greedy(encoded, 5)]
    assert [one.tokens for one in first] != [one.tokens for one in bright]
    if "num_beams" in change:
        for row, image in enumerate(PICTURES):
            given = stock.inputs(image, TEXTS[row])
            said = stock.network.generate(**given, max_new_tokens=5, do_sample=False, num_beams=3)
            tokens = said[0, given["input_ids"].shape[1] :].tolist()
            assert list(first[row].tokens) == tokens[: len(first[row].tokens)]


def test_what_does_not_fit_is_said(model, views, folder, tmp_path):
    encoded = model.encode(views, TEXTS)
    one = lit(encoded, views).take(torch.tensor([0]))
    with model.highlighted(one), pytest.raises(ValueError, match="for 3 prompts"):
        model.generate(encoded, Limits(2))
    said = json.loads((folder / "config.json").read_text()) | {"model_type": "llava_next"}
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="this family is of mllama"):
        mllama.load(mllama.Config(str(tmp_path)))


def test_it_says_what_it_is(model, folder, caplog):
    said = model.describe()
    known = mllama.identify(mllama.Config(str(folder), device="cpu"))
    assert known == {"weights": said["revision"], "dtype": "float32", "device": "cpu"}
    assert model.identity().items() <= said.items()
    assert said["frame"] == "image (assumed)"
    assert chat("Is it?") == model.chat.text("Is it?")
    declared = mllama.load(mllama.Config(str(folder), device="cpu", frame="padded_square"))
    assert "documented nowhere" not in caplog.text
    [view] = declared.look([Image.new("RGB", (100, 50))])
    other = mllama.load(mllama.Config(str(folder), device="cpu", suffix=" Say it."))
    ids = other.encode([view], ["Is it?" + SHORT_ANSWER]).inputs["input_ids"]
    assert ids.tolist() == model.encode([view], ["Is it? Say it."]).inputs["input_ids"].tolist()
    [box] = declared.boxes("[0.0, 0.25, 0.5, 0.75]", view)
    assert box.as_tuple() == pytest.approx((0.0, 0.0, 0.5, 1.0))
