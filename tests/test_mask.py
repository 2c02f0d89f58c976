import math

import mask_cases
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cof.errors import ConfigError
from cof.regions.boxes import BoxConfig
from cof.regions.mask import (
    centre_crop_cells,
    focus,
    key_bias,
    padded_square_cells,
    reference_mask,
    token_mask,
)
from cof.regions.parse import parse_reference
from cof.types import Box, Region, View

SIZES = [(1, 1), (10, 7), (7, 10), (640, 427), (336, 335), (1500, 300), (123, 257), (3, 2000)]
GRIDS = [(1, 1), (2, 3), (24, 24), (16, 9)]

decimal = st.integers(0, 100).map(lambda value: value / 100)
small_sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))
small_grids = st.tuples(st.integers(1, 8), st.integers(1, 8))


def view(size=(640, 480), grid=(6, 8), cells=None):
    cells = padded_square_cells(grid, size) if cells is None else cells
    return View(torch.zeros(len(cells), 2), cells, grid, size)


def two_decimal_box(numbers):
    """Four hundredths as a Box with area."""
    x0, x1 = sorted(numbers[:2])
    y0, y1 = sorted(numbers[2:])
    x0, x1 = (x0, x1) if x0 < x1 else (max(x0 - 0.01, 0), x0 + 0.01 * (x0 == 0))
    y0, y1 = (y0, y1) if y0 < y1 else (max(y0 - 0.01, 0), y0 + 0.01 * (y0 == 0))
    return Box(round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2))


# --- cells ---


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", GRIDS)
def test_padded_square_cells_are_the_exact_rectangles(size, grid):
    cells = padded_square_cells(grid, size)
    rows, columns = grid
    exact = [
        [float(v) for v in oracles.padded_cell(row, column, grid, size)]
        for row in range(rows)
        for column in range(columns)
    ]
    assert cells.dtype == torch.float64
    torch.testing.assert_close(cells, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (10, 7), (640, 427), (300, 700), (1500, 300)])
@pytest.mark.parametrize("pixels", [336, 97])
def test_centre_crop_cells_are_the_exact_rectangles(size, pixels):
    grid = (3, 4)
    cells = centre_crop_cells(grid, size, pixels)
    exact = [
        [float(v) for v in oracles.cropped_cell(row, column, grid, size, pixels)]
        for row in range(3)
        for column in range(4)
    ]
    torch.testing.assert_close(cells, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-12)
    ideal = centre_crop_cells(grid, size)
    assert (cells - ideal).abs().max() <= 1.5 / pixels
    assert cells.min() >= 0
    assert cells.max() <= 1


def test_cells_of_the_padded_square_leave_the_image_where_it_is_padded():
    cells = padded_square_cells((4, 4), (100, 50))
    assert token_mask([Box(0, 0, 1, 1)], cells).view(4, 4).tolist() == [
        [False] * 4,
        [True] * 4,
        [True] * 4,
        [False] * 4,
    ]


# --- box -> mask ---


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(decimal, decimal, decimal, decimal).map(two_decimal_box), max_size=3),
    small_grids,
    small_sizes,
)
def test_mask_is_every_cell_that_shares_area(boxes, grid, size):
    mask = token_mask(boxes, padded_square_cells(grid, size))
    expected = [
        any(
            oracles.shares_area(
                [oracles.exact(v) for v in box.as_tuple()],
                oracles.padded_cell(row, column, grid, size),
            )
            for box in boxes
        )
        for row in range(grid[0])
        for column in range(grid[1])
    ]
    assert mask.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grid", [3, 7, 10, 23, 24, 25, 48, 64])
@pytest.mark.parametrize("size", [(100, 100), (640, 427), (333, 1000)])
def test_a_box_on_cell_borders_does_not_light_the_neighbours(grid, size, dtype):
    cells = padded_square_cells((grid, grid), size)
    inside = [i for i, cell in enumerate(cells.tolist()) if min(cell) >= 0 and max(cell) <= 1]
    for index in inside[:: max(1, len(inside) // 20)]:
        mask = token_mask([Box(*cells[index].tolist())], cells.to(dtype))
        assert mask.nonzero().flatten().tolist() == [index]


def test_a_box_far_smaller_than_a_cell_lights_it():
    mask = token_mask([Box(0.3, 0.3, 0.3 + 1e-9, 0.3 + 1e-9)], padded_square_cells((2, 2), (9, 9)))
    assert mask.tolist() == [True, False, False, False]


def test_a_little_more_than_a_cell_lights_the_neighbour():
    mask = token_mask([Box(0.0, 0.0, 0.5001, 0.5)], padded_square_cells((2, 2), (9, 9)))
    assert mask.tolist() == [True, True, False, False]


def test_no_boxes_light_nothing():
    assert token_mask([], padded_square_cells((3, 3), (5, 5))).tolist() == [False] * 9


# --- the published rule ---


@pytest.mark.parametrize("source", [mask_cases.copied, mask_cases.original])
def test_reference_masks_equal_the_recorded_ones(source):
    cases = source()
    if cases is None:
        pytest.skip("../shared/golden is absent")
    rows, grids = cases
    assert len(rows) == 600
    for grid, (first, masks) in grids.items():
        for row, recorded in zip(rows[first : first + len(masks)], masks, strict=True):
            quad = parse_reference(row["raw"])
            mask = reference_mask(quad, grid, row["expansion_rate"], row["square_bbox"])
            if row["error"]:  # the published code crashed: ours lights all, as for no box
                assert mask.all(), row
            else:
                assert mask.view(grid).tolist() == recorded.tolist(), row


def test_reference_mask_lights_all_where_nothing_was_parsed():
    assert reference_mask(None, (3, 5), 1.0, True).tolist() == [True] * 15


@pytest.mark.parametrize("digits", [20, 200, 307, 308, 309, 400])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("sign", ["", "-"])
def test_reference_mask_takes_numbers_of_any_size(digits, place, sign):
    numbers = ["0.1", "0.2", "0.3", "0.4"]
    numbers[place] = f"{sign}{'9' * digits}.0"
    quad = parse_reference(f"[{', '.join(numbers)}]")
    for to_square in (False, True):
        assert reference_mask(quad, (3, 5), 1.0, to_square).shape == (15,)


# --- region -> focus ---


def lit(region, config, **shape):
    out = focus(region, view(**shape), config)
    return out.status, int(out.mask.sum())


def test_clean_focus():
    clean = BoxConfig()
    box = Region((Box(0.0, 0.0, 0.5, 0.5),), "box")
    assert lit(box, clean, size=(400, 400), grid=(4, 4)) == ("boxes", 4)
    assert lit(Region((), "prompt", "nothing"), clean) == ("no_box", 0)
    whole = Region((Box(0.01, 0.01, 0.99, 0.99),), "box")
    assert lit(whole, clean, size=(400, 200), grid=(4, 4)) == ("whole", 0)
    outside = torch.tensor([[-1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.2, 1.0]])
    right = Region((Box(0.5, 0.5, 0.6, 0.6),), "box")
    assert lit(right, clean, cells=outside) == ("empty", 0)


def test_clean_focus_squares_then_expands_and_says_so():
    region = Region((Box(0.4, 0.45, 0.6, 0.55),), "box")
    out = focus(region, view((100, 100)), BoxConfig(expand=2.0, square=True))
    assert out.boxes[0].as_tuple() == pytest.approx((0.3, 0.3, 0.7, 0.7))


def test_clean_focus_takes_every_box():
    region = Region((Box(0, 0, 0.1, 0.1), Box(0.9, 0.9, 1, 1)), "prompt", "[...]")
    assert lit(region, BoxConfig(), size=(400, 400), grid=(4, 4)) == ("boxes", 2)


def test_reference_focus_reads_the_reply_and_not_the_boxes():
    region = Region((Box(0.8, 0.8, 1, 1),), "prompt", "[0.25, 0.25, 0.50, 0.50]", "padded_square")
    out = focus(region, view((336, 336), (24, 24)), BoxConfig("reference", square=True))
    expected = reference_mask((0.25, 0.25, 0.5, 0.5), (24, 24), 1.0, True)
    assert out.mask.tolist() == expected.tolist()
    assert int(out.mask.sum()) == 49  # golden case p01
    assert out.status == "boxes"
    assert out.boxes[0].as_tuple() == pytest.approx((0.25, 0.25, 0.5, 0.5))


def test_reference_focus_takes_a_given_box_in_the_padded_square():
    region = Region((Box(0.1, 0.0, 0.3, 1.0),), "oracle")
    out = focus(region, view((200, 100), (24, 24)), BoxConfig("reference"))
    assert out.mask.tolist() == reference_mask((0.1, 0.25, 0.3, 0.75), (24, 24), 1, False).tolist()


def test_reference_focus_takes_a_given_box_in_the_frame_that_the_grid_covers():
    cells = centre_crop_cells((24, 24), (400, 100))
    seen = View(torch.zeros(576, 2), cells, (24, 24), (400, 100))
    region = Region((Box(0.4, 0.1, 0.5, 0.9),), "oracle")  # the crop is 0.375 to 0.625
    out = focus(region, seen, BoxConfig("reference"))
    assert out.mask.tolist() == reference_mask((0.1, 0.1, 0.5, 0.9), (24, 24), 1, False).tolist()
    assert out.boxes[0].x0 == pytest.approx(0.375)


def test_reference_focus_falls_back_as_published():
    reference = BoxConfig("reference")
    infinite = f"[{'9' * 320}.0, 0.1, 0.2, 0.3]"
    assert lit(Region((), "prompt", "no box"), reference) == ("no_box", 48)
    assert lit(Region((), "prompt", ""), reference) == ("no_box", 48)
    assert lit(Region((), "prompt", infinite), reference) == ("no_box", 48)
    assert lit(Region((), "prompt", "[0.9, 0.9, 0.1, 0.1]"), reference) == ("empty", 0)
    assert lit(Region((), "prompt", "[0.0, 0.0, 1.0, 1.0]"), reference) == ("whole", 48)


def test_reference_rules_need_a_grid():
    gridless = View(torch.zeros(2, 2), torch.rand(2, 4), None, (10, 10))
    with pytest.raises(ConfigError, match=r"boxes\.rules=clean"):
        focus(Region((), "prompt", "x"), gridless, BoxConfig("reference"))


@pytest.mark.parametrize("rules", ["clean", "reference"])
def test_everything_lights_everything(rules):
    assert lit(Region((), "whole", everything=True), BoxConfig(rules)) == ("whole", 48)


# --- mask -> bias ---


def test_key_bias_is_log_weight_at_the_highlighted_positions_only():
    masks = [torch.tensor([True, False, True]), torch.tensor([False, True])]
    visual = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    bias = key_bias(masks, visual, 6, [4.5, 0.5])
    assert bias.dtype == torch.float32
    expected = [[0, math.log(4.5), 0, math.log(4.5), 0, 0], [0, 0, 0, 0, 0, math.log(0.5)]]
    torch.testing.assert_close(bias, torch.tensor(expected))


def test_weight_one_is_no_bias():
    bias = key_bias([torch.ones(3, dtype=torch.bool)], [torch.arange(3)], 5, [1.0])
    assert bias.tolist() == [[0.0] * 5]


@pytest.mark.parametrize("weight", [0.0, -2.0, math.inf, math.nan])
def test_key_bias_refuses_illegal_weights(weight):
    with pytest.raises(ValueError, match=rf"positive and finite, got {weight}"):
        key_bias([torch.ones(1, dtype=torch.bool)], [torch.arange(1)], 2, [weight])


def test_key_bias_refuses_a_mask_of_the_wrong_length():
    masks = [torch.ones(2, dtype=torch.bool), torch.ones(3, dtype=torch.bool)]
    with pytest.raises(ValueError, match="row 1 has 3 tokens, but the image has 2"):
        key_bias(masks, [torch.arange(2)] * 2, 4, [2.0, 2.0])
