"""One model, two layouts, the same answers; and the checkpoint that ships can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cof.models import llava
from cof.models.common.checkpoint import find
from cof.types import Box
from cof_lab.examine import load, overlaps
from cof_lab.export import export_checkpoint
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


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def test_weights_are_small_and_half(layouts):
    state = load_file(layouts / "old/model.safetensors")
    tower = load_file(layouts / "old/vision_tower/model.safetensors")
    assert {value.dtype for value in (*state.values(), *tower.values())} == {torch.float16}
    assert {"model.mm_projector.0.weight", "model.mm_projector.2.bias"} < state.keys()
    assert {"model.layers.0.self_attn.q_proj.weight", "lm_head.weight"} < state.keys()
    assert not [name for name in state if "vision" in name]
    assert {name.partition(".")[0] for name in tower} == {"vision_model"}
    shipped = sum(path.stat().st_size for path in SHIPPED.glob("*.safetensors"))
    assert 0 < shipped < 12e6


def test_the_original_layout_is_what_llavas_own_code_reads(layouts):
    """Its builder takes the class by `model_type`, a tower that exists, and old tokenizer files."""
    folder = layouts / "old"
    config = read(folder / "config.json")
    assert config["model_type"] == "llava_llama"
    assert Path(config["mm_vision_tower"]).samefile(folder / "vision_tower")
    assert read(folder / "vision_tower/config.json")["model_type"] == "clip_vision_model"
    assert read(folder / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    old, new = (read(layouts / name / "tokenizer.json")["model"] for name in ("old", "new"))
    assert old["merges"]
    assert [one.split(" ") for one in old["merges"]] == new["merges"]
    assert old["vocab"] == new["vocab"]


def test_an_export_may_move(layouts, tmp_path):
    """The tower that is loaded is its own, and where it lies does not count."""
    moved = shutil.copytree(layouts / "old", tmp_path / "moved")
    there, here = find(str(layouts / "old")), find(str(moved))
    assert here.tower == moved / "vision_tower"
    assert here.revision == there.revision
    config = read(moved / "config.json")
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    changed = find(str(moved)).revision
    weights = load_file(moved / "vision_tower/model.safetensors")
    more = {name: value + 1 for name, value in weights.items()}
    save_file(more, moved / "vision_tower/model.safetensors")
    assert len({there.revision, changed, find(str(moved)).revision}) == 3


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
