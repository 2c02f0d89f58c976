"""Comparisons: paired by question, named where they cannot be, the same from Python and CLI."""

import json
import random
from dataclasses import replace

import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import make_mme

from cof.analyse.compare import category_table, compare, compare_with_first, comparison_text
from cof.analyse.naming import folder_names
from cof.analyse.passes import ScoredPass, align, scored_pass, scored_passes
from cof.analyse.significance import holm, mcnemar, permutation
from cof.analyse.statistics import FEW
from cof.cli import main
from cof.errors import RunError
from cof.store.run import run_hash
from cof.types import Question

IMAGES = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def data(root):
    return make_mme(root / "mme", IMAGES)


@pytest.fixture(scope="module")
def runs(root, data):
    """Three settings whose CoF answers are right more and more often."""
    return [
        make_run(root, data, right_with(0.5, share), f"r{i}", seed=i)
        for i, share in enumerate((0.4, 0.7, 0.9))
    ]


def invoke(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def make_side(name, credits, **asked):
    questions = [Question(f"q{i}", f"{i}.png", asked.get("text", "?")) for i in range(len(credits))]
    return ScoredPass(name, tuple(questions), tuple(credits))


class TestCompare:
    def test_gained_and_lost_are_the_questions_whose_credit_changed(self):
        got = compare(make_side("a", [0, 0, 1, 1, 0.3]), make_side("b", [0, 1, 0, 1, 0.6]), 0)
        assert (got.gained, got.lost) == (("q1", "q4"), ("q2",))
        assert got.difference.value == pytest.approx(0.3 / 5)
        assert got.p_mcnemar == mcnemar(2, 1)
        credits = ([0, 0, 1, 1, 0.3], [0, 1, 0, 1, 0.6])
        assert got.p == permutation(*credits, range(5), 0)
        assert (got.before.n, got.images, got.categories) == (5, 5, {})

    def test_the_categories_add_up_to_the_whole(self, runs):
        got = compare(scored_pass(runs[0], "cof"), scored_pass(runs[2], "cof"), 0)
        assert list(got.categories) == ["existence", "color"]
        parts = got.categories.values()
        assert sum(len(part.gained) for part in parts) == len(got.gained)
        weighted = sum(part.difference.value * part.before.n for part in parts)
        assert weighted / got.before.n == pytest.approx(got.difference.value)

    def test_the_order_of_the_second_run_plays_no_part(self, runs):
        first, second = scored_pass(runs[0], "cof"), scored_pass(runs[1], "cof")
        turned = second.take(range(len(second.questions) - 1, -1, -1))
        assert compare(first, turned, 0) == compare(first, second, 0)

    def test_swapping_the_sides_turns_everything_round(self, runs):
        there = compare(scored_pass(runs[0], "cof"), scored_pass(runs[1], "cof"), 0)
        back = compare(scored_pass(runs[1], "cof"), scored_pass(runs[0], "cof"), 0)
        assert (there.gained, there.lost) == (back.lost, back.gained)
        assert there.difference.value == pytest.approx(-back.difference.value)
        assert there.difference.low == pytest.approx(-back.difference.high)

    def test_several_are_corrected_together(self, runs):
        found = compare_with_first([scored_pass(run, "cof") for run in runs], 0)
        assert [one.p_holm for one in found] == pytest.approx(holm([one.p for one in found]))
        least = min(found, key=lambda one: one.p)
        assert least.p_holm == pytest.approx(2 * least.p)
        assert [one.p for one in found] != [one.p_mcnemar for one in found]

    def test_categories_are_a_family_of_their_own(self, runs):
        got = compare(scored_pass(runs[0], "cof"), scored_pass(runs[1], "cof"), 0)
        parts = got.categories.values()
        assert [one.p_holm for one in parts] == pytest.approx(holm([one.p for one in parts]))
        rows = category_table(got).rows
        assert [row[8] for row in rows] == [None, *(one.p_holm for one in parts)]
        assert [row[7] for row in rows] == [got.p, *(one.p for one in parts)]

    def test_long_lists_are_cut_and_counted(self):
        shown = comparison_text(compare(make_side("a", [0] * 15), make_side("b", [1] * 15), 0))
        assert "gained 15: q0, q1, " in shown
        assert "q9 and 5 more (--json lists all)" in shown
        assert "lost 0: none" in shown


class TestAlign:
    def test_a_question_of_one_side_only_is_named(self):
        first, second = make_side("a", [1, 1, 1]), make_side("b", [1, 1])
        with pytest.raises(RunError, match=r"'q2' is in a but not in b \(1 such questions\)"):
            align(first, second)
        with pytest.raises(RunError, match=r"'q2' is in a but not in b .* --allow-missing"):
            align(second, first)
        assert align(first, second, allow_missing=True) == (first.take([0, 1]), second, 1)
        assert compare(second, first, 0, allow_missing=True).left_out == 1

    @pytest.mark.parametrize("seed", range(30))
    def test_every_question_that_not_both_answered_is_left_out_once(self, seed):
        """Also where both lack the same one, and where one run has a `limit`."""
        rng = random.Random(seed)
        asked = [range(12), range(rng.choice([12, 12, 9]))]
        done = [[i for i in ids if i == 0 or rng.random() < 0.7] for ids in asked]
        first, second = (
            replace(make_side(name, [1] * 12).take(ids), missing=len(whole) - len(ids))
            for name, ids, whole in zip("ab", done, asked, strict=True)
        )
        left_out = {*asked[0], *asked[1]} - (set(done[0]) & set(done[1]))
        assert compare(first, second, 0, allow_missing=True).left_out == len(left_out)
        assert compare(second, first, 0, allow_missing=True).left_out == len(left_out)

    def test_another_text_under_one_id_is_never_allowed(self):
        other = make_side("b", [1, 1], text="What?")
        with pytest.raises(RunError, match=r"'q0' is not the same .* text is '\?' in a, 'What\?'"):
            align(make_side("a", [1, 1]), other, allow_missing=True)

    def test_nothing_in_common(self):
        alone = make_side("b", [1, 1, 1]).take([2])
        with pytest.raises(RunError, match="nothing is in both"):
            align(make_side("a", [1, 1]), alone, allow_missing=True)


class TestSides:
    def test_names_are_as_long_as_they_must_be(self, runs, root, data):
        twin = make_run(root / "b", data, right_with(1, 1), "r0")
        assert folder_names(runs) == ["r0", "r1", "r2"]
        assert folder_names([runs[0], twin]) == [f"{root.name}/r0", "b/r0"]
        assert [one.name for one in scored_passes([(runs[0], "plain"), (runs[0], "cof")])] == [
            "r0 plain",
            "r0 cof",
        ]

    def test_an_unfinished_run_says_how_much_is_missing(self, root, data):
        cut = make_run(root, data, right_with(1, 1), "cut", keep=72)
        with pytest.raises(RunError, match=r"cut: 8 of 80 questions have no record yet"):
            scored_pass(cut, "cof")
        assert scored_pass(cut, "cof", allow_missing=True).missing == 8

    def test_no_plain_pass(self, root, data):
        alone = make_run(root, data, right_with(1, 1), "alone", plain=False)
        with pytest.raises(RunError, match=r"alone: was made without the plain pass"):
            scored_pass(alone, "plain")

    def test_the_hash_is_that_of_the_made_up_folder_name(self, root, data, monkeypatch):
        from fakes import StubPipeline

        from cof.config import schema
        from cof.evaluate import runner

        monkeypatch.setattr(runner, "build_pipeline", lambda settings: StubPipeline())
        made = runner.run(
            schema.resolve({"bench": {"name": "mme", "root": str(data)}, "out": str(root / "made")})
        )
        assert made.path.name.endswith(f"-{run_hash(made)}")


class TestCommand:
    def test_one_run_is_its_cof_against_its_plain(self, runs):
        done = invoke(runs[2].path)
        assert done.exit_code == 0, done.output
        assert "first: r2 plain; second: r2 cof" in done.output
        assert "over 40 images" in done.output
        assert "permutation over images: p = " in done.output
        assert "McNemar's exact test, which takes questions as independent: p = " in done.output
        assert "existence" in done.output

    def test_json_has_every_id_and_digit(self, runs):
        done = invoke(runs[0].path, runs[2].path, "--json")
        (got,) = json.loads(done.stdout)
        expected = compare(scored_pass(runs[0], "cof"), scored_pass(runs[2], "cof"), 0)
        assert got["gained"] == list(expected.gained)
        assert got["difference"]["low"] == expected.difference.low < expected.difference.value
        assert got["p"] == expected.p
        small = got["categories"]["color"]["difference"]
        assert (small["low"], small["clusters"], small["reason"]) == (None, 20, FEW)
        assert set(got["categories"]) == {"existence", "color"}

    def test_the_plain_passes_can_be_compared(self, runs):
        (got,) = json.loads(invoke(runs[0].path, runs[2].path, "--pass", "plain", "--json").stdout)
        assert got["difference"]["value"] == 0
        assert got["p"] == 1

    def test_several_runs_are_one_table(self, runs):
        done = invoke(*(run.path for run in runs))
        first, *_ = done.output.split("\n\n")
        rows = [line.split()[0] for line in first.splitlines() if line.startswith("r")]
        assert rows == ["r0", "r1", "r2"]
        assert "p (Holm)" in done.output

    def test_what_is_left_out_is_said(self, runs, root, data):
        bench = {"name": "mme", "root": str(data), "limit": 36}
        small = make_run(root, data, right_with(1, 1), "small", bench=bench)
        done = invoke(runs[0].path, small.path)
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
        assert "is in r0 cof but not in small cof (8 such questions)" in done.stderr
        allowed = invoke(runs[0].path, small.path, "--allow-missing")
        assert "left out: 8 questions without a partner" in allowed.output

    def test_no_run(self, tmp_path):
        done = invoke(tmp_path)
        assert done.exit_code == 2
        assert "not a run folder" in done.stderr
