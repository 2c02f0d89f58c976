"""InstructBLIP on a tiny random checkpoint: what `test_families.py` holds, for a Q-Former.

Inactive it is stock, bit by bit; highlighted in each of its places it is an oracle in double
precision; as many patches as the stock processor makes; a changed block of pixels changes the
patches whose rectangle it touches; the plain answer is stock `generate`'s.
"""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from crossed import BOX, PICTURES, TEXTS, check_block, logits, masks_of, picture, worst
from PIL import Image
from tiny_instructblip import PATCH, QUERIES, SIDE, Stock, build, oracle

from cof import load_run
from cof.batch import Batch
from cof.cli import main
from cof.errors import AnswerError, ConfigError, ModelError
from cof.locate import attention, centre, iterate, prompt, whole
from cof.models import instructblip
from cof.models.base import Limits
from cof.models.common.recording import record_attention
from cof.pipeline import CoF, Settings
from cof.refine import guided, highlight
from cof.regions.bias import Highlight
from cof.regions.boxes import BoxConfig
from cof.regions.mask import token_mask
from cof.types import NOWHERE, Focus, Question

TOLERANCE = 5e-5
PATCHES = (SIDE // PATCH) ** 2
KEYS = 1 + PATCHES
CONFIGS = Path(__file__).resolve().parents[1] / "examples/configs"
PLACES = ("qformer", "llm", "hybrid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("instructblip"))


@pytest.fixture(scope="module")
def stock(folder):
    return Stock(folder)


@pytest.fixture(scope="module")
def models(folder):
    """Place of the highlight -> model."""
    config = instructblip.Config(str(folder), device="cpu")
    return {one: instructblip.load(replace(config, highlight=one)) for one in PLACES}


@pytest.fixture(scope="module")
def model(models):
    return models["qformer"]


@pytest.fixture(scope="module")
def views(model):
    return model.look(PICTURES)


@pytest.fixture(scope="module")
def batch(model):
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    return Batch.of(model, asked, PICTURES, Limits(5))


def lit(encoded, views, weight=20.0):
    return highlight.plan(encoded, masks_of(views), highlight.Config(weight))


@torch.no_grad()
@pytest.mark.parametrize("place", PLACES)
def test_inactive_is_bitwise_stock(stock, models, place):
    model = models[place]
    given = stock.inputs(PICTURES[0], TEXTS[0])
    theirs = stock.network(**given).logits
    assert torch.equal(model.whole(**given).logits, theirs)
    encoded = model.encode(model.look(PICTURES[:1]), TEXTS[:1])
    with model.highlighted(Highlight(torch.zeros(1, KEYS))):
        [row] = model.greedy(encoded, 1, keep_logits=True)
    assert (row.logits[0] - theirs[0, -1]).abs().max() < TOLERANCE


def test_prompts_and_plain_answers_are_stocks(stock, model, views):
    encoded = model.encode(views, TEXTS)
    rows = model.greedy(encoded, 8, keep_logits=True)
    beams = model.generate(encoded, Limits(6, num_beams=3))
    for row, image in enumerate(PICTURES):
        given = stock.inputs(image, TEXTS[row])
        real = encoded.attention_mask[row].bool()
        ids = encoded.inputs["input_ids"][row, real].tolist()
        assert ids[QUERIES:] == given["input_ids"][0, QUERIES:].tolist()
        assert len(ids) == given["input_ids"].shape[1]
        said = stock.network.generate(
            **given,
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert rows[row].tokens == said.sequences[0, len(ids) :].tolist()
        assert worst(logits([rows[row]]), [torch.cat(said.logits).double()]) <= TOLERANCE
        said = stock.network.generate(**given, max_new_tokens=6, do_sample=False, num_beams=3)
        tokens = said[0, len(ids) :].tolist()
        assert list(beams[row].tokens) == tokens[: len(beams[row].tokens)]


@pytest.mark.parametrize("place", PLACES)
def test_highlighted_it_is_the_oracle(stock, models, views, place):
    model = models[place]
    encoded = model.encode(views, TEXTS)
    chosen = lit(encoded, views)
    with model.highlighted(chosen):
        rows = model.greedy(encoded, 4, keep_logits=True)

    def expected(bias):
        parts = zip(PICTURES, TEXTS, bias, rows, strict=True)
        return oracle(stock, place, [(*a, torch.ones(KEYS), row.tokens) for *a, row in parts])

    assert worst(logits(rows), expected(chosen.bias)) <= TOLERANCE
    assert worst(logits(rows), expected(chosen.bias * 0)) > 1e3 * TOLERANCE


def test_the_three_places_are_three_methods(models, views):
    said = {}
    for place, model in models.items():
        encoded = model.encode(views, TEXTS)
        with model.highlighted(lit(encoded, views)):
            said[place] = logits(model.greedy(encoded, 1, keep_logits=True))
    assert worst(said["qformer"], said["llm"]) > 1e-2
    assert worst(said["hybrid"], said["llm"]) > 1e-2
    assert worst(said["hybrid"], said["qformer"]) > 1e-2


def test_rows_do_not_depend_on_their_company(models, views):
    for model in models.values():
        encoded = model.encode(views, TEXTS)
        chosen = lit(encoded, views)
        with model.highlighted(chosen):
            together = model.greedy(encoded, 6, keep_logits=True)
        for row, (view, text) in enumerate(zip(views, TEXTS, strict=True)):
            alone = model.encode([view], [text])
            with model.highlighted(chosen.take(torch.tensor([row]))):
                [one] = model.greedy(alone, 6, keep_logits=True)
            assert one.tokens == together[row].tokens
            assert worst(logits([one]), logits([together[row]])) <= TOLERANCE


def test_patches_are_as_many_as_the_stock_processor_makes(stock, model):
    generator = np.random.default_rng(3)
    for _ in range(100):
        size = tuple(int(2 ** generator.uniform(3.4, 8.4)) for _ in range(2))
        pixels = stock.inputs(Image.new("RGB", size), "?")["pixel_values"]
        assert tuple(side // PATCH for side in pixels.shape[2:]) == model.grid
    [view] = model.look([picture((31, 97))])
    assert view.grid == model.grid
    assert view.features.shape[0] == 1 + len(view.cells) == KEYS
    assert NOWHERE not in map(tuple, view.cells.tolist())  # the class token is none of them


@pytest.mark.parametrize("size", [(112, 84), (60, 150)])
def test_a_block_of_pixels_moves_the_patches_that_it_touches(model, size):
    layers = model.whole.vision_model.encoder.layers
    kept = [layer.self_attn.projection.weight for layer in layers]
    check_block(model, kept, size, lambda view: view.features[1:])


@torch.inference_mode()
def test_a_strong_highlight_hides_the_rest_of_the_image(model, views):
    """What the language model is given then depends on the patches of the region alone."""

    def given(view, chosen):
        with model.highlighted(chosen), model.shown(model.encode([view], TEXTS[:1])) as ready:
            return ready.inputs["inputs_embeds"]

    encoded = model.encode(views[:1], TEXTS[:1])
    strong, mask = lit(encoded, views[:1], 1e30), token_mask([BOX], views[0].cells)
    rest = torch.cat([torch.tensor([True]), ~mask])
    other = replace(views[0], features=views[0].features + rest[:, None] * torch.randn(KEYS, 1))
    assert (given(views[0], strong) - given(other, strong)).abs().max() < 1e-3
    assert (given(views[0], None) - given(other, None)).abs().max() > 0.1


def test_guided_answers_are_those_of_two_passes_by_hand(stock, models, batch):
    config = guided.Config(3.0, 1.7, log=True, perturb=0.25)
    focuses = [Focus(token_mask([BOX], view.cells), (BOX,), "boxes") for view in batch.views]
    focuses[1] = Focus(torch.zeros(PATCHES, dtype=torch.bool), (), "no_box")
    for place, model in models.items():
        asked = replace(batch, model=model)
        found = guided.refine(asked, focuses, config)
        assert found[1] == replace(asked.plain[1], notes=guided.SURE)  # nothing is lit
        for row in (0, 2):
            spot = torch.cat([torch.tensor([False]), focuses[row].mask]).float()
            factors = 1 - spot * (1 - 0.25)
            tokens = list(found[row].tokens)
            first, second = oracle(
                stock,
                place,
                [
                    (PICTURES[row], TEXTS[row], spot * math.log(3.0), torch.ones(KEYS), tokens),
                    (PICTURES[row], TEXTS[row], -spot * (2 + math.log(3.0)), factors, tokens),
                ],
            )
            first, second = first.log_softmax(-1), second.log_softmax(-1)
            mixed = 1.7 * (first - second) + second
            assert mixed.argmax(-1).tolist() == tokens
        assert [one.tokens for one in found] != [one.tokens for one in asked.plain]


@torch.inference_mode()
def test_the_recorded_attention_is_the_q_formers(stock, models, views):
    """Mean of the queries, of what eager attention says; its bias in it."""
    eager = stock.network.qformer
    eager.set_attn_implementation("eager")
    given = stock.inputs(PICTURES[0], TEXTS[0])
    for place, model in models.items():
        encoded = model.encode(views[:1], TEXTS[:1])
        for chosen in (None, lit(encoded, views[:1])):
            with model.highlighted(chosen), record_attention() as found:
                model.generate(encoded, Limits(1))
            inside = chosen is not None and place != "llm"
            said = eager(
                given["qformer_input_ids"],
                query_embeds=stock.network.query_tokens,
                encoder_hidden_states=views[0].features[None],
                encoder_attention_mask=chosen.bias[:, None, None] if inside else None,
                output_attentions=True,
            ).cross_attentions
            assert sorted(found) == list(range(model.layers)) == [0, 1]
            theirs = [one.mean(2).double() for one in said]
            assert worst([found[n].double() for n in range(2)], theirs) < 1e-6
            assert found[0].shape == (1, model.heads, KEYS)
    eager.set_attn_implementation("sdpa")


def test_a_region_can_come_from_where_the_q_former_looks(batch):
    regions = attention.locate(batch, attention.Config(threshold=0.9))
    texts = [one.text for one in batch.questions]
    maps, _ = attention.attention_maps(batch, texts, attention.Config())
    generic, _ = attention.attention_maps(batch, [attention.GENERIC] * 3, attention.Config())
    for region, above, below, view in zip(regions, maps, generic, batch.views, strict=True):
        assert above.shape == (2, PATCHES)
        assert not region.error
        peak = int((above / below).mean(0).argmax())
        assert token_mask(region.boxes, view.cells)[peak]
        assert 0 < token_mask(region.boxes, view.cells).sum() < PATCHES


@pytest.mark.parametrize("stage", [prompt.Config(), iterate.Config()])
def test_it_cannot_be_asked_for_boxes(model, stage):
    with pytest.raises(ModelError, match=r"cannot be asked for boxes .* locate.name=file"):
        CoF(model, Settings(locate=stage))


def test_the_pipeline_answers_with_boxes_of_others(folder):
    how = {"family": "instructblip", "device": "cpu", "max_new_tokens": 4}
    cof = CoF.from_pretrained(folder, locate=attention.Config(), rules="reference", **how)
    given = cof(PICTURES[1], TEXTS[1], box=BOX.as_tuple(), plain=True)
    assert given.focus.status == "boxes"
    mask, shown = given.focus.mask, given.attention()
    assert shown.plain.shape == (2, PATCHES)
    assert (shown.plain.sum(1) < 1).all()  # the class token has the rest
    assert (shown.cof[:, mask].sum(1) > shown.plain[:, mask].sum(1)).all()
    assert cof(PICTURES[0], TEXTS[0]).region.source == "attention"


@pytest.mark.parametrize(
    ("control", "lit_patches"), [(whole.Config(), PATCHES), (centre.Config(), None)]
)
def test_controls_work_on_it(model, control, lit_patches):
    found = CoF(model, Settings(locate=control, limits=Limits(3)))(PICTURES[0], TEXTS[0])
    assert not found.error
    assert int(found.focus.mask.sum()) in ([lit_patches] if lit_patches else range(1, PATCHES))


def test_scaled_patches_change_the_answer(model, views):
    encoded = model.encode(views, TEXTS)
    masks = masks_of(views)
    plain = model.greedy(encoded, 1, keep_logits=True)
    changed = model.greedy(highlight.perturbed(encoded, masks, 0.01), 1, keep_logits=True)
    assert min((a - b).abs().max() for a, b in zip(logits(plain), logits(changed), strict=True)) > (
        1e-3
    )


def test_given_answers_are_weighed_as_they_would_be_generated(models, views):
    for model in models.values():
        encoded = model.encode(views, TEXTS)
        with model.highlighted(lit(encoded, views)):
            rows = model.greedy(encoded, 3, keep_logits=True)
            weighed = model.score(encoded, ["Yes", "a dog", "no"])
        for row, one in zip(rows, weighed, strict=True):
            assert not one.error
            assert model.tokenizer.decode(one.tokens[:-1]) == one.text
            chances = row.logits[0].log_softmax(-1)
            assert one.logprobs[0] == pytest.approx(float(chances[one.tokens[0]]), abs=1e-4)


def test_questions_that_cannot_be_asked_are_refused_by_themselves(model, views):
    asked = ["a<image>b", TEXTS[1], "x?" * 60, "x" * 5000]
    encoded = model.encode([views[0], views[1], views[0], views[2]], asked)
    assert "<image>" in encoded.refused[0]
    assert "of the Q-Former, which has 96" in encoded.refused[2]
    assert "positions" in encoded.refused[3]
    bad, good, *_ = model.generate(encoded, Limits(3))
    assert bad.error
    [alone] = model.generate(model.encode([views[1]], [TEXTS[1]]), Limits(3))
    assert good.tokens == alone.tokens
    with pytest.raises(AnswerError, match="of the Q-Former"):
        CoF(model, Settings(locate=attention.Config()))(PICTURES[0], "x?" * 60)


@pytest.mark.parametrize("change", [{"layers": (0,)}, {"heads": (0,)}, {"scope": "text"}])
def test_a_highlight_of_some_layers_heads_or_queries_is_refused(model, views, change):
    with pytest.raises(ConfigError, match=r"cannot be narrowed|use scope=all"):
        highlight.check_model(model, highlight.Config(**change))
    encoded = model.encode(views, TEXTS)
    masks = masks_of(views)
    with pytest.raises(ModelError, match="for all of its queries"):
        model.highlighted(highlight.plan(encoded, masks, highlight.Config(**change)))


def test_a_highlight_of_other_prompts_is_refused(model, views):
    encoded = model.encode(views, TEXTS)
    chosen = lit(encoded, views).take(torch.tensor([0]))
    with model.highlighted(chosen), pytest.raises(ValueError, match="for 3 prompts"):
        model.generate(encoded, Limits(2))


def test_prompts_are_the_configs(folder, views):
    config = instructblip.Config(str(folder), prompt="Question: {core} Short answer:")
    asked = "Is it?\nAnswer the question using a single word or phrase."
    assert config.ask(asked) == "Question: Is it? Short answer:"
    assert instructblip.Config("x").ask(asked) == asked
    for wrong in ("What?", "{core} {question}"):
        with pytest.raises(ValueError, match="prompt="):
            instructblip.Config("x", prompt=wrong)
    model = instructblip.load(replace(config, device="cpu"))
    ids = model.encode(views[:1], [asked]).inputs["input_ids"][0, QUERIES:]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == config.ask(asked)


def test_other_checkpoints_are_refused(folder, tmp_path):
    said = json.loads((folder / "config.json").read_text())
    (tmp_path / "t5").mkdir()
    said["text_config"]["model_type"] = "t5"
    (tmp_path / "t5/config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"language model is 't5'.*Flan-T5 is not supported"):
        instructblip.load(instructblip.Config(str(tmp_path / "t5")))
    shutil.copytree(folder, tmp_path / "half")
    shutil.rmtree(tmp_path / "half/qformer_tokenizer")
    with pytest.raises(ModelError, match="no qformer_tokenizer/"):
        instructblip.load(instructblip.Config(str(tmp_path / "half"), device="cpu"))


def test_it_says_what_it_is(model, folder):
    said = model.describe()
    known = instructblip.identify(instructblip.Config(str(folder), device="cpu"))
    assert known == {"weights": said["revision"], "dtype": "float32", "device": "cpu"}
    assert model.identity().items() <= said.items()
    assert BoxConfig().rules == "clean"


def test_a_run_takes_the_boxes_of_another_models_run(folder, mini, tmp_path, monkeypatch):
    """As examples/configs/mme_instructblip.yaml does it; boxes that a run found, guided answers."""
    monkeypatch.chdir(tmp_path)
    root = ["bench.name=mme", f"bench.root={mini / 'MiniMME'}", "bench.limit=1"]
    first = CliRunner().invoke(main, ["eval", str(CONFIGS / "mme_tiny.yaml"), "name=llava", *root])
    assert first.exit_code == 0, first.output
    ours = [f"model.path={folder}", "model.dtype=float32", "limits.max_new_tokens=3", *root]
    where = ["name=blip", "locate.path=runs/llava"]
    config = str(CONFIGS / "mme_instructblip.yaml")
    second = CliRunner().invoke(main, ["eval", config, *where, *ours])
    assert second.exit_code == 0, second.output
    theirs, found = load_run("runs/llava").results, load_run("runs/blip").results
    assert [one.region.boxes for one in found] == [one.region.boxes for one in theirs]
    assert any(one.cells for one in found)
    assert all(one.region.source == "file" and not one.error for one in found)
    lit = ["name=lit", "locate.path=runs/llava", "refine.name=highlight"]
    third = CliRunner().invoke(main, ["eval", config, *lit, *ours])
    assert third.exit_code == 0, third.output
    probed = CliRunner().invoke(main, ["probe", "runs/lit"])
    assert probed.exit_code == 0, probed.output
    said = Path("runs/lit/attention.md").read_text()
    assert "Attention of the cross-attention's queries" in said
    refused = CliRunner().invoke(main, ["eval", config, *ours, "name=asked", "locate.name=prompt"])
    assert refused.exit_code == 2, refused.output
    assert "cannot be asked for boxes" in refused.output
