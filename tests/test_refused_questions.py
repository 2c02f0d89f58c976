"""Questions that cannot be asked: empty, with the image's placeholder, longer than the model."""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cof.bench import vstar
from cof.bench.common.choice import ask
from cof.cli import main
from cof.errors import AnswerError, DataError
from cof.models.base import Limits
from cof.models.llava import Config
from cof.models.llava.model import load
from cof.pipeline import CoF, Settings
from cof.prompts import DESCRIBED, SHORT_ANSWER
from cof.store.dataset import _is_blank, read_questions
from cof.types import Question

LONG = "star " * 2000


@pytest.fixture(scope="module")
def tiny():
    return load(Config("cof-tiny", device="cpu", dtype="float32"))


@pytest.fixture
def picture():
    return Image.linear_gradient("L").convert("RGB").resize((140, 105))


def batch(picture, *texts, **parts):
    questions = [Question(str(k), "i", text, **parts) for k, text in enumerate(texts)]
    return questions, [picture] * len(texts)


@pytest.mark.parametrize("question", ["", " ", "\n\t"])
def test_an_empty_question_is_refused(tiny, picture, question, tmp_path):
    with pytest.raises(AnswerError, match="the question is empty"):
        CoF(tiny)(picture, question)
    picture.save(tmp_path / "a.png")
    command = ["ask", str(tmp_path / "a.png"), question, "--model", "nowhere"]
    done = CliRunner().invoke(main, command)  # refused before a model is looked for
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "the question is empty" in done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("What is <image> here?", "coarse pass and plain pass: the question contains <image>"),
        (
            LONG,
            r"coarse pass: the prompt takes \d{4} positions, but .* 1024 .*; plain pass: the pro",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_fails_alone(tiny, picture, text, why, caplog):
    with pytest.raises(AnswerError, match=why):
        CoF(tiny)(picture, text, plain=True)
    assert not caplog.records, "one line is enough"
    good = ["Is there a star?", "What color is the circle?"]
    pipeline = CoF(tiny, Settings(limits=Limits(6)))
    start = tiny.counters.positions
    alone = pipeline.answer_batch(*batch(picture, *good))
    before = tiny.counters.positions
    first, bad, last = pipeline.answer_batch(*batch(picture, good[0], text, good[1]))
    spent = tiny.counters.positions - before
    assert spent <= 2 * (before - start), "three short prompts instead of two, no long one"
    assert (bad.region, bad.cof, bad.plain) == (None, None, None)
    for one, other in zip((first, last), alone, strict=True):
        assert one.error == other.error == ""
        assert (one.region.reply, one.cof.tokens) == (other.region.reply, other.cof.tokens)
        assert one.plain.tokens == other.plain.tokens


@pytest.mark.parametrize("limits", [Limits(6), Limits(6, num_beams=2), Limits(6, temperature=1)])
@pytest.mark.parametrize("choose", [False, True])
def test_only_the_passes_that_are_too_long_fail(tiny, picture, limits, choose):
    """The coarse pass asks about the first line alone."""
    rows = batch(picture, f"Is there a star?\n{LONG}", options=("red", "blue"), choose=choose)
    result = CoF(tiny, Settings(limits=limits)).answer_batch(*rows)[0]
    assert result.error.startswith("CoF pass and plain pass: the prompt takes")
    assert result.region is not None


@torch.inference_mode()
def test_a_reply_that_outgrows_the_model_is_none(tiny, picture, monkeypatch):
    """The last position that the model has may be used, and no further one."""
    views = tiny.look([picture])
    texts = ["Is there a star?" + SHORT_ANSWER]
    full = tiny.generate(tiny.encode(views, texts), Limits(6))[0]
    prompt = int(tiny.encode(views, texts).attention_mask.sum())
    for room, fits in ((len(full.tokens), True), (len(full.tokens) - 1, False)):
        monkeypatch.setattr(tiny, "positions", prompt + room)
        encoded = tiny.encode(views, texts)
        assert encoded.room == (room,)
        for limits in (Limits(6), Limits(6, num_beams=1, temperature=1e-6)):
            said = tiny.generate(encoded, limits)[0]
            assert (said.error == "") == fits
            assert said.tokens == (full.tokens if fits else ())
            assert fits or f"({len(full.tokens)} tokens of reply, room for {room})" in said.error
    monkeypatch.setattr(tiny, "positions", prompt)
    assert "the prompt takes" in tiny.encode(views, texts).refused[0]


def test_an_option_that_outgrows_the_model_fails_its_question(tiny, picture):
    questions, images = batch(picture, "Which?", "Which?", options=("red", "blue"), choose=True)
    questions[1] = replace(questions[1], options=("red", LONG))
    sound, broken = CoF(tiny, Settings(limits=Limits(6))).answer_batch(questions, images)
    assert (sound.error, sound.cof.text in ("red", "blue")) == ("", True)
    assert broken.error.startswith("CoF pass and plain pass: prompt and reply take more positions")


@pytest.mark.parametrize(
    ("question", "blank"),
    [
        (Question("0", "i", ""), True),
        (Question("0", "i", " " + SHORT_ANSWER), True),
        (Question("0", "i", "What?" + SHORT_ANSWER), False),
        (Question("0", "i", "\nWhat?" + SHORT_ANSWER), False),
        (Question("0", "i", ask("", ["red", "blue"]), options=("red", "blue")), True),
        (Question("0", "i", ask("What?", ["red", "blue"]), options=("red", "blue")), False),
        (Question("0", "i", ask("A hint.\n ", ["a", "b"]), options=("a", "b"), core=" "), True),
        (Question("0", "i", DESCRIBED.format(text=" ")), True),
        (Question("0", "i", DESCRIBED.format(text="star")), False),
        (Question("0", "i", " ", options=("red", "blue"), choose=True), True),
    ],
)
def test_what_a_benchmark_puts_around_a_question_is_not_asking(question, blank):
    assert _is_blank(question) == blank


def test_a_benchmark_with_an_empty_question_is_refused_by_its_id(tmp_path, monkeypatch):
    from cof.config import schema

    settings = schema.resolve({"bench": {"name": "vstar", "root": str(tmp_path)}})
    asked = [Question("a", "i", "What?"), Question("b/7", "i", " ")]
    monkeypatch.setattr(vstar, "read", lambda options: asked)
    with pytest.raises(DataError, match=r"the question 'b/7' is empty$"):
        read_questions(settings)
