"""From scenes to token segments: what the language model is asked, and what it is taught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from cof_lab import wording
from cof_lab.question_context import GeneratedQuestion, QuestionContext, Ref, UnaskableError
from cof_lab.questions import WORD_KINDS, YES_NO_KINDS, ask, multiple_choice
from cof_lab.tokenizer import EOS
from cof_lab.world import Thing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST = 5  # boxes in one reply
WEIGHTS = {
    "existence": 1.0, "count": 1.6, "position": 1.6, "color": 1.0, "OCR": 1.0,
    "what_color": 0.6, "what_shape": 0.6, "what_digit": 1.0, "how_many": 1.2, "which_side": 1.2,
}  # fmt: skip


@dataclass(frozen=True)
class Diet:
    """Shares of what is asked at one moment of training (each in 0..1)."""

    dense: float = 0.5  # 'Describe the red circle.' among the short segments
    absent: bool = False  # ask about things that are not there
    yes_no: float = 0.6  # yes/no among the other short segments
    published: float = 0.3  # the paper's own grounding prompt among grounding prompts
    refer: float = 0.4  # plain 'where is the red circle' among the long segments but groups
    choice: float = 0.0  # multiple choice among the long segments but groups
    group: float = 0.0  # all of several things among the long segments, if they are counted
    short: int = 16  # segments an image that read
    long: int = 6  # and that locate
    kinds: tuple[str, ...] = (*YES_NO_KINDS, *WORD_KINDS)  # of question


@dataclass(frozen=True)
class Sample:
    """One prompt (from the line break after <image> on) and its reply, as text.

    hints: (end of a phrase in `prompt`, a word that should be known there).
    refs: (end of a phrase, indices of the things it names).
    boxes: indices of the things whose boxes the reply gives, in its order.
    """

    prompt: str
    reply: str
    kind: str
    reading: bool  # the reply tells something about the picture other than where
    refs: tuple[tuple[int, tuple[int, ...]], ...] = ()
    hints: tuple[tuple[int, str], ...] = ()
    boxes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """A Sample in tokens. `labels` is the reply's first position; refs and hints by position."""

    ids: list[int]
    labels: int
    refs: list[tuple[int, tuple[int, ...]]]
    hints: list[tuple[int, int]]
    sample: Sample


def fractions(things: Sequence[Thing], indices: Sequence[int], side: int) -> list[list[float]]:
    """Boxes of these things as fractions of the padded square."""
    return [[value / side for value in things[k].box] for k in indices]


def answer_sample(context: QuestionContext, question: GeneratedQuestion, suffix: str) -> Sample:
    """The question with a suffix, and its short answer."""
    return _sample(context, question, question.text + suffix, " " + question.answer, reading=True)


def grounding_sample(
    context: QuestionContext, question: GeneratedQuestion, suffix: str, side: int
) -> Sample:
    """The question with a grounding prompt, and the JSON of its region."""
    boxes = fractions(context.things, question.region, side)
    reply = " " + wording.bbox_reply(boxes)
    return _sample(context, question, question.text + suffix, reply, reading=False)


def _sample(
    context: QuestionContext, question: GeneratedQuestion, text: str, reply: str, reading: bool
) -> Sample:
    body = "\n" + text
    refs, hints = [], []
    for ref in question.refs:
        end = 1 + _end(question.text, ref.phrase)
        refs.append((end, ref.things))
        word = attribute(context.things, ref)
        if word:
            hints.append((end, word))
    if question.fact:
        hints.append((1 + _first_sentence(question.text), question.fact))
    kind = question.kind if reading else "box"
    boxes = question.region if "[" in reply else ()
    return Sample(body + wording.SUFFIX, reply, kind, reading, tuple(refs), tuple(hints), boxes)


def _end(text: str, phrase: str) -> int:
    """Index after the last character of a phrase; it is there by construction."""
    return text.index(phrase) + len(phrase)


def _first_sentence(text: str) -> int:
    """Index after the question mark (or full stop) that ends the bare question."""
    ends = [text.index(mark) + 1 for mark in "?." if mark in text.split("\n")[0]]
    return min(ends)


def attribute(things: Sequence[Thing], ref: Ref) -> str:
    """What looking at the phrase's things tells beyond the phrase itself."""
    if len(ref.things) != 1:
        return str(len(ref.things)) if ref.things else "none"
    thing = things[ref.things[0]]
    return thing.color if thing.color not in ref.phrase else thing.glyph


def describe_sample(context: QuestionContext, side: int) -> Sample:
    """'Describe the red circle.' -> digit and box; by its digit -> name and box."""
    if context.random.random() < 0.6:
        index = context.thing()
        ref = context.name(index)
        told = context.things[index].glyph
    else:
        index, ref = context.by_glyph()
        told = context.things[index].name
    text = context.say("describe", a=ref.phrase)
    question = GeneratedQuestion("describe", text, told, (index,), (ref,))
    box = wording.bbox_reply(fractions(context.things, (index,), side))
    return _sample(context, question, text, f" {told} {box}", reading=True)


def refer_sample(context: QuestionContext, side: int) -> Sample:
    """Where one thing is."""
    ref = context.name(context.thing()) if context.random.random() < 0.7 else context.by_glyph()[1]
    text = context.pick(wording.REFER[:-1]).format(a=ref.phrase)
    return _located(context, text, ref, side)


def group_sample(context: QuestionContext, diet: Diet, side: int) -> Sample:
    """Where all of several things are, asked for or counted."""
    if context.random.random() < 0.5:
        ref = context.group(most=MOST)
        return _located(context, context.say("list", many=ref.phrase), ref, side)
    question = ask(context, context.pick(("count", "how_many")))
    if len(question.region) > MOST:
        raise UnaskableError
    return grounding_sample(context, question, _grounding_suffix(context, diet), side)


def _located(context: QuestionContext, text: str, ref: Ref, side: int) -> Sample:
    question = GeneratedQuestion("refer", text, "", ref.things, (ref,))
    boxes = wording.bbox_reply(fractions(context.things, ref.things, side))
    return _sample(context, question, text, " " + boxes, reading=False)


def ask_any(context: QuestionContext, diet: Diet, yes_no: float) -> GeneratedQuestion:
    """A question of some kind that this scene allows."""
    while True:
        family = YES_NO_KINDS if context.random.random() < yes_no else WORD_KINDS
        kinds = [kind for kind in family if kind in diet.kinds]
        kind = context.random.choices(kinds, [WEIGHTS[k] for k in kinds])[0]
        try:
            question = ask(context, kind)
        except UnaskableError:
            continue
        if diet.absent or question.region:
            return question


def short_samples(context: QuestionContext, diet: Diet, side: int) -> list[Sample]:
    """A dense description, a short answer, or a yes/no question with its opposite."""
    if context.random.random() < diet.dense:
        return [_retry(lambda: describe_sample(context, side))]
    if context.random.random() < diet.yes_no:
        return _pair(context, diet)
    question = ask_any(context, diet, 0.0)
    return [answer_sample(context, question, context.random.choice(("", wording.WORD)))]


def _pair(context: QuestionContext, diet: Diet) -> list[Sample]:
    """Yes and no that differ in the claim and in nothing else, which teaches to compare."""
    kinds = [k for k in YES_NO_KINDS if k in diet.kinds and (diet.absent or k != "existence")]
    suffix = context.random.choice(("", wording.WORD, *[wording.YES_NO] * 3))
    while True:
        kind = context.random.choices(kinds, [WEIGHTS[k] for k in kinds])[0]
        state = context.random.getstate()
        try:
            yes = ask(context, kind, True)
            context.random.setstate(state)
            pair = yes, ask(context, kind, False)
        except UnaskableError:
            continue
        return [answer_sample(context, question, suffix) for question in pair]


def long_sample(context: QuestionContext, diet: Diet, side: int) -> Sample:
    """A locating question, or multiple choice."""
    if "how_many" in diet.kinds and context.random.random() < diet.group:
        return _retry(lambda: group_sample(context, diet, side))
    draw = context.random.random()
    if draw < diet.refer:
        return _retry(lambda: refer_sample(context, side))
    if draw < diet.refer + diet.choice:
        question = multiple_choice(ask_any(context, diet, 0.0), context.random)
        return answer_sample(context, question, wording.LETTER)
    question = ask_any(context, diet, 0.6)
    while len(question.region) > MOST:
        question = ask_any(context, diet, 0.6)
    if question.kind in YES_NO_KINDS and context.random.random() < 0.15:
        question = replace(question, text=question.text + wording.YES_NO)
    return grounding_sample(context, question, _grounding_suffix(context, diet), side)


def _grounding_suffix(context: QuestionContext, diet: Diet) -> str:
    if context.random.random() < diet.published:
        return wording.GROUNDING
    return context.random.choice(wording.GROUNDINGS[1:])


def _retry(make: Callable[[], Sample]) -> Sample:
    for _ in range(100):
        try:
            return make()
        except UnaskableError:
            continue
    raise UnaskableError


def samples(
    things: Sequence[Thing], random: Random, diet: Diet, side: int
) -> tuple[list[Sample], list[Sample]]:
    """`diet.short` reading samples and `diet.long` locating samples about one scene."""
    context = QuestionContext(things, random)
    few: list[Sample] = []
    while len(few) < diet.short:
        few += short_samples(context, diet, side)
    return few[: diet.short], [long_sample(context, diet, side) for _ in range(diet.long)]


def tokenize(batch: Sequence[Sample], tokenizer: PreTrainedTokenizerFast) -> list[Tokens]:
    """Encode samples; the prompt chunk is tokenized on its own, as LLaVA does after <image>."""
    texts = [sample.prompt + sample.reply for sample in batch]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    word: Any = tokenizer.convert_tokens_to_ids
    result = []
    for sample, ids, offsets in zip(
        batch, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        ends = {end: position for position, (_, end) in enumerate(offsets)}
        labels = next(k for k, (start, _) in enumerate(offsets) if start >= len(sample.prompt))
        refs = [(ends[end], things) for end, things in sample.refs]
        hints = [(ends[end], word("Ġ" + text)) for end, text in sample.hints]
        result.append(Tokens([*ids, EOS], labels, refs, hints, sample))
    return result
