"""Tests: exact where they can be, the size they promise where questions share images."""

import itertools
import math
import random

import numpy as np
import pytest
from test_statistics import correlated

from cof.analyse import significance
from cof.analyse.significance import EXACT, FLIPS, holm, mcnemar, paired_difference, permutation


def every_flip(before, after, clusters):
    """Two-sided p by brute force: all signs of all images, also of those that do not differ."""
    sums = {}
    for b, a, name in zip(before, after, clusters, strict=True):
        sums[name] = sums.get(name, 0) + a - b
    seen = abs(sum(sums.values()))
    ways = list(itertools.product((-1, 1), repeat=len(sums)))
    totals = [
        abs(sum(way * size for way, size in zip(signs, sums.values(), strict=True)))
        for signs in ways
    ]
    return sum(total >= seen - 1e-9 for total in totals) / len(ways)


class TestPermutation:
    @pytest.mark.parametrize("seed", range(20))
    def test_it_is_brute_force_where_few_images_differ(self, seed):
        rng = random.Random(seed)
        clusters = [rng.choice("abcdefghij") for _ in range(rng.randint(1, 30))]
        step = rng.choice([1, 0.3])  # credits of VQA are thirds
        before, after = ([step * rng.randint(0, 1) for _ in clusters] for _ in range(2))
        expected = every_flip(before, after, clusters)
        assert permutation(before, after, clusters, seed) == pytest.approx(expected)

    def test_where_each_image_has_one_question_it_is_mcnemars(self):
        before, after = [0] * 9 + [1] * 4 + [0] * 50, [1] * 9 + [0] * 4 + [0] * 50
        assert permutation(before, after, range(63), 0) == pytest.approx(mcnemar(9, 4))

    def test_where_many_differ_signs_are_drawn_and_what_was_seen_counts(self):
        rng = random.Random(3)
        before = [rng.randint(0, 1) for _ in range(120)]
        after = [rng.randint(0, 1) for _ in range(120)]
        gained = sum(b < a for b, a in zip(before, after, strict=True))
        lost = sum(b > a for b, a in zip(before, after, strict=True))
        assert gained + lost > EXACT
        got = permutation(before, after, range(120), 0)
        assert got == pytest.approx(mcnemar(gained, lost), abs=0.015)
        assert got == permutation(before, after, range(120), 0)
        assert got != permutation(before, after, range(120), 1)
        assert permutation([0] * 120, [1] * 120, range(120), 0) == 1 / (1 + FLIPS)

    def test_order_and_names_play_no_part_and_swapping_none_either(self):
        rng = random.Random(4)
        rows = [(rng.random(), rng.random(), rng.randrange(40)) for _ in range(100)]
        got = permutation(*zip(*rows, strict=True), 0)
        turned = [(after, before, f"image {name}") for before, after, name in rows[::-1]]
        assert permutation(*zip(*turned, strict=True), 0) == pytest.approx(got)

    def test_nothing_changed(self):
        assert permutation([1, 0, 1], [1, 0, 1], "aab", 0) == 1
        assert permutation([1, 0], [0, 1], "aa", 0) == 1  # within one image, up and down

    def test_the_largest_exact_one_and_the_first_drawn_one_agree(self, monkeypatch):
        rng = random.Random(5)
        after = [rng.choice([1, 1, -1]) for _ in range(EXACT)]
        exact = permutation([0] * EXACT, after, range(EXACT), 0)
        monkeypatch.setattr(significance, "EXACT", EXACT - 1)
        drawn = permutation([0] * EXACT, after, range(EXACT), 1)  # a seed that is not remembered
        assert drawn != exact
        assert drawn == pytest.approx(exact, abs=0.015)


def sizes(images, each, repeats, seed=11):
    """How often each test calls two treatments different at 5 % that are not."""
    rng, names = np.random.default_rng(seed), np.arange(images * each) // each
    wrong = {"permutation": 0, "mcnemar": 0}
    for _ in range(repeats):
        right = correlated(rng, images, each, (0.7, 0.7), alike=0.7, paired=0.3)
        before, after = right.reshape(2, -1).astype(float)
        wrong["permutation"] += permutation(before, after, names, 0) <= 0.05
        wrong["mcnemar"] += (
            mcnemar(int((after > before).sum()), int((after < before).sum())) <= 0.05
        )
    return {name: count / repeats for name, count in wrong.items()}


class TestSize:
    def test_a_little(self, monkeypatch):
        monkeypatch.setattr(significance, "FLIPS", 1000)
        got = sizes(60, 6, 200)
        assert got["permutation"] <= 0.1
        assert got["mcnemar"] > 0.15

    @pytest.mark.slow
    @pytest.mark.parametrize(("each", "too_often"), [(2, 0.07), (6, 0.2)])
    def test_at_length(self, each, too_often, monkeypatch):
        monkeypatch.setattr(significance, "FLIPS", 2000)
        repeats = 2000
        got = sizes(60, each, repeats)
        error = 2.6 * (0.05 * 0.95 / repeats) ** 0.5
        assert 0.03 <= got["permutation"] <= 0.05 + error, got
        assert got["mcnemar"] > too_often, got


class TestMcNemar:
    @pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 10), (40, 40), (0, 25)])
    def test_it_is_the_sign_test_on_what_changed(self, gained, lost):
        n, most = gained + lost, max(gained, lost)
        tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
        assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))

    @pytest.mark.parametrize(
        ("gained", "lost", "p"), [(10, 9, 1.0), (16, 9, 0.2295), (17, 6, 0.0347), (0, 6, 0.03125)]
    )
    def test_known_values(self, gained, lost, p):
        """The first is R's mcnemar.exact of 10 and 9; the others were statsmodels'."""
        assert mcnemar(gained, lost) == pytest.approx(p, abs=5e-5)


class TestHolm:
    def test_it_is_the_step_down_rule(self):
        rng = random.Random(0)
        for size in range(7):
            values = [rng.random() ** 3 for _ in range(size)]
            expected, running = {}, 0.0
            for rank, place in enumerate(sorted(range(size), key=values.__getitem__)):
                running = max(running, min(1.0, values[place] * (size - rank)))
                expected[place] = running
            assert holm(values) == pytest.approx([expected[place] for place in range(size)])

    def test_known_values(self):
        """R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), and one that is not sorted."""
        assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
        assert holm([0.03, 0.005, 0.6, 0.04]) == pytest.approx([0.09, 0.02, 0.6, 0.09])
        assert holm([]) == []


def test_the_same_seed_gives_the_same_scores_and_another_only_another_p():
    rng = random.Random(1)
    clusters = [f"i{rng.randrange(60)}" for _ in range(180)]
    before = [float(rng.random() < 0.6) for _ in clusters]
    after = [float(rng.random() < 0.7) for _ in clusters]
    got, other = (paired_difference(before, after, clusters, seed=seed) for seed in (3, 4))
    assert got == paired_difference(before, after, clusters, seed=3)
    assert got["p"] != other["p"]
    assert (got["low"], got["high"]) == (other["low"], other["high"])
    assert got["difference"] == pytest.approx(got["cof"] - got["plain"])
