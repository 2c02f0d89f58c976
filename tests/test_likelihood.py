"""Options weighed by their likelihood: the published rule, with and without a highlight."""

import math
from dataclasses import replace

import pytest
import torch
from fakes import StubModel
from PIL import Image

from cof.batch import Batch
from cof.bench import vstar
from cof.errors import ModelError
from cof.images import load_image
from cof.locate import oracle
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import highlight, plain
from cof.regions.boxes import BoxConfig
from cof.regions.mask import focus
from cof.types import Answer, Box, Question, Region
from cof_lab.mini import vstar as vstar_folder
from cof_lab.mini.common import MiniConfig

TEXTS = ["What is it?", "What colour is the cup in the picture, please?"]
OPTIONS = ["red", "It is a very dark blue, almost black.", "green"]


@pytest.fixture(scope="module")
def views(llava):
    pictures = [
        Image.new("RGB", size, colour) for size, colour in (((90, 60), "red"), ((40, 70), 9))
    ]
    return llava.look(pictures)


def questions(choose=True):
    return [
        Question(str(k), "i", text, options=tuple(OPTIONS), choose=choose)
        for k, text in enumerate(TEXTS)
    ]


def focuses(views):
    region = Region((Box(0.1, 0.2, 0.6, 0.7),), "given")
    return [focus(region, view, BoxConfig()) for view in views]


def slow_loss(llava, view, question, option, bias=None):
    """One unpadded forward of prompt and answer; `bias` [T] is added to visual keys' scores."""
    before, after = llava.token_ids(question)
    head = llava.tokenizer("ASSISTANT:", add_special_tokens=False).input_ids
    both = llava.tokenizer(f"ASSISTANT: {option}", add_special_tokens=False).input_ids
    assert both[: len(head)] == head
    said = [*both[len(head) :], llava.tokenizer.eos_token_id]
    embed = llava.network.get_input_embeddings()
    parts = [embed(torch.tensor(before)), view.features, embed(torch.tensor([*after, *said]))]
    embeds = torch.cat(parts)[None]
    length = embeds.shape[1]
    scores = torch.full((length, length), float("-inf")).triu(1)
    if bias is not None:
        scores[:, len(before) : len(before) + len(bias)] += bias
    config = llava.decoder.config
    kept = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        hidden = llava.decoder(
            inputs_embeds=embeds, attention_mask=scores[None, None], use_cache=False
        ).last_hidden_state
    finally:
        config._attn_implementation = kept
    logits = llava.network.lm_head(hidden)[0, -len(said) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(said)).item()


@torch.inference_mode()
def test_losses_equal_an_unpadded_forward_of_each_option(llava, views):
    rows = batch(llava, views).prompts
    encoded = batch(llava, views).encode()
    found = losses(llava, encoded, rows)
    for (k, option), loss in zip(rows, found, strict=True):
        assert loss == pytest.approx(slow_loss(llava, views[k], TEXTS[k], option), abs=1e-4)
    assert len({round(loss, 4) for loss in found}) == len(found)


@torch.inference_mode()
@pytest.mark.parametrize("scope", ["all", "text"])
def test_losses_under_a_highlight(llava, views, scope):
    rows = batch(llava, views).prompts
    spots = focuses(views)
    encoded = batch(llava, views).encode()
    plan = highlight.plan(
        encoded, [spots[k].mask for k, _ in rows], highlight.Config(weight=20.0, scope=scope)
    )
    plain_losses = losses(llava, encoded, rows)
    with llava.highlighted(plan):
        found = losses(llava, encoded, rows)
    assert max(abs(a - b) for a, b in zip(found, plain_losses, strict=True)) > 1e-3
    if scope == "all":
        for (k, option), loss in zip(rows, found, strict=True):
            bias = spots[k].mask.float() * math.log(20.0)
            expected = slow_loss(llava, views[k], TEXTS[k], option, bias)
            assert loss == pytest.approx(expected, abs=1e-4)


def test_stages_answer_with_the_likeliest_option(llava, views):
    asked, spots = questions(), focuses(views)
    answers = plain.refine(batch(llava, views, asked), spots, plain.Config())
    for k, answer in enumerate(answers):
        losses = {o: slow_loss(llava, views[k], TEXTS[k], o) for o in OPTIONS}
        assert answer.text == min(losses, key=losses.get)
        assert answer.seconds > 0
    configs = [highlight.Config(weight=w) for w in (1.0, 20.0)]
    many = highlight.refine_many(batch(llava, views, asked), [spots, spots], configs)
    assert [a.text for a in many[0]] == [a.text for a in answers], "weight 1 is the plain model"
    for k, answer in enumerate(many[1]):
        bias = spots[k].mask.float() * math.log(20.0)
        losses = {o: slow_loss(llava, views[k], TEXTS[k], o, bias) for o in OPTIONS}
        assert answer.text == min(losses, key=losses.get)


def test_the_order_of_options_does_not_matter(llava, views):
    spots, asked = focuses(views), questions()
    turned = [replace(question, options=question.options[::-1]) for question in asked]
    first, second = (
        plain.refine(batch(llava, views, some), spots, plain.Config()) for some in (asked, turned)
    )
    assert [a.text for a in first] == [a.text for a in second]


def test_vstar_by_likelihood_through_the_pipeline(llava, tmp_path):
    vstar_folder.write(tmp_path, MiniConfig(size=2))
    asked = vstar.read(vstar.Config(str(tmp_path), mode="likelihood"))
    settings = Settings(locate=oracle.Config(), limits=Limits(8))
    pictures = [load_image(tmp_path / question.image) for question in asked]
    results = CoF(llava, settings).answer_batch(asked, pictures)
    for said in ([r.cof.text for r in results], [r.plain.text for r in results]):
        scores = vstar.score(asked, said)
        assert scores["mode"] == "likelihood"
        assert scores["overall"]["unresolved"] == 0


def test_questions_that_do_not_choose_are_generated(llava, views):
    asked = questions(choose=False)
    assert batch(llava, views, asked).prompts == [(0, None), (1, None)]
    encoded = llava.encode(views, TEXTS)
    expected = llava.generate(encoded, Limits(8))
    found = plain.refine(batch(llava, views, asked, Limits(8)), focuses(views), plain.Config())
    assert [a.tokens for a in found] == [a.tokens for a in expected]


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ((2.0, 2.0, 3.0), ""),
        ((2.0, 3.0, 2.0), ""),
        ((2.0, 2.0 + 3e-6, 3.0), ""),  # what another batch does to one loss
        ((2.0 + 3e-6, 2.0, 3.0), ""),
        ((2.0 + 3e-5, 2.0, 3.0), "b"),
        ((3.0, 2.0, 3.0), "b"),  # the others may be equal
    ],
)
def test_a_tie_for_the_lowest_loss_chooses_nothing(losses, text, monkeypatch):
    model = StubModel()
    weighed = [Answer(o, (1, 2), 1.0, "", (-x, -x)) for o, x in zip("abc", losses, strict=True)]
    monkeypatch.setattr(model, "score", lambda encoded, texts: weighed)
    asked = Question("q", "i", "?", options=("a", "b", "c"), choose=True)
    (found,) = Batch.of(model, [asked], [Image.new("RGB", (8, 8))]).plain
    assert found.text == text
    assert found.logprobs == ((-2.0, -2.0) if text else ())


def test_equal_logits_choose_no_option_whatever_its_place(llava, views, monkeypatch):
    zero = torch.nn.Parameter(0 * llava_head(llava))
    monkeypatch.setitem(llava.network.lm_head._parameters, "weight", zero)
    asked = [
        replace(
            one, options=("red", "green"), reference=("red", "green")[k], category=vstar.TYPES[k]
        )
        for k, one in enumerate(questions())
    ]
    spots = focuses(views)
    said = plain.refine(batch(llava, views, asked), spots, plain.Config())
    said += highlight.refine(batch(llava, views, asked), spots, highlight.Config())
    assert [answer.text for answer in said] == [""] * 4
    assert not any(answer.error for answer in said)
    scores = vstar.score(asked, [answer.text for answer in said[:2]])
    assert scores["overall"] == {"n": 2, "accuracy": 0.0, "unresolved": 2}


def llava_head(llava):
    return llava.network.lm_head.weight.detach()


def test_what_cannot_be_weighed_is_said():
    picture = Image.new("RGB", (8, 8))
    chooses, speaks = questions()[0], questions(choose=False)[1]
    with pytest.raises(ModelError, match="stub: this model family cannot weigh"):
        _ = Batch.of(StubModel(), [chooses], [picture]).plain
    with pytest.raises(ValueError, match="questions that choose and questions that do not"):
        _ = Batch.of(StubModel(), [chooses, speaks], [picture] * 2).plain


def batch(model, views, asked=None, limits=None):
    """Both questions about the images that the model has seen already."""
    pictures = [Image.new("RGB", view.size) for view in views]
    return Batch(model, asked or questions(), pictures, views, limits or Limits())


def losses(model, encoded, rows):
    """Mean token loss of each option."""
    said = model.score(encoded, [option for _, option in rows])
    return [-sum(one.logprobs) / len(one.logprobs) for one in said]
