"""Runs of every benchmark: scored by its own rules, rescored from records by `cof score`."""

import json
import shutil

import pytest
from click.testing import CliRunner
from fakes import StubPipeline
from minis import FOLDERS

from cof.bench import pope
from cof.cli import main
from cof.config import schema
from cof.evaluate import runner


@pytest.fixture
def make_run(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(
        runner, "build_pipeline", lambda settings: StubPipeline(settings.general.plain)
    )

    def make(name, **options):
        settings = schema.resolve(
            {
                "bench": {"name": name, "root": str(mini / FOLDERS[name]), **options},
                "refine": {"name": "plain"},
                "out": str(tmp_path),
                "name": name,
                "batch_size": 4,
            }
        )
        return runner.run(settings)

    return make


def cof(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_is_scored_and_rescored_alike(make_run, name):
    done = make_run(name)
    assert done.scores["cof"]["benchmark"] == name
    result = cof("score", name, done.path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == done.scores
    assert cof("score", name, done.path).stdout.strip()
    assert any((done.path / "answers" / "cof").iterdir())


def test_the_run_uses_the_rules_of_its_config(make_run):
    done = make_run("pope", parser="word")
    assert done.scores["cof"]["parser"] == "word"
    result = cof("score", "pope", done.path, "parser=strict", "--json")
    assert json.loads(result.stdout)["plain"]["parser"] == "strict"


def test_a_coarse_benchmark_is_scored_by_its_regions(make_run):
    done = make_run("refcoco")
    assert done.scores["cof"]["frames"] == {"image": 2}
    assert done.scores["cof"] == done.scores["plain"]


def test_a_failed_question_is_wrong_though_an_empty_answer_is_a_yes(make_run, mini, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(mini / "MiniPOPE", broken)
    for image in (broken / "val2014").iterdir():
        image.write_bytes(b"")
    questions = pope.read(pope.Config(str(broken)))
    for setting in pope.score(questions, [None] * 36)["settings"].values():
        assert setting["accuracy"] == 0
        assert setting["other"] == setting["n"]
    assert pope.score(questions, [""] * 36)["pooled"]["accuracy"] == 0.5
    done = make_run("pope", root=str(broken))
    assert len(done.failed) == len(done.results)
    assert done.scores["cof"] is done.scores["plain"] is done.scores["paired"] is None
    scored = cof("score", "pope", done.path)
    assert scored.exit_code == 1
    assert "no CoF score: every answer failed" in scored.stdout
    written = (done.path / "answers/cof/llava_pope_answers.jsonl").read_text()
    assert written == ""  # an empty text would be a yes


def test_what_is_wrong_with_a_run_folder_is_said(make_run):
    done = make_run("pope")
    other = cof("score", "mme", done.path)
    assert other.exit_code == 2
    assert "a run of pope, not of mme" in other.stderr
    records = done.path / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:-3]))
    short = cof("score", "pope", done.path)
    assert short.exit_code == 2
    assert f"{len(lines) - 3} of {len(lines)} questions have a record" in short.stderr
    allowed = cof("score", "pope", done.path, "--allow-missing", "--json")
    assert json.loads(allowed.stdout)["unanswered"] == 3
    assert "3 questions without an answer" in allowed.stderr
