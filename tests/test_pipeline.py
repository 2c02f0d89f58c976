"""The two stages end to end, on the tiny random checkpoint: one question, and a batch."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cof.cli import main
from cof.errors import ConfigError, DataError, ModelError
from cof.locate import prompt
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import highlight, plain
from cof.regions.boxes import BoxConfig
from cof.types import Box, Question

QUESTION = "What color is the red square?\nAnswer the question using a single word or phrase."
BOX = (0.25, 0.25, 0.5, 0.5)


@pytest.fixture(scope="module")
def pipeline(llava):
    return CoF(llava, Settings(limits=Limits(6)))


@pytest.fixture
def picture(golden):
    return golden / "images" / "wide.png"


@pytest.fixture
def command(golden):
    """Run `cof ask` on the tiny checkpoint; returns click's result."""

    def run(image, *options):
        fixed = ["--model", str(golden / "checkpoint"), "--device", "cpu", "--max-new-tokens", "4"]
        return CliRunner().invoke(main, ["ask", str(image), QUESTION, *fixed, *options])

    return run


def test_weight_one_is_the_plain_model(llava, picture):
    settings = Settings(refine=highlight.Config(1.0), limits=Limits(6))
    outcome = CoF(llava, settings)(picture, QUESTION, box=BOX, plain=True)
    assert outcome.mask.any()
    assert outcome.text == outcome.plain
    assert outcome.result.cof.tokens == outcome.result.plain.tokens


def test_a_given_box_is_highlighted_and_the_coarse_stage_skipped(pipeline, picture):
    before = pipeline.model.counters.forwards
    outcome = pipeline(picture, QUESTION, box=BOX)
    assert pipeline.model.counters.forwards - before <= 1 + 6
    assert outcome.region.source == "given"
    assert outcome.boxes == (Box(*BOX),)
    assert outcome.plain is None
    cells = outcome.view.cells[outcome.mask]
    assert (cells[:, 2] > 0.25).all()
    assert (cells[:, 0] < 0.5).all()


def test_a_strong_highlight_changes_the_answer(llava, picture):
    settings = Settings(refine=highlight.Config(50.0), limits=Limits(6))
    outcome = CoF(llava, settings)(picture, QUESTION, box=BOX, plain=True)
    assert outcome.text != outcome.plain


def test_an_unparsed_reply_is_a_plain_pass_under_clean_rules(pipeline, picture):
    outcome = pipeline(picture, QUESTION, plain=True)
    assert outcome.result.status == "no_box"
    assert not outcome.mask.any()
    assert outcome.region.reply
    assert outcome.text == outcome.plain


def test_an_unparsed_reply_lights_everything_under_reference_rules(llava, picture):
    rules = BoxConfig("reference", square=True)
    outcome = CoF(llava, Settings(boxes=rules, limits=Limits(2)))(picture, QUESTION)
    assert outcome.mask.all()
    assert outcome.result.status == "no_box"


def test_a_batch_is_its_questions(llava, golden):
    images = [
        Image.open(golden / "images" / name).convert("RGB")
        for name in ("wide.png", "square336.png")
    ]
    questions = [
        Question("a", "wide.png", QUESTION),
        Question("b", "wide.png", "Is there a dog on the table?"),
        Question("c", "square336.png", "How many?"),
    ]
    batch = [images[0], images[0], images[1]]
    pipeline = CoF(llava, Settings(limits=Limits(5)))
    together = pipeline.answer_batch(questions, batch)
    for question, image, result in zip(questions, batch, together, strict=True):
        alone = pipeline.answer_batch([question], [image])[0]
        assert result.cof.tokens == alone.cof.tokens
        assert result.plain.tokens == alone.plain.tokens
        assert result.region.reply == alone.region.reply
        assert result.question == question


def test_the_plain_fine_stage_is_the_baseline(llava, picture):
    settings = Settings(refine=plain.Config(), limits=Limits(4))
    outcome = CoF(llava, settings)(picture, QUESTION, box=BOX, plain=True)
    assert outcome.result.cof.tokens == outcome.result.plain.tokens


def test_plot_draws_both_stages(pipeline, picture, tmp_path):
    file = tmp_path / "two.png"
    pipeline(picture, QUESTION, box=BOX, plain=True).plot().savefig(file)
    assert Image.open(file).width > 400


def test_a_pil_image_and_its_file_are_the_same(pipeline, golden):
    file = golden / "images" / "palette.png"
    from_file = pipeline(file, QUESTION, box=BOX)
    from_image = pipeline(Image.open(file), QUESTION, box=BOX)
    assert from_file.result.cof.tokens == from_image.result.cof.tokens


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.1, 0.9), (0, 0, 2, 1), (0.1, 0.2, 0.3)])
def test_a_wrong_box_is_an_error(pipeline, picture, box):
    with pytest.raises((ValueError, TypeError)):
        pipeline(picture, QUESTION, box=box)


def test_a_missing_image_is_named(pipeline, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        pipeline(tmp_path / "gone.png", QUESTION)


def test_from_pretrained_names_a_missing_model():
    with pytest.raises(ModelError, match="no model at 'nowhere'"):
        CoF.from_pretrained("nowhere")


def test_settings_are_frozen_and_replaceable():
    settings = replace(Settings(), plain=False)
    assert not settings.plain
    with pytest.raises(AttributeError):
        settings.plain = True


@pytest.mark.parametrize("weight", [0.0, -2.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(ValueError, match="positive"):
        highlight.Config(weight)
    with pytest.raises(ValueError, match="perturb"):
        highlight.Config(perturb=float("inf"))


@pytest.mark.parametrize("narrow", [{"layers": (4,)}, {"heads": (-1,)}, {"heads": ()}])
def test_layers_and_heads_are_held_against_the_model(llava, narrow):
    name = next(iter(narrow))
    with pytest.raises(ConfigError, match=f"refine.{name}.*0 to 3"):
        CoF(llava, Settings(refine=highlight.Config(**narrow)))


def test_reference_rules_read_the_whole_reply(llava):
    """A box in integers ends a clean reply; the published pattern goes on looking."""
    reply = "[0, 0, 0.5, 1] roughly; more exactly the region is [0.10, 0.20, 0.30, 0.40]"
    assert not prompt.first_box(reply[:40])
    assert prompt.first_box(reply)


def test_ask_prints_both_answers(command, picture):
    result = command(picture, "--box", "0.25,0.25,0.5,0.5", "--compare")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(None, 1) for line in result.output.splitlines())
    assert lines["region"] == "[0.250, 0.250, 0.500, 0.500]"
    assert {"plain", "answer", "tokens", "seconds"} <= set(lines)
    assert "reply" not in lines


def test_ask_json_and_plot(command, picture, tmp_path):
    file = tmp_path / "out.png"
    result = command(picture, "--json", "--plot", str(file))
    said = json.loads(result.output)
    assert said["status"] == "no_box"
    assert said["plain"] is None
    assert said["visual_tokens"] == 576
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weight", "0"), "positive"),
        (("--expand", "-1"), "-1"),
        (("--box", "0.1,0.2"), "x0,y0,x1,y1"),
        (("--box", "0.5,0,0.2,1"), "0 <= x0 < x1"),
        (("--plot", "no/such/folder/x.png", "--box", "0,0,0.5,0.5"), "no folder no/such/folder"),
        (("--weight", "inf"), "positive"),
        (("--dtype", "int4"), "int4"),
    ],
)
def test_ask_names_wrong_options(command, picture, options, message):
    result = command(picture, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_ask_names_a_broken_image_in_one_line(command, tmp_path):
    file = tmp_path / "broken.png"
    file.write_bytes(b"")
    result = command(file)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert "broken.png" in result.output


@pytest.mark.slow
def test_doctor_parity_exit_codes(golden, tmp_path):
    run = CliRunner()
    good = run.invoke(main, ["doctor", "--parity", str(golden), "--device", "cpu", "--json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.output)["passed"] is True
    strict = ["doctor", "--parity", str(golden), "--device", "cpu", "--tolerance", "1e-12"]
    assert run.invoke(main, strict).exit_code == 1
    for item in golden.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "cases").unlink()
    lost = run.invoke(main, ["doctor", "--parity", str(tmp_path), "--device", "cpu"])
    assert lost.exit_code == 2
    assert "p01.safetensors: missing" in lost.output
    (tmp_path / "cases.json").unlink()
    empty = run.invoke(main, ["doctor", "--parity", str(tmp_path)])
    assert empty.exit_code == 2
    assert "cases.json" in empty.output


def test_mask_of_the_outcome_is_the_record(pipeline, picture):
    outcome = pipeline(picture, QUESTION, box=BOX)
    assert outcome.result.cells == tuple(torch.nonzero(outcome.mask).flatten().tolist())
    assert outcome.result.tokens == 576
