"""Examine a checkpoint on the test split: the plain model by the library's own `generate`.

No CoF is involved. Intervals are 95 %, over scenes: questions about one scene are not independent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from cof.analyse.statistics import Estimate, mean
from cof_lab import wording
from cof_lab.model import normalise
from cof_lab.question_context import Asker, Question, UnaskableError
from cof_lab.questions import WORD_KINDS, YES_NO_KINDS, ask
from cof_lab.render import render
from cof_lab.segments import MOST, fractions
from cof_lab.world import describe

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

DIFFICULTIES = ("easy", "fine", "crowded")
BOX = re.compile(r"\[(\d\.\d+), (\d\.\d+), (\d\.\d+), (\d\.\d+)\]")


@dataclass(frozen=True)
class Case:
    """One prompt to put to the model, and what counts as right."""

    scene: int
    kind: str
    prompt: str  # from the line break after <image> to 'ASSISTANT:'
    answer: str | None  # None: a grounding prompt
    boxes: list[list[float]]  # fractions of the padded square


def load(folder: Path) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """A transformers-layout folder, in float32."""
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer


def cases(
    difficulty: str, scenes: int, held_out: bool, side: int, split: str = "test"
) -> list[Case]:
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
                asker = Asker(things, Random(f"{difficulty}-{row}-{kind}"), held_out)
                try:
                    question = ask(asker, kind, truth)
                except UnaskableError:
                    continue
                result += _both(question, row, fractions(things, question.region, side))
    return result


def _both(question: Question, scene: int, boxes: list[list[float]]) -> list[Case]:
    suffix = wording.YES_NO if question.kind in YES_NO_KINDS else wording.WORD
    plain = "\n" + question.text + suffix + wording.SUFFIX
    answer = Case(scene, question.kind, plain, question.answer, boxes)
    if len(boxes) > MOST:
        return [answer]
    ground = "\n" + question.text + wording.GROUNDING + wording.SUFFIX
    return [answer, Case(scene, question.kind, ground, None, boxes)]


@torch.inference_mode()
def replies(
    model: Any,  # LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[Case],
    difficulty: str,
    batch: int = 48,
    split: str = "test",
) -> list[str]:
    """Greedy replies, in order; prompts of like length share a batch, padded on the left."""
    from tqdm import tqdm

    side = model.config.vision_config.image_size
    pixels = render(describe(range(max(c.scene for c in asked) + 1), difficulty, split, side=side))
    image = "<image>" * model.config.image_seq_length
    opening = wording.PREFIX.replace("<image>", image)
    order = sorted(range(len(asked)), key=lambda k: (asked[k].answer is None, len(asked[k].prompt)))
    result = [""] * len(asked)
    for start in tqdm(range(0, len(order), batch), desc=difficulty, mininterval=5):
        rows = order[start : start + batch]
        texts = [opening + asked[k].prompt for k in rows]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        output = model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=normalise(pixels[[asked[k].scene for k in rows]]),
            max_new_tokens=8 if asked[rows[-1]].answer is not None else 64,
            do_sample=False,
        )
        new = output[:, tokens["input_ids"].shape[1] :]
        for k, text in zip(
            rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
        ):
            result[k] = text.strip()
    return result


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two (x0, y0, x1, y1) boxes; 0 where a box is empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    total = sum(max(0.0, x[2] - x[0]) * max(0.0, x[3] - x[1]) for x in (a, b)) - shared
    return shared / total if total > 0 else 0.0


def overlaps(reply: str, boxes: Sequence[Sequence[float]]) -> list[float]:
    """For every true box, the best IoU that a box of the reply has with it."""
    found = [[float(value) for value in match] for match in BOX.findall(reply)]
    return [max((iou(box, guess) for guess in found), default=0.0) for box in boxes]


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
        asked = cases(difficulty, scenes, held_out, side, split)
        texts = replies(model, tokenizer, asked, difficulty, split=split)
        report[difficulty] = _scores(asked, texts)
    return report


def _scores(asked: Sequence[Case], texts: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    values: dict[str, list[tuple[str, int, float]]] = {}

    def add(name: str, case: Case, value: float) -> None:
        values.setdefault(name, []).append((case.kind, case.scene, value))

    for case, text in zip(asked, texts, strict=True):
        if case.answer is not None:
            add("accuracy", case, float(text.lower() == case.answer.lower()))
        elif case.boxes:
            best = overlaps(text, case.boxes)
            add("hit", case, float(min(best) >= 0.5))
            add("iou", case, sum(best) / len(best))
        else:
            add("absent", case, float(not BOX.search(text)))
    return {name: _by_kind(rows) for name, rows in values.items()}


def _by_kind(rows: list[tuple[str, int, float]]) -> dict[str, Estimate]:
    kinds = sorted({kind for kind, _, _ in rows})
    groups = {kind: [row for row in rows if row[0] == kind] for kind in kinds} | {"all": rows}
    return {
        kind: mean([v for _, _, v in group], [s for _, s, _ in group])
        for kind, group in groups.items()
    }
