"""Answers that are judged several together: kept together by draws, left out where one lacks."""

from dataclasses import replace

import pytest
from fakes import StubPipeline
from test_bench_small import loaded

from cof.analyse.metrics import published
from cof.analyse.scores import notes
from cof.config import plugins, schema
from cof.config.general import Subset
from cof.evaluate import runner
from cof.store import subset
from cof.store.run import load_run
from cof.types import Question


def ten_pairs():
    mmvp = plugins.load("bench", "mmvp")
    options = {"image": "", "text": "?", "options": ("one", "two")}
    asked = [
        Question(f"{(n + 1) // 2}/{n}", reference="AB"[n % 2], **options) for n in range(1, 21)
    ]
    return mmvp, [replace(one, image=f"{one.id}.jpg") for one in asked]


@pytest.mark.parametrize("limit", [1, 5, 6])
def test_a_draw_keeps_pairs_whole(limit):
    mmvp, questions = ten_pairs()
    kept = subset.chosen(questions, Subset(limit), mmvp.together)
    assert len(kept) == limit + limit % 2
    asked = [one for one in questions if one.image in kept]
    assert mmvp.score(asked, ["A"] * len(asked))["pairs"] == 0
    assert mmvp.score(asked, [one.reference for one in asked])["pairs"] == 1


def test_pairs_that_lack_a_question_are_left_out_with_a_note():
    mmvp, questions = ten_pairs()
    some = [questions[n] for n in (0, 1, 3, 5, 7)]
    scores = mmvp.score(some, ["B", "B", "A", "A", "A"])
    assert (scores["pairs"], scores["accuracy"]) == (0, 0.8)
    assert notes(scores) == ["pairs: 3 groups with a question missing left out"]
    scores = mmvp.score(some[2:], ["A"] * 3)
    assert scores["pairs"] is None
    assert mmvp.table(scores) == [("single questions", 100, 3)]
    assert "none is complete" in notes(scores)[0]


def test_circular_accuracy_leaves_out_what_lacks_a_permutation(tmp_path):
    bench, config, questions = loaded("hrbench", tmp_path)
    answers = [one.reference for one in questions]
    scores = bench.score(questions[:5], ["E", *answers[1:5]], config)
    assert (scores["circular"], scores["incomplete"]) == (0, {"circular": 1})
    scores = bench.score(questions[1:4], answers[1:4], config)
    assert scores["circular"] is None
    assert [name for name, _, _ in bench.table(scores)] == ["accuracy", "single"]


def test_hallusionbench_leaves_out_what_its_folder_has_more_of(tmp_path):
    bench, config, questions = loaded("hallusionbench", tmp_path)
    some = [questions[n] for n in (0, 1, 2, 4)]  # of figure 1, question 1 and one chart nothing
    scores = bench.score(some, ["Yes", "No", "Yes", "No"], config)
    assert (scores["fAcc"], scores["qAcc"], scores["aAcc"]) == (1, 1, 1)
    assert scores["incomplete"] == {"fAcc": 1, "qAcc": 2}
    assert scores["subcategories"]["VS/chart"]["qAcc"] is None
    assert {value for _, value, _ in bench.table(scores)} == {100}
    one = bench.score(questions[4:5], ["No"], bench.Config(str(tmp_path / "gone")))
    assert one["qAcc"] == 1
    assert "the benchmark's folder cannot be read" in notes(one)[0]
    kept = subset.chosen(questions, Subset(1), bench.together)
    assert len(kept) == 2, "all figures of a set"


@pytest.mark.parametrize("name", ["mmvp", "hallusionbench"])
def test_intervals_rest_on_what_is_judged_together(name, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "build_pipeline", lambda settings: StubPipeline(True))
    bench, config, questions = loaded(name, tmp_path / "data")
    asked = {"name": name, "root": config.root}
    settings = schema.resolve({"bench": asked, "refine": {"name": "plain"}, "out": str(tmp_path)})
    found = published(load_run(runner.run(settings).path), "cof", 0)
    assert list(found) == [
        row for row, _, _ in bench.table(bench.score(questions, [None] * len(questions)))
    ]
    assert {one.clusters for row, one in found.items() if " " not in row or row[0] == "s"} == {2}
