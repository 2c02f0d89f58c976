"""Half precision: which answers depend on their batch, kept beside the run and in its report."""

import json

import pytest
import yaml
from click.testing import CliRunner
from fakes import make_mme

from cof import load_run
from cof.cli import main
from cof.config import schema
from cof.evaluate import flips
from cof.types import Answer, Question, Region, Result


def cof(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def configured(folder, dtype="bfloat16", **changes):
    data = {
        "bench": {"name": "mme", "root": str(make_mme(folder / "mme", 4))},
        "model": {"path": "cof-tiny", "device": "cpu", "dtype": dtype},
        "limits": {"max_new_tokens": 3},
        "locate": {"name": "centre"},
        "out": str(folder / "runs"),
        "name": "r",
        "batch_size": 4,
        **changes,
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(data))
    return folder / "c.yaml"


def test_a_run_in_half_precision_says_what_its_batches_moved(tmp_path):
    assert cof("eval", configured(tmp_path)).exit_code == 0
    found = json.loads((tmp_path / "runs" / "r" / "flips.json").read_text())
    assert found["asked"] == 8
    assert set(found) == {"asked", "coarse", "plain", "cof"}
    done = cof("report", tmp_path / "runs" / "r", "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert (
        "differ between the run's batches and batch 1"
        in (tmp_path / "report" / "report.md").read_text()
    )
    packed = cof("pack", tmp_path / "runs" / "r", "--out", tmp_path / "packed")
    assert packed.exit_code == 0, packed.output
    assert (tmp_path / "packed" / "r" / "flips.json").is_file()


def test_a_run_in_float32_has_nothing_to_say(tmp_path):
    assert cof("eval", configured(tmp_path, "float32")).exit_code == 0
    assert not (tmp_path / "runs" / "r" / "flips.json").exists()


@pytest.mark.parametrize(
    ("dtype", "changes", "due"),
    [
        ("float16", {}, True),
        ("float32", {}, False),
        ("float16", {"batch_size": 1}, False),
        ("float16", {"batch_size": "auto"}, True),
        ("float16", {"limits": {"temperature": 0.5}}, False),
    ],
)
def test_when_it_is_due(tmp_path, dtype, changes, due):
    config = schema.load(configured(tmp_path, **changes))
    assert flips.due(config, {"dtype": dtype}) is due


class Moody:
    """Says something else when it is asked alone."""

    def answer_batch(self, questions, images):
        (question,) = questions
        said = "No" if question.id in "23" else "Yes"
        region = Region((), "stub", "[]" if question.id == "3" else "box")
        return [Result(question, region=region, cof=Answer(said), plain=Answer("Yes"))]


def test_what_flipped_is_named_pass_by_pass(tmp_path):
    config = schema.load(configured(tmp_path))
    image = next(path for path in (tmp_path / "mme").rglob("*.png"))
    name = image.relative_to(tmp_path / "mme").as_posix()
    region = Region((), "stub", "box")
    results = [
        Result(Question(str(i), name, "?"), region=region, cof=Answer("Yes"), plain=Answer("Yes"))
        for i in range(4)
    ]
    results.append(Result(Question("4", name, "?"), error="failed"))
    found = flips.measure(Moody(), config, results)
    assert found["asked"] == 4
    assert found["plain"] == []
    assert [one["id"] for one in found["cof"]] == ["2", "3"]
    assert found["coarse"] == [{"id": "3", "batch": "box", "alone": "[]"}]


def test_a_large_run_is_sampled_evenly(tmp_path, monkeypatch):
    config = schema.load(configured(tmp_path))
    image = next(path for path in (tmp_path / "mme").rglob("*.png"))
    name = image.relative_to(tmp_path / "mme").as_posix()
    results = [
        Result(Question(str(i), name, "?"), region=Region((), "s", "box"), cof=Answer("Yes"))
        for i in range(1000)
    ]
    asked = []
    monkeypatch.setattr(
        Moody,
        "answer_batch",
        lambda self, questions, images: asked.append(int(questions[0].id)) or [results[0]],
    )
    assert flips.measure(Moody(), config, results)["asked"] == len(asked) <= flips.SAMPLE
    assert asked == list(range(0, 1000, asked[1]))
    assert asked[-1] > 900


def test_records_are_what_they_are_without_it(tmp_path):
    assert cof("eval", configured(tmp_path)).exit_code == 0
    assert len(load_run(tmp_path / "runs" / "r").results) == 8
