"""Intervals: inside what a number can be, none where they would promise too much, and true."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from fakes import make_mme
from scipy.stats import norm, sem, t

from cof.analyse.scores import summary, table
from cof.analyse.significance import paired_difference
from cof.analyse.statistics import (
    ALIKE,
    CONFIDENCE,
    FEW,
    FEWEST,
    GROUPS,
    Metric,
    difference,
    jackknife,
    mean,
)
from cof.bench import mme, pope
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


def share(values):
    """The mean of some of them as a metric in percent."""
    return lambda places: {"mean": Metric(100 * np.mean(values[list(places)]), len(places))}


class TestMean:
    @pytest.fixture
    def sample(self):
        rng = random.Random(1)
        clusters = [f"i{rng.randrange(120)}" for _ in range(360)]
        before = [float(rng.random() < 0.5) for _ in clusters]
        after = [float(rng.random() < 0.7) for _ in clusters]
        return before, after, clusters

    def test_among_many_images_it_is_that_of_a_slow_bootstrap(self, sample):
        got = difference(*sample)
        low, high = slow_interval(*sample)
        assert got.low == pytest.approx(low, abs=0.01)
        assert got.high == pytest.approx(high, abs=0.01)
        assert (got.n, got.clusters, got.reason) == (360, len(set(sample[2])), None)

    def test_repeating_a_question_within_its_image_does_not_narrow_it(self, sample):
        before, after, _ = sample
        single = difference(before, after, range(360))
        double = difference(before * 2, after * 2, [*range(360)] * 2)
        assert (double.low, double.high) == pytest.approx((single.low, single.high))

    def test_it_is_students_interval_bent_into_the_range(self):
        values = np.random.default_rng(0).random(40)
        got = mean(values, range(40), low=-1e6, high=1e6)  # so wide a range that nothing bends
        expected = t.interval(0.95, 39, values.mean(), sem(values))
        assert (got.low, got.high) == pytest.approx(expected, abs=1e-6)
        narrow = mean(values, range(40))
        assert 0 < narrow.low < narrow.value < narrow.high < 1

    def test_without_an_upper_end_only_the_lower_one_is_kept(self):
        values = np.random.default_rng(0).exponential(5, 40)
        got = mean(values, range(40), high=math.inf)
        assert 0 < got.low < got.value < got.high
        assert got.low * got.high == pytest.approx(got.value**2)  # the log scale


class TestNone:
    @pytest.mark.parametrize("images", [1, 2, FEWEST - 1, FEWEST])
    def test_of_few_images_there_is_none(self, images):
        values = np.arange(2.0 * images) % 3 / 2
        got = mean(values, np.arange(2 * images) // 2)
        by_scorer = jackknife(share(values), np.arange(2 * images) // 2, 0)["mean"]
        assert got.value == pytest.approx(values.mean())
        for one in (got, by_scorer):
            assert (one.low is None) == (one.high is None) == (images < FEWEST)
            assert (one.reason, one.clusters) == (FEW if images < FEWEST else None, images)

    def test_without_spread_there_is_none(self):
        got = difference([0.1] * 100, [0.4] * 100, range(100))
        assert (got.low, got.high, got.reason, got.clusters) == (None, None, ALIKE, 100)
        got = jackknife(share(np.ones(50)), range(50), 0)["mean"]
        assert (got.value, got.low, got.reason) == (100.0, None, ALIKE)

    def test_scores_json_has_null_and_the_reason(self):
        got = json.loads(json.dumps(paired_difference([0.0] * 6, [1.0] * 6, [*"aabbcc"], seed=0)))
        assert (got["difference"], got["low"], got["high"]) == (1, None, None)
        assert (got["reason"], got["clusters"], got["p"]) == (FEW, 3, 0.25)


class TestJackknife:
    def test_a_mean_has_one_interval_however_it_is_asked_for(self):
        values, images = np.random.default_rng(0).random(80), np.arange(80) // 2
        got = jackknife(share(values), images, seed=0)["mean"]
        expected = mean(values, images).times(100)
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
        assert (got.value, got.n, got.clusters) == (pytest.approx(100 * values.mean()), 80, 40)

    def test_many_images_are_dealt_to_groups(self):
        values, images = np.random.default_rng(1).random(1500), np.arange(1500) // 3
        calls = []

        def counted(places):
            calls.append(len(places))
            return share(values)(places)

        got = jackknife(counted, images, seed=0)["mean"]
        assert calls == [1500, *[1485] * GROUPS, *[3] * 500]
        expected = mean(values, images).times(100)
        assert got.high - got.low == pytest.approx(expected.high - expected.low, rel=0.25)
        assert got.clusters == 500

    def test_a_metric_counts_the_images_it_rests_on(self):
        """Of 300 images 20 are of a subtask of its own: 20 are too few, 280 are not."""
        rng = np.random.default_rng(0)
        right, special = rng.random(300), np.arange(300) < 20

        def metrics(places):
            chosen = np.array(places)
            parts = {"few": chosen[special[chosen]], "many": chosen[~special[chosen]]}
            return {
                name: Metric(100 * right[part].mean(), len(part))
                for name, part in parts.items()
                if len(part)
            }

        got = jackknife(metrics, range(300), 0)
        assert (got["few"].low, got["few"].clusters, got["few"].reason) == (None, 20, FEW)
        alone = mean(right[20:], range(280)).times(100)
        assert got["many"].clusters == 280
        assert got["many"].high - got["many"].low == pytest.approx(alone.high - alone.low, rel=0.25)

    def test_a_sum_that_loses_a_part_with_one_image_has_no_interval(self):
        right = np.random.default_rng(0).random(60)

        def metrics(places):
            parts = [right[[i for i in places if (i == 0) == lone]] for lone in (True, False)]
            parts = [part for part in parts if len(part)]
            total = sum(100 * part.mean() for part in parts)
            return {"sum": Metric(total, len(places), 0, 100 * len(parts))}

        assert jackknife(metrics, range(60), 0)["sum"].reason == FEW


def correlated(rng, images, each, shares, alike=0.3, paired=0.8):
    """Who is right, bool [2, images, each]: two treatments of questions alike within an image.

    Args:
        shares: of right answers of both treatments.
        alike: correlation of an image's questions behind the threshold.
        paired: correlation of the two treatments behind the threshold.
    """

    def latent(number):
        common = rng.normal(size=(number, images, 1))
        own = rng.normal(size=(number, images, each))
        return np.sqrt(alike) * common + np.sqrt(1 - alike) * own

    both = np.sqrt(paired) * latent(1) + np.sqrt(1 - paired) * latent(2)
    return both < norm.ppf(shares)[:, None, None]


def mme_score(right):
    """Accuracy and acc+ of pairs within an image, 0 to 200."""
    return 100 * right.mean() + 100 * right.reshape(*right.shape[:-1], -1, 2).all(-1).mean()


def f1(right):
    """Every second question's answer is yes."""
    truth = np.broadcast_to(np.arange(right.shape[-1]) % 2 == 0, right.shape)
    said = right == truth
    return 100 * 2 * (truth & said).sum() / max(1, truth.sum() + said.sum())


def accuracy(right):
    return 100 * right.mean()


HIGHEST = {accuracy: 100, mme_score: 200, f1: 100}


def jackknifed(statistic, right):
    """The statistic of both treatments and its difference; `right` is [2, images, each]."""
    images, each = right.shape[1:]
    highest = HIGHEST[statistic]

    def metrics(places):
        kept = right[:, sorted({place // each for place in places})]
        before, after = statistic(kept[0]), statistic(kept[1])
        return {
            "score": Metric(before, len(places), 0, highest),
            "difference": Metric(after - before, len(places), -highest, highest),
        }

    return jackknife(metrics, np.arange(images * each) // each, 0)


def direct(statistic, right):
    """The same by `mean` and `difference`."""
    images = np.arange(right[0].size) // right.shape[2]
    before, after = right.reshape(2, -1).astype(float)
    both = {"score": mean(before, images), "difference": difference(before, after, images)}
    return {name: one.times(100) for name, one in both.items()}


def coverage(statistic, way, images, each, repeats, shares=(0.8, 0.85), seed=7):
    """Share of samples whose intervals hold the truth, of the score and of the difference."""
    rng = np.random.default_rng(seed)
    whole = correlated(rng, 400_000, each, shares)
    truth = {"score": statistic(whole[0]), "difference": statistic(whole[1]) - statistic(whole[0])}
    covered = dict.fromkeys(truth, 0)
    for _ in range(repeats):
        for name, one in way(statistic, correlated(rng, images, each, shares)).items():
            covered[name] += one.low <= truth[name] <= one.high
            assert -HIGHEST[statistic] <= one.low < one.high <= HIGHEST[statistic]
    return {name: count / repeats for name, count in covered.items()}


WAYS = [(accuracy, direct), (mme_score, jackknifed), (f1, jackknifed)]


class TestCoverage:
    """A 95 % interval holds the truth in 95 of 100 samples; 93 to 97 are asked for."""

    @pytest.mark.parametrize("each", [2, 6])
    @pytest.mark.parametrize(("statistic", "way"), WAYS)
    def test_a_little(self, statistic, way, each):
        got = coverage(statistic, way, 40, each, 150)
        assert all(0.9 <= one <= 1 for one in got.values()), got

    @pytest.mark.slow
    @pytest.mark.parametrize("images", [40, 100])
    @pytest.mark.parametrize("each", [2, 6])
    @pytest.mark.parametrize(("statistic", "way"), WAYS)
    def test_at_length(self, statistic, way, each, images):
        got = coverage(statistic, way, images, each, 1500)
        assert all(0.93 <= one <= 0.97 for one in got.values()), got

    @pytest.mark.slow
    @pytest.mark.parametrize("each", [2, 6])
    @pytest.mark.parametrize(
        ("bench", "name", "statistic"), [(mme, "color", mme_score), (pope, "mean f1", f1)]
    )
    def test_of_the_benchmarks_own_scorers(self, bench, name, statistic, each):
        got = coverage(statistic, lambda _, right: scored(bench, name, right), 40, each, 400)
        assert all(0.92 <= one <= 0.98 for one in got.values()), got

    def test_questions_taken_as_independent_would_be_far_off(self):
        """What the clusters are for: the same without them."""
        rng, covered = np.random.default_rng(3), 0
        for _ in range(200):
            right = correlated(rng, 40, 6, (0.8, 0.8), alike=0.6)[0].ravel()
            one = mean(right.astype(float), range(right.size))
            covered += one.low <= 0.8 <= one.high
        assert covered / 200 < 0.85


def scored(bench, name, right):
    """One row of a benchmark's own table, of both treatments, as `published.paired` has it."""
    _, images, each = right.shape
    kind, answers = ("color", ("Yes", "No")) if bench is mme else ("random", ("yes", "no"))
    questions = [
        Question(f"{i}#{k + 1}", f"{i}", "?", kind, answers[k % 2])
        for i in range(images)
        for k in range(each)
    ]
    truth = np.broadcast_to(np.arange(each) % 2 == 0, right.shape[1:])
    said = [["Yes" if yes else "No" for yes in (one == truth).ravel()] for one in right]

    def metrics(places):
        asked, found = [questions[i] for i in places], []
        for one in said:
            scores = bench.score(asked, [one[i] for i in places])
            low, high = bench.ranges(scores)[name] if bench is mme else (0, 100)
            value = next(value for key, value, _ in bench.table(scores) if key == name)
            found.append(Metric(value, len(places), low, high))
        before, after = found
        change = Metric(after.value - before.value, before.n, -before.high, before.high)
        return {"score": before, "difference": change}

    return jackknife(metrics, [question.image for question in questions], 0)


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
        assert "+50.00 points of accuracy, 95 % interval too few (4), p = 0.125 (" in text
        failed = "1 failed, counted as wrong in the pass that failed (plain 1, CoF 1)"
        assert f"8 questions, {failed}; regions: boxes 7, no_box 0, whole 0, empty 0" in text
        assert "locating 0.250, CoF answer 0.500, plain answer 0.500" in text

    def test_without_the_plain_pass_the_table_has_one_column(self, results):
        text = table(mme, summary(mme, results, False, 0), results)
        row = next(line for line in text.splitlines() if line.startswith("color")).split()
        assert row == ["color", "4", "200.00"]

    def test_with_enough_images_there_is_an_interval(self, results):
        many = [
            replace(one, question=replace(one.question, id=f"{k}{one.question.id}", image=f"{k}"))
            for k, one in enumerate(results[1:] * 6)
        ]
        scores = summary(mme, many, True, 0)
        low, high = (100 * scores["paired"][end] for end in ("low", "high"))
        text = table(mme, scores, many)
        assert f"95 % interval [{low:+.2f}, {high:+.2f}], p = 0.000 (permutation over 42" in text

    def test_when_all_failed_there_is_still_a_table(self):
        failed = [Result(Question(f"{i}", "a", "?", "color", "Yes"), error="x") for i in range(2)]
        scores = summary(mme, failed, True, 0)
        assert (scores["cof"], scores["plain"], scores["paired"]) == (None, None, None)
        assert scores["failed"] == {"plain": 2, "cof": 2}
        lines = table(mme, scores, failed).splitlines()
        assert lines[1:] == [
            "no plain score: every answer failed",
            "no CoF score: every answer failed",
            "no question was answered",
        ]
        assert lines[0].startswith("2 questions, 2 failed, counted as wrong")
        alone = table(mme, summary(mme, failed, False, 0), failed)
        assert "2 failed, counted as wrong in the pass that failed (CoF 2)" in alone
