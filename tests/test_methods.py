"""Fine stages that look again: crop and overlay, each against the same thing done by hand."""

from dataclasses import asdict, replace

import pytest
import torch
from PIL import ImageFilter
from stage_cases import BOXES, batch_of, picture, spots_of

from cof.batch import Batch
from cof.config import schema
from cof.errors import ConfigError
from cof.refine import crop, mean, overlay
from cof.regions.boxes import THINNEST, around, cut, pixels
from cof.types import Box


@pytest.fixture(scope="module")
def batch(llava):
    return batch_of(llava)


@pytest.fixture(scope="module")
def spots(batch):
    return spots_of(batch)


def boxed(corners):
    a, b, c, d = corners
    return Box(min(a, c), min(b, d), max(a, c), max(b, d))


class TestWindow:
    def test_factor_least_side_and_borders(self):
        box = Box(0.4, 0.45, 0.5, 0.5)
        assert around([box], 6).as_tuple() == pytest.approx((0.15, 0.325, 0.75, 0.625))
        assert around([box], 6, 0.6).as_tuple() == pytest.approx((0.15, 0.175, 0.75, 0.775))
        corner = around([Box(0, 0.9, 0.1, 1)], 3, 0.2)
        assert corner.as_tuple() == pytest.approx((0, 0.7, 0.3, 1))
        two = around([Box(0.1, 0.1, 0.2, 0.2), Box(0.3, 0.2, 0.4, 0.3)], 1)
        assert two.as_tuple() == pytest.approx((0.1, 0.1, 0.4, 0.3))
        assert around([box], 100) == Box(0, 0, 1, 1)

    @pytest.mark.parametrize("seed", range(3))
    def test_sides_are_as_asked_and_the_middle_moves_no_further_than_the_border(self, seed):
        draw = torch.rand(60, 10, generator=torch.Generator().manual_seed(seed)).double().tolist()
        for *corners, factor, least in draw:
            boxes = [boxed(corners[:4]), boxed(corners[4:])]
            factor = 1 + 9 * factor**2
            window = around(boxes, factor, least)
            for low, high in (("x0", "x1"), ("y0", "y1")):
                first = min(getattr(box, low) for box in boxes)
                last = max(getattr(box, high) for box in boxes)
                begin, end = getattr(window, low), getattr(window, high)
                assert end - begin == pytest.approx(min(1, max(factor * (last - first), least)))
                assert begin <= first + 1e-12
                assert end >= last - 1e-12
                off = (begin + end - first - last) / 2  # 0, or moved in from the border it touches
                assert abs(off) < 1e-9 or (begin if off > 0 else 1 - end) < 1e-9

    @pytest.mark.parametrize("size", [(1, 1), (7, 640), (333, 500)])
    def test_pixels_hold_the_box_and_no_more(self, size):
        draw = torch.rand(100, 4, generator=torch.Generator().manual_seed(0)).tolist()
        for a, b, c, d in draw:
            box = boxed((a, b, c, d))
            left, top, right, bottom = pixels(box, size)
            for low, high, edge, x0, x1 in [
                (left, right, size[0], box.x0, box.x1),
                (top, bottom, size[1], box.y0, box.y1),
            ]:
                assert 0 <= low < high <= edge
                assert low <= x0 * edge + 1e-5 < low + 1.01
                assert high >= x1 * edge - 1e-5 > high - 1.01
        assert pixels(Box(0.6, 0.2, 0.7, 0.3), (10, 10)) == (6, 2, 7, 3)  # 0.7 * 10 is above 7

    @pytest.mark.parametrize("size", [(1000, 3), (3, 1000), (1000, 500), (2, 2), (999, 1000)])
    def test_what_is_cut_out_is_never_thinner_than_the_image_or_200_to_1(self, size):
        draw = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
        draw[::3, 1::2] = 0.5 + draw[::3, 1::2] / 1e4  # flat ones, upright ones
        draw[1::3, ::2] = 0.99 + draw[1::3, ::2] / 1e4
        shown = max(THINNEST, max(size) / min(size))
        thin = 0
        for a, b, c, d in draw.double().tolist():
            box = boxed((a, b, c, d))
            left, top, right, bottom = cut(box, size)
            low, high, far, deep = pixels(box, size)
            assert 0 <= left <= low < far <= right <= size[0]
            assert 0 <= top <= high < deep <= bottom <= size[1]
            sides = sorted((right - left, bottom - top))
            assert sides[1] <= shown * sides[0]
            first, last = sorted((far - low, deep - high))
            assert last == sides[1]  # the long side is as it was, the short one as short as it may
            assert sides[0] == max(first, min(-(-last // THINNEST), min(size)))
            thin += sides[0] > first
        assert thin or max(size) <= THINNEST or min(size) < 5


class TestCrop:
    def test_it_is_the_question_asked_about_the_cut_out(self, llava, batch, spots):
        found = crop.refine(batch, spots, crop.Config(2.0, 0.3))
        for row, image in enumerate(batch.images):
            notes = dict(found[row].notes)
            if row == 1:
                assert found[1] is batch.plain[1]
                assert not notes
                continue
            window = Box(*notes["window"])
            rect = pixels(window, image.size)
            alone = Batch.of(llava, [batch.questions[row]], [image.crop(rect)], batch.limits)
            assert alone.plain[0].tokens == found[row].tokens
            assert alone.plain[0].logprobs == pytest.approx(found[row].logprobs, abs=1e-4)
            expected = {0: (0.0, 0.1, 0.3, 0.5), 2: (0.4, 0.4, 1.0, 0.8)}[row]
            for side, (ours, wanted) in enumerate(zip(window.as_tuple(), expected, strict=True)):
                assert ours == pytest.approx(wanted, abs=1 / image.size[side % 2])

    def test_batches_are_single_rows(self, batch, spots):
        found = crop.refine(batch, spots, crop.Config(2.0, 0.3))
        for row in range(3):
            part = batch.take([row])
            assert crop.refine(part, [spots[row]], crop.Config(2.0, 0.3))[0].tokens == (
                found[row].tokens
            )

    def test_a_window_of_the_whole_image_is_a_plain_look(self, batch, spots):
        before = batch.model.counters.images
        whole = crop.refine(batch, spots, crop.Config(1.0, 1.0))
        assert [one is other for one, other in zip(whole, batch.plain, strict=True)] == [True] * 3
        assert batch.model.counters.images == before

    def test_options_are_weighed_on_the_cut_out(self, llava, batch, spots):
        asked = [replace(one, options=("red", "a cup"), choose=True) for one in batch.questions]
        other = replace(batch, questions=asked)
        found = crop.refine(other, spots, crop.Config(2.0, 0.3))
        rect = pixels(Box(*found[0].notes["window"]), batch.images[0].size)
        alone = Batch.of(llava, [asked[0]], [batch.images[0].crop(rect)])
        assert found[0].text == alone.plain[0].text
        assert found[0].logprobs == pytest.approx(alone.plain[0].logprobs, abs=1e-4)


class TestOverlay:
    IMAGE = picture((50, 40), 9)
    BOX = Box(0.2, 0.25, 0.6, 0.75)
    RECT = (10, 10, 30, 30)

    def split(self, **keys):
        """Inside the box, and how many pixels outside have changed."""
        config = overlay.Config(**keys)
        drawn = overlay.overlaid(self.IMAGE, [self.BOX], config)
        assert drawn.size == self.IMAGE.size
        assert drawn.crop(self.RECT).tobytes() == self.IMAGE.crop(self.RECT).tobytes()
        return drawn

    def test_outline_is_a_frame_around_the_box(self):
        drawn = self.split(draw="outline", colour=(1, 2, 3), width=0.04)  # two pixels
        for x in range(50):
            for y in range(40):
                near = 8 <= x < 32 and 8 <= y < 32 and not (10 <= x < 30 and 10 <= y < 30)
                expected = (1, 2, 3) if near else self.IMAGE.getpixel((x, y))
                assert drawn.getpixel((x, y)) == expected

    def test_darken_takes_light_away_outside(self):
        drawn = self.split(draw="darken", dark=0.75)
        outside = self.IMAGE.getpixel((3, 3))
        assert drawn.getpixel((3, 3)) == tuple(round(value / 4) for value in outside)
        assert self.split(draw="darken", dark=0.0).tobytes() == self.IMAGE.tobytes()

    def test_blur_is_gaussian_outside(self):
        drawn = self.split(draw="blur", radius=0.04)
        soft = self.IMAGE.filter(ImageFilter.GaussianBlur(2.0))
        assert drawn.crop((0, 0, 50, 10)).tobytes() == soft.crop((0, 0, 50, 10)).tobytes()

    @pytest.mark.parametrize("draw", ["darken", "blur"])
    def test_several_regions_stay_as_they_are_pixel_by_pixel(self, draw):
        rows = torch.rand(8, 8, generator=torch.Generator().manual_seed(2)).double().tolist()
        config = overlay.Config(draw, dark=0.75, radius=0.1)
        plain = overlay.overlaid(self.IMAGE, [], config)
        assert plain.getpixel((25, 20)) != self.IMAGE.getpixel((25, 20))
        for corners in rows:
            boxes = [boxed(corners[:4]), boxed(corners[4:])]
            drawn = overlay.overlaid(self.IMAGE, boxes, config)
            for x in range(0, 50, 3):
                for y in range(0, 40, 3):
                    inside = any(
                        box.x0 * 50 < x + 1
                        and x < box.x1 * 50
                        and box.y0 * 40 < y + 1
                        and y < box.y1 * 40
                        for box in boxes
                    )
                    wanted = (self.IMAGE if inside else plain).getpixel((x, y))
                    assert drawn.getpixel((x, y)) == wanted

    def test_the_drawing_is_what_is_asked_about(self, llava, batch, spots):
        config = overlay.Config("darken", dark=1.0)
        found = overlay.refine(batch, spots, config)
        assert found[1] is batch.plain[1]
        drawn = overlay.overlaid(batch.images[2], BOXES[2], config)
        alone = Batch.of(llava, [batch.questions[2]], [drawn], batch.limits)
        assert alone.plain[0].tokens == found[2].tokens
        assert alone.plain[0].logprobs == pytest.approx(found[2].logprobs, abs=1e-4)

    @pytest.mark.parametrize("keys", [{"dark": 1.5}, {"width": -0.1}, {"colour": (0, 0, 256)}])
    def test_what_cannot_be_drawn_is_refused(self, keys):
        with pytest.raises(ValueError, match=next(iter(keys))):
            overlay.Config(**keys)


def resolve(**refine):
    return schema.resolve({"bench": {"name": "mme", "root": "."}, "refine": refine})


def test_configs_are_read_back_as_they_were():
    config = resolve(
        name="mean", first={"name": "highlight", "weight": 2}, second={"name": "crop", "window": 4}
    )
    assert config.refine == mean.Config(mean.Highlight(2.0), mean.Crop(4.0))
    assert schema.resolve(config.as_dict()).refine == config.refine
    crop = {"window": 4.0, "least": 0.6, "beside": False, "name": "crop"}
    assert asdict(config.refine)["second"] == crop
    changed = config.with_({"refine.second.window": 3, "refine.first.weight": 8.0})
    assert changed.refine == mean.Config(mean.Highlight(8.0), mean.Crop(3.0))
    assert hash(changed.refine) != hash(config.refine)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "crop", "window": 0.5}, r"refine: window=0.5 must be at least 1"),
        ({"name": "crop", "least": 2}, r"refine: .*least=2.0 from 0 to 1"),
        ({"name": "overlay", "draw": "circle"}, r"refine.draw: .*'outline', 'darken' or 'blur'"),
        ({"name": "overlay", "colour": [1, 2]}, r"refine.colour"),
        ({"name": "guided", "weight": 0}, r"refine: .*must be positive"),
        ({"name": "mean", "first": {"name": "nothing"}}, r"refine.first: .*'plain', 'highlight'"),
        ({"name": "mean", "first": {"window": 2}}, r"refine.first: .*'name'"),
        ({"name": "mean", "second": {"name": "crop", "size": 2}}, r"refine.second.crop.size"),
        ({"name": "mean", "second": {"name": "crop", "window": 0}}, r"refine.second.crop: window"),
        ({"name": "mean", "third": 1}, r"refine.third: unknown key"),
    ],
)
def test_bad_configs_are_one_line(section, said):
    with pytest.raises(ConfigError, match=said) as caught:
        resolve(**section)
    assert "\n" not in str(caught.value)
