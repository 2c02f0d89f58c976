"""`cof doctor --family`: sound on every family's tiny checkpoint; what is broken is found."""

import json
from dataclasses import replace

import pytest
import tiny_instructblip
import tiny_mllama
import torch
from click.testing import CliRunner
from families import TINY, Stock, build
from PIL import Image

from cof.cli import main
from cof.config import plugins
from cof.evaluate.family import across, checks
from cof.evaluate.family.checks import Checks, Verdict, passed

TOLERANCE = 1e-4
FOUND = {
    "stock": "inactive = stock, bitwise",
    "oracle": "highlighted = oracle",
    "count": "number of visual tokens",
    "place": "a changed block moves its tokens",
    "answer": "plain answer = stock generate",
}
WITHOUT_VIDEO = ("llava_next", "idefics3", "gemma3")
"""Kinds whose stock processor can be built without torchvision."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """name -> a checkpoint with its processor's settings where transformers can save them."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp(name))
            if name in WITHOUT_VIDEO:
                Stock(name, made[name]).processor.save_pretrained(made[name])
        return made[name]

    return make


def load(family, folder, **more):
    module = plugins.load("models", family)
    return module.load(module.Config(str(folder), device="cpu", dtype="float32", **more))


def verdicts(model, image=None):
    return {one.name: one for one in Checks.of(model, image, TOLERANCE).run()}


@pytest.mark.parametrize("name", [one for one in TINY if one != "llava_onevision_whole"])
def test_every_family_is_sound(folder, name):
    model = load(TINY[name].family, folder(name))
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    found = verdicts(model)
    assert {key: one.held for key, one in found.items()} == dict.fromkeys(FOUND.values(), True)
    stock = name in WITHOUT_VIDEO
    assert ("the processor" in found[FOUND["count"]].said) == stock
    assert ("prompt ours" in found[FOUND["answer"]].said) != stock
    assert all(torch.equal(before[key], one) for key, one in model.network.state_dict().items())


CROSSED = {"instructblip": tiny_instructblip, "mllama": tiny_mllama}


@pytest.mark.parametrize("family", CROSSED)
def test_families_that_look_across_are_checked_but_for_the_oracle(family, tmp_path, monkeypatch):
    CROSSED[family].build(tmp_path)
    sound = dict.fromkeys(FOUND.values(), True) | {FOUND["oracle"]: None}
    outcome = run("--family", family, "--model", str(tmp_path), "--device", "cpu", "--json")
    assert outcome.exit_code == 0, outcome.output
    assert {one["name"]: one["held"] for one in json.loads(outcome.output)} == sound

    model = load(family, tmp_path)
    look = model.look

    def found():
        return {one.name: one.held for one in across.checks_of(model, None, TOLERANCE).run()}

    def mirrored(images):
        x = [view.cells.unbind(1) for view in look(images)]
        turned = [torch.stack([1 - c, b, 1 - a, d], 1) for a, b, c, d in x]
        return [replace(view, cells=one) for view, one in zip(look(images), turned, strict=True)]

    monkeypatch.setattr(model, "look", mirrored)
    assert found() == sound | {FOUND["place"]: False}
    monkeypatch.setattr(model, "look", lambda images: look([one.rotate(90) for one in images]))
    wrong = found()
    assert wrong[FOUND["answer"]] is wrong[FOUND["stock"]] is False


BREAKS = {
    "mirrored": (  # cells from right to left
        "internvl",
        "place",
        """
    def shape(self, size):
        made = super().shape(size)
        x0, y0, x1, y1 = made.cells.unbind(1)
        return replace(made, cells=torch.stack([1 - x1, y0, 1 - x0, y1], 1))
""",
    ),
    "shifted": (  # the first position is 1
        "qwen2_5_vl",
        "oracle answer",
        """
    def positions(self, network, inputs, mask):
        return super().positions(network, inputs, mask) * 2
""",
    ),
    "shallow": (  # what is added in deeper layers is lost
        "qwen3_vl",
        "oracle answer",
        """
    def split(self, output):
        tokens, deep = super().split(output)
        return tokens, tuple(one * 0 for one in deep)
""",
    ),
    "typeless": (  # visual tokens see each other one way only
        "gemma3",
        "oracle answer",
        """
    types = ""
""",
    ),
    "missing": (  # one place too few
        "llava_next",
        "oracle count place answer",
        """
    def shape(self, size):
        made = super().shape(size)
        return replace(made, cells=made.cells[1:], grid=None)
""",
    ),
}


@pytest.fixture
def broken(tmp_path):
    """name -> a family's file, somebody's own."""

    def make(name):
        tiny, _, body = BREAKS[name]
        module = f"cof.models.{TINY[tiny].family}"
        (kind,) = {
            kind
            for kind in vars(plugins.load("models", TINY[tiny].family)).values()
            if isinstance(kind, type) and kind.__module__ == module and hasattr(kind, "kinds")
        }
        file = tmp_path / f"{name}.py"
        file.write_text(
            "from dataclasses import dataclass, replace\n\nimport torch\n\n"
            f"from {module} import Config as Base, {kind.__name__}\n"
            "from cof.models.common import transformers_model\n\n\n"
            "@dataclass(frozen=True)\nclass Config(Base):\n    pass\n\n\n"
            f"class Broken({kind.__name__}):{body}\n\n"
            "def load(config):\n    return transformers_model.load(Broken, config)\n\n\n"
            "def identify(config):\n"
            "    return transformers_model.identify(Broken.kinds, config)\n"
        )
        return file

    return make


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_family_is_found(folder, broken, name):
    tiny, wrong, _ = BREAKS[name]
    found = verdicts(load(str(broken(name)), folder(tiny)))
    assert {key for key, title in FOUND.items() if found[title].held is False} == {*wrong.split()}


def test_the_command_prints_what_holds(folder, broken, tmp_path):
    image = tmp_path / "one.png"
    Image.radial_gradient("L").convert("RGB").resize((90, 70)).save(image)
    model = ["--model", str(folder("internvl")), "--device", "cpu"]
    good = run("--family", "internvl", *model, "--image", str(image))
    assert good.exit_code == 0, good.output
    assert good.output.count(" ok ") == 5
    bad = run("--family", str(broken("mirrored")), *model)
    assert bad.exit_code == 1
    assert bad.output.count("FAILED") == 2  # the line, and the verdict
    listed = json.loads(run("--family", "internvl", *model, "--json").output)
    assert [one["held"] for one in listed] == [True] * 5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_half_precision_is_held_to_what_it_can_keep(folder, name, dtype):
    asked = ["--family", TINY[name].family, "--model", str(folder(name)), "--dtype", dtype]
    done = run(*asked, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert f"tolerance {checks.TOLERANCES[dtype]:g}: passed" in done.output
    assert run(*asked, "--device", "cpu", "--tolerance", "1e-6").exit_code == 1


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--family", "internvl"),
        ("--model", "x"),
        ("--image", __file__),
        ("--family", "internvl", "--model", "x", "--parity", "."),
    ],
)
def test_options_belong_together(arguments):
    assert run(*arguments).exit_code == 2


def test_llava_is_checked_otherwise():
    outcome = run("--family", "llava", "--model", "cof-tiny", "--device", "cpu")
    assert outcome.exit_code == 2
    assert "cof doctor --parity" in outcome.output


def test_what_cannot_be_checked_is_said(folder, monkeypatch):
    model = load("internvl", folder("internvl"))
    assert not passed([Verdict("a", None, ""), Verdict("b", False, "")])
    monkeypatch.setattr(checks, "LARGEST", 10)
    one = Checks.of(model, None, TOLERANCE)
    held, said = one.highlighted()
    assert held is None
    assert "too many for double precision" in said
    monkeypatch.undo()
    model.dtype = "bfloat16"
    assert one.highlighted()[0] is None
    assert passed([Verdict("a", None, "")])
