"""The main job on the embedded model: MiniMME drawn, asked in both ways, scored, exported."""

import json

import pytest
from click.testing import CliRunner

from cof import load_run
from cof.cli import main
from cof.images import load_image
from cof.locate import prompt
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.types import Question

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The mini benchmarks, a few images each."""
    folder = tmp_path_factory.mktemp("mini") / "data"
    result = CliRunner().invoke(main, ["data", "mini", str(folder), "--size", "4"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def run(mini, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    config = out / "config.yaml"
    config.write_text(
        "model: {path: cof-tiny, device: cpu}\n"
        f"bench: {{name: mme, root: {mini / 'MiniMME'}}}\n"
        "limits: {max_new_tokens: 16}\nbatch_size: 8\nname: main\n"
        f"out: {out}\n"
    )
    result = CliRunner().invoke(main, ["eval", str(config)])
    assert result.exit_code == 0, result.output
    return load_run(out / "main"), result.output


def test_every_question_has_two_answers_and_a_region(run):
    results = run[0].results
    assert len(results) == 5 * 4 * 2
    assert all(result.plain and result.cof and not result.error for result in results)
    assert all(result.region.source == "prompt" for result in results)
    assert {result.plain.text for result in results} <= {"Yes", "No"}


def test_the_embedded_model_means_something(run):
    """Far from guessing: half of the coarse replies hold a box, most plain answers are right."""
    results = run[0].results
    right = sum(result.plain.text == result.question.reference for result in results)
    assert right / len(results) > 0.65
    assert sum(bool(result.region.boxes) for result in results) > len(results) / 2


def test_the_table_and_the_scores_agree(run):
    scores, output = run[0].scores, run[1]
    assert "perception" in output
    assert "95 % interval" in output
    assert f"{scores['plain']['perception']:.2f}" in output


def test_our_export_scores_the_same(run, mini):
    loaded = run[0]
    folder = next((loaded.path / "answers" / "cof").rglob("*.txt")).parent
    result = CliRunner().invoke(main, ["score", "mme", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["perception"] == loaded.scores["cof"]["perception"]


def test_stopping_at_the_boxes_gives_the_boxes_of_the_full_reply(run, mini):
    """Every question of MiniMME, with the reply cut at its boxes and with the full budget."""
    cof = CoF.from_pretrained("cof-tiny", device="cpu")
    asked = [result.question for result in run[0].results]
    root = mini / "MiniMME"
    pictures = {question.image: load_image(root / question.image) for question in asked}
    images = [pictures[question.image] for question in asked]
    full = Settings(locate=prompt.Config(stop="never"), limits=Limits(2), plain=False)
    unlimited = cof.answer_many(asked, images, [full])[0]
    for cut, whole in zip(run[0].results, unlimited, strict=True):
        assert cut.region.boxes == whole.region.boxes


def test_one_image_from_python(mini):
    file = next((mini / "MiniMME" / "color").glob("*.jpg"))
    outcome = CoF.from_pretrained("cof-tiny", device="cpu")(file, "What color is it?", plain=True)
    assert outcome.region.reply
    assert outcome.text
    assert isinstance(outcome.result.question, Question)
