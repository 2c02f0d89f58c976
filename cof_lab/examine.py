"""Examine a checkpoint on the test split: the plain model by the library's own `generate`.

No CoF is involved. Intervals are 95 %, over scenes: questions about one scene are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from cof.analyse.statistics import Estimate, mean
from cof.evaluate.progress import progress
from cof.prompts import IMAGE
from cof.regions.boxes import clip, iou
from cof.regions.parse import parse_boxes
from cof.types import Box
from cof_lab import wording
from cof_lab.model import normalise_pixels
from cof_lab.question_context import GeneratedQuestion, QuestionContext, UnaskableError
from cof_lab.questions import WORD_KINDS, YES_NO_KINDS, ask
from cof_lab.render import render
from cof_lab.segments import MOST, fractions
from cof_lab.world import describe

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

DIFFICULTIES = ("easy", "fine", "crowded")


@dataclass(frozen=True)
class ExamQuestion:
    """One prompt to put to the model, and what counts as right."""

    scene: int
    kind: str
    prompt: str  # from the line break after <image> to 'ASSISTANT:'
    answer: str | None  # None: a grounding prompt
    boxes: tuple[Box, ...]  # fractions of the padded square


def load(folder: Path) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """A transformers-layout folder, in float32."""
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    from cof.models.common.loading import without_bars

    with without_bars():
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer


def exam_questions(
    difficulty: str, scenes: int, held_out: bool, side: int, split: str = "test"
) -> list[ExamQuestion]:
    """Every kind of question about each scene, to answer and to locate.

    Yes/no kinds ask a yes and a no each. `held_out`: wordings that training never used.
    """
    batch = describe(range(scenes), difficulty, split=split, side=side)
    result = []
    for row in range(scenes):
        things = batch.things(row)
        for kind in (*YES_NO_KINDS, *WORD_KINDS):
            truths = (True, False) if kind in YES_NO_KINDS else (True,)
            for truth in truths:
                context = QuestionContext(things, Random(f"{difficulty}-{row}-{kind}"), held_out)
                try:
                    question = ask(context, kind, truth)
                except UnaskableError:
                    continue
                true = fractions(things, question.region, side)
                result += _both(question, row, tuple(Box(*corners) for corners in true))
    return result


def _both(question: GeneratedQuestion, scene: int, boxes: tuple[Box, ...]) -> list[ExamQuestion]:
    suffix = wording.YES_NO if question.kind in YES_NO_KINDS else wording.WORD
    plain = "\n" + question.text + suffix + wording.SUFFIX
    answer = ExamQuestion(scene, question.kind, plain, question.answer, boxes)
    if len(boxes) > MOST:
        return [answer]
    ground = "\n" + question.text + wording.GROUNDING + wording.SUFFIX
    return [answer, ExamQuestion(scene, question.kind, ground, None, boxes)]


@torch.inference_mode()
def replies(
    model: Any,  # LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[ExamQuestion],
    difficulty: str,
    batch: int = 48,
    split: str = "test",
) -> list[str]:
    """Greedy replies, in order; prompts of like length share a batch, padded on the left."""
    side = model.config.vision_config.image_size
    pixels = render(describe(range(max(c.scene for c in asked) + 1), difficulty, split, side=side))
    opening = wording.OPENING + IMAGE * model.config.image_seq_length
    order = sorted(range(len(asked)), key=lambda k: (asked[k].answer is None, len(asked[k].prompt)))
    result = [""] * len(asked)
    with progress(len(order), "question", difficulty) as bar:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            texts = [opening + asked[k].prompt for k in rows]
            tokens = tokenizer(texts, padding=True, return_tensors="pt")
            output = model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pixel_values=normalise_pixels(pixels[[asked[k].scene for k in rows]]),
                max_new_tokens=8 if asked[rows[-1]].answer is not None else 64,
                do_sample=False,
            )
            new = output[:, tokens["input_ids"].shape[1] :]
            for k, text in zip(
                rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
            ):
                result[k] = text.strip()
            bar.update(len(rows))
    return result


def overlaps(reply: str, boxes: Sequence[Box]) -> list[float]:
    """For every true box, the best IoU that a box of the reply has with it."""
    found = [box for quad in parse_boxes(reply) if (box := clip(quad))]
    return [max((iou([guess], [box]) for guess in found), default=0.0) for box in boxes]


def examine(
    model: Any,  # LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast,
    scenes: int = 100,
    held_out: bool = False,
    difficulties: Sequence[str] = DIFFICULTIES,
    split: str = "test",
) -> dict[str, Any]:
    """All scores: {difficulty: {'accuracy' | 'hit' | 'iou' | 'absent': {kind: Estimate}}}.

    A hit is a question all of whose true boxes are found at IoU 0.5 or better; 'iou' averages the
    best IoU of its true boxes. 'absent' is the share of absent things that the model says are not
    there ('{"bbox": []}'). The kind 'all' pools the questions.
    """
    side = model.config.vision_config.image_size
    report = {}
    for difficulty in difficulties:
        asked = exam_questions(difficulty, scenes, held_out, side, split)
        texts = replies(model, tokenizer, asked, difficulty, split=split)
        report[difficulty] = _scores(asked, texts)
    return report


def _scores(asked: Sequence[ExamQuestion], texts: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    values: dict[str, list[tuple[str, int, float]]] = {}

    def add(name: str, case: ExamQuestion, value: float) -> None:
        values.setdefault(name, []).append((case.kind, case.scene, value))

    for case, text in zip(asked, texts, strict=True):
        if case.answer is not None:
            add("accuracy", case, float(text.lower() == case.answer.lower()))
        elif case.boxes:
            best = overlaps(text, case.boxes)
            add("hit", case, float(min(best) >= 0.5))
            add("iou", case, sum(best) / len(best))
        else:
            add("absent", case, float(not parse_boxes(text)))
    return {name: _by_kind(rows) for name, rows in values.items()}


def _by_kind(rows: list[tuple[str, int, float]]) -> dict[str, Estimate]:
    kinds = sorted({kind for kind, _, _ in rows})
    groups = {kind: [row for row in rows if row[0] == kind] for kind in kinds} | {"all": rows}
    return {
        kind: mean([v for _, _, v in group], [s for _, s, _ in group])
        for kind, group in groups.items()
    }
