"""Replies of boxes by a grammar: they parse, say what free decoding says, and take fewer passes."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import StubModel
from PIL import Image

from cof.batch import Batch
from cof.bench import mme
from cof.config import schema
from cof.errors import ConfigError, ModelError
from cof.images import load_image
from cof.locate import prompt
from cof.models.base import Encoded, Limits
from cof.models.common.grammar import MOST, Grammar, bounds
from cof.models.llava import Config
from cof.models.llava.model import BOX_FORM, load
from cof.pipeline import CoF, Settings
from cof.prompts import grounding_question
from cof.regions.boxes import BoxConfig
from cof.regions.frame import BoxForm, Frame
from cof.regions.parse import parse_boxes, parse_reference
from cof.store.replies import ReplyCache
from cof_lab.mini import mme as mini_mme
from cof_lab.mini.common import MiniConfig

BY_GRAMMAR = prompt.Config(decode="grammar")
FRAMES = [
    Frame("image"),
    Frame("thousandths", (1000.0, 1000.0)),
    Frame("bins", (1024.0, 1024.0), "yxyx"),
    Frame("resized_pixels", None),
]
TEXTS = ["What is it?", "Is there a very small dog behind the big red chair?", "Hi", "Where?"]
TOP = {"thousandths": 1000, "bins": 1024, "resized_pixels": 512}


@pytest.fixture(scope="module")
def tiny():
    return load(Config("cof-tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Questions of every kind of MiniMME, with their images; one object an image."""
    root = tmp_path_factory.mktemp("grammar") / "MiniMME"
    mini_mme.write(root, MiniConfig(size=8, difficulty="fine"))
    questions = mme.read(mme.Config(str(root)))
    seen = {one.image: load_image(root / one.image) for one in questions}
    return questions, [seen[one.image] for one in questions]


@pytest.fixture(scope="module")
def pictures():
    wave = Image.linear_gradient("L").convert("RGB")
    return [wave.resize(size) for size in ((90, 60), (50, 50), (40, 90), (64, 64))]


@pytest.fixture
def framed(llava, monkeypatch):
    """The random LLaVA with another frame, and with its head bent towards what a grammar needs."""

    def bend(frame, pull=()):
        monkeypatch.setattr(llava, "frame", frame)
        head = llava.network.lm_head
        bias = torch.zeros(head.out_features)
        for text, strength in pull:
            bias[llava.reply_ids(text)[-1]] += strength
        hook = head.register_forward_hook(lambda module, given, out: out + bias)
        hooks.append(hook)
        return llava

    hooks = []
    yield bend
    for hook in hooks:
        hook.remove()


@pytest.fixture(scope="module")
def both(tiny, asked):
    """The regions of all questions, free and by the grammar."""
    batch = Batch.of(tiny, *asked)
    return prompt.locate(batch, prompt.Config()), prompt.locate(batch, BY_GRAMMAR)


def said(model, texts, pictures, limit=128):
    views = model.look(pictures)
    encoded = model.encode(views, [grounding_question(text) for text in texts])
    return model.generate_boxes(encoded, views, limit), views


def numbers_of(text):
    """The boxes of a reply that is JSON, four numbers each."""
    data = json.loads(text)
    flat = data["bbox"] if isinstance(data, dict) else data
    rows = [flat] if flat and not isinstance(flat[0], list) else flat
    assert all(len(row) == 4 for row in rows)
    return rows


def areas(row):
    """The two sides of a box, each as ordered numbers, None where it has no length."""
    return tuple(
        tuple(sorted(side)) if side[0] != side[1] else None for side in (row[::2], row[1::2])
    )


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
@pytest.mark.parametrize(
    "pull", [(), (("7", 3), ("[[", 9)), (("0.37,", 12), ("[[", 20))], ids=["plain", "7", "many"]
)
def test_every_reply_of_random_weights_parses(framed, pictures, frame, pull):
    model = framed(frame, pull)
    answers, views = said(model, TEXTS, pictures)
    for answer, view in zip(answers, views, strict=True):
        rows = numbers_of(answer.text)
        most = [100 if frame.unit == (1.0, 1.0) else one for one in bounds(frame, view)]
        scale = 100 if frame.unit == (1.0, 1.0) else 1
        for row in rows:
            assert all(0 <= round(n * scale) <= m for n, m in zip(row, most, strict=True))
        unit = frame.unit or view.shown
        found = parse_boxes(answer.text, unit, frame.order)
        assert len(found) == len({areas(row) for row in rows if None not in areas(row)})
        assert model.reply_ids(answer.text) == list(answer.tokens), "a piece was split"
        assert answer.logprobs == ()
        assert answer.notes["least_logprob"] <= answer.notes["least_allowed"] + 1e-4 <= 1e-3
        assert answer.notes["least_logprob"] <= answer.notes["mean_logprob"] <= 0


def test_a_box_a_few_and_none_all_come_up(both):
    assert {0, 1, 2, 3} <= {len(numbers_of(one.reply)) for one in both[1]}


def test_the_boxes_are_those_of_free_decoding(both):
    free, ours = both
    assert len(free) == 80
    for one, other in zip(free, ours, strict=True):
        assert prompt.boxes_complete(one.reply + " " * 20) or one.reply == '{"bbox": []}'
        assert one.reply == other.reply
        assert one.boxes == other.boxes
        assert set(one.notes) == {"least_logprob", "mean_logprob"}  # of the reply, nothing else
        assert (other.source, other.notes["decode"]) == ("prompt", "grammar")
        assert other.notes["least_allowed"] > -1


def passes(model, batch, config):
    before = model.counters.forwards
    regions = prompt.locate(batch, config)
    return model.counters.forwards - before, regions


def test_forward_passes_of_each_reply_are_at_least_halved(tiny, asked, both):
    """None, one, two and three boxes, each alone; the shared prefix is there before."""
    counts = [len(region.boxes) for region in both[1]]
    spent = {}
    for number in range(4):
        batch = Batch.of(tiny, *([part[counts.index(number)]] for part in asked))
        tiny.encode(batch.views, ["x"]).shared.take(1, 1, 1)
        free, (region,) = passes(tiny, batch, prompt.Config())
        ours, (other,) = passes(tiny, batch, BY_GRAMMAR)
        assert region.reply == other.reply
        spent[number] = (free, ours)
    assert spent == {0: (6, 2), 1: (13, 5), 2: (23, 10), 3: (31, 14)}
    assert all(2 * ours <= free for free, ours in spent.values())


def test_llama_s_single_digits_take_two_passes_a_number(framed, pictures):
    """25 tokens with the end of the reply, hence 25 passes free; 9 here."""
    model = framed(Frame("padded_square"), (("0", 40), ("7", 20)))
    before = model.counters.forwards
    (answer,), _ = said(model, TEXTS[:1], pictures[:1])
    assert len(answer.tokens) == 24
    assert len(numbers_of(answer.text)) == 1
    assert model.counters.forwards - before == 1 + 9


def test_a_batch_says_what_its_rows_say_alone(tiny, asked):
    questions, images = (part[::7] for part in asked)
    texts = [question.text for question in questions]
    together, _ = said(tiny, texts, images)
    assert len({len(one.tokens) for one in together}) > 2, "rows end at different lengths"
    for text, image, answer in zip(texts, images, together, strict=True):
        (alone,), _ = said(tiny, [text], [image])
        assert alone.tokens == answer.tokens
        for name, value in alone.notes.items():
            assert value == pytest.approx(answer.notes[name], abs=1e-3)


def test_rows_of_random_weights_say_alone_what_they_say_together(framed, pictures):
    """Small pulls: near ties, rejected tokens ahead, several boxes."""
    model = framed(Frame("padded_square"), (("[0.3", 3), ("[[", 9), ("0.37,", 4), ("7", 2)))
    together, _ = said(model, TEXTS, pictures)
    for row, answer in enumerate(together):
        (alone,), _ = said(model, TEXTS[row : row + 1], pictures[row : row + 1])
        assert alone.tokens == answer.tokens


@torch.inference_mode()
def test_choices_and_log_probabilities_are_those_of_a_pass_over_the_whole(tiny, asked):
    """An oracle without cache, padding or tokens ahead: token by token over the full sequence."""
    questions, images = (part[:12:3] for part in asked)
    views = tiny.look(images)
    encoded = tiny.encode(views, [grounding_question(one.text) for one in questions])
    answers = tiny.generate_boxes(encoded, views, 128)
    grammar = tiny._grammar(100)
    for row, answer in enumerate(answers):
        one = tiny.encode(views[row : row + 1], [grounding_question(questions[row].text)])
        cursor, tokens, least = grammar.cursor([100] * 4), [], 0.0
        while cursor.tail() is None:
            ids = torch.tensor([tokens], dtype=torch.long)
            embeds = torch.cat(
                [one.inputs["inputs_embeds"], tiny.network.get_input_embeddings()(ids)], dim=1
            )
            hidden = tiny.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
            logprobs = tiny.network.lm_head(hidden[0, -1]).float().log_softmax(-1)
            best = max(cursor.allowed, key=lambda token, scores=logprobs: float(scores[token]))
            least = min(least, float(logprobs[best]))
            tokens.append(best)
            cursor = cursor.step(best)
        assert list(answer.tokens) == [*tokens, *cursor.tail()]
        assert answer.notes["least_logprob"] == pytest.approx(least, abs=1e-3)


def test_a_row_that_is_not_finite_fails_alone(llava, pictures):
    views = llava.look(pictures)
    encoded = llava.encode(views, [grounding_question(text) for text in TEXTS])
    sound = llava.generate_boxes(encoded, views, 128)
    embeds = encoded.inputs["inputs_embeds"].clone()
    embeds[1, -1] = float("nan")
    broken = replace(encoded, inputs={"inputs_embeds": embeds})
    answers = llava.generate_boxes(broken, views, 128)
    assert "non-finite logits" in answers[1].error
    assert answers[1].notes == {}
    for row in (0, 2, 3):
        assert answers[row].tokens == sound[row].tokens


def test_refused_rows_and_rows_without_room_fail_alone(tiny, asked):
    questions, images = asked[0][:4], asked[1][:4]
    good = Batch.of(tiny, questions, images)
    expected = prompt.locate(good, BY_GRAMMAR)
    bad = [replace(questions[1], text="star " * 2000), replace(questions[2], text="Is <image> it?")]
    batch = Batch.of(tiny, [questions[0], *bad, questions[3]], images)
    found = prompt.locate(batch, BY_GRAMMAR)
    assert "positions" in found[1].error
    assert "<image>" in found[2].error
    assert found[1].boxes == found[2].boxes == ()
    assert found[1].notes == {}
    assert [found[0].reply, found[3].reply] == [expected[0].reply, expected[3].reply]
    encoded = good.model.encode(good.views, [grounding_question(one.text) for one in questions])
    tight = replace(encoded, room=(1000, 3, 1000, 1000))
    answers = tiny.generate_boxes(tight, good.views, 128)
    assert "room for 3" in answers[1].error
    assert [one.error for one in answers if one is not answers[1]] == [""] * 3


def test_a_reply_ends_within_its_tokens(framed, pictures, monkeypatch):
    """A model that never stops adding boxes stops where there is no room for another."""
    model = framed(Frame("padded_square"), (("[[", 60), ("0.37,", 50), ("0", 40)))
    boxes = set()
    for limit in (29, 60, 128, 700):
        (answer,), _ = said(model, TEXTS[:1], pictures[:1], limit)
        assert len(answer.tokens) <= limit
        boxes.add(len(numbers_of(answer.text)))
    assert len(boxes) == 4
    assert max(boxes) == MOST
    with pytest.raises(ModelError, match=r"locate\.max_new_tokens: 12 tokens .* needs 29"):
        said(model, TEXTS[:1], pictures[:1], 12)


def test_boxes_are_not_asked_for_under_a_highlight(llava, pictures):
    from cof.regions.bias import Highlight

    views = llava.look(pictures[:1])
    encoded = llava.encode(views, TEXTS[:1])
    nothing = Highlight(torch.zeros(1, encoded.keys))
    with llava.highlighted(nothing), pytest.raises(ValueError, match="without a highlight"):
        llava.generate_boxes(encoded, views, 128)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
@pytest.mark.parametrize("which", ["llava", "tiny"])
def test_a_grammar_accepts_what_it_should_and_nothing_else(request, which, frame):
    model = request.getfixturevalue(which)
    top = TOP.get(frame.name, 100)
    encode = model.reply_ids
    grammar = Grammar(BOX_FORM, frame, top, encode, min(model.stops))
    draw = random.Random(3)
    for form in BOX_FORM:
        for _ in range(20):
            count = draw.randint(0, 1 if form.between is None else 5)
            rows = [draw.choices(grammar.numbers, k=4) for _ in range(count)]
            assert grammar.accepts(encode(form.write(rows)))
    four = ", ".join(grammar.numbers[5:9])
    wrong = ["", "No", "[", f"[{four}", f"[{four}, {four}]", f"[{four}] ", f"[{four}], [{four}]"]
    wrong += ["[0.1, 0.2, 0.3, 0.4]", "[-1, 0, 0, 0]", f"[{top + 1}, 0, 0, 0]", "[01, 0, 0, 0]"]
    wrong += [f'{{"bbox": [{four}]', f'{{"bbox": [{four}]]', "[1.01, 0.00, 0.00, 0.00]"]
    assert not any(grammar.accepts(encode(text)) for text in wrong)


def test_numbers_stay_within_the_image_that_a_row_saw(llava):
    """Pixels: one table for sizes up to 512, cut for each row at its own width and height."""
    frame = Frame("resized_pixels", None)
    grammar = Grammar(BOX_FORM, frame, 512, llava.reply_ids, min(llava.stops))
    view = replace(llava.look([Image.new("RGB", (30, 20))])[0], shown=(280, 168))
    assert bounds(frame, view) == (280, 168, 280, 168)
    assert bounds(replace(frame, order="yxyx"), view) == (168, 280, 168, 280)

    def fits(text):
        cursor = grammar.cursor(bounds(frame, view))
        for token in llava.reply_ids(text):
            if token not in cursor.allowed:
                return False
            cursor = cursor.step(token)
        return cursor.ended

    assert fits("[280, 168, 0, 9]")
    assert fits("[[1, 2, 3, 4], [280, 168, 280, 168]]")
    assert not fits("[281, 168, 0, 9]")
    assert not fits("[28, 169, 0, 9]")
    assert not fits("[[1, 2, 3, 4], [281, 1, 1, 1]]")


def test_an_end_that_is_the_beginning_of_more_is_a_choice():
    """Where the closing is a prefix of what goes on, the model says which, by the end's own id."""
    form = BoxForm("<", ">", between="><")
    grammar = Grammar([form], Frame("image"), 100, lambda text: [ord(sign) for sign in text], 0)
    cursor = grammar.cursor([100] * 4)
    for sign in "<0.10, 0.20, 0.30, 0.40>":
        assert cursor.tail() is None
        cursor = cursor.step(ord(sign))
    assert cursor.ended
    assert cursor.allowed == (0, ord("<"))
    assert cursor.step(0).tail() == []
    assert cursor.step(ord("<")).forced is None
    assert not cursor.step(ord("<")).ended


def test_a_tokenizer_that_joins_numbers_with_their_neighbours_is_refused():
    def joined(text):  # a digit and what follows it are one piece
        return [hash(text[at : at + 2]) % 9999 for at in range(0, len(text), 2)]

    with pytest.raises(ModelError, match="joins numbers"):
        Grammar(BOX_FORM, Frame("image"), 100, joined, 0)


def test_replies_hold_the_published_pattern(llava):
    rows = [("0.10", "0.20", "0.30", "0.40")]
    assert all(parse_reference(form.write(rows)) == (0.1, 0.2, 0.3, 0.4) for form in BOX_FORM)
    CoF(llava, Settings(BY_GRAMMAR, BoxConfig("reference")))


def test_what_has_no_grammar_is_refused_at_the_start(llava, monkeypatch):
    with pytest.raises(ModelError, match=r"locate\.decode: stub has no grammar"):
        CoF(StubModel(), Settings(BY_GRAMMAR))
    with pytest.raises(ModelError, match="no grammar"):
        StubModel().generate_boxes(Encoded({}, torch.ones(1, 1), (), 1), [], 9)
    CoF(StubModel(), Settings(prompt.Config()))
    monkeypatch.setattr(llava, "box_form", (BoxForm("<", ">"),))
    with pytest.raises(ConfigError, match=r"boxes\.rules: 'reference' .*<0\.10, 0\.20, 0\.30"):
        CoF(llava, Settings(BY_GRAMMAR, BoxConfig("reference")))
    monkeypatch.setattr(llava, "frame", Frame("thousandths", (1000.0, 1000.0)))
    with pytest.raises(ConfigError, match=r"boxes\.rules: 'reference' .* are thousandths"):
        CoF(llava, Settings(prompt.Config(), BoxConfig("reference")))
    CoF(llava, Settings(BY_GRAMMAR))


def test_the_key_of_a_config(tmp_path):
    base = {"bench": {"name": "mme", "root": "x"}, "refine": {"name": "highlight"}}
    ours = {**base, "model": {"name": "llava"}, "locate": {"name": "prompt", "decode": "grammar"}}
    assert schema.resolve(ours).locate == BY_GRAMMAR
    published = {**ours, "boxes": {"rules": "reference"}}
    assert schema.resolve(published).locate.decode == "grammar"
    ours["locate"]["stop"] = "never"
    with pytest.raises(ConfigError, match="stop='never' has no effect under decode='grammar'"):
        schema.resolve(ours)


def test_kept_replies_keep_their_notes_and_are_apart(tiny, asked, tmp_path):
    questions, images = asked[0][:3], asked[1][:3]
    file = tmp_path / "replies.sqlite"
    for config in (BY_GRAMMAR, prompt.Config()):
        pipeline = CoF(tiny, Settings(config, limits=Limits(2), plain=False), ReplyCache(file))
        first = [one.region for one in pipeline.answer_batch(questions, images)]
        again = [one.region for one in pipeline.answer_batch(questions, images)]
        assert (pipeline.cache.hits, pipeline.cache.misses) == (3, 3)
        for one, other in zip(first, again, strict=True):
            assert replace(one, seconds=0) == replace(other, seconds=0)
            assert one.notes == other.notes
            assert one.notes.get("decode") == (None if config.decode == "free" else "grammar")
    assert ReplyCache(file).clear() == 6


RECORDED = Path(__file__).parent / "data" / "official_mini" / "lambda4.5_alpha1.jsonl"


def test_every_recorded_reply_of_the_embedded_model_is_one_of_the_grammar(tiny):
    """What the published code said on 300 questions, to the token."""
    grammar = tiny._grammar(100)
    replies = [json.loads(line)["reply"] for line in RECORDED.read_text().splitlines()]
    assert len(replies) == 300
    assert all(grammar.accepts(tiny.reply_ids(reply)) for reply in replies)
