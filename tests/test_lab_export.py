"""One model, two layouts, the same answers; and the checkpoint that ships can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cof.models import llava
from cof.types import Box
from cof_lab.examine import load, overlaps
from cof_lab.export import export_checkpoint, original_name
from cof_lab.model import ModelConfig, build, llava_config
from cof_lab.render import crop, render
from cof_lab.tokenizer import BOS, EOS, IMAGE, PAD, train_tokenizer
from cof_lab.world import describe

SHIPPED = Path(__file__).parent.parent / "base_models/cof-tiny"


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    tokenizer = train_tokenizer()
    sizes = ModelConfig(
        vision_width=32, vision_layers=2, width=48, mlp=64, vocabulary=len(tokenizer)
    )
    model = build(llava_config(sizes, IMAGE, BOS, EOS, PAD), 1)
    folder = tmp_path_factory.mktemp("layouts")
    export_checkpoint(model, tokenizer, folder / "new")
    export_checkpoint(model, tokenizer, folder / "old", "original")
    return folder


def image(k: int) -> Image.Image:
    scenes = describe([k], "easy", split="dev")
    return Image.fromarray(crop(render(scenes), scenes, 0))


@torch.no_grad()
def test_both_layouts_give_the_same_logits(layouts):
    logits = []
    for name in ("new", "old"):
        model = llava.load(llava.Config(path=str(layouts / name), device="cpu"))
        encoded = model.encode(model.look([image(4)]), ["What color is the shape marked 7?"])
        logits.append(model.network(inputs_embeds=encoded.inputs["inputs_embeds"]).logits)
    assert torch.equal(*logits)


def test_weights_are_small_and_half(layouts):
    from safetensors.torch import load_file

    state = load_file(layouts / "old/model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert "model.mm_projector.0.weight" in state
    assert "model.layers.0.self_attn.q_proj.weight" in state
    assert original_name("lm_head.weight") == "lm_head.weight"
    shipped = sum(path.stat().st_size for path in SHIPPED.glob("*.safetensors"))
    assert 0 < shipped < 12e6


@pytest.mark.slow
def test_the_shipped_model_reads_and_locates():
    from cof_lab.examine import examine

    model, tokenizer = load(SHIPPED)
    report = examine(model, tokenizer, scenes=4, difficulties=("easy",))["easy"]
    assert report["accuracy"]["what_digit"].value > 0.5  # chance is 0.1
    assert report["iou"]["all"].value > 0.25


def test_scores_by_hand():
    assert overlaps('{"bbox": [0.00, 0.00, 0.50, 0.50]}', [Box(0, 0, 0.5, 0.5)]) == [1.0]
    third = overlaps("[0.00, 0.00, 0.50, 0.50]", [Box(0.25, 0.25, 0.75, 0.75)])
    assert third == [pytest.approx(1 / 7)]
    assert overlaps("nothing", [Box(0, 0, 1, 1)]) == [0.0]
