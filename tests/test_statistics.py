import random

import pytest
from fakes import make_mme

from cof.bench import mme
from cof.runs.scores import summary, table
from cof.runs.statistics import CONFIDENCE, paired_difference
from cof.types import Answer, Question, Region, Result


def slow_interval(before, after, clusters, draws=3000, seed=5):
    """Percentile interval of the mean difference, drawing whole clusters, one loop a draw."""
    rng = random.Random(seed)
    groups = {}
    for b, a, name in zip(before, after, clusters, strict=True):
        groups.setdefault(name, []).append(a - b)
    members, means = list(groups.values()), []
    for _ in range(draws):
        rows = [d for _ in members for d in rng.choice(members)]
        means.append(sum(rows) / len(rows))
    means.sort()
    tail = (1 - CONFIDENCE) / 2
    return means[round(tail * draws)], means[round((1 - tail) * draws) - 1]


@pytest.fixture
def sample():
    rng = random.Random(1)
    clusters = [f"i{rng.randrange(40)}" for _ in range(120)]
    before = [float(rng.random() < 0.5) for _ in clusters]
    after = [float(rng.random() < 0.7) for _ in clusters]
    return before, after, clusters


def test_the_interval_is_that_of_a_slow_bootstrap(sample):
    got = paired_difference(*sample, seed=0)
    low, high = slow_interval(*sample)
    assert (got["low"], got["high"]) == (
        pytest.approx(low, abs=0.02),
        pytest.approx(high, abs=0.02),
    )
    assert got["difference"] == pytest.approx(got["cof"] - got["plain"])
    assert (got["questions"], got["clusters"]) == (120, len(set(sample[2])))


def test_the_same_seed_gives_the_same_interval(sample):
    assert paired_difference(*sample, seed=3) == paired_difference(*sample, seed=3)
    assert paired_difference(*sample, seed=3) != paired_difference(*sample, seed=4)


def test_repeating_a_question_within_its_image_does_not_narrow_the_interval(sample):
    before, after, _ = sample
    single = paired_difference(before, after, range(120), seed=0)
    double = paired_difference(before * 2, after * 2, [*range(120)] * 2, seed=0)
    assert double["low"] == pytest.approx(single["low"])
    assert double["high"] == pytest.approx(single["high"])


def test_a_difference_without_spread_has_no_width():
    got = paired_difference([0.0] * 6, [1.0] * 6, [*"aabbcc"], seed=0)
    assert (got["difference"], got["low"], got["high"]) == (1, 1, 1)


def test_one_image_has_no_interval():
    got = paired_difference([0.0, 1.0], [1.0, 1.0], ["a", "a"], seed=0)
    assert (got["difference"], got["low"], got["high"]) == (0.5, None, None)


class TestScores:
    @pytest.fixture
    def results(self, tmp_path):
        questions = mme.read(mme.Config(str(make_mme(tmp_path, 4))))
        answer, region = Answer("Yes", (), 0.5), Region((), "stub", seconds=0.25)
        right = [Answer(question.reference, (), 0.5) for question in questions]
        got = [
            Result(question, region, status="boxes", cof=cof, plain=answer)
            for question, cof in zip(questions, right, strict=True)
        ]
        return [Result(got[0].question, error="broken"), *got[1:]]

    def test_a_failure_is_wrong_in_both_passes(self, results):
        scores = summary(mme, results, True, 0)
        assert (scores["questions"], scores["errors"]) == (8, 1)
        assert scores["paired"]["cof"] == 7 / 8
        assert scores["paired"]["plain"] == 3 / 8
        assert scores["status"] == {"boxes": 7, "no_box": 0, "whole": 0, "empty": 0}

    def test_the_table_says_plain_cof_and_difference(self, results):
        scores = summary(mme, results, True, 0)
        text = table(mme, scores, results)
        row = next(line for line in text.splitlines() if line.startswith("color")).split()
        assert row == ["color", "4", "50.00", "200.00", "+150.00"]
        assert "accuracy, %" in text
        assert "+50.00 points of accuracy, 95 % interval [" in text
        assert "8 questions, 1 failed; regions: boxes 7, no_box 0, whole 0, empty 0" in text
        assert "locating 0.250, CoF answer 0.500, plain answer 0.500" in text

    def test_without_the_plain_pass_the_table_has_one_column(self, results):
        text = table(mme, summary(mme, results, False, 0), results)
        row = next(line for line in text.splitlines() if line.startswith("color")).split()
        assert row == ["color", "4", "200.00"]

    def test_when_all_failed_there_is_still_a_table(self):
        failed = [Result(Question(f"{i}", "a", "?", "color", "Yes"), error="x") for i in range(2)]
        text = table(mme, summary(mme, failed, True, 0), failed)
        assert "no question was answered" in text
