import math
import random

import numpy as np
import pytest
from fakes import make_mme
from scipy.stats import norm, sem, t

from cof.bench import mme
from cof.runs import statistics
from cof.runs.scores import summary, table
from cof.runs.statistics import CONFIDENCE, holm, jackknife, mcnemar, paired_difference
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


def clustered(rng, images, each, spread):
    """Differences of paired credits, {-1, 0, 1}, alike within an image; their mean is 0.1."""
    lean = rng.normal(0, spread, images).repeat(each)
    noise = rng.normal(0, 1, images * each)
    mixed = (lean + noise) / np.hypot(spread, 1)
    return np.where(mixed > norm.ppf(0.7), 1.0, np.where(mixed < norm.ppf(0.2), -1.0, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_bootstrap_interval_covers_the_truth_where_questions_share_images(spread, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 599)
    rng, images, each, repeats = np.random.default_rng(7), 60, 4, 400
    names = np.arange(images).repeat(each)
    covered = {"images": 0, "questions": 0}
    for _ in range(repeats):
        found = clustered(rng, images, each, spread)
        for key, clusters in (("images", names), ("questions", np.arange(images * each))):
            got = statistics.mean(found, clusters, seed=0)
            covered[key] += got.low <= 0.1 <= got.high
    assert 0.92 <= covered["images"] / repeats <= 0.98
    assert (covered["questions"] / repeats < 0.85) == (spread > 0)


class TestJackknife:
    @staticmethod
    def metrics(values):
        return lambda places: {"mean": (sum(values[i] for i in places) / len(places), len(places))}

    def test_for_a_mean_it_is_students_interval_over_images(self):
        values = np.random.default_rng(0).random(40)
        got = jackknife(self.metrics(values), range(40), seed=0)["mean"]
        expected = t.interval(0.95, 39, values.mean(), sem(values))
        assert (got.low, got.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
        assert (got.value, got.n) == (pytest.approx(values.mean()), 40)

    def test_the_interval_of_f1_covers_the_truth_where_questions_share_images(self):
        rng, images, each, repeats = np.random.default_rng(3), 60, 4, 150
        names = np.arange(images).repeat(each)

        def sample(count):
            skill = rng.normal(0.8, 1.5, count).repeat(each)
            truth = rng.random(count * each) < 0.5
            return truth, np.where(rng.normal(skill, 1) > 0, truth, ~truth)

        def f1(truth, said):
            return 2 * (truth & said).sum() / (truth.sum() + said.sum())

        target = f1(*sample(100_000))
        covered = 0
        for _ in range(repeats):
            truth, said = sample(images)
            got = jackknife(lambda i: {"f1": (f1(truth[i], said[i]), len(i))}, names, 0)["f1"]  # noqa: B023
            covered += got.low <= target <= got.high
        assert 0.9 <= covered / repeats <= 0.99

    def test_many_images_are_dealt_to_groups(self):
        values = np.random.default_rng(1).random(1500)
        calls = []

        def counted(places):
            calls.append(len(places))
            return self.metrics(values)(places)

        got = jackknife(counted, np.arange(1500) // 3, seed=0)["mean"]
        assert len(calls) == 1 + statistics.GROUPS
        assert set(calls[1:]) == {1485}
        bootstrap = statistics.mean(values, np.arange(1500) // 3, seed=0)
        assert got.high - got.low == pytest.approx(bootstrap.high - bootstrap.low, rel=0.25)

    def test_a_metric_that_rests_on_one_image_has_no_interval(self):
        found = jackknife(
            lambda i: {"a": (1.0, len(i)), **({"b": (2.0, 1)} if 0 in i else {})}, "xy", 0
        )
        assert (found["a"].low, found["b"].low) == (1.0, None)
        single = jackknife(self.metrics([1.0, 0.0]), "xx", 0)["mean"]
        assert (single.value, single.low, single.high) == (0.5, None, None)


class TestTests:
    @pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 10), (40, 40), (0, 25)])
    def test_mcnemar_is_the_sign_test_on_what_changed(self, gained, lost):
        n, most = gained + lost, max(gained, lost)
        tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
        assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))

    def test_holm_is_the_step_down_rule(self):
        rng = random.Random(0)
        for size in range(7):
            values = [rng.random() ** 3 for _ in range(size)]
            expected, running = {}, 0.0
            for rank, place in enumerate(sorted(range(size), key=values.__getitem__)):
                running = max(running, min(1.0, values[place] * (size - rank)))
                expected[place] = running
            assert holm(values) == pytest.approx([expected[place] for place in range(size)])


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
