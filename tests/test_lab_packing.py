"""Packed questions must be computed as if each stood alone, by the library's own code path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cof_lab.batches import coverage
from cof_lab.curriculum import CURRICULUM, LanguageConfig
from cof_lab.language import LanguageStage, _easy
from cof_lab.loop import Schedule
from cof_lab.model import ModelConfig, build, llava_config, normalise_pixels
from cof_lab.packing import ATTENTION
from cof_lab.position_code import position_code
from cof_lab.render import render
from cof_lab.tokenizer import BOS, EOS, IMAGE, PAD, train_tokenizer
from cof_lab.vision import Readout, mixture
from cof_lab.world import describe


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
    pixels = normalise_pixels(render(scenes))
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
    pixels, text = normalise_pixels(render(scenes)), stage.model.model.language_model
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
            several = group and k % 4 == 0 and k // 4 < len(tokens.sample.boxes) - 1
            left = tokens.sample.boxes[k // 4 :] if several else [tokens.sample.boxes[k // 4]]
            boxes = [scenes.things(0)[index].box for index in left]
            middle = [sum(b[i] + b[i + 2] for b in boxes) / 2 / len(boxes) for i in (0, 1)]
            target = rows[start + at - 1][stage.first_image :].reshape(stage.config.grid, -1)
            points = torch.arange(stage.config.grid) * 14.0 + 7
            x, y = float(target.sum(0) @ points), float(target.sum(1) @ points)
            assert abs(x - middle[0]) < 7  # mass in patches: the mean is off by less than half one
            assert abs(y - middle[1]) < 7
            checked += 1
            shared += several
    assert checked == len(rows) > 8
    assert shared > 2


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
    reading: set[tuple[int, int]] = set()
    for image, row, tokens in batch.answers:
        assert ((image, row) in taught) == (image == 0 or not tokens.sample.reading)
        if tokens.sample.reading:
            start = row + 1 - tokens.labels
            reading |= {(image, at) for at in range(start, start + len(tokens.ids))}
    places = [(look.probe.batch, look.probe.row) for look in batch.looks] + [batch.points[:2]]
    for images, rows in places:
        looked = set(zip(images.tolist(), rows.tolist(), strict=True))
        assert {image for image, _ in looked} == {0, 1}
        assert not any(spot in looked for spot in reading if spot[0] == 1)
        assert any(spot in looked for spot in reading if spot[0] == 0) or rows is places[1][1]


def test_only_silent_images_are_no_division_by_nothing(stage):
    scenes = describe([9], "mixed")
    teach = LanguageStage(
        stage.model, Readout(32), stage.tokenizer, stage.config,
        LanguageConfig(reader="easy"), Schedule(10, 1), 0,
    )  # fmt: skip
    batch = teach.batch(scenes, CURRICULUM[-1][2], "gap", easy=[False])
    loss, _ = teach.batch_loss(batch, scenes, batch.looks)
    assert torch.isfinite(loss)


def test_coverage_counts_pixels():
    """An x and y that were swapped, or a patch off by one, would show."""
    scenes = describe([3, 4], "mixed")
    cover = coverage(scenes, 14)
    fine = (np.arange(1400) + 0.5) / 10
    for row in range(2):
        slots = np.flatnonzero(scenes.present[row])
        for slot, thing in zip(slots, scenes.things(row), strict=True):
            x0, y0, x1, y1 = thing.box
            inside = np.outer((fine > y0) & (fine < y1), (fine > x0) & (fine < x1))
            counted = inside.reshape(10, 140, 10, 140).sum((1, 3)) / inside.sum()
            assert np.allclose(cover[row, slot].reshape(10, 10), counted, atol=0.02)


def test_what_a_phrase_names_is_taught_as_the_mean_of_its_codes(stage):
    scenes = describe([9], "mixed")
    batch = stage.batch(scenes, CURRICULUM[-1][2], "points")
    wanted = {}
    for _, row, tokens in batch.answers:
        for at, things in tokens.refs:
            boxes = [torch.tensor(scenes.things(0)[k].box) / scenes.side for k in things]
            wanted[row + 1 - tokens.labels + at] = [position_code(box) for box in boxes]
    _, rows, codes = batch.points
    assert set(rows.tolist()) == {row for row, told in wanted.items() if told}
    assert any(len(told) > 1 for told in wanted.values())
    for row, code in zip(rows.tolist(), codes, strict=True):
        assert torch.allclose(code, sum(wanted[row]) / len(wanted[row]), atol=1e-5)


@pytest.mark.parametrize("images", [8, 12, 64])
def test_easy_images_are_those_that_the_mixture_draws_easy(images, monkeypatch):
    for _, shares, _ in CURRICULUM:
        drawn: list[bool] = []

        def note(indices, name, into=drawn, **where):
            into += [name in ("starter", "easy")] * len(indices)
            return describe(indices, name, **where)

        monkeypatch.setattr("cof_lab.vision.describe", note)
        mixture(0, images, shares, side=140)
        assert _easy(shares, images) == drawn
