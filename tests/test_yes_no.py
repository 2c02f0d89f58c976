"""What reports say of yes-or-no answers, counted by hand."""

import math
from dataclasses import replace

import pytest
from click.testing import CliRunner
from fake_runs import TRUE, make_run, right_with
from fakes import make_mme

from cof.analyse import yes_no
from cof.analyse.report import ReportOptions, write_report
from cof.cli import main
from cof.refine.guided import SURE
from cof.types import Answer, Box, Question, Region, Result

BOX = Box(0.1, 0.1, 0.2, 0.2)

ROWS = (
    # image, reference, true box, found box, plain (text, c), CoF (text, c)
    ("0", "Yes", True, True, ("Yes", 0.9), ("Yes", 0.95)),
    ("0", "No", False, True, ("No", 0.8), ("Yes", 0.6)),
    ("1", "Yes", True, True, ("No", 0.7), ("No", 0.55)),
    ("1", "No", False, False, ("No", 0.85), ("No", 0.85)),
    ("2", "Yes", True, True, ("Yes", 0.75), ("Yes", 0.8)),
    ("2", "No", True, True, ("Yes", 0.65), ("Yes", 0.9)),
)
"""Three images, a yes- and a no-question each; two of the no-questions are about absent things."""


def answer(said, c, logprobs=True):
    return Answer(said, (1, 2), logprobs=(math.log(c), -0.01) if logprobs else ())


def results(logprobs=True):
    for number, (image, reference, there, found, plain, cof) in enumerate(ROWS):
        question = Question(
            f"existence/{image}.png#{number % 2 + 1}",
            f"existence/{image}.png",
            "?",
            "existence",
            reference,
            (BOX,) if there else (),
        )
        yield Result(
            question,
            Region((BOX,) if found else (), "prompt"),
            tokens=16,
            plain=answer(*plain, logprobs),
            cof=answer(*cof, logprobs),
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("yes_no")
    return make_run(root / "runs", make_mme(root / "mme", 2), right_with(0.5, 0.5))


@pytest.fixture(scope="module")
def run(base):
    return replace(base, results=list(results()))


def tables(*runs):
    found, notes = yes_no.tables(runs, [f"r{number}" for number in range(len(runs))])
    assert not notes
    return found


def by_head(table):
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def value(cell):
    return None if cell is None else (round(cell.estimate.value, 4), cell.estimate.n)


def test_answers_by_hand(run):
    answers, _ = tables(run)
    plain, cof = by_head(answers)
    assert [plain["answers"], cof["answers"]] == ["plain", "CoF"]
    assert (value(plain["Yes, %"]), value(cof["Yes, %"])) == ((50, 6), (66.6667, 6))
    right = "right where Yes, %", "right where No, %"
    assert [value(plain[key]) for key in right] == [(66.6667, 3), (66.6667, 3)]
    assert [value(cof[key]) for key in right] == [(66.6667, 3), (33.3333, 3)]
    assert value(cof["absent with a box, %"]) == (50, 2)
    assert value(plain["right on these, %"]) == (100, 1)
    assert value(cof["right on these, %"]) == (0, 1)


def test_confidence_by_hand(run):
    _, confidence = tables(run)
    plain, cof = by_head(confidence)
    given = (0.9, 0.8, 1 - 0.7, 0.85, 0.75, 1 - 0.65)  # to the true answer
    loss = -sum(map(math.log, given)) / 6
    assert value(plain["log loss"]) == (pytest.approx(loss, abs=1e-4), 6)
    given = (0.95, 1 - 0.6, 1 - 0.55, 0.85, 0.8, 1 - 0.9)
    loss = -sum(map(math.log, given)) / 6
    assert value(cof["log loss"]) == (pytest.approx(loss, abs=1e-4), 6)
    # plain, by bin: .9 right; .8 and .85 right; .7 wrong and .75 right; .65 wrong
    gap = (0.1 + abs(1.65 - 2) + abs(1.45 - 1) + 0.65) / 6
    assert plain["ECE, points"] == f"{100 * gap:.1f}"
    # yes-scores, plain: .9 > .2, .3 > .15, .75 > .65; CoF: .95 > .6, .45 > .15, .8 < .9
    key = "pairs in order, %"
    assert (value(plain[key]), value(cof[key])) == ((100, 3), (66.6667, 3))


def test_a_shift_to_yes_moves_the_accuracy_and_not_the_order(run):
    moved = []
    for one in run.results:
        c, yes = math.exp(one.plain.logprobs[0]), one.plain.text == "Yes"
        odds = (1 if yes else -1) * math.log(c / (1 - c)) + 2.5
        word = "Yes" if odds > 0 else "No"
        moved.append(replace(one, cof=answer(word, 1 / (1 + math.exp(-abs(odds))))))
    answers, confidence = map(by_head, tables(replace(run, results=moved)))
    assert value(answers[1]["Yes, %"])[0] == 100
    assert value(answers[1]["right where No, %"])[0] == 0
    assert value(confidence[0]["pairs in order, %"]) == value(confidence[1]["pairs in order, %"])


def test_a_tie_is_half_and_an_answer_that_is_neither_is_in_no_pair(run):
    same = [replace(one, cof=answer("Yes", 0.7)) for one in run.results]
    same[0] = replace(same[0], cof=answer("a cup", 0.7))
    _, confidence = tables(replace(run, results=same))
    assert value(by_head(confidence)[1]["pairs in order, %"]) == (50, 2)


def test_what_was_not_recorded_is_no_number(base):
    run = replace(base, results=list(results(logprobs=False)))
    [answers], [note] = yes_no.tables([run], ["r"])
    assert value(by_head(answers)[0]["Yes, %"]) == (50, 6)
    assert note == "Log loss, calibration, order of pairs: not recorded."
    half = [replace(one, cof=answer("Yes", 0.7)) for one in run.results]
    _, confidence = tables(replace(run, results=half))
    plain, cof = by_head(confidence)
    assert [*plain.values()][2:] == ["not recorded"] * 3
    assert cof["ECE, points"] == "20.0"


def test_log_probabilities_of_older_guided_runs_say_nothing(run):
    guided = replace(run, config={**run.config, "refine": {"name": "guided", "log": False}})
    _, confidence = tables(guided)
    plain, cof = by_head(confidence)
    assert plain == by_head(tables(run)[1])[0]
    assert [*cof.values()][2:] == ["not recorded"] * 3
    said = [replace(one.cof, notes=SURE) for one in run.results]
    pairs = zip(run.results, said, strict=True)
    marked = replace(guided, results=[replace(one, cof=cof) for one, cof in pairs])
    assert by_head(tables(marked)[1]) == by_head(tables(run)[1])
    log = replace(run, config={**run.config, "refine": {"name": "guided", "log": True}})
    assert by_head(tables(log)[1]) == by_head(tables(run)[1])


def test_without_any_true_box_nothing_is_called_absent(base):
    bare = [replace(one, question=replace(one.question, boxes=())) for one in results()]
    answers, _ = tables(replace(base, results=bare))
    assert by_head(answers)[1]["absent with a box, %"] is None


def test_failed_answers_are_wrong_and_neither_yes_nor_no(run):
    failed = [
        replace(one, cof=None) if number == 0 else one for number, one in enumerate(run.results)
    ]
    answers, _ = tables(replace(run, results=failed))
    cof = by_head(answers)[1]
    assert (value(cof["Yes, %"]), value(cof["right where Yes, %"])) == ((50, 6), (33.3333, 3))


def test_plain_answers_that_are_the_same_stand_once(run):
    answers, _ = tables(run, run)
    assert [row[:2] for row in answers.rows] == [("r0", "plain"), ("r0", "CoF"), ("r1", "CoF")]


def test_ece_of_a_perfectly_calibrated_reader_is_nought():
    import numpy as np

    right = np.array([True] * 7 + [False] * 3)
    assert yes_no.calibration(right, np.full(10, 0.7)) == pytest.approx(0, abs=1e-12)
    assert yes_no.calibration(right, np.full(10, 0.95)) == pytest.approx(0.25)
    assert yes_no.calibration(right, np.full(10, math.nan)) is None


def test_an_oracle_is_said_to_leak_and_others_are_not(run):
    assert yes_no.leaks([run], ["own"]) == []
    config = {**run.config, "locate": {"name": "oracle"}}
    [note] = yes_no.leaks([replace(run, config=config)], ["true"])
    assert note.startswith("true: 2 of the 2 questions without a true box have the answer No")


def test_report_and_compare_have_them(base, tmp_path):
    write_report([base], tmp_path, ReportOptions(gallery=0))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    said = CliRunner().invoke(main, ["compare", str(base.path)]).output
    for text in (page, said):
        assert "right where No, %" in text
        assert "not recorded" in text
    json = CliRunner().invoke(main, ["compare", str(base.path), "--json"]).output
    assert json.startswith("[")
    assert base.results[0].question.boxes == (TRUE,)
