"""Scenes are the same everywhere, splits never overlap, and every answer is true."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cof import prompts
from cof_lab import segments, wording
from cof_lab.question_context import QuestionContext, UnaskableError
from cof_lab.questions import KINDS, ask
from cof_lab.render import PAD_COLOR, render
from cof_lab.world import DIFFICULTIES, SPLITS, describe, join


def test_a_scene_does_not_depend_on_its_batch():
    whole = describe(range(40, 48), "mixed")
    alone = describe([45], "mixed")
    assert whole.things(5) == alone.things(0)
    assert torch.equal(render(whole)[5], render(alone)[0])


def test_joined_scenes_are_drawn_as_they_are_alone():
    few, many = describe(range(3), "starter"), describe(range(3), "crowded")
    together = render(join([few, many]))
    assert torch.equal(together, torch.cat([render(few), render(many)]))


def test_splits_share_no_scene():
    seen: set[tuple] = set()
    for split in SPLITS:
        scenes = describe(range(500), "mixed", split=split)
        rows = {tuple(scenes.things(k)) for k in range(500)}
        assert len(rows) == 500
        assert not rows & seen
        seen |= rows


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_things_lie_inside_the_image_and_apart(difficulty):
    scenes = describe(range(100), difficulty)
    for row in range(100):
        x0, y0, x1, y1 = scenes.frame[row]
        things = scenes.things(row)
        assert len({thing.name for thing in things}) == len(things)
        for k, a in enumerate(things):
            assert x0 <= a.box[0] < a.box[2] <= x1
            assert y0 <= a.box[1] < a.box[3] <= y1
            for b in things[:k]:
                apart = (
                    a.box[2] <= b.box[0]
                    or b.box[2] <= a.box[0]
                    or a.box[3] <= b.box[1]
                    or b.box[3] <= a.box[1]
                )
                assert apart


def test_padding_is_llavas_and_boxes_hold_the_paint():
    scenes = describe(range(30), "easy")
    pixels = render(scenes)
    for row in range(30):
        x0, y0, x1, y1 = scenes.frame[row]
        outside = torch.ones(140, 140, dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        colors = pixels[row].permute(1, 2, 0)[outside]
        assert (colors == torch.tensor(PAD_COLOR, dtype=torch.uint8)).all()
        for thing in scenes.things(row):
            cx, cy = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
            patch = pixels[row, :, int(cy) - 9 : int(cy) + 9, int(cx) - 9 : int(cx) + 9].float()
            assert patch.std() > 20  # a shape and its digit are there, not plain background


def test_ink_and_noise_come_from_their_ranges_and_are_drawn():
    scenes = describe(range(200), "mixed")
    low, high = DIFFICULTIES["mixed"].ink
    assert low <= scenes.ink.min() < low + 0.05 < high - 0.05 < scenes.ink.max() <= high
    assert scenes.noise.std() > 3
    bare = replace(DIFFICULTIES["mixed"], ink=(0.0, 0.0), noise=(0.0, 0.0))
    faint, plain = describe([3], bare), describe([3], replace(bare, ink=(1.0, 1.0)))
    change = (render(plain).float() - render(faint).float()).abs().sum(1)[0]
    half = (
        render(describe([3], replace(bare, ink=(0.5, 0.5)))).float() - render(faint).float()
    ).abs()
    assert abs(half.sum() / change.sum() - 0.5) < 0.02
    inside = torch.zeros_like(change, dtype=torch.bool)
    for thing in plain.things(0):
        x0, y0, x1, y1 = (round(value) for value in thing.box)
        inside[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = True
    assert change[~inside].max() == 0  # ink changes digits only


def test_easy_has_plain_digits_and_noise_only_noise():
    for name, level in (("easy", 6.0), ("noise", 40.0)):
        scenes = describe(range(50), name)
        assert (scenes.ink == 1).all()
        assert (scenes.noise == level).all()


def test_questions_name_a_thing_by_its_digit_where_a_digit_is_plain():
    faint = 0
    for row in range(60):
        things = describe(range(row, row + 1), "mixed").things(0)
        if any(thing.legible for thing in things):
            index, ref = QuestionContext(things, Random(row)).by_glyph()
            assert things[index].legible
            assert things[index].glyph in ref.phrase
        faint += sum(not thing.legible for thing in things)
        dim = [replace(thing, ink=0.2) for thing in things]
        assert QuestionContext(
            dim, Random(row)
        ).by_glyph()  # a faint digit names where no other does
    assert faint > 60


def oracle(question, things) -> str:
    """The truth from the sentence alone, by reading it word by word (slow and obvious)."""
    text = question.text.lower().rstrip("?.")
    named = [t for t in things if re.search(rf"\b{t.name}\b", text)]
    digits = [word for word in text.split() if word.isdigit()]
    kind = question.kind
    if kind == "existence":
        return "Yes" if named else "No"
    if kind in ("count", "how_many"):
        return count_oracle(kind, text, things)
    if kind in ("position", "which_side"):
        return side_oracle(kind, text, things)
    if kind == "OCR":
        return "Yes" if named[0].glyph == digits[0] else "No"
    if kind == "what_digit":
        return named[0].glyph
    shown = [t for t in things if t.glyph in digits]
    if not shown:
        shown = [t for t in things if t.shape in text.split()]
    (thing,) = shown
    if kind == "what_color":
        return thing.color
    if kind == "what_shape":
        return thing.shape
    return "Yes" if thing.color in text.split() else "No"


def count_oracle(kind, text, things) -> str:
    words = text.replace("crosses", "cross").split()
    words = [word.removesuffix("s") if word != "cross" else word for word in words]
    group = [
        t
        for t in things
        if (t.color in words or not any(c in words for c in COLOR_WORDS))
        and (t.shape in words or not any(s in words for s in SHAPE_WORDS))
    ]
    if kind == "how_many":
        return str(len(group))
    claim = next(k for k, word in enumerate(wording.NUMBERS) if word.removesuffix("s") in words)
    return "Yes" if claim == len(group) else "No"


COLOR_WORDS = {"red", "green", "blue", "yellow", "purple", "orange", "cyan", "white"}
SHAPE_WORDS = {"circle", "square", "triangle", "diamond", "star", "cross"}


def side_oracle(kind, text, things) -> str:
    spots = sorted((text.index(t.name), t) for t in things if t.name in text)
    a, b = (t for _, t in sorted(spots, key=lambda pair: pair[0]))
    ax, ay, bx, by = ((t.box[i] + t.box[i + 2]) / 2 for t in (a, b) for i in (0, 1))
    truth = {"left": ax < bx, "right": ax > bx, "above": ay < by, "below": ay > by}
    truth |= {"top": truth["above"], "under": truth["below"]}
    said = [side for side in truth if re.search(rf"\b{side}\b", text)]
    if kind == "position":
        return "Yes" if truth[said[0]] else "No"
    return next(side for side in said if truth[side])


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_true(kind, held_out):
    scenes = describe(range(150), "mixed", split="dev")
    asked = 0
    for row in range(150):
        things = scenes.things(row)
        for truth in (True, False):
            try:
                question = ask(QuestionContext(things, Random(row), held_out), kind, truth)
            except UnaskableError:
                continue
            asked += 1
            assert question.answer == oracle(question, things), question
            for ref in question.refs:
                assert ref.phrase in question.text
    assert asked > 100


def test_regions_are_the_things_named():
    things = describe([3], "mixed").things(0)
    for seed in range(50):
        question = ask(QuestionContext(things, Random(seed)), "OCR")
        (k,) = question.region
        assert things[k].name in question.text


def test_training_speaks_the_published_prompts():
    """Word for word, spelt out here: the examiner, the exporter and cof.prompts say the same."""
    grounding = (
        "\nAccording to the information in the image and the question, \ndetail the bounding box "
        "of the region in the image that contains the answer in JSON format."
    )
    assert wording.GROUNDING == wording.GROUNDINGS[0] == grounding
    question = "What color is the star?"
    assert prompts.grounding_question(question + wording.WORD) == question + grounding
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    assert f"{system} USER: " == wording.OPENING
    whole = f"{wording.OPENING}<image>\n{question}{wording.SUFFIX}"
    assert whole == prompts.full_prompt(question, "vicuna_v1")
    assert wording.WORD == "\nAnswer the question using a single word or phrase."
    letter = "\nAnswer with the option's letter from the given choices directly."
    assert letter == wording.LETTER
    assert wording.REFER[0].format(a="red star") == prompts.DESCRIBED.format(text="red star")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_training_asks_for_regions_in_the_published_words(share):
    """As often as the diet says, and in no other words that are almost the same."""
    context, diet = SimpleNamespace(random=Random(0)), segments.Diet(published=share)
    asked = {segments._grounding_suffix(context, diet) for _ in range(60)}
    published = prompts.GROUNDING.removeprefix("{question}")
    assert asked == ({published} if share else set(wording.GROUNDINGS) - {published})


def test_bbox_replies_match_the_published_pattern():
    pattern = re.compile(r"\[\d\.\d+, \d\.\d+, \d\.\d+, \d\.\d+\]")
    two = wording.bbox_reply([(0, 0.1, 0.256, 1), (0.5, 0.5, 1, 1)])
    assert two == '{"bbox": [[0.00, 0.10, 0.26, 1.00], [0.50, 0.50, 1.00, 1.00]]}'
    assert len(pattern.findall(two)) == 2
    assert wording.bbox_reply([]) == '{"bbox": []}'


def test_uniform_numbers_are_uniform():
    from cof_lab.counter_random import uniform
    from cof_lab.world import scene_keys

    draws = uniform(scene_keys(0, "train", np.arange(2000)), 9, 50)
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.08
