"""What is shared stays exact: logits against transformers' own unshared generate, and counters."""

import json

import pytest
import torch
from PIL import Image

from cof.locate import prompt
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import highlight
from cof.regions.bias import Highlight
from cof.regions.parse import parse_boxes, parse_reference
from cof.types import Question

STEPS = 4
QUESTIONS = ["What is it?", "Is there a very small dog behind the big red chair?", "Hi"]
FIRST_VISUAL = 33


@pytest.fixture(scope="module")
def images():
    wave = Image.linear_gradient("L").convert("RGB")
    return [wave.resize(size) for size in ((90, 60), (50, 50))]


@pytest.fixture
def views(llava, images):
    seen = llava.look(images)
    return [seen[0], seen[1], seen[0]]


@pytest.fixture
def masks():
    out = torch.zeros(3, 576, dtype=torch.bool)
    out[0, 200:240], out[1, 50:60], out[2, 500:] = True, True, True
    return list(out)


def stock(llava, encoded):
    """Logits [B, n, V] of transformers' own generate: nothing is shared, every row as it is."""
    out = llava.generate_raw(
        encoded, Limits(STEPS), output_logits=True, return_dict_in_generate=True
    )
    return torch.stack(out.logits, 1)


def shared(llava, encoded):
    rows = llava.greedy(encoded, STEPS, keep_logits=True)
    return torch.stack([torch.stack(row.logits) for row in rows])


def test_plain_passes_from_one_prefix(llava, views):
    encoded = llava.encode(views, QUESTIONS)
    assert torch.allclose(shared(llava, encoded), stock(llava, encoded), atol=5e-5)


@pytest.mark.parametrize("scope", ["all", "text"])
def test_highlighted_passes_reuse_what_is_untouched(llava, views, masks, scope):
    encoded = llava.encode(views, QUESTIONS)
    plan = highlight.plan(encoded, masks, highlight.Config(4.5, scope))
    assert plan.untouched() == (FIRST_VISUAL + 50 if scope == "all" else FIRST_VISUAL + 576)
    with llava.highlighted(plan):
        ours, theirs = shared(llava, encoded), stock(llava, encoded)
    assert torch.allclose(ours, theirs, atol=8e-5)


def test_the_whole_prefix_under_scope_all_would_be_wrong(llava, views, masks, monkeypatch):
    encoded = llava.encode(views, QUESTIONS)
    plan = highlight.plan(encoded, masks, highlight.Config(4.5))
    with llava.highlighted(plan):
        theirs = stock(llava, encoded)
        monkeypatch.setattr(Highlight, "untouched", lambda self, sees: FIRST_VISUAL + 576)
        ours = shared(llava, encoded)
    assert (ours - theirs).abs().max() > 1e-3


def test_a_prefix_first_used_inside_a_highlight_is_plain(llava, images, masks):
    first, second = llava.look(images[:1]), llava.look(images[:1])
    one, two = llava.encode(first, QUESTIONS[:1]), llava.encode(second, QUESTIONS[:1])
    with llava.highlighted(highlight.plan(one, masks[:1], highlight.Config(4.5))):
        shared(llava, one)
    assert torch.equal(shared(llava, one), shared(llava, two))


def test_several_weights_of_one_question_in_one_batch(llava, views, masks):
    weights = [1.0, 2.0, 4.5]
    three = llava.encode([views[0]] * 3, [QUESTIONS[0]] * 3)
    plan = highlight.plan(three, [masks[0]] * 3, highlight.Config(2.0))
    plan = Highlight(plan.bias / torch.tensor(2.0).log() * torch.tensor(weights).log()[:, None])
    with llava.highlighted(plan):
        together = shared(llava, three)
    one = llava.encode(views[:1], QUESTIONS[:1])
    for row, weight in enumerate(weights):
        with llava.highlighted(highlight.plan(one, masks[:1], highlight.Config(weight))):
            assert torch.allclose(together[row], shared(llava, one)[0], atol=8e-5)


def test_finished_rows_leave_the_batch_and_the_rest_is_token_exact(llava, views, masks):
    """Rows end at different lengths; the highlight follows the rows that stay."""
    encoded = llava.encode(views, QUESTIONS)
    with llava.highlighted(highlight.plan(encoded, masks, highlight.Config(4.5))):
        full = [row.tokens for row in llava.greedy(encoded, 12)]
        ends = {full[0][1], full[1][3]}
        llava.__dict__["stops"] = frozenset(ends)
        before = llava.counters.positions
        short = [row.tokens for row in llava.greedy(encoded, 12)]
        spent = llava.counters.positions - before
        del llava.__dict__["stops"]
    for row, tokens in zip(full, short, strict=True):
        end = next((i + 1 for i, token in enumerate(row) if token in ends), 12)
        assert tokens == row[:end]
    assert len({len(tokens) for tokens in short}) > 1
    untouched = FIRST_VISUAL + 50
    prefill = 3 * (encoded.keys - untouched)
    assert spent < prefill + 3 * 11


def test_counters_of_one_batch_are_exact(llava, images):
    """Two images, four questions: vision and prefix once an image, then only what is new."""
    questions = [Question(str(i), "x", text) for i, text in enumerate([*QUESTIONS, "Why?"])]
    four = [images[0], images[0], images[1], images[1]]
    settings = Settings(
        locate=prompt.Config(max_new_tokens=3),
        refine=highlight.Config(4.5, "text"),
        limits=Limits(2),
    )
    llava.counters.__init__()
    CoF(llava, settings).answer_batch(questions, four)
    longest = max(len(llava.token_ids(q.text)[1]) for q in questions)
    asked = [prompt.grounding_question(q.text) for q in questions]
    coarse = max(len(llava.token_ids(text)[1]) for text in asked)
    counted = llava.counters
    assert (counted.images, counted.vision_calls) == (2, 1)
    prefix, decode = 2 * (FIRST_VISUAL + 576), 4 * 2 + 2 * 4 * 1
    assert counted.positions == prefix + 4 * coarse + 2 * 4 * longest + decode
    assert counted.forwards == 1 + 3 + 2 + 2


def test_coarse_replies_end_at_their_boxes_with_the_same_boxes(golden):
    """Cut where decoding would stop: the boxes are those of the full reply, for every reply."""
    rows = json.loads((golden / "mask_cases.json").read_text())
    replies = {row["raw"] for row in rows}
    cases = json.loads((golden / "cases.json").read_text())
    replies |= {case["raw_grounding_output"] for case in cases}
    rambling = " which is what I can make out in this picture, as far as anybody can tell"
    replies |= {reply + rambling for reply in replies}
    stopped = 0
    for reply in sorted(replies):
        for done, parse in (
            (prompt.boxes_complete, parse_boxes),
            (prompt.first_box, parse_reference),
        ):
            cut = next((reply[:n] for n in range(len(reply) + 1) if done(reply[:n])), reply)
            stopped += cut != reply
            assert parse(cut) == parse(reply)
    assert stopped > 100


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", False),
        ("[0.1, 0.2, 0.3, 0.4] is where the thing stands", True),
        ('{"bbox": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.7, 0.7]', False),
        ("[0.1, 0.2, 0.3, 0.4]\n[0.5, 0.5, 0.7, 0.7]", False),
        ("(see below) there is nothing that I can box", False),
        ("", False),
    ],
)
def test_when_boxes_are_complete(text, complete):
    assert prompt.boxes_complete(text) is complete


def test_decoding_ends_a_row_once_its_text_is_complete(llava, views):
    """A model that is made to say a box and ramble on is cut after the box, and only if asked."""
    script = "[0.1, 0.2, 0.3, 0.4] is where it all ends, my friend, and so on and on and on"
    ids = llava.tokenizer(script, add_special_tokens=False).input_ids
    encoded = llava.encode(views[:1], QUESTIONS[:1])

    class Parrot(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.next = iter(ids)

        def forward(self, _hidden):
            return torch.nn.functional.one_hot(torch.tensor([next(self.next)]), 1280).float()

    head, limits = llava.network.lm_head, Limits(len(ids))
    try:
        llava.network.lm_head = Parrot()
        cut = llava.generate(encoded, limits, prompt.boxes_complete)[0]
        llava.network.lm_head = Parrot()
        full = llava.generate(encoded, limits)[0]
    finally:
        llava.network.lm_head = head
    assert full.text == script
    assert len(cut.tokens) < len(full.tokens)
    assert parse_boxes(cut.text) == parse_boxes(script) == ((0.1, 0.2, 0.3, 0.4),)
