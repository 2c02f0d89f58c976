import io

import numpy as np
import pytest
import torch
from PIL import Image

from cof.plot import draw_two_stages
from cof.regions.boxes import BoxConfig
from cof.regions.mask import focus, padded_square_cells
from cof.types import Box, Region, View

LONG = "Why is the price $5 and not $6, " * 20


def drawn(size, region, grid=(6, 6), **words):
    """The figure, and its pixels."""
    cells = padded_square_cells(grid, size)
    view = View(torch.zeros(len(cells), 1), cells, grid, size)
    seen = focus(region, view, BoxConfig(expand=1.5))
    image = Image.new("RGB", size, (200, 30, 30))
    words = {"answer": "red", **words}
    figure = draw_two_stages(image, LONG, seen, cells, boxes=region.boxes, **words)
    written = io.BytesIO()
    figure.savefig(written, dpi=60)
    return figure, np.asarray(Image.open(written).convert("RGB")).astype(int)


def red_share(pixels):
    """Share of the right half that has the image's own colour."""
    right = pixels[:, pixels.shape[1] // 2 :]
    return (np.abs(right - [200, 30, 30]).sum(-1) < 30).mean()


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (480, 640), (2000, 20), (20, 2000)])
def test_any_shape_of_image_is_drawn(size):
    region = Region((Box(0.4, 0.4, 0.6, 0.6),), "box")
    figure, pixels = drawn(size, region, plain="blue", reply="[0.4, 0.4, 0.6, 0.6]")
    assert pixels.std() > 0
    assert max(figure.get_size_inches()) < 12


def test_only_the_highlighted_tokens_keep_their_colour():
    small = red_share(drawn((300, 300), Region((Box(0.4, 0.4, 0.6, 0.6),), "box"))[1])
    large = red_share(drawn((300, 300), Region((Box(0.3, 0.3, 0.7, 0.7),), "box"))[1])
    none = red_share(drawn((300, 300), Region((), "prompt", "nothing"))[1])
    assert 0 < small < large < none


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_a_stage_that_highlights_nothing_does_not_say_so():
    region = Region((Box(0.4, 0.4, 0.6, 0.6),), "box")
    named, _ = drawn((300, 200), region, stage="mean")
    assert texts(named)[2] == "4 of 36 visual tokens in the region\nmean: red"
    assert named.axes[1].get_title(loc="left") == "2. Fine: the region, for mean"
    lit, _ = drawn((300, 200), region)
    assert texts(lit)[2] == "4 of 36 visual tokens highlighted\nCoF: red"
    assert lit.axes[1].get_title(loc="left") == "2. Fine: highlighted visual tokens"


def test_question_and_answers_are_written_and_wrapped():
    region = Region((Box(0.4, 0.4, 0.6, 0.6),), "box")
    figure, _ = drawn((300, 200), region, plain="blue $1 and $2", reply="over there")
    title, coarse, fine = texts(figure)
    assert title.count("\n") == 3
    assert title.endswith("…")
    assert coarse == "model: over there"
    assert fine.splitlines() == [
        "4 of 36 visual tokens highlighted",
        "CoF: red",
        "plain: blue $1 and $2",
    ]


def test_a_plain_pass_says_why():
    figure, _ = drawn((300, 200), Region((), "prompt", "?"), reply="I cannot find it.")
    assert texts(figure)[1] == "model: I cannot find it.\nno box found"
    figure, _ = drawn((300, 200), Region((Box(0, 0, 1, 1),), "box"))
    assert texts(figure)[1] == "the boxes cover the whole image"


def test_a_box_that_was_not_changed_is_drawn_once():
    inside, at_border = Box(0.4, 0.4, 0.6, 0.6), Box(0.0, 0.0, 1.0, 0.2)
    figure, _ = drawn((300, 200), Region((inside, at_border), "box"))
    assert len(figure.axes[0].lines) == 4  # found and expanded, both boxes
    figure, _ = drawn((300, 200), Region((Box(0, 0, 1, 1),), "box"))
    assert len(figure.axes[0].lines) == 1


def test_a_map_lies_under_the_boxes():
    """Warm tokens take the map's colour, on the left alone; the others show the image in grey."""
    region, size = Region((Box(0.4, 0.4, 0.6, 0.6),), "attention"), (300, 300)
    heat = torch.zeros(36)
    heat[:6] = 5.0  # the uppermost row
    _, bare = drawn(size, region)
    _, pixels = drawn(size, region, heat=heat)
    middle = pixels.shape[1] // 2
    assert (pixels[:, middle:] == bare[:, middle:]).all()
    dark = np.abs(pixels[:, :middle] - [135, 19, 50]).sum(-1) < 60  # of YlOrRd, the most
    rows = np.flatnonzero(dark.sum(1) > 50)
    picture = np.flatnonzero((np.abs(bare[:, 40:100] - [200, 30, 30]).sum(-1) < 30).sum(1) > 30)
    assert rows[0] <= picture[0] + 3
    assert len(rows) == pytest.approx(len(picture) / 6, abs=4)
