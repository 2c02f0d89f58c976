"""Words of a question, lit: where they stand, what is added to whose attention, who refuses."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from fakes import StubModel
from PIL import Image

from cof.batch import Batch
from cof.config import schema
from cof.errors import ConfigError, ModelError
from cof.images import load_image
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.prompts import positions_of, spans_of
from cof.refine import guided, highlight, mean
from cof.regions.bias import Highlight
from cof.types import Focus, Question

TEXTS = ["What is it?", "Where is the Red  cup, and what is beside it?", "Is red there, or red?"]


@pytest.fixture(scope="module")
def batch(llava):
    ramp = Image.linear_gradient("L").convert("RGB").resize((60, 60))
    asked = [Question(str(i), "one.png", text) for i, text in enumerate(TEXTS)]
    return Batch.of(llava, asked, [ramp] * 3, Limits(4))


def spot(*cells):
    mask = torch.zeros(576, dtype=torch.bool)
    mask[list(cells)] = True
    return Focus(mask, (), "boxes" if cells else "no_box")


SPOTS = [spot(), spot(), spot(3, 4, 570)]


def by_pieces(llava, question, phrases):
    """Positions of phrases, from the end of a prompt, by the pieces of its ids alone."""
    pieces = llava.tokenizer.convert_ids_to_tokens(llava.token_ids(question)[1])
    pieces = [re.sub(r"^<0x..>$", "\n", piece).lower() for piece in pieces]
    text, ends = "".join(pieces), []
    for piece in pieces:
        ends.append((ends[-1] if ends else 0) + len(piece))
    lit = {
        place
        for phrase in phrases
        for found in re.finditer(phrase, text)
        for place, end in enumerate(ends)
        if end - len(pieces[place]) < found.end() and found.start() < end
    }
    return sorted(place - len(pieces) for place in lit)


def test_phrases_are_whole_words_in_any_case():
    text = "The Red cup; a red\ncup, redcup, cups. A.B?"
    assert [text[a:b] for a, b in spans_of(text, ["red cup"])] == ["Red cup", "red\ncup"]
    assert spans_of(text, ["", "  ", "edc", "cup s"]) == []
    assert [text[a:b] for a, b in spans_of(text, ["a.b?", "the"])] == ["A.B?", "The"]


def test_tokens_that_hold_a_character_of_a_span():
    offsets = [(0, 0), (0, 3), (3, 7), (7, 9), (9, 9), (9, 12)]
    assert positions_of([(4, 7)], offsets) == [2]
    assert positions_of([(6, 8), (9, 10)], offsets) == [2, 3, 5]
    assert positions_of([(3, 3)], offsets) == []


@pytest.mark.parametrize(
    "text", ["\nIs it  red? ASSISTANT:", "Größe: 图中", "a </s> b<unk>c", "", " x"]
)
def test_offsets_name_the_characters_of_each_id(llava, text):
    ids, offsets = llava.inputs.encode(text), llava.inputs.offsets(text)
    assert len(ids) == len(offsets)
    for piece, (begin, end) in zip(
        llava.tokenizer.convert_ids_to_tokens(ids), offsets, strict=True
    ):
        if not piece.startswith("<0x") and piece != "<unk>":
            assert piece.replace("▁", " ").strip() == text[begin:end].strip()


def test_positions_are_those_of_the_published_script(llava, golden, monkeypatch):
    cases = json.loads((golden / "prompt_highlighter/cases.json").read_text())
    named = [case for case in cases if case["text_highlights"]]
    assert len(named) == 2
    for case in named:
        monkeypatch.setattr(llava, "conv", case["conv_mode"])
        question = case["question"]
        views = llava.look([load_image(golden / case["image"], exif="ignore")])
        encoded = llava.encode(views, [question])
        spans = [spans_of(question, case["text_highlights"].split(","))]
        found = llava.words(encoded, [question], spans)[0].tolist()
        assert found == case["text_highlight_token_positions"]


@pytest.mark.parametrize("scope", ["all", "text"])
def test_the_highlight_is_written_by_hand(llava, batch, scope):
    config = highlight.Config(3.0, scope, text="red cup, RED")
    found = highlight.refine(batch, SPOTS, config)
    encoded = batch.encode()
    bias = torch.zeros(3, encoded.keys)
    for row, phrases in enumerate([[], ["red▁▁cup", "red"], ["red"]]):
        bias[row, by_pieces(llava, TEXTS[row], phrases)] = math.log(3.0)
        bias[row, encoded.visual[row][SPOTS[row].mask]] = math.log(3.0)
    assert (bias != 0).sum(1).tolist()[0] == 0
    queries = torch.ones(bias.shape, dtype=torch.bool)
    queries[:, encoded.visual[0]] = False
    with llava.highlighted(Highlight(bias, queries if scope == "text" else None)):
        said = llava.generate(encoded, batch.limits)
    for one, wanted in zip(found, said, strict=True):
        assert one.tokens == wanted.tokens
        assert one.logprobs == pytest.approx(wanted.logprobs, abs=1e-5)
    assert [one.notes for one in found] == [
        {},
        {"words": ["Red  cup", "Red"]},
        {"words": ["red"] * 2},
    ]
    assert found[1].logprobs != pytest.approx(batch.plain[1].logprobs, abs=1e-3)


def test_it_can_be_part_of_a_mean(batch):
    one = mean.Highlight(3.0, text="red")
    alone = highlight.refine(batch, SPOTS, highlight.Config(3.0, text="red"))
    both = mean.refine(batch, SPOTS, mean.Config(one, one))
    assert [a.tokens for a in both] == [a.tokens for a in alone]
    assert [a.notes for a in both] == [a.notes for a in alone]
    mixed = mean.refine(batch, SPOTS, mean.Config(mean.Plain(), one))
    assert mixed[0].tokens == batch.plain[0].tokens
    assert mixed[1].logprobs != pytest.approx(batch.plain[1].logprobs, abs=1e-3)


@torch.inference_mode()
def test_guided_lights_and_perturbs_words(llava, batch):
    config = guided.Config(3.0, 1.7, False, 0.25, text="red")
    found = guided.refine(batch, SPOTS, config)
    assert found[0] == replace(batch.plain[0], notes=guided.SURE)
    for row in (1, 2):
        encoded = batch.take([row]).encode()
        lit = torch.zeros(encoded.keys, dtype=torch.bool)
        lit[by_pieces(llava, TEXTS[row], ["red"])] = True
        lit[encoded.visual[0][SPOTS[row].mask]] = True
        clean = encoded.inputs["inputs_embeds"]
        dimmed = torch.where(lit[:, None], clean * 0.25, clean)
        said = []
        for embeds, weight in ((clean, math.log(3.0)), (dimmed, -(2 + math.log(3.0)))):
            with llava.highlighted(Highlight(lit[None] * weight)):
                hidden = llava.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
            said.append(llava.network.lm_head(hidden)[0, -1].float().softmax(-1))
        scores = 1.7 * (said[0] - said[1]) + said[1]
        assert found[row].tokens[0] == int(scores.argmax())
        shares = scores.clamp(min=0)
        assert found[row].logprobs[0] == pytest.approx(
            float((shares.max() / shares.sum()).log()), abs=1e-5
        )
        assert found[row].notes["words"]


def test_a_question_that_cannot_be_asked_lights_nothing(batch):
    asked = [replace(batch.questions[1], text="what is <image> red?"), *batch.questions[1:]]
    config = highlight.Config(3.0, text="red")
    first, *others = highlight.refine(replace(batch, questions=asked), SPOTS, config)
    assert "<image>" in first.error
    expected = highlight.refine(batch, SPOTS, config)[1:]
    assert [one.tokens for one in others] == [one.tokens for one in expected]


def test_models_that_do_not_say_where_words_are_refuse_them():
    for config in (highlight.Config(text="red"), guided.Config(text="red")):
        with pytest.raises(ConfigError, match=r"refine\.text: stub .*leave it out"):
            CoF(StubModel(), Settings(refine=config))
    keys = StubModel()
    keys.lights_words = "keys"
    with pytest.raises(ConfigError, match=r"refine\.perturb=0.01: .*refine\.perturb=1"):
        CoF(keys, Settings(refine=guided.Config(text="red")))
    CoF(keys, Settings(refine=guided.Config(text="red", perturb=1.0)))
    with pytest.raises(ModelError, match="does not say where words"):
        StubModel().words(None, [], [])


def test_words_and_perturb_exclude_each_other():
    section = {"name": "highlight", "text": "red", "perturb": 0.5}
    with pytest.raises(ConfigError, match=r"refine: perturb=0\.5 multiplies visual tokens alone"):
        schema.resolve({"bench": {"name": "mme", "root": "."}, "refine": section})
