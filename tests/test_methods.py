"""Fine stages that look again: crop, overlay, mean, each against the same thing done by hand."""

from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image, ImageFilter

from cof.batch import Batch
from cof.config import schema
from cof.errors import ConfigError
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import crop, highlight, mean, overlay, plain
from cof.refine.base import Look
from cof.regions.boxes import THINNEST, BoxConfig, around, cut, pixels
from cof.regions.mask import focus
from cof.types import Box, Question, Region

TEXTS = ["What is it?", "Where is the red cup, and what is beside it?", "Is it?"]
BOXES = [(Box(0.1, 0.2, 0.2, 0.4),), (), (Box(0.6, 0.6, 0.7, 0.7), Box(0.8, 0.5, 0.9, 0.6))]


def picture(size, seed):
    noise = torch.randint(0, 256, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy()).filter(ImageFilter.GaussianBlur(3))


@pytest.fixture(scope="module")
def batch(llava):
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    sizes = [(90, 60), (40, 70), (64, 64)]
    return Batch.of(llava, asked, [picture(size, i) for i, size in enumerate(sizes)], Limits(5))


@pytest.fixture(scope="module")
def spots(batch):
    return spots_of(batch)


def spots_of(batch):
    regions = [Region(boxes, "test") for boxes in BOXES]
    return [focus(one, view, BoxConfig()) for one, view in zip(regions, batch.views, strict=True)]


def tokens(answers):
    return [one.tokens for one in answers]


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


def logits_of(llava, batch, row, look, said):
    """Next-token logits of one row's look behind given tokens: nothing cached, nothing shared."""
    from cof.refine.base import light

    encoded, lit = light(batch.take([row]), [look])
    embeds = llava.embeds(encoded)
    more = llava.network.get_input_embeddings()(torch.tensor([said]).long())
    if lit is not None:  # nothing of the reply is lit, all of it sees
        behind = torch.zeros(1, len(said))
        seen = lit.queries
        lit = replace(
            lit,
            bias=torch.cat([lit.bias, behind], 1),
            queries=None if seen is None else torch.cat([seen, behind == 0], 1),
        )
    with llava.highlighted(lit):
        hidden = llava.decoder(inputs_embeds=torch.cat([embeds, more], 1), use_cache=False)
    return llava.network.lm_head(hidden.last_hidden_state)[0, -1].float()


PAIRS = [
    (mean.Plain(), mean.Crop(2.0, 0.3)),
    (mean.Highlight(20.0), mean.Crop(2.0, 0.3)),
    (mean.Highlight(20.0, "text", (1, 2), perturb=0.5), mean.Overlay("darken", dark=1.0)),
    (mean.Highlight(20.0), mean.Highlight(0.1, "text")),
]


class TestMean:
    @torch.inference_mode()
    @pytest.mark.parametrize("parts", PAIRS)
    def test_tokens_are_the_best_of_the_mean_by_hand(self, llava, batch, spots, parts):
        config = mean.Config(*parts)
        found = mean.refine(batch, spots, config)
        assert found[1] == batch.plain[1]
        looks = [mean.stage_of(part).prepare(batch, spots, part) for part in parts]
        for row in (0, 2):
            said, logprobs = [], []
            for token in found[row].tokens:
                both = [logits_of(llava, batch, row, one[row], said) for one in looks]
                scores = sum(one.log_softmax(-1) for one in both) / 2
                assert int(scores.argmax()) == token
                said.append(token)
                logprobs.append(float(scores.log_softmax(-1)[token]))
            assert found[row].logprobs == pytest.approx(logprobs, abs=1e-3)
            alone = mean.refine(batch.take([row]), [spots[row]], config)
            assert tokens(alone) == [found[row].tokens]

    def test_of_a_stage_and_itself_it_is_that_stage(self, batch, spots):
        for part, stage in [
            (mean.Plain(), plain),
            (mean.Highlight(20.0), highlight),
        ]:
            found = mean.refine(batch, spots, mean.Config(part, part))
            assert tokens(found) == tokens(stage.refine(batch, spots, part))
        drawn = mean.Config(mean.Crop(2.0, 0.3), mean.Crop(2.0, 0.3))  # two cuts of one window
        assert tokens(mean.refine(batch, spots, drawn)) == tokens(
            crop.refine(batch, spots, drawn.first)
        )

    def test_it_says_what_its_parts_say(self, batch, spots):
        found = mean.refine(batch, spots, mean.Config())
        assert found[0].notes.keys() == {"window"}
        assert not found[1].notes

    def test_options_are_weighed_by_the_mean_of_the_losses(self, batch, spots):
        asked = [
            replace(one, options=("red", "a cup", "four"), choose=True) for one in batch.questions
        ]
        other = replace(batch, questions=asked)
        found = mean.refine(other, spots, mean.Config(mean.Highlight(50.0), mean.Crop(2.0, 0.3)))
        parts = [
            stage.prepare(other, spots, part)
            for stage, part in [(highlight, highlight.Config(50.0)), (crop, crop.Config(2.0, 0.3))]
        ]
        from cof.refine.base import light

        for row in (0, 2):
            losses = []
            for looks in parts:
                one = other.take([row])
                encoded, lit = light(one, [looks[row]])
                with one.model.highlighted(lit):
                    [weighed] = one.weigh(encoded)
                losses.append([-sum(a.logprobs) / len(a.logprobs) for a in weighed])
            means = [(a + b) / 2 for a, b in zip(*losses, strict=True)]
            assert found[row].text == asked[row].options[means.index(min(means))]
            loss = -sum(found[row].logprobs) / len(found[row].logprobs)
            assert loss == pytest.approx(min(means), abs=1e-4)

    def test_a_pair_fails_as_a_whole_and_alone(self, batch, spots):
        asked = [replace(batch.questions[0], text="what is <image>?"), *batch.questions[1:]]
        config = mean.Config(second=mean.Crop(2.0, 0.3))
        found = mean.refine(replace(batch, questions=asked), spots, config)
        assert "<image>" in found[0].error
        assert not found[0].notes
        assert found[2].tokens == mean.refine(batch, spots, config)[2].tokens

    def test_any_stage_that_prepares_can_be_a_part(self, batch, spots):
        bare = mean.Config(plain.Config(), crop.Config(2.0, 0.3))
        named = mean.Config(mean.Plain(), mean.Crop(2.0, 0.3))
        assert tokens(mean.refine(batch, spots, bare)) == tokens(mean.refine(batch, spots, named))
        with pytest.raises(ConfigError, match="has no prepare"):
            mean.refine(batch, spots, mean.Config(mean.Config(), plain.Config()))

    def test_beams_and_sampling_and_layers_that_differ_are_refused(self, llava):
        with pytest.raises(ConfigError, match=r"refine.name=mean needs limits"):
            CoF(llava, Settings(refine=mean.Config(), limits=Limits(num_beams=2)))
        with pytest.raises(ConfigError, match=r"layers \[9\]"):
            CoF(llava, Settings(refine=mean.Config(mean.Highlight(layers=(9,)))))
        with pytest.raises(ValueError, match="different layers or heads"):
            mean.Config(mean.Highlight(layers=(1,)), mean.Highlight(2.0))


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


def test_looks_that_ask_the_same(batch):
    view, other = batch.views[0], batch.views[2]
    some, none = torch.zeros(576, dtype=torch.bool), torch.zeros(576, dtype=torch.bool)
    some[5] = True
    assert Look(view).same(Look(view, some)) is True  # weight 1 lights nothing
    assert Look(view).same(Look(view, none, 4.5)) is True
    assert Look(view).same(Look(other)) is False
    assert Look(view).same(Look(view, some, 4.5)) is False
    assert Look(view, some, 4.5).same(Look(view, some.clone(), 4.5)) is True
    assert Look(view, some, 4.5).same(Look(view, ~some, 4.5)) is False
    assert Look(view, some, 4.5).same(Look(view, some, 4.5, "text")) is False


@pytest.mark.parametrize("stage", [crop.Config(2.0, 0.3), overlay.Config(), mean.Config()])
def test_several_settings_share_a_batch(llava, batch, stage):
    """As in a sweep: each variant's answers are what it gives alone."""
    from cof.locate import oracle

    asked = [replace(one, boxes=boxes) for one, boxes in zip(batch.questions, BOXES, strict=True)]
    variants = [
        Settings(oracle.Config(), refine=one, limits=Limits(4))
        for one in (highlight.Config(20.0), stage, plain.Config())
    ]
    pipeline = CoF(llava, variants[0])
    together = pipeline.answer_many(asked, batch.images, variants)
    for settings, results in zip(variants, together, strict=True):
        alone = CoF(llava, settings).answer_batch(asked, batch.images)
        assert [one.cof.tokens for one in alone] == [one.cof.tokens for one in results]
