"""Packed questions must be computed as if each stood alone, by the library's own code path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cof.tiny.batch import coverage
from cof.tiny.curriculum import CURRICULUM, LanguageConfig
from cof.tiny.language import LanguageStage
from cof.tiny.loop import Schedule
from cof.tiny.model import ModelConfig, build, llava_config, normalise
from cof.tiny.packing import ATTENTION
from cof.tiny.render import render
from cof.tiny.tokenizer import BOS, EOS, IMAGE, PAD, train_tokenizer
from cof.tiny.vision import Readout
from cof.tiny.world import describe


@pytest.fixture(scope="module")
def stage() -> LanguageStage:
    tokenizer = train_tokenizer()
    sizes = ModelConfig(width=48, layers=5, heads=6, mlp=64, vision_width=32, vision_layers=2)
    sizes = ModelConfig(**{**sizes.__dict__, "vocabulary": len(tokenizer)})
    model = build(llava_config(sizes, IMAGE, BOS, EOS, PAD), 3)
    for parameter in model.parameters():  # far from zero, so that differences would show
        parameter.data.mul_(3) if parameter.ndim == 2 else None
    return LanguageStage(model, Readout(32), tokenizer, sizes, LanguageConfig(), Schedule(10, 2), 0)


@torch.no_grad()
def test_packed_equals_single(stage):
    scenes = describe([5, 6], "mixed")
    batch = stage.batch(scenes, CURRICULUM[-1][2], "test")
    together = stage.model.lm_head(stage.forward(batch, scenes, batch.looks)[0][-1])
    pixels = normalise(render(scenes))
    text = stage.model.model.language_model
    for image, row, tokens in batch.answers:
        start = row + 1 - tokens.labels
        ids = torch.tensor([stage.prefix + tokens.ids])
        text.config._attn_implementation = "sdpa"
        alone = stage.model(input_ids=ids, pixel_values=pixels[image : image + 1]).logits
        text.config._attn_implementation = ATTENTION
        size = len(tokens.ids)
        gap = together[image, start : start + size] - alone[0, -size:]
        assert gap.abs().max() < 1e-4 * alone.abs().max().clamp(min=1)


@torch.no_grad()
@pytest.mark.parametrize("kind", [0, 1], ids=["phrases", "coordinates"])
def test_probe_is_the_attention_of_the_stock_model(stage, kind):
    scenes = describe([7, 8], "mixed")
    batch = stage.batch(scenes, CURRICULUM[-1][2], "probe")
    stage.forward(batch, scenes, batch.looks)
    pixels, text = normalise(render(scenes)), stage.model.model.language_model
    probe = batch.looks[kind].probe
    image, row, start = (int(x[-1]) for x in (probe.batch, probe.row, probe.start))
    found = next(t for i, r, t in batch.answers if i == image and r + 1 - t.labels == start)
    stage.model.set_attn_implementation({"text_config": "eager"})
    ids = torch.tensor([stage.prefix + found.ids])
    output = stage.model(
        input_ids=ids, pixel_values=pixels[image : image + 1], output_attentions=True
    )
    text.config._attn_implementation = ATTENTION
    position = len(stage.prefix) + row - start
    truth = output.attentions[probe.layer][0, :2, position, : len(stage.prefix)]
    assert torch.allclose(probe.log_mass[-1].exp(), truth, atol=1e-5)


def test_coordinates_look_at_the_thing_in_their_box(stage):
    scenes = describe([9], "mixed")
    batch = stage.batch(scenes, CURRICULUM[-1][2], "boxes")
    look = batch.looks[1]
    cover, slots = coverage(scenes, stage.config.patch), np.flatnonzero(scenes.present[0])
    shared = 0
    rows = dict(zip(look.probe.row.tolist(), look.target, strict=True))
    checked = 0
    for _, row, tokens in batch.answers:
        start = row + 1 - tokens.labels
        words = stage.tokenizer.convert_ids_to_tokens(tokens.ids)
        numbers = [k for k, word in enumerate(words) if word.startswith(("0.", "1."))]
        assert len(numbers) == 4 * len(tokens.sample.boxes)
        for k, at in enumerate(numbers):
            thing = scenes.things(0)[tokens.sample.boxes[k // 4]]
            assert float(words[at]) == pytest.approx(thing.box[k % 4] / scenes.side, abs=0.006)
            group = tokens.sample.boxes in [things for _, things in tokens.refs]
            left = tokens.sample.boxes[k // 4 :] if group and k % 4 == 0 else [thing_of(tokens, k)]
            target = rows[start + at - 1][stage.first_image :]
            wanted = cover[0, slots[list(left)]].mean(0)
            assert np.allclose(target.numpy(), wanted, atol=1e-6)
            checked += 1
            shared += len(left) > 1
    assert checked == len(rows) > 8
    assert shared > 2


def thing_of(tokens, coordinate: int) -> int:
    return tokens.sample.boxes[coordinate // 4]


def test_a_silent_image_teaches_where_and_nothing_else(stage):
    """Variant `gap`: no reply that reads, no attribute, no fact; its boxes and looks remain."""
    scenes = describe([9, 10], "mixed")
    teach = LanguageStage(
        stage.model, Readout(32), stage.tokenizer, stage.config,
        LanguageConfig(reader="easy"), Schedule(10, 2), 0,
    )  # fmt: skip
    batch = teach.batch(scenes, CURRICULUM[-1][2], "gap", easy=[True, False])
    for rows in (batch.hints, batch.names):
        assert set(rows.image.tolist()) == {0}
    taught = set(zip(batch.replies.image.tolist(), batch.replies.row.tolist(), strict=True))
    for image, row, tokens in batch.answers:
        assert ((image, row) in taught) == (image == 0 or not tokens.sample.reading)
    assert (
        {0, 1}
        == set(batch.looks[0].probe.batch.tolist())
        == set(batch.looks[1].probe.batch.tolist())
    )
