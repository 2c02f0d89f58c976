"""The coarse stage's measures against counting cells of a fine raster, and their summaries."""

import random

import pytest

from cof.analyse.localisation import Grounding, effect_by_hit, hit, measure, summarise
from cof.regions.boxes import iou, shared_area, union_area
from cof.types import Answer, Box, Question, Region, Result

A, B, FAR = Box(0.0, 0.0, 0.4, 0.4), Box(0.2, 0.2, 0.6, 0.6), Box(0.8, 0.8, 1.0, 1.0)
STEPS = 40


def raster(boxes):
    """Cells of a raster that lie in a box whose corners are multiples of 1 / STEPS."""
    return {
        (x, y)
        for box in boxes
        for x in range(round(box.x0 * STEPS), round(box.x1 * STEPS))
        for y in range(round(box.y0 * STEPS), round(box.y1 * STEPS))
    }


def some_boxes(rng):
    def ends():
        return sorted(value / STEPS for value in rng.sample(range(STEPS + 1), 2))

    corners = [(*ends(), *ends()) for _ in range(rng.randint(1, 4))]
    return [Box(x0, y0, x1, y1) for x0, x1, y0, y1 in corners]


def test_areas_are_those_of_a_raster():
    rng = random.Random(4)
    for _ in range(200):
        first, second = some_boxes(rng), some_boxes(rng)
        one, other = raster(first), raster(second)
        assert union_area(first) * STEPS**2 == pytest.approx(len(one))
        assert shared_area(first, second) * STEPS**2 == pytest.approx(len(one & other), abs=1e-6)
        assert iou(first, second) == pytest.approx(len(one & other) / len(one | other), abs=1e-9)


def test_no_boxes_cover_nothing():
    assert union_area([]) == 0
    assert iou([], [A]) == iou([A], []) == 0.0


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ([A], [A], True),
        ([A], [B], True),  # its centre is a corner of the other: borders count
        ([A], [FAR], False),
        ([FAR, A], [B], True),
        ([A], [FAR, B], True),
        ([], [A], False),
    ],
)
def test_a_hit_is_a_centre_inside(found, true, expected):
    assert hit(found, true) is expected


def result(number, found=(A,), true=(A,), cells=(0, 1), target=(1, 2, 3), image=None):
    asked = Question(str(number), image or f"{number}.png", "?", boxes=tuple(true))
    region = Region(tuple(found), "prompt")
    return Result(asked, region, cells=cells, tokens=16, cof=Answer("x"), target=target)


FAILED = Result(Question("f", "f.png", "?"), error="broken")


class TestMeasure:
    def test_of_one_question(self):
        got = measure(result(0, found=(A, B)))
        assert got == Grounding(2, pytest.approx(0.28), 2 / 16, True, pytest.approx(4 / 7), 1 / 3)

    def test_without_truth_and_without_an_answer(self):
        got = measure(result(0, true=(), target=()))
        assert (got.hit, got.iou, got.recall) == (None, None, None)
        assert got.boxes == 1
        assert measure(FAILED) is None

    def test_no_box_is_a_miss(self):
        got = measure(result(0, found=(), cells=()))
        assert (got.boxes, got.hit, got.iou, got.recall) == (0, False, 0.0, 0.0)


def test_means_are_over_the_questions_that_have_them():
    rows = [result(0), result(1, found=()), result(2, true=(), target=()), FAILED]
    got = summarise(rows)
    assert {name: one.n for name, one in got.items()} == {
        **dict.fromkeys(("parsed", "boxes", "area", "lit"), 3),
        **dict.fromkeys(("hit", "iou", "recall"), 2),
    }
    assert got["parsed"].value == pytest.approx(2 / 3)
    assert got["hit"].value == 0.5
    assert "hit" not in summarise([result(0, true=(), target=())])


def test_the_effect_is_split_by_the_region():
    rows = [result(0), result(1), result(2, found=(FAR,)), result(3, true=(), target=()), FAILED]
    got = effect_by_hit(rows, [0, 1, 1, 0, 0], [1, 1, 0, 0, 0], seed=0)
    assert {name: (one.estimate.value, one.estimate.n, one.p) for name, one in got.items()} == {
        "hit": (0.5, 2, 1.0),
        "miss": (-1.0, 1, 1.0),
        "no true box": (0.0, 1, 1.0),
    }
