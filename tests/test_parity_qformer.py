"""The highlighted Q-Former against recorded numbers of LAVIS under Prompt Highlighter."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from cof.attention import attach
from cof.errors import DataError
from cof.evaluate import parity_qformer
from cof.evaluate.comparison import TOLERANCE, Comparison

LIKE = torch.nn.Linear(1, 1)
LIKE.device, LIKE.dtype = "cpu", torch.float32


@pytest.fixture(params=["golden", "full_golden"])
def folder(request):
    """The committed cases, and all of them where they lie beside the checkout."""
    found = request.getfixturevalue(request.param)
    if not (found / "qformer").is_dir():
        pytest.skip("no qformer/ there")
    return found


def verdicts(folder, tolerance=TOLERANCE, **changes):
    """Check -> verdict; `changes` go into every case."""
    cases = json.loads((folder / "qformer/cases.json").read_text())
    checks = {name: Comparison(name) for name in parity_qformer.CHECKS}
    parity_qformer.check(folder, [{**one, **changes} for one in cases], checks, LIKE)
    return {name: one.verdict(tolerance) for name, one in checks.items()}


def test_parity_holds_and_is_held(folder):
    assert set(verdicts(folder).values()) == {"ok"}
    other = verdicts(folder, attention_weight=7.0)
    assert other["qformer highlighted"] == "FAILED"
    assert other["qformer plain"] == "ok"
    assert verdicts(folder, perturb_weight=0.3)["qformer dimmed"] == "FAILED"
    assert "FAILED" in verdicts(folder, 1e-12).values()


@torch.inference_mode()
def test_the_attention_that_models_use_gives_the_same(folder):
    """`cof.attention` is transformers' sdpa, and what is recorded was computed step by step."""
    place = folder / "qformer"
    qformer, queries = parity_qformer.load(place)
    attach(qformer)
    for case in json.loads((place / "cases.json").read_text()):
        recorded = load_file(place / f"{case['id']}.safetensors")
        images = recorded["image_embeds"].expand(2, -1, -1)
        images, bias = parity_qformer.branches(images, recorded["mask"].bool(), case)
        _, crossed = parity_qformer.run(qformer, queries, images, recorded.get("text_ids"), bias)
        assert (crossed - recorded["hl_cross_outputs"]).abs().max() < 2 * TOLERANCE


def test_damaged_files_are_named(golden, tmp_path):
    place = shutil.copytree(golden / "qformer", tmp_path / "qformer")
    weights = load_file(place / "qformer.safetensors")
    save_file({name: one for name, one in weights.items() if "key" not in name}, place / "w")
    (place / "w").rename(place / "qformer.safetensors")
    with pytest.raises(DataError, match="are of no Q-Former"):
        verdicts(tmp_path)
    (place / "qformer.safetensors").unlink()
    with pytest.raises(DataError, match=r"qformer.safetensors: missing or damaged"):
        verdicts(tmp_path)
