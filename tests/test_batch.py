"""What a stage is given: shared work done once, rows taken, scores mixed, frames of replies."""

from dataclasses import replace

import pytest
import torch
from fakes import StubModel
from PIL import Image

from cof.batch import Batch
from cof.errors import ModelError
from cof.locate import prompt
from cof.models.base import Encoded, Limits
from cof.models.common.decoding import positions
from cof.pipeline import CoF, Settings
from cof.pipeline import refine as refine_all
from cof.refine import highlight, plain
from cof.regions.bias import Highlight
from cof.regions.frame import Frame
from cof.types import Question

TEXTS = ["What is it?", "Where is the red cup, and what is beside it?", "Is it?"]


@pytest.fixture(scope="module")
def batch(llava):
    sizes = [(90, 60), (40, 70), (64, 64)]
    pictures = [Image.new("RGB", size, (9 * i, 80, 200)) for i, size in enumerate(sizes)]
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    return Batch.of(llava, asked, pictures, Limits(6))


def test_the_plain_answers_are_computed_once_whoever_asks(llava, batch):
    fresh = Batch.of(llava, batch.questions, batch.images, batch.limits)
    before = llava.counters.forwards
    part = fresh.take([2, 0, 2])
    assert [one.tokens for one in part.plain] == [fresh.plain[row].tokens for row in (2, 0, 2)]
    spent = llava.counters.forwards - before
    assert plain.refine(fresh, [], plain.Config()) == list(fresh.plain)
    assert plain.refine(fresh.take([1]).take([0]), [], plain.Config())[0] is fresh.plain[1]
    assert llava.counters.forwards - before == spent


def test_plain_answers_are_plain_and_nobody_can_change_them(llava, batch):
    fresh = Batch.of(llava, batch.questions, batch.images, batch.limits)
    bias = torch.zeros(3, fresh.encode().keys)
    bias[:, 40:600] = 3.0
    with llava.highlighted(Highlight(bias)):
        lit = fresh.reply(fresh.encode())
        inside = fresh.plain
    assert [one.tokens for one in lit] != [one.tokens for one in batch.plain]
    assert [one.tokens for one in inside] == [one.tokens for one in batch.plain]
    mine = plain.refine(fresh, [], plain.Config())
    mine[0] = replace(mine[0], text="mine")
    assert fresh.plain[0].text == batch.plain[0].text


def test_a_changed_part_is_a_batch_of_its_own(batch):
    part = batch.take([0, 1])
    other = replace(part, questions=part.questions[::-1])
    expected = replace(batch, questions=[*part.questions[::-1], batch.questions[2]])
    assert [one.tokens for one in other.plain] == [one.tokens for one in expected.plain[:2]]
    short = replace(part, limits=Limits(1))
    assert [len(one.tokens) for one in short.plain] == [1, 1]


def test_a_selection_may_be_empty(batch):
    nothing = batch.take([])
    assert (len(nothing), nothing.plain, nothing.look([])) == (0, (), [])
    with pytest.raises(ValueError, match="no rows has no prompts"):
        nothing.encode()
    with pytest.raises(ValueError, match="3 prompts for a batch that has 1"):
        batch.take([0]).reply(batch.encode())


def test_rows_are_taken_with_all_that_belongs_to_them(batch):
    part = batch.take([2, 0, 2])
    assert [one.id for one in part.questions] == ["2", "0", "2"]
    assert [image.size for image in part.images] == [(64, 64), (90, 60), (64, 64)]
    assert part.views[0] is part.views[2] is batch.views[2]
    assert len(part) == 3


def test_one_image_object_is_seen_once(llava, batch):
    before = llava.counters.images
    views = batch.look([batch.images[0], batch.images[1], batch.images[0]])
    assert llava.counters.images - before == 2
    assert views[0] is views[2]
    assert torch.equal(views[1].features, batch.views[1].features)


def test_a_closer_look_at_the_whole_image_is_the_one_there_is(llava, batch):
    before, rect = llava.counters.images, (10, 10, 30, 40)
    parts, views = batch.take([0, 1, 0, 2]).closer([(0, 0, 90, 60), rect, rect, (0, 0, 64, 64)])
    assert llava.counters.images - before == 2
    assert (views[0], views[3]) == (batch.views[0], batch.views[2])
    assert [one.size for one in parts] == [(90, 60), (20, 30), (20, 30), (64, 64)]
    alone = batch.look([batch.images[1].crop(rect)])[0]
    assert torch.equal(views[1].features, alone.features)
    assert not torch.equal(views[2].features, alone.features)


def test_equal_edits_of_one_image_are_one_object(batch):
    wide, done = batch.take([0, 0, 1, 0]), []
    hows = ["a", "a", "a", "b"]
    made = wide.edited(hows, lambda image, how: done.append((image, how)) or image.copy())
    assert made[0] is made[1]
    assert len({id(one) for one in made}) == len(done) == 3
    pairs = zip(wide.images, hows, strict=True)
    assert [(id(a), b) for a, b in done] == [*dict.fromkeys((id(a), b) for a, b in pairs)]


def logits_of(llava, encoded, tokens):
    """Next-token logits of one row behind given tokens, nothing cached, nothing shared."""
    embeds = encoded.inputs["inputs_embeds"]
    if tokens:
        said = llava.network.get_input_embeddings()(torch.tensor([tokens]))
        embeds = torch.cat([embeds, said], dim=1)
    hidden = llava.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return llava.network.lm_head(hidden)[:, -1].float()


def blend(scores):
    """2 x the first row of each pair less the second, for both."""
    pairs = scores.view(-1, 2, scores.shape[1])
    mixed = 2 * pairs[:, 0] - pairs[:, 1]
    return mixed.repeat_interleave(2, dim=0)


@torch.inference_mode()
def test_mixed_pairs_live_and_end_together_and_are_the_oracles(llava, batch, monkeypatch):
    wide = batch.take([0, 1, 1, 2, 2, 0])  # three pairs of unlike rows
    found = wide.reply(wide.encode(), mix=blend)
    for first in (0, 2, 4):
        assert found[first].tokens == found[first + 1].tokens
        alone = [wide.take([row]).encode() for row in (first, first + 1)]
        tokens, logprobs = [], []
        for token in found[first].tokens:
            scores = blend(torch.cat([logits_of(llava, one, tokens) for one in alone]))[0]
            assert int(scores.argmax()) == token
            tokens.append(token)
            logprobs.append(float(scores.log_softmax(-1)[token]))
        assert found[first].logprobs == pytest.approx(logprobs, abs=1e-3)
    lonely = batch.reply(batch.encode())
    assert [one.tokens for one in lonely] != [found[row].tokens for row in (0, 2, 4)]
    stop = found[0].tokens[1]  # now the first pair ends early; the others do not notice
    monkeypatch.setitem(llava.__dict__, "stops", frozenset({stop}))
    ended = wide.reply(wide.encode(), mix=blend)
    for row, answer in enumerate(ended):
        whole = found[row].tokens
        cut = whole[: whole.index(stop) + 1] if stop in whole else whole
        assert answer.tokens == cut


def cut(scores):
    """Of each pair the first row's scores, all but its five best tokens ruled out."""
    first = scores.view(-1, 2, scores.shape[1])[:, 0]
    fifth = first.topk(5).values[:, -1:]
    return first.masked_fill(first < fifth, -torch.inf).repeat_interleave(2, dim=0)


def test_tokens_may_be_ruled_out_but_not_all_of_them(batch):
    wide = batch.take([0, 1, 2, 0])
    found = wide.reply(wide.encode(), mix=cut)
    assert [one.tokens for one in found[::2]] == [batch.plain[row].tokens for row in (0, 2)]
    assert all(one.logprob is not None and one.logprob < 0 for one in found)
    none = wide.reply(wide.encode(), mix=lambda scores: scores * torch.nan)
    assert all(one.error.startswith("non-finite") for one in none)
    none = wide.reply(wide.encode(), mix=lambda scores: scores * 0 - torch.inf)
    assert all(one.error.startswith("non-finite") for one in none)


def test_where_one_of_a_pair_fails_both_do(llava, batch):
    wide = batch.take([0, 0, 1, 1])
    texts = [TEXTS[0], "What <image> is it?", TEXTS[1], TEXTS[1]]
    found = wide.reply(llava.encode(wide.views, texts), mix=blend)
    assert ["<image>" in one.error for one in found] == [True, True, False, False]

    def three(scores):
        return scores

    three.rows = 3
    wide = batch.take([0, 0, 0, 1, 1, 1])
    found = wide.reply(llava.encode(wide.views, [*texts[:3], *texts[2:], TEXTS[1]]), mix=three)
    assert [bool(one.error) for one in found] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("change", [{"num_beams": 2}, {"temperature": 0.5}])
def test_scores_are_mixed_in_greedy_decoding_only(batch, change):
    other = replace(batch, limits=Limits(3, **change))
    with pytest.raises(ModelError, match="num_beams=1 and temperature=0"):
        other.reply(other.encode(), mix=lambda scores: scores)


def test_scores_of_weighed_options_cannot_be_mixed(batch):
    asked = [replace(one, options=("a", "b"), choose=True) for one in batch.questions]
    other = replace(batch, questions=asked)
    with pytest.raises(ModelError, match="whose options are weighed"):
        other.reply(other.encode(), mix=lambda scores: scores)


@torch.inference_mode()
def test_logprobs_are_the_models(llava, batch):
    (answer,) = batch.take([1]).plain
    encoded, tokens = batch.take([1]).encode(), []
    for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
        scores = logits_of(llava, encoded, tokens)[0].log_softmax(-1)
        assert logprob == pytest.approx(float(scores[token]), abs=1e-3)
        tokens.append(token)
    assert answer.logprob == pytest.approx(sum(answer.logprobs))
    sampled = replace(batch.take([1]), limits=Limits(3, temperature=1.0))
    (said,) = sampled.reply(sampled.encode())
    assert said.logprob is None


def test_positions_have_any_rank():
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    plain_ones = Encoded({}, mask, (), keys=3)
    assert positions(plain_ones).tolist() == [[0, 0, 1], [0, 1, 2]]
    axes = torch.arange(18).view(3, 2, 3)
    assert positions(replace(plain_ones, positions=axes)) is axes


@torch.inference_mode()
@pytest.mark.parametrize("share", [True, False])
def test_given_positions_are_used_and_counted_on(llava, batch, share):
    """Rotary attention sees distances alone: positions moved by 7 change nothing."""
    encoded = batch.encode()
    if not share:
        encoded = replace(encoded, shared=None)
    expected = llava.greedy(encoded, 4, keep_logits=True)
    moved = replace(encoded, positions=positions(encoded) + 7, shared=None)
    for one, other in zip(expected, llava.greedy(moved, 4, keep_logits=True), strict=True):
        assert torch.allclose(torch.stack(one.logits), torch.stack(other.logits), atol=1e-4)
    spread = replace(encoded, positions=positions(encoded) * 3, shared=None)
    far = llava.greedy(spread, 2, keep_logits=True)
    assert (far[0].logits[0] - expected[0].logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        (Frame("image"), "[0.25, 0.5, 0.5, 1.0]"),
        (Frame("thousandths", (1000.0, 1000.0)), '[{"bbox_2d": [250, 500, 500, 1000]}]'),
        (Frame("resized_pixels", None), '```json\n[{"bbox_2d": [70, 84, 140, 168]}]\n```'),
        (Frame("bins", (1024.0, 1024.0), "yxyx"), "[512, 256, 1024, 512]"),
    ],
)
def test_replies_are_read_in_the_frame_of_the_model(frame, reply):
    model = StubModel(reply)
    model.frame = frame
    look = model.look
    model.look = lambda images: [replace(view, shown=(280, 168)) for view in look(images)]
    asked = [Question("q", "i", "What?")]
    batch = Batch.of(model, asked, [Image.new("RGB", (640, 480))])
    (region,) = prompt.locate(batch, prompt.Config())
    assert [box.as_tuple() for box in region.boxes] == [pytest.approx((0.25, 0.5, 0.5, 1.0))]
    assert region.frame == frame.name


def test_several_settings_at_once_are_an_offer_of_the_stage(batch, monkeypatch):
    """`refine_many` is found by its presence; without it a stage is asked setting by setting."""
    mask = torch.zeros(576, dtype=torch.bool)
    mask[100:300] = True
    spots = [type("Spot", (), {"mask": mask})() for _ in range(3)]
    configs = [highlight.Config(weight) for weight in (1.0, 20.0)] + [plain.Config()]
    together = refine_all(batch, [spots] * 3, configs)
    calls = []
    monkeypatch.setattr(
        highlight,
        "refine",
        lambda *given, inner=highlight.refine_many: (
            calls.append(1) or inner(given[0], [given[1]], [given[2]])[0]
        ),
    )
    monkeypatch.delattr(highlight, "refine_many")
    apart = refine_all(batch, [spots] * 3, configs)
    assert len(calls) == 2
    for some, others in zip(together, apart, strict=True):
        assert [one.tokens for one in some] == [one.tokens for one in others]
    for number in (0, 2):
        assert [one.tokens for one in together[number]] == [one.tokens for one in batch.plain]
    assert [one.tokens for one in together[1]] != [one.tokens for one in batch.plain]


def test_images_of_one_batch_may_have_different_numbers_of_tokens():
    """Focus, plan and record follow each image's own T."""
    model = StubModel('{"box": [0.0, 0.0, 0.5, 0.5]}')

    def look(images):
        views = []
        for image in images:
            side = image.width // 10
            place = torch.arange(side * side)
            corners = torch.stack(
                [place % side, place // side, place % side + 1, place // side + 1], 1
            )
            views.append(
                replace(
                    StubModel().look([image])[0],
                    features=torch.full((side * side, 1), -1.0),
                    cells=corners / side,
                    grid=None if side == 3 else (side, side),
                )
            )
        return views

    model.look = look
    encode = model.encode

    def encoded(views, questions):
        found = encode(views, questions)
        starts = [len(mask) - int(mask.sum()) for mask in found.attention_mask]
        visual = tuple(
            torch.arange(len(view.features)) + start
            for view, start in zip(views, starts, strict=True)
        )
        return replace(found, visual=visual)

    model.encode = encoded
    asked = [Question(str(i), "i", "What?") for i in range(2)]
    pictures = [Image.new("RGB", (20, 20)), Image.new("RGB", (30, 30))]
    two, three = CoF(model, Settings(plain=False)).answer_batch(asked, pictures)
    assert (two.tokens, two.cells, two.grid, two.frame) == (4, (0,), (2, 2), (0.0, 0.0, 1.0, 1.0))
    assert (three.tokens, three.cells, three.grid) == (9, (0, 1, 3, 4), None)
    assert three.lit[3] == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))
    assert (two.cof.text, three.cof.text) == ("Yes", "Yes")
