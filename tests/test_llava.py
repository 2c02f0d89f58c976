"""The adapter: prompts word for word, batches like single rows, parity with the published code."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cof import prompts
from cof.evaluate.parity import Parity
from cof.models.base import Limits
from cof.refine import highlight

QUESTIONS = [
    "What color is the red square?\nAnswer the question using a single word or phrase.",
    "Is there a dog?",
    "How many chairs are there in the image, counting the one behind the table?",
]


@pytest.fixture(scope="module")
def views(llava):
    sizes = [(90, 60), (50, 50), (20, 133)]
    return llava.look([Image.linear_gradient("L").convert("RGB").resize(size) for size in sizes])


def test_prompts_are_word_for_word():
    assert prompts.full_prompt("Hi?", "vicuna_v1") == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. "
        "USER: <image>\nHi? ASSISTANT:"
    )
    assert prompts.grounding_question("Hi?\nOne word.") == (
        "Hi?\nAccording to the information in the image and the question, \ndetail the bounding "
        "box of the region in the image that contains the answer in JSON format."
    )
    assert prompts.SHORT_ANSWER == "\nAnswer the question using a single word or phrase."
    letter = "\nAnswer with the option's letter from the given choices directly."
    assert letter == prompts.OPTION_LETTER


def test_braces_in_a_question_are_text():
    assert prompts.grounding_question("What is {0} {x}?").startswith("What is {0} {x}?\nAccording")


def test_parity_with_the_published_code(golden):
    report = Parity(golden, device="cpu").run()
    verdicts = {name: verdict for name, *_, verdict in report.rows()}
    assert verdicts.pop("beam tokens") == "absent"
    assert set(verdicts.values()) == {"ok"}, report.rows()
    assert report.passed


@pytest.mark.slow
def test_parity_with_the_full_set(full_golden):
    report = Parity(full_golden, device="cpu").run()
    assert report.passed, report.rows()


def test_parity_fails_when_the_highlight_is_off(golden, tmp_path):
    for item in golden.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "cases.json").unlink()
    cases = json.loads((golden / "cases.json").read_text())[:1]
    cases[0]["settings"]["attention_weight"] *= 1.01
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    report = Parity(tmp_path, device="cpu").run()
    verdicts = {name: verdict for name, *_, verdict in report.rows()}
    assert not report.passed
    assert verdicts["highlighted logits"] == "FAILED"
    assert verdicts["plain logits"] == "ok"


def test_absent_files_are_reported_as_absent_and_logits_are_required(golden, tmp_path):
    (tmp_path / "checkpoint").symlink_to(golden / "checkpoint")
    (tmp_path / "cases.json").write_text("[]")
    report = Parity(tmp_path, device="cpu").run()
    assert {verdict for *_, verdict in report.rows()} == {"absent"}
    assert not report.passed


def test_a_batch_is_its_rows(llava, views):
    """Left padding, per-row masks and weights: logits of the batch equal each row alone."""
    masks = [torch.rand(576, generator=torch.Generator().manual_seed(i)) < 0.2 for i in range(3)]
    config = highlight.Config(4.5)
    options = {"output_logits": True, "return_dict_in_generate": True}
    batch = llava.encode(views, QUESTIONS)
    with llava.highlighted(highlight.plan(batch, masks, config)):
        together = llava.generate_raw(batch, Limits(4), **options)
    for row in range(3):
        alone = llava.encode(views[row : row + 1], QUESTIONS[row : row + 1])
        with llava.highlighted(highlight.plan(alone, masks[row : row + 1], config)):
            single = llava.generate_raw(alone, Limits(4), **options)
        ours = torch.stack(together.logits, 1)[row]
        assert torch.allclose(ours, torch.cat(single.logits), atol=1e-4)
        assert together.sequences[row].tolist() == single.sequences[0].tolist()


def test_visual_positions_hold_the_features(llava, views):
    encoded = llava.encode(views, QUESTIONS)
    for row, view in enumerate(views):
        assert torch.equal(encoded.inputs["inputs_embeds"][row, encoded.visual[row]], view.features)


def test_text_scope_leaves_visual_queries_alone(llava, views):
    encoded = llava.encode(views[:1], QUESTIONS[:1])
    mask = torch.zeros(576, dtype=torch.bool)
    mask[100:120] = True
    plan = highlight.plan(encoded, [mask], highlight.Config(3.0, "text"))
    assert plan.queries is not None
    assert not plan.queries[0, encoded.visual[0]].any()
    assert plan.queries[0].sum() == encoded.keys - 576


def test_perturb_multiplies_the_masked_embeddings_only(llava, views):
    encoded = llava.encode(views[:1], QUESTIONS[:1])
    mask = torch.zeros(576, dtype=torch.bool)
    mask[5] = True
    spot = encoded.visual[0][5]
    moved = highlight.perturbed(encoded, [mask], 0.01)
    before, after = llava.embeds(encoded), llava.embeds(moved)
    assert torch.equal(after[0, spot], before[0, spot] * 0.01)
    rest = torch.arange(encoded.keys) != spot
    assert torch.equal(after[0, rest], before[0, rest])


def test_sampling_is_seeded(llava, views):
    encoded = llava.encode(views[:1], QUESTIONS[:1])
    hot = Limits(8, temperature=1.0, seed=3)
    first, again = llava.generate(encoded, hot), llava.generate(encoded, hot)
    other = llava.generate(encoded, replace(hot, seed=4))
    assert first[0].tokens == again[0].tokens != other[0].tokens
