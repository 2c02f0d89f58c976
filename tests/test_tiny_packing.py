"""Packed questions must be computed as if each stood alone, by the library's own code path."""

from __future__ import annotations

import pytest
import torch

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
    together = stage.model.lm_head(stage.forward(batch, scenes, probe=True)[0][-1])
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
def test_probe_is_the_attention_of_the_stock_model(stage):
    scenes = describe([7, 8], "mixed")
    batch = stage.batch(scenes, CURRICULUM[-1][2], "probe")
    stage.forward(batch, scenes, probe=True)
    pixels, text = normalise(render(scenes)), stage.model.model.language_model
    image, row = int(batch.probe.batch[0]), int(batch.probe.row[0])
    found = next(
        t
        for i, r, t in batch.answers
        if i == image and r + 1 - t.labels == int(batch.probe.start[0])
    )
    stage.model.set_attn_implementation({"text_config": "eager"})
    ids = torch.tensor([stage.prefix + found.ids])
    output = stage.model(
        input_ids=ids, pixel_values=pixels[image : image + 1], output_attentions=True
    )
    text.config._attn_implementation = ATTENTION
    position = len(stage.prefix) + row - int(batch.probe.start[0])
    truth = output.attentions[batch.probe.layer][0, :2, position, : len(stage.prefix)]
    assert torch.allclose(batch.probe.log_mass[0].exp(), truth, atol=1e-5)
