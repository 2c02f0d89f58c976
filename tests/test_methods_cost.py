"""What the stages compute, counted: nothing of an image twice that another pass has already."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from cof.batch import Batch
from cof.locate import attention
from cof.models.base import Counters, Limits
from cof.refine import crop, guided, mean, overlay
from cof.refine.base import light
from cof.types import Box, Focus, Question

TEXTS = ["What is it?", "Is there a red cup?", "Why?"]
BEGIN, TOKENS = 33, 576
PREFIX = BEGIN + TOKENS
BOXES = ((Box(0.3, 0.3, 0.5, 0.5),), (Box(0.3, 0.3, 0.5, 0.5),), (Box(0.6, 0.6, 0.7, 0.9),))
LIT = (range(200, 240), range(150, 160), range(500, 576))


@pytest.fixture
def batch(llava):
    """Two questions about one image, one about another; their prefix is known."""
    ramp = Image.linear_gradient("L").convert("RGB")
    first, second = ramp.resize((90, 60)), ramp.rotate(90).resize((64, 64))
    asked = [Question(str(i), "x", text) for i, text in enumerate(TEXTS)]
    found = Batch.of(llava, asked, [first, first, second], Limits(1))
    assert len(found.plain) == 3
    return found


@pytest.fixture(scope="module")
def spots():
    masks = torch.zeros(3, TOKENS, dtype=torch.bool)
    for row, cells in enumerate(LIT):
        masks[row, list(cells)] = True
    return [Focus(mask, boxes, "boxes") for mask, boxes in zip(masks, BOXES, strict=True)]


def spent(model, work):
    """Answers, and what was counted for them."""
    before = replace(model.counters)
    made = work()
    now = model.counters
    names = ("images", "vision_calls", "positions", "forwards")
    return made, Counters(*(getattr(now, name) - getattr(before, name) for name in names))


def tails(batch):
    """Positions behind the image, the longest row's."""
    return max(len(batch.model.token_ids(one.text)[1]) for one in batch.questions)


def test_a_crop_of_one_window_is_seen_once(batch, spots):
    found, cost = spent(batch.model, lambda: crop.refine(batch, spots, crop.Config(2.0, 0.2)))
    assert found[0].notes == found[1].notes != found[2].notes
    assert (cost.images, cost.vision_calls) == (2, 1)
    assert cost.positions == 2 * PREFIX + 3 * tails(batch)


def test_a_drawing_of_one_region_is_seen_once(batch, spots):
    _, cost = spent(batch.model, lambda: overlay.refine(batch, spots, overlay.Config("darken")))
    assert (cost.images, cost.positions) == (2, 2 * PREFIX + 3 * tails(batch))


def test_mean_takes_the_plain_beginning_that_is_there(batch, spots):
    config = mean.Config(second=mean.Crop(2.0, 0.2))
    found, cost = spent(batch.model, lambda: mean.refine(batch, spots, config))
    assert cost.positions == 2 * PREFIX + 6 * tails(batch)  # of the two crops, nothing of the rest
    assert cost.forwards == 2
    for row in range(3):
        looks = [part.prepare(batch, spots, one)[row] for part, one in parts(config)]
        wide = batch.take([row, row])
        encoded, _ = light(wide, looks)
        [alone, _] = wide.reply(replace(encoded, shared=None), mix=mean.mean)
        assert found[row].tokens == alone.tokens
        assert found[row].logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def parts(config):
    return [(mean.stage_of(one), one) for one in (config.first, config.second)]


def test_a_highlight_beside_a_crop_computes_no_beginning_for_a_part_of_it(batch, spots):
    config = mean.Config(mean.Highlight(3.0), mean.Crop(2.0, 0.2))
    _, cost = spent(batch.model, lambda: mean.refine(batch, spots, config))
    assert cost.positions == 6 * (PREFIX + tails(batch))
    assert cost.forwards == 1


def test_guided_starts_at_its_first_lit_token(batch, spots):
    _, cost = spent(batch.model, lambda: guided.refine(batch, spots, guided.Config()))
    assert cost.positions == 6 * (PREFIX + tails(batch) - BEGIN - min(map(min, LIT)))


def test_beside_starts_behind_the_whole_image(batch, spots):
    config = crop.Config(2.0, 0.2, beside=True)
    _, cost = spent(batch.model, lambda: crop.refine(batch, spots, config))
    assert (cost.images, cost.positions) == (2, 3 * (TOKENS + tails(batch)))


@pytest.mark.parametrize("keys", [{}, {"heads": ((1, 2), (3, 0)), "chosen_on": "a test"}])
def test_the_generic_request_is_asked_once_about_an_image(batch, keys):
    config = attention.Config(keep_map=True, **keys)
    found, cost = spent(batch.model, lambda: attention.locate(batch, config))
    generic = len(batch.model.token_ids(config.over)[1])
    assert cost.positions == 3 * tails(batch) + 2 * generic
    for row in range(3):
        [alone] = attention.locate(batch.take([row]), config)
        assert found[row].boxes == alone.boxes
        assert found[row].notes["map"]["top"] == pytest.approx(alone.notes["map"]["top"], rel=1e-4)
