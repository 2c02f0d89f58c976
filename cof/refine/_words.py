"""Words of the question, lit beside a region or without one: Prompt Highlighter's text mode.

Source: arXiv 2312.04302; its scripts take a text and light the tokens that spell it in the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cof.errors import ConfigError, shown
from cof.models.base import Encoded, Model
from cof.prompts import Span, spans_of
from cof.types import Question


def word_spans(text: str, question: str) -> tuple[Span, ...]:
    """Characters of a question where one of the phrases of `text` (commas between) stands."""
    return tuple(spans_of(question, text.split(",")))


def words_noted(question: str, spans: Sequence[Span]) -> Mapping[str, Any]:
    """What an answer records of the words that were lit; {} of none."""
    return {"words": [question[first:last] for first, last in spans]} if spans else {}


def check_stand(text: str, questions: Sequence[Question]) -> None:
    """Refuse `text` of which nothing stands in any question, as a typing error has it.

    Raises:
        ConfigError: the message shows it, and the first question.
    """
    if text and not any(word_spans(text, one.text) for one in questions):
        first = f"; the first asks {shown(questions[0].text)}" if questions else ""
        raise ConfigError(
            f"refine.text={text!r}: none of it stands in any of the {len(questions)} questions as "
            f"whole words (phrases are told apart by commas){first}"
        )


def check_words(model: Model, text: str, perturb: float = 1.0) -> None:
    """Refuse `text` for a model that cannot have it.

    Raises:
        ConfigError: it does not say where words are, or cannot multiply their embeddings.
    """
    if text and model.lights_words == "no":
        raise ConfigError(
            f"refine.text: {model.name} does not say where words of a prompt are; leave it out"
        )
    if text and perturb != 1 and model.lights_words != "inputs":
        raise ConfigError(
            f"refine.perturb={perturb:g}: {model.name} cannot multiply the embeddings of words; "
            "use refine.perturb=1 with refine.text"
        )


def widened(
    model: Model,
    encoded: Encoded,
    questions: Sequence[str],
    masks: Sequence[Tensor],
    spans: Sequence[Sequence[Span]],
) -> tuple[Encoded, list[Tensor]]:
    """The prompts with words among their `visual` tokens, and the masks that light these too.

    Args:
        model: whose prompts they are.
        encoded: B prompts.
        questions: the B questions, as they were encoded.
        masks: per row bool [T].
        spans: per row characters of the question.
    """
    if not any(spans):
        return encoded, list(masks)
    found = model.words(encoded, questions, spans)
    visual = tuple(torch.cat(pair) for pair in zip(encoded.visual, found, strict=True))
    lit = [
        torch.cat([mask.cpu(), torch.ones(len(more), dtype=torch.bool)])
        for mask, more in zip(masks, found, strict=True)
    ]
    return replace(encoded, visual=visual), lit
