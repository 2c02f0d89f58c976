"""Gradients, heads as pairs, and a crop beside its image; each against an oracle."""

import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from committed import ROOT
from fakes import StubModel
from stage_cases import TEXTS, resized_batch_of, spots_of

from cof.cli import main
from cof.config import schema
from cof.errors import ConfigError, ModelError
from cof.evaluate import heads as ranking
from cof.evaluate.runner import Options, run
from cof.locate import attention, gradient
from cof.models.base import Limits
from cof.models.common.recording import record_attention
from cof.pipeline import CoF, Settings
from cof.refine import crop, mean
from cof.regions.bias import Highlight
from cof.regions.heat import hottest, unpacked
from cof.regions.mask import cells_of_part, grid_cells, token_mask
from cof.store.dataset import read_questions
from cof.types import NOWHERE, Answer, Box, Question

BOXES = [(Box(0.1, 0.2, 0.2, 0.4),), (), (Box(0.6, 0.6, 0.7, 0.7),)]


@pytest.fixture(scope="module")
def batch(llava):
    return resized_batch_of(llava, 4)


class TestGradient:
    def test_it_is_the_norm_of_the_slope(self, llava, batch):
        """As autograd has it without a cache; and along the steepest way by small steps."""
        encoded = batch.take([1]).encode()
        heat, places = llava.gradient(encoded), encoded.visual[0]

        def best(embeds):
            hidden = llava.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
            return llava.network.lm_head(hidden[:, -1]).double().log_softmax(-1).max()

        embeds = encoded.inputs["inputs_embeds"].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(best(embeds), embeds)
        slope = slope[0, places.clone()]
        assert torch.allclose(heat, slope.norm(dim=-1), rtol=1e-3, atol=1e-6)
        peak = int(heat.argmax())
        step = torch.zeros_like(embeds)
        step[0, int(places[peak])] = 0.05 * slope[peak] / slope[peak].norm()
        with torch.no_grad():
            measured = (best(embeds + step) - best(embeds - step)) / 0.1
        assert float(heat[peak]) == pytest.approx(float(measured), rel=0.01)

    def test_weights_are_as_before_and_nothing_is_shared(self, llava, batch):
        wanted = [one.requires_grad for one in llava.network.parameters()]
        alone = llava.gradient(batch.take([0]).encode())
        bias = torch.zeros(1, batch.take([0]).encode().keys)
        bias[:, 40:100] = 5.0
        with llava.highlighted(Highlight(bias)):  # does not count
            assert torch.equal(llava.gradient(batch.take([0]).encode()), alone)
        assert [one.requires_grad for one in llava.network.parameters()] == wanted
        assert all(one.grad is None for one in llava.network.parameters())

    def test_a_region_is_the_patch_about_the_peak(self, llava, batch):
        regions = gradient.locate(batch, gradient.Config(0.4, keep_map=True))
        for row, region in enumerate(regions):
            view = batch.views[row]
            heat = llava.gradient(batch.take([row]).encode())
            heat = heat * token_mask([Box(0, 0, 1, 1)], view.cells)
            assert region.boxes == (hottest(heat, view, 0.4),)
            assert (unpacked(region.notes["map"]) - heat).abs().max() <= heat.max() / 500
            assert region.source == "gradient"
        assert not gradient.locate(batch, gradient.Config())[0].notes

    def test_it_leads_the_pipeline_and_fails_alone(self, llava, batch):
        asked = [replace(batch.questions[0], text="what is <image>?"), *batch.questions[1:]]
        cof = CoF(llava, Settings(gradient.Config(), limits=Limits(2), plain=False))
        first, *others = cof.answer_batch(asked, batch.images)
        assert "<image>" in first.error
        assert all(one.cof is not None and one.cells for one in others)

    def test_numbers_that_are_not_finite_are_no_map(self, llava, batch, monkeypatch):
        monkeypatch.setattr(llava, "gradient", lambda _: torch.full((576,), torch.nan))
        (region,) = gradient.locate(batch.take([0]), gradient.Config())
        assert "non-finite" in region.error
        assert not region.boxes

    def test_families_without_gradients_say_so(self, batch):
        with pytest.raises(ModelError, match="no gradients by visual tokens"):
            gradient.locate(
                replace(batch, model=StubModel(), views=StubModel().look(batch.images)),
                gradient.Config(),
            )


class TestHeads:
    def test_pairs_are_maps_of_their_own(self, llava, batch):
        pairs = ((3, 1), (0, 2))
        config = attention.Config("", heads=pairs, chosen_on="a test")
        maps, _ = attention.attention_maps(batch, TEXTS, config)
        for row, text in enumerate(TEXTS):
            encoded = llava.encode([batch.views[row]], [text])
            with record_attention() as found, torch.inference_mode():
                llava.decoder(inputs_embeds=encoded.inputs["inputs_embeds"], use_cache=False)
            for place, (layer, head) in enumerate(pairs):
                wanted = found[layer][0, head, encoded.visual[0]]
                assert torch.allclose(maps[row][place], wanted, atol=1e-6)

    def test_layers_that_see_no_image_are_named(self, batch, monkeypatch):
        seen = {1: torch.zeros(3, 4, batch.encode().keys)}  # as of a model with cross-attention
        monkeypatch.setattr(attention, "record_attention", lambda: nullcontext(seen))
        config = attention.Config("", heads=((0, 1), (1, 0)), chosen_on="x")
        with pytest.raises(ConfigError, match=r"layers \[0\] of .* those that do are \[1\]"):
            attention.locate(batch, config)

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"heads": [[4, 0]], "chosen_on": "x"}, r"layers \[4\]: the model has layers 0 to 3"),
            ({"heads": [[0, 4]], "chosen_on": "x"}, r"heads \[4\]: the model has heads 0 to 3"),
        ],
    )
    def test_pairs_that_the_model_does_not_have(self, llava, keys, said):
        config = schema.resolve(
            {"bench": {"name": "mme", "root": "."}, "locate": {"name": "attention", **keys}}
        )
        with pytest.raises(ConfigError, match=said):
            CoF(llava, Settings(config.locate))

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"heads": [[0, 1]]}, "say in chosen_on which data chose them"),
            ({"heads": [[0, 1]], "chosen_on": "x", "layers": [0]}, "leave layers out"),
            ({"heads": [[0, 1, 2]], "chosen_on": "x"}, "locate.heads"),
            ({"heads": [0, [1, 2]]}, "locate.heads"),
        ],
    )
    def test_pairs_that_cannot_be(self, keys, said):
        with pytest.raises(ConfigError, match=said):
            schema.resolve(
                {"bench": {"name": "mme", "root": "."}, "locate": {"name": "attention", **keys}}
            )

    def test_the_head_that_looks_at_the_boxes_is_first(self, llava, mini, monkeypatch):
        config = schema.resolve({"bench": {"name": "mme", "root": str(mini / "MiniMME")}})
        box = Box(0.0, 0.0, 0.5, 0.5)
        image = read_questions(config)[0].image
        asked = [Question("a", image, "?", boxes=(box,)), Question("b", image, "?")]

        def planted(batch, config):
            heat = torch.ones(llava.layers * llava.heads, 576)
            lit = token_mask([box], batch.views[0].cells)
            heat[config.heads.index((2, 1))] = lit * 2.0
            heat[config.heads.index((1, 0)), lit] = 3.0
            heat[config.heads.index((3, 3))] = 0.0
            return [heat], [Answer("x")]

        monkeypatch.setattr(attention, "relative_maps", planted)
        found = ranking.rank(llava, config, asked)
        first, second, third = found.heads[:3]
        assert (first.layer, first.head, first.share, first.hits) == (2, 1, 1.0, 1.0)
        assert (second.layer, second.head) == (1, 0)
        assert second.share == pytest.approx(3 / (3 + 3), abs=0.02)
        assert third.share == pytest.approx(found.chance) == pytest.approx(0.25, abs=0.02)
        assert (third.layer, third.head) == (0, 0)  # ties in their order
        assert found.questions == 1
        last = found.heads[-1]
        assert (last.layer, last.head, last.share, last.hits) == (3, 3, 0.0, 0.0)

    def test_an_image_that_cannot_be_read_does_not_count(self, mini, tmp_path):
        data = Path(shutil.copytree(mini / "MiniMME", tmp_path / "data"))
        words = [str(ROOT / "examples/configs/methods.yaml"), f"bench.root={data}", "bench.limit=2"]
        boxed = [one for one in read_questions(schema.load(words[0], words[1:])) if one.boxes]
        failed = sum(one.image == boxed[0].image for one in boxed)
        (data / boxed[0].image).write_bytes(b"no picture")
        done = CliRunner().invoke(main, ["tune", "heads", *words])
        assert done.exit_code == 0, done.output
        assert f"# {len(boxed) - failed} questions with boxes, {failed} more failed" in done.stdout
        assert re.fullmatch(rf"heads: {len(boxed)} of {len(boxed)} questions in .*\n", done.stderr)
        quiet = CliRunner().invoke(main, ["tune", "heads", *words, "--quiet"])
        assert (quiet.stdout, quiet.stderr) == (done.stdout, "")

    def test_what_is_printed_is_a_config_and_not_for_the_same_data(self, mini, tmp_path):
        first, file = mini / "MiniMME", str(ROOT / "examples/configs/methods.yaml")
        said = CliRunner().invoke(
            main, ["tune", "heads", file, f"bench.root={first}", "bench.limit=2", "--top", "2"]
        )
        assert said.exit_code == 0, said.output
        section = yaml.safe_load(said.stdout)["locate"]
        assert len(section["heads"]) == 2
        shown = re.findall(r"^# +(\d) +(\d) ", said.stdout, re.M)
        assert [[int(a), int(b)] for a, b in shown[:2]] == section["heads"]
        config = schema.resolve(
            {
                "bench": {"name": "mme", "root": str(first)},
                "locate": section,
                "out": str(tmp_path),
            }
        )
        with pytest.raises(ConfigError, match=r"locate.chosen_on: .*MiniMME holds the questions"):
            run(config, Options())


class TestBeside:
    @torch.inference_mode()
    def test_both_images_stand_in_the_prompt(self, llava, batch):
        found = crop.refine(batch, spots_of(batch, BOXES), crop.Config(2.0, 0.3, beside=True))
        assert found[1] is batch.plain[1]
        for row in (0, 2):
            left, top, right, bottom = found[row].notes["window"]
            width, height = batch.images[row].size
            rect = tuple(
                round(one) for one in (left * width, top * height, right * width, bottom * height)
            )
            part = llava.look([batch.images[row].crop(rect)])[0]
            encoded = batch.take([row]).encode()
            embeds, end = encoded.inputs["inputs_embeds"], int(encoded.visual[0].max()) + 1
            both = torch.cat([embeds[:, :end], part.features[None], embeds[:, end:]], dim=1)
            hidden = llava.decoder(inputs_embeds=both, use_cache=False).last_hidden_state
            logs = llava.network.lm_head(hidden)[0, -1].float().log_softmax(-1)
            assert found[row].tokens[0] == int(logs.argmax())
            assert found[row].logprobs[0] == pytest.approx(float(logs.max()), abs=1e-4)

    def test_batches_are_single_rows_also_where_lengths_differ(self, batch):
        spots = spots_of(batch, BOXES)
        config = mean.Config(second=mean.Crop(2.0, 0.3, beside=True))
        found = mean.refine(batch, spots, config)
        for row in range(3):
            alone = mean.refine(batch.take([row]), [spots[row]], config)[0]
            assert alone.tokens == found[row].tokens
            assert alone.logprobs == pytest.approx(found[row].logprobs, abs=1e-4)

    def test_cells_of_both_are_in_the_frame_of_the_image(self, llava, batch):
        window = Box(0.2, 0.4, 0.6, 0.8)
        whole, part = batch.views[0], batch.views[2]  # 90 x 60, and a square one
        joined = llava.join(whole, part, window)
        assert len(joined.cells) == len(joined.features) == 2 * 576
        assert torch.equal(joined.cells[:576], whole.cells)
        assert torch.allclose(joined.cells[576:], grid_cells((24, 24), window.as_tuple()))
        padded = cells_of_part(whole.cells, window)
        assert torch.equal(
            token_mask([Box(0, 0, 1, 1)], padded), token_mask([Box(0, 0, 1, 1)], whole.cells)
        )
        assert not token_mask([Box(0, 0, 1, 1)], cells_of_part(torch.tensor([NOWHERE]), window))[0]

    def test_families_of_one_image_refuse(self):
        with pytest.raises(ConfigError, match=r"refine\.beside: stub is shown one image"):
            CoF(StubModel(), Settings(refine=crop.Config(beside=True)))
        with pytest.raises(ConfigError, match=r"refine\.beside"):
            CoF(StubModel(), Settings(refine=mean.Config(second=mean.Crop(beside=True))))
