"""Coarse stages that look: attention maps, heat maps to boxes, boxes asked for again on crops."""

import json
import re
from dataclasses import replace

import pytest
import torch
from fakes import StubModel
from PIL import Image
from stage_cases import TEXTS, resized_batch_of

from cof.batch import Batch
from cof.config import schema
from cof.errors import ConfigError
from cof.locate import attention, iterate, prompt
from cof.models.base import Limits
from cof.models.common.recording import record_attention
from cof.pipeline import CoF, Settings
from cof.regions.heat import heat_of, hottest, packed, unpacked
from cof.regions.mask import grid_cells, padded_square_cells
from cof.types import NOWHERE, Answer, Box, Question, Region, View


@pytest.fixture(scope="module")
def batch(llava):
    return resized_batch_of(llava, 3)


def view_of(grid, size=(100, 100), cells=None):
    given = padded_square_cells(grid, size) if cells is None else cells
    return View(torch.zeros(len(given), 1), given, grid if cells is None else None, size)


class TestHeat:
    def test_the_patch_about_the_peak(self):
        heat = torch.tensor(
            [[0.0, 0.0, 0, 0, 6], [0, 6.0, 0, 0, 0], [0, 0, 9, 0.0, 0], [4, 0, 5, 0, 0]]
        )
        view = view_of((4, 5), cells=grid_cells((4, 5), (0, 0, 1, 1)))
        found = hottest(heat.flatten(), view, 0.5)  # 6 in the corner is warm, but elsewhere
        assert found.as_tuple() == pytest.approx((0.2, 0.25, 0.6, 1.0))
        alone = hottest(heat.flatten(), view, 1.0)
        assert alone.as_tuple() == pytest.approx((0.4, 0.5, 0.6, 0.75))
        everything = hottest(torch.ones(20), view, 0.5)
        assert everything.as_tuple() == pytest.approx((0, 0, 1, 1))

    def test_padding_and_tokens_without_a_place_are_passed_over(self):
        view = view_of((4, 4), size=(100, 50))  # rows 0 and 3 are padding
        heat = torch.zeros(16)
        heat[2], heat[6] = 9.0, 3.0
        assert hottest(heat, view, 0.1).as_tuple() == pytest.approx((0.5, 0.0, 0.75, 0.5))
        heat[6] = 0.0
        assert hottest(heat, view, 0.1) is None
        cells = torch.tensor([NOWHERE, (0.0, 0.0, 0.5, 1.0)])
        assert hottest(torch.tensor([5.0, 1.0]), view_of(None, cells=cells), 0.5) == (
            Box(0, 0, 0.5, 1)
        )

    def test_a_map_comes_back_from_a_record(self):
        heat = torch.rand(576, generator=torch.Generator().manual_seed(0)) * 7
        kept = packed(heat, view_of((24, 24)))
        assert json.loads(json.dumps(kept)) == kept
        assert kept["grid"] == [24, 24]
        assert (unpacked(kept) - heat).abs().max() <= heat.max() / 509
        assert unpacked(packed(torch.zeros(9), view_of((3, 3)))).tolist() == [0.0] * 9
        region = Region((), "attention", notes={"map": kept})
        assert torch.equal(heat_of(region), unpacked(kept))
        for other in ({}, {"map": "of the city"}, {"map": {"grid": None}}):
            assert heat_of(replace(region, notes=other)) is None


class TestAttention:
    @torch.inference_mode()
    @pytest.mark.parametrize("over", ["", "Describe it."])
    def test_it_is_the_attention_of_the_last_position(self, llava, batch, over):
        config = attention.Config(over, layers=(1, 3), heads=(0, 2), threshold=0.6, keep_map=True)
        regions = attention.locate(batch, config)
        for row, region in enumerate(regions):
            maps = []
            for text in [batch.questions[row].text, over] if over else [batch.questions[row].text]:
                encoded = llava.encode([batch.views[row]], [text])
                with record_attention() as found:  # nothing shared, nothing decoded
                    llava.decoder(inputs_embeds=encoded.inputs["inputs_embeds"], use_cache=False)
                both = [found[layer][0, [0, 2]].mean(0)[encoded.visual[0]] for layer in (1, 3)]
                maps.append(torch.stack(both))
            heat = (maps[0] / maps[1] if over else maps[0]).mean(0)
            cells = batch.views[row].cells
            within = ((cells[:, :2] < 1) & (cells[:, 2:] > 0)).all(1)
            heat = heat * within
            kept = unpacked(region.notes["map"])
            assert (kept - heat).abs().max() < heat.max() / 400
            (box,) = region.boxes
            middle = cells[int(heat.argmax())]
            x, y = (middle[0] + middle[2]) / 2, (middle[1] + middle[3]) / 2
            assert box.x0 <= x <= box.x1
            assert box.y0 <= y <= box.y1
            assert box == hottest(heat, batch.views[row], 0.6)

    def test_a_highlight_around_it_does_not_count(self, llava, batch):
        from cof.regions.bias import Highlight

        plain = attention.locate(batch, attention.Config(keep_map=True))
        bias = torch.zeros(3, batch.encode().keys)
        bias[:, 40:100] = 5.0
        with llava.highlighted(Highlight(bias)):
            lit = attention.locate(batch, attention.Config(keep_map=True))
        assert [one.boxes for one in lit] == [one.boxes for one in plain]
        assert [one.notes for one in lit] == [one.notes for one in plain]

    def test_a_question_that_cannot_be_asked_fails_alone(self, batch):
        asked = [replace(batch.questions[0], text="what is <image>?"), *batch.questions[1:]]
        first, *others = attention.locate(replace(batch, questions=asked), attention.Config())
        assert "<image>" in first.error
        assert not first.boxes
        expected = attention.locate(batch, attention.Config())[1:]
        assert [one.boxes for one in others] == [one.boxes for one in expected]
        assert not others[0].notes

    def test_layers_and_heads_that_are_not_there(self, batch):
        with pytest.raises(ConfigError, match=r"locate.layers \[4\]: the model has layers 0 to 3"):
            attention.locate(batch, attention.Config(layers=(4,)))
        with pytest.raises(ConfigError, match=r"locate\.heads is empty"):
            attention.locate(batch, attention.Config(heads=()))

    def test_its_map_is_in_the_picture(self, llava, batch, monkeypatch):
        import cof.plot

        drawn = []
        monkeypatch.setattr(cof.plot, "draw_two_stages", lambda *_, **how: drawn.append(how))
        pipeline = CoF(llava, Settings(attention.Config(keep_map=True), limits=Limits(2)))
        outcome = pipeline(batch.images[0], TEXTS[0])
        outcome.plot()
        assert torch.equal(drawn[0]["heat"], heat_of(outcome.region))

    def test_it_leads_the_pipeline(self, llava, batch):
        cof = CoF(llava, Settings(attention.Config(), limits=Limits(2), plain=False))
        results = cof.answer_batch(batch.questions, batch.images)
        assert {one.region.source for one in results} == {"attention"}
        assert all(one.cof is not None and one.cells for one in results)


class Zooming(StubModel):
    """Finds the left half of whatever it is shown; nothing below 30 pixels."""

    def look(self, images):
        self.shown = getattr(self, "shown", []) + [image.size for image in images]
        views = super().look(images)
        return [
            replace(view, features=view.features * (2 if view.size[0] < 30 else 1))
            for view in views
        ]

    def _generate(self, number, row, limits):
        text = "nothing" if min(row) < -1 else "[0.0, 0.25, 0.5, 0.75]"
        return Answer(text, (1, 2), 0.5, logprobs=(-0.5, -0.25))


def zoomed(config, size=(100, 80)):
    model = Zooming()
    asked = [Question("q", "i", "What?")]
    (region,) = iterate.locate(Batch.of(model, asked, [Image.new("RGB", size)]), config)
    return model, region


class TestIterate:
    def test_the_finer_box_is_in_the_frame_of_the_image(self):
        model, region = zoomed(iterate.Config(window=1.0, least=0.0))
        # the crop is x 0..0.5, y 0.25..0.75; its own left half's middle
        assert model.shown == [(100, 80), (50, 40)]
        assert region.boxes[0].as_tuple() == pytest.approx((0, 0.375, 0.25, 0.625))
        assert (region.source, region.reply, region.frame) == ("iterate", "", "image")
        first, second = region.notes["steps"]
        assert first["reply"] == second["reply"] == "[0.0, 0.25, 0.5, 0.75]"
        assert second["window"] == [0.0, 0.25, 0.5, 0.75]
        assert second["least_logprob"] == -0.5
        assert region.seconds == 1.0

    def test_a_crop_without_a_box_keeps_the_one_before(self):
        model, region = zoomed(iterate.Config(window=1.0, least=0.0, times=3))
        assert model.shown == [(100, 80), (50, 40), (25, 20), (25, 20)]
        assert region.boxes[0].as_tuple() == pytest.approx((0, 0.375, 0.25, 0.625))
        assert len(region.notes["steps"]) == 4

    def test_window_and_least_side(self):
        model, region = zoomed(iterate.Config(window=1.5, least=0.6))
        assert model.shown == [(100, 80), (75, 60)]
        assert region.notes["steps"][1]["window"] == pytest.approx([0, 0.125, 0.75, 0.875])

    def test_a_crop_of_the_whole_image_is_not_seen_again(self):
        model, region = zoomed(iterate.Config(window=9.0))
        assert model.shown == [(100, 80)]
        assert region.boxes == (Box(0.0, 0.25, 0.5, 0.75),)
        assert region.notes["steps"][1]["window"] == [0, 0, 1, 1]

    def test_without_a_first_box_nothing_is_cut(self):
        model, region = zoomed(iterate.Config(), (20, 20))
        assert model.shown == [(20, 20)]
        assert region.boxes == ()
        assert [step["reply"] for step in region.notes["steps"]] == ["nothing"]

    def test_a_failure_is_the_questions_own(self, llava, batch):
        asked = [replace(batch.questions[0], text="what is <image>?"), *batch.questions[1:]]
        found = iterate.locate(
            replace(batch, questions=asked), iterate.Config(prompt.Config(max_new_tokens=4))
        )
        assert "<image>" in found[0].error
        assert not found[0].notes
        assert not any(one.error for one in found[1:])


def test_a_prompted_region_says_how_sure_its_reply_was(llava, batch):
    config = prompt.Config(max_new_tokens=6)
    regions = prompt.locate(batch, config)
    from cof.prompts import grounding_question

    asked = [grounding_question(one.text) for one in batch.questions]
    said = llava.generate(llava.encode(batch.views, asked), Limits(6))
    for region, reply in zip(regions, said, strict=True):
        assert region.notes["least_logprob"] == pytest.approx(min(reply.logprobs), abs=1e-4)
        mean = sum(reply.logprobs) / len(reply.logprobs)
        assert region.notes["mean_logprob"] == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "attention", "threshold": 0}, "locate: threshold=0.0 must be above 0"),
        ({"name": "attention", "layers": "all"}, "locate.layers"),
        ({"name": "iterate", "window": 0.5}, "locate: window=0.5 and times=1 must be at least 1"),
        ({"name": "iterate", "times": 0}, "locate: .*times=0"),
        ({"name": "iterate", "ask": {"prompt": "box?"}}, "locate.ask: prompt needs {question}"),
        ({"name": "iterate", "prompt": "box?"}, "locate.prompt: unknown key"),
    ],
)
def test_bad_configs_are_one_line(section, said):
    with pytest.raises(ConfigError, match=re.compile(said)) as caught:
        schema.resolve({"bench": {"name": "mme", "root": "."}, "locate": section})
    assert "\n" not in str(caught.value)
