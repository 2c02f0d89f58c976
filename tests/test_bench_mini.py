"""Every benchmark at once: the mini benchmarks are read, scored, exported and scored again."""

import pytest
from minis import FOLDERS

from cof.bench.common.containers import places
from cof.config import plugins


def loaded(name, mini):
    bench = plugins.load("bench", name)
    config = bench.Config(str(mini / FOLDERS[name]))
    return bench, config, bench.read(config)


def right_answers(bench, questions):
    if hasattr(bench, "region_answer"):
        return [bench.spell(question.boxes[0], "image") for question in questions]
    return [question.reference for question in questions]


@pytest.mark.parametrize("name", FOLDERS)
def test_contract(name, mini, tmp_path):
    bench, config, questions = loaded(name, mini)
    assert isinstance(bench.VERSION, str)
    assert len({question.id for question in questions}) == len(questions)
    assert all((places(bench, config) / question.image).is_file() for question in questions)
    answers = right_answers(bench, questions)
    assert all(bench.credit(*pair) == 1 for pair in zip(questions, answers, strict=True))
    scores = bench.score(questions, answers, config)
    assert list(scores)[:2] == ["benchmark", "version"]
    assert scores["benchmark"] == name
    for row_name, value, n in bench.table(scores):
        assert isinstance(row_name, str)
        assert value >= 0
        assert 0 < n <= len(questions)
    file = bench.export(questions, answers, tmp_path, config)[0]
    found = bench.read_answers(file, config)
    assert bench.score(found.questions, found.texts, config) == scores
    assert not found.missing


@pytest.mark.parametrize("name", FOLDERS)
def test_every_benchmark_has_the_regions(name, mini):
    _, _, questions = loaded(name, mini)
    assert sum(bool(question.boxes) for question in questions) >= len(questions) / 2


@pytest.mark.parametrize("name", FOLDERS)
def test_a_failed_question_is_wrong_everywhere(name, mini):
    bench, _, questions = loaded(name, mini)
    assert all(bench.credit(question, None) == 0 for question in questions)
    bench.score(questions, [None] * len(questions))
