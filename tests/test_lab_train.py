"""The trainer: interrupted equals uninterrupted, and a minute of it beats chance."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from cof_lab.loop import Schedule, fit
from cof_lab.model import ModelConfig, build, llava_config
from cof_lab.optim import OptimConfig, orthogonalise
from cof_lab.tokenizer import BOS, EOS, IMAGE, PAD, train_tokenizer
from cof_lab.train import PRESETS, TrainConfig, load_trained, read_config, train_model
from cof_lab.vision import VisionStage

SMALL = ModelConfig(vision_width=32, vision_layers=1, vision_heads=2, width=48, mlp=64)
TINY = TrainConfig(model=SMALL, vision=Schedule(2, 8, dev=2), language=Schedule(4, 8, dev=2))


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "language.pt", weights_only=True)["modules"]["model"]


@pytest.fixture
def one_thread():
    """Bit-equal sums: with several threads, parallel additions come in any order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_interrupted_equals_uninterrupted(tmp_path, one_thread):
    train_model(TINY, tmp_path / "whole")
    train_model(TINY, tmp_path / "parts", stop_at=2)
    train_model(TINY, tmp_path / "parts")
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    model, _, step = load_trained(tmp_path / "whole")
    assert step == 4
    assert torch.equal(model.lm_head.weight, a["lm_head.weight"])


@pytest.mark.slow
def test_half_products_resume_to_the_bit_and_are_read_back(tmp_path, one_thread):
    half = dataclasses.replace(TINY, precision="bfloat16")
    train_model(half, tmp_path / "whole")
    train_model(half, tmp_path / "parts", stop_at=2)
    train_model(half, tmp_path / "parts")
    train_model(TINY, tmp_path / "full")
    a, b, c = (weights(tmp_path / name) for name in ("whole", "parts", "full"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert read_config(tmp_path / "parts") == half


@pytest.mark.slow
def test_a_run_keeps_its_tokenizer_and_refuses_another(tmp_path, monkeypatch):
    train_model(TINY, tmp_path, stop_at=1)
    before = load_trained(tmp_path)[1].get_vocab()
    smaller = train_tokenizer(500)
    monkeypatch.setattr("cof_lab.train.train_tokenizer", lambda size: smaller)
    assert load_trained(tmp_path)[1].get_vocab() == before  # though the code's world has changed
    with pytest.raises(ValueError, match=r"tokenizer\.json differs"):
        train_model(TINY, tmp_path)


def test_a_folder_belongs_to_one_configuration(tmp_path):
    train_model(TINY, tmp_path, stop_at=1)
    assert read_config(tmp_path) == TINY
    with pytest.raises(ValueError, match="another run"):
        train_model(dataclasses.replace(TINY, seed=1), tmp_path)


@pytest.mark.slow
def test_a_minute_of_vision_beats_chance(tmp_path):
    sizes = ModelConfig(vision_width=64, vision_layers=2)
    model = build(llava_config(sizes, IMAGE, BOS, EOS, PAD), 0)
    stage = VisionStage(model, sizes, Schedule(120, 16, dev=32), 0, "cpu")
    fit(stage, tmp_path, OptimConfig())
    last = json.loads((tmp_path / "dev.jsonl").read_text().splitlines()[-1])
    assert last["easy/color"] > 0.5  # eight colours: chance is 0.125


def test_orthogonalise_flattens_singular_values():
    torch.manual_seed(0)
    for shape in ((2, 24, 24), (1, 16, 40), (1, 40, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape), steps=10))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_tokenizer_round_trip_and_coordinates():
    tokenizer = train_tokenizer()
    text = 'Is the red circle "here"?\n {"bbox": [[0.07, 1.00, 0.25, 0.44]]} \u00e9\u2603 7'
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    for k in range(101):
        assert len(tokenizer(f"{k / 100:.2f}", add_special_tokens=False)["input_ids"]) == 1
    again = train_tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()
    assert tokenizer.convert_tokens_to_ids("<image>") == IMAGE


def test_a_training_folder_from_before_a_setting_existed_can_be_read(tmp_path):
    raw = json.loads(json.dumps(dataclasses.asdict(PRESETS["cpu"])))
    del raw["teaching"]["kinds"], raw["precision"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path) == PRESETS["cpu"]
