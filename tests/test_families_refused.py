"""What a family cannot show or load is said, and leaves everything else alone."""

import json
import shutil
from functools import partial

import pytest
from click.testing import CliRunner
from committed import ROOT
from families import TINY, build, picture

from cof.batch import Batch
from cof.cli import main
from cof.config import plugins, schema
from cof.errors import ModelError
from cof.harness.arguments import read_arguments
from cof.harness.session import Asked, Session
from cof.locate import iterate, oracle, prompt
from cof.models.base import Limits
from cof.models.common.checkpoint import FAMILY_OF
from cof.pipeline import CoF, Settings
from cof.refine import crop
from cof.types import Box, Question, Region


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return build("qwen2_vl", tmp_path_factory.mktemp("qwen"))


def cof(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def of_qwen(folder):
    return f"model.path={folder}", "model.name=qwen_vl", "model.device=cpu"


def test_under_another_tool_it_fails_its_own_question(qwen, tmp_path):
    given = {"pretrained": qwen, "family": "qwen_vl", "device": "cpu", "batch_size": 2}
    session = Session(read_arguments({**given, "max_new_tokens": 2}), tmp_path / "out")
    limits = session.config.limits
    asked = [
        Asked(str(row), "What is it?", partial(picture, size), limits)
        for row, size in enumerate([(60, 40), (1000, 3), (40, 60)])
    ]
    good, thin, also = session.ask(asked)
    assert "1000 x 3 cannot be shown" in thin.error
    assert (good.error, also.error) == ("", "")
    assert "3 questions" in session.close()
    assert session.notes["failed"] == 1


@pytest.mark.parametrize("batch", [1, 4])
def test_an_image_that_cannot_be_shown_fails_its_own_questions(qwen, tmp_path, batch):
    sizes = {"a.png": (60, 40), "thin.png": (1000, 3), "b.png": (40, 60)}
    for name, size in sizes.items():
        picture(size).save(tmp_path / name)
    asked = [{"image": name, "question": "What is it?"} for name in sizes]
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in asked))
    out, settings = tmp_path / "out.jsonl", (*of_qwen(qwen), "limits.max_new_tokens=2")
    done = cof("answer", file, tmp_path, "--out", out, f"batch_size={batch}", *settings)
    assert done.exit_code == 1, done.output
    assert "3 answers, 1 failed" in done.output
    first, thin, last = [json.loads(line) for line in out.read_text().splitlines()]
    assert "error" not in first | last
    assert None not in (first["text"], last["text"])
    assert thin["text"] is None
    assert "thin.png" in thin["error"]
    assert "1000 x 3 cannot be shown to this model: absolute aspect ratio" in thin["error"]


def test_what_is_cut_out_of_an_image_can_be_shown(qwen):
    """A strip of a pixel's height grows to 200 : 1, for a crop and for a closer look."""
    module = plugins.load("models", "qwen_vl")
    model = module.load(module.Config(str(qwen), device="cpu"))
    strip, image = Box(0, 0.5, 1, 0.5001), picture((410, 400))
    asked = [Question("q", "i", "What is it?", boxes=(strip,))]
    settings = Settings(oracle.Config(), refine=crop.Config(1.0, 0.0), limits=Limits(2))
    [found] = CoF(model, settings).answer_batch(asked, [image])
    assert not found.error
    assert found.cof.notes["window"] == [0.0, 0.4975, 1.0, 0.505]  # three rows, not one
    batch = Batch.of(model, asked, [image])
    [region] = iterate._closer(
        batch,
        [Region((strip,), "iterate", notes={"steps": []})],
        iterate.Config(prompt.Config(max_new_tokens=2), 1.0, 0.0),
    )
    assert not region.error
    assert region.notes["steps"][0]["window"] == [0.0, 0.4975, 1.0, 0.505]


def test_ask_about_such_an_image_is_one_line(qwen, tmp_path):
    picture((3, 1000)).save(tmp_path / "thin.png")
    done = cof("ask", tmp_path / "thin.png", "What is it?", *of_qwen(qwen))
    assert done.exit_code == 2
    assert done.stderr.startswith("cof: an image of 3 x 1000 cannot be shown to this model: ")
    assert len(done.stderr.splitlines()) == 1


def test_ask_names_the_family_of_anothers_checkpoint(qwen, tmp_path):
    picture((30, 20)).save(tmp_path / "a.png")
    done = cof("ask", tmp_path / "a.png", "What is it?", "--model", qwen)
    assert done.exit_code == 2
    assert "use model.name=qwen_vl (in Python family='qwen_vl')" in done.stderr


def test_every_kind_of_checkpoint_has_its_family_named():
    known = {(tiny.config(hash)["model_type"], tiny.family) for tiny in TINY.values()}
    assert set(FAMILY_OF.items()) == known | {(one, one) for one in ("llava", *OTHERS)}


@pytest.mark.parametrize("said", ["anyres", "anyres_max_", "anyres_max_0", "square"])
def test_an_aspect_ratio_that_nothing_can_use_is_refused_at_load(tmp_path, said, onevision):
    folder = shutil.copytree(onevision, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"vision_aspect_ratio": said}
    (folder / "config.json").write_text(json.dumps(config))
    module = plugins.load("models", "llava_onevision")
    with pytest.raises(ModelError, match=rf"vision_aspect_ratio '{said}'.*anyres_max_9"):
        module.load(module.Config(str(folder), device="cpu"))


@pytest.fixture(scope="module")
def onevision(tmp_path_factory):
    return build("llava_onevision", tmp_path_factory.mktemp("onevision"))


OTHERS = ("instructblip", "mllama")
"""Families that see their images by a cross-attention."""


@pytest.mark.parametrize("family", OTHERS)
def test_every_family_has_a_config_to_start_from(family):
    """Those of `tests/families.py` are held against theirs in `test_families.py`."""
    file = ROOT / "examples" / "configs" / f"mme_{family}.yaml"
    config = schema.load(file)
    assert isinstance(config.model, plugins.load("models", family).Config)
    assert "No real weights were run with this file" in file.read_text(encoding="utf-8")
    named = {path.stem for path in file.parent.glob("mme_*.yaml")}
    own = set(plugins.names("models")) - {"llava", "llava_package"}
    assert {f"mme_{one}" for one in own} <= named
