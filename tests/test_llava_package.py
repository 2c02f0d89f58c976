"""LLaVA through its own package: its parts, our decoding, the same numbers as our own loader.

The quick tests run on a stand-in of the package (tests/stand_in), the slow ones on the package
itself where it is installed (base_models/llava/README.md).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from committed import ROOT
from own_package import need_own_package
from PIL import Image
from safetensors.torch import load_file, save_file

from cof.errors import ModelError
from cof.models import llava_package
from cof.models.base import Limits
from cof.models.common.checkpoint import find
from cof.models.llava_package import installed
from cof.pipeline import CoF
from cof.refine import highlight

TOWER = "model.vision_tower.vision_tower."
STAND_IN = Path(__file__).parent / "stand_in"
QUESTIONS = [
    "What color is the red square?\nAnswer the question using a single word or phrase.",
    "Größe  图中? </s> Is it",
]


@pytest.fixture(scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def package(request):
    """The package, one of the two; what is imported of the other comes back afterwards."""
    if request.param == "real":
        need_own_package()
        yield "real"
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if f"{name}.".startswith("llava.")]:
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(STAND_IN)
        installed.label.cache_clear()
        yield "stand-in"
        for name in [name for name in sys.modules if f"{name}.".startswith("llava.")]:
            del sys.modules[name]
    installed.label.cache_clear()


def config(folder, **options):
    return llava_package.Config(str(folder), **({"device": "cpu", "dtype": "float32"} | options))


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    """The recorded checkpoint, its vision weights in the tower's folder as well.

    Its name does not hold "llava".
    """
    made = shutil.copytree(golden / "checkpoint", tmp_path_factory.mktemp("own") / "checkpoint")
    state = load_file(made / "model.safetensors")
    inside = {name.removeprefix(TOWER): state[name] for name in state if name.startswith(TOWER)}
    save_file(inside, made / "vision_tower" / "model.safetensors")
    return made


@pytest.fixture(scope="module")
def model(package, folder):
    return llava_package.load(config(folder))


@pytest.fixture
def copy(folder, tmp_path):
    """The checkpoint, to be changed."""
    return shutil.copytree(folder, tmp_path / "checkpoint")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def images():
    picture = Image.linear_gradient("L").convert("RGB")
    return [picture.resize((90, 60)), picture.resize((20, 133))]


def logits(model, lit=None):
    """Of four greedy steps, plain or with some visual tokens highlighted: [rows, 4, V]."""
    encoded = model.encode(model.look(images()), QUESTIONS)
    plan = None
    if lit is not None:
        plan = highlight.plan(encoded, [lit, lit.flip(0)], highlight.Config(20.0))
    with model.highlighted(plan):
        rows = model.greedy(encoded, 4, keep_logits=True)
    return torch.stack([torch.stack(row.logits[:2]) for row in rows])


def test_logits_are_those_of_our_own_loader(model, llava):
    lit = torch.zeros(576, dtype=torch.bool)
    lit[40:90] = True
    plain, bright = logits(llava), logits(llava, lit)
    assert torch.allclose(logits(model), plain, atol=1e-5, rtol=0)
    assert torch.allclose(logits(model, lit), bright, atol=1e-5, rtol=0)
    assert (plain - bright).abs().max() > 0.1


def test_images_and_their_cells(model, llava):
    for own, theirs in zip(llava.look(images()), model.look(images()), strict=True):
        assert torch.allclose(own.features, theirs.features, atol=1e-6, rtol=0)
        assert torch.equal(own.cells, theirs.cells)
        assert (own.grid, own.size, own.shown) == (theirs.grid, theirs.size, theirs.shown)


@pytest.mark.parametrize("conv", ["vicuna_v1", "llava_v1"])
def test_ids_are_the_published_ones(model, llava, conv, monkeypatch):
    """Of a folder whose model_type is `llava`, which AutoTokenizer reads wrongly."""
    for one in (model, llava):
        monkeypatch.setattr(one, "conv", conv)
    for question in (*QUESTIONS, ""):
        assert model.token_ids(question) == llava.token_ids(question)


def test_the_marks_around_an_image(model, llava, monkeypatch):
    for one in (model, llava):
        monkeypatch.setattr(one, "start_end", True)
    assert model.token_ids(QUESTIONS[0]) == llava.token_ids(QUESTIONS[0])


def test_beams_and_refused_questions(model, llava):
    """Transformers' own `generate`, and not the package's; a placeholder in a question."""
    said = []
    for one in (model, llava):
        asked = one.encode(one.look(images()), [QUESTIONS[0], "What is <image>?"])
        said.append(one.generate(asked, Limits(4, num_beams=2)))
    theirs, own = said
    assert theirs[0].tokens == own[0].tokens
    assert "<image>" in theirs[1].error == own[1].error


def test_only_the_decoder_changes_its_attention(model):
    tower = model.packaged.get_vision_tower().vision_tower
    assert tower.config._attn_implementation == "sdpa"
    assert model.decoder.layers[0].self_attn.config._attn_implementation == "cof_highlight"


def change(file, how):
    """Save tensors anew, each as `how(name, value)` has it; None leaves it out."""
    state = {name: how(name, value) for name, value in load_file(file).items()}
    save_file({name: value for name, value in state.items() if value is not None}, file)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_the_configs(package, copy, dtype):
    """The files hold float16, which the builder asks for as well."""
    for file in copy.rglob("*.safetensors"):
        change(file, lambda name, value: value.half())
    model = llava_package.load(config(copy, dtype=dtype))
    embeds = model.encode(model.look(images()), QUESTIONS).inputs["inputs_embeds"]
    found = {str(one.dtype) for one in (*model.packaged.parameters(), embeds)}
    assert found == {f"torch.{dtype}"}
    assert model.dtype == dtype


def test_the_identity_names_the_package(model, folder):
    said, known = model.describe(), llava_package.identify(config(folder))
    files = find(str(folder)).revision
    assert said["revision"] == known["weights"] == f"{files} {said['package']}"
    assert said["package"] == installed.label()
    assert said["package"] in model.identity()["revision"]
    assert json.loads(json.dumps(said)) == said


def test_another_source_is_another_package(tmp_path, monkeypatch):
    folder = shutil.copytree(STAND_IN, tmp_path / "site") / "llava"
    labels = []
    for text in ("", "# changed\n"):
        for name in [name for name in sys.modules if f"{name}.".startswith("llava.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(folder.parent)
        with (folder / "model" / "builder.py").open("a") as file:
            file.write(text)
        installed.label.cache_clear()
        labels.append(installed.label())
    installed.label.cache_clear()
    assert len(set(labels)) == 2


def test_the_version_is_that_of_the_distribution(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "_DISTRIBUTIONS", ("no-such-package", "torch"))
    assert installed._version() == f"torch {torch.__version__}"
    monkeypatch.setattr(installed, "_DISTRIBUTIONS", ())
    assert installed._version() == "llava, version unknown"


def test_without_the_package_one_line_says_what_to_install(golden, monkeypatch):
    for name in [name for name in sys.modules if f"{name}.".startswith("llava.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "llava", None)
    installed.label.cache_clear()
    for act in (llava_package.load, llava_package.identify):
        with pytest.raises(ModelError, match="pip install --no-deps llava-torch") as caught:
            act(config(golden / "checkpoint"))
        assert "\n" not in str(caught.value)


def test_another_layout_is_refused(package):
    with pytest.raises(ModelError, match="cof tiny export base_models/cof-tiny OUT"):
        llava_package.load(config("cof-tiny"))


def test_it_is_not_quantised(package, folder):
    with pytest.raises(ModelError, match="original layout, which is loaded as it is"):
        llava_package.load(config(folder, quantization="bnb4"))


@pytest.mark.parametrize(
    ("file", "gone"),
    [
        ("model.safetensors", "model.mm_projector.2.weight"),
        ("vision_tower/model.safetensors", "vision_model.pre_layrnorm.weight"),
    ],
)
def test_weights_that_would_be_made_up_are_missed(package, copy, file, gone):
    change(copy / file, lambda name, value: None if name == gone else value)
    shown = gone.removeprefix("vision_model.")
    with pytest.raises(ModelError, match=f"1 missing tensors: {shown}"):
        llava_package.load(config(copy))


def test_another_tower_than_the_checkpoints_is_refused(package, copy):
    change(copy / "vision_tower" / "model.safetensors", lambda name, value: value * 1.01 + 1e-3)
    with pytest.raises(ModelError, match=r"use model\.name=llava, which takes the checkpoint's"):
        llava_package.load(config(copy))


def test_a_token_that_the_builder_would_add_is_refused(package, copy):
    edit(copy / "config.json", mm_use_im_patch_token=True)
    with pytest.raises(ModelError, match=r"1281 embeddings for 1280 tokens.*mm_use_im_patch_token"):
        llava_package.load(config(copy))


def test_a_checkpoint_that_the_builder_cannot_read(package, copy):
    (copy / "vision_tower" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="LLaVA's own code cannot load it"):
        llava_package.load(config(copy))


def test_both_stages_from_python(package, folder):
    options = {"device": "cpu", "dtype": "float32", "max_new_tokens": 4, "weight": 20}
    box, said = (0.1, 0.1, 0.6, 0.6), []
    for family in ("llava_package", "llava"):
        cof = CoF.from_pretrained(folder, family=family, **options)
        said.append(cof(images()[0], QUESTIONS[0], box=box, plain=True))
    assert said[0].text == said[1].text
    assert said[0].plain == said[1].plain


@pytest.mark.slow
def test_the_script_runs_mme_on_an_exported_cof_tiny(mini, tmp_path):
    need_own_package()
    given = dict.fromkeys(("MODEL", "CONFIG", "WEIGHT", "EXPAND"), "")
    given |= {"COF_PYTHON": sys.executable, "OUT": str(tmp_path)}
    given |= {"MME_ROOT": str(mini / "MiniMME")}
    script = ["bash", str(ROOT / "base_models" / "llava" / "mme.sh"), "name=packaged"]
    done = subprocess.run(script, env=os.environ | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "packaged" / "manifest.json").read_text())
    assert manifest["model"]["package"] in manifest["identity"]["weights"]
    assert "perception" in done.stdout
