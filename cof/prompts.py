"""Every prompt of the two stages, word for word as published; a snapshot test guards them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cof.errors import AnswerError

Span = tuple[int, int]
"""Characters of a text: the first, and the one behind the last."""

GROUNDING = (
    "{question}\nAccording to the information in the image and the question, \n"
    "detail the bounding box of the region in the image that contains the answer in JSON format."
)
"""The coarse stage's request (published MME script; the space before the newline is its own)."""

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""LLaVA's suffix for MME, POPE, GQA and TextVQA."""

OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."
"""LLaVA's suffix for multiple choice (MMBench)."""

OPTION_LETTER_CN = "\n请直接回答选项字母。"
"""The same for MMBench-CN (published evaluation script, `--lang cn`)."""

SUFFIXES = (SHORT_ANSWER, OPTION_LETTER, OPTION_LETTER_CN)
"""What benchmarks put behind a question."""

DESCRIBED = (
    "Please provide the bounding box coordinate of the region this sentence describes: {text}."
)
"""LLaVA-1.5's request for the box of a referring expression (its training data's wording)."""

_SYSTEM = (
    "A chat between a curious {who} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
)
SYSTEMS = {"vicuna_v1": _SYSTEM.format(who="user"), "llava_v1": _SYSTEM.format(who="human")}
"""Conversation mode -> system sentence pair (LLaVA, conversation.py)."""

IMAGE, IMAGE_START, IMAGE_END = "<image>", "<im_start>", "<im_end>"


def check_question(question: str) -> None:
    """Refuse a question that asks nothing.

    Raises:
        AnswerError: it is empty or blank.
    """
    if not question.strip():
        raise AnswerError(f"the question is empty ({question!r}); say what to ask")


def with_suffix(question: str, suffix: str | None) -> str:
    """A question with another ending than the one of `SUFFIXES` that it has, if any.

    Args:
        question: as a benchmark asks it; a question without such an ending stays as it is.
        suffix: None leaves every question alone.
    """
    for known in SUFFIXES if suffix is not None else ():
        if question.endswith(known):
            return f"{question.removesuffix(known)}{suffix}"
    return question


def grounding_question(question: str, template: str = GROUNDING) -> str:
    """Ask where instead of what, the way the published script does.

    Only the question's first line is kept: that is how the script drops LLaVA's suffix.

    Args:
        question: as the benchmark asks it, suffix included.
        template: the request, with `{question}` where the first line goes.
    """
    return template.replace("{question}", question.split("\n")[0])


def around_image(question: str, conv: str, start_end: bool = False) -> tuple[str, str]:
    """The chat prompt before and after the image; LLaVA tokenizes the two chunks apart.

    Args:
        question: what the user says after the image and a newline.
        conv: a key of `SYSTEMS`.
        start_end: wrap the image in `<im_start>`, `<im_end>` (`mm_use_im_start_end`).

    Returns:
        (text before the image, text after it).
    """
    before, after = f"{SYSTEMS[conv]} USER: ", f"\n{question} ASSISTANT:"
    return (before + IMAGE_START, IMAGE_END + after) if start_end else (before, after)


def full_prompt(question: str, conv: str, start_end: bool = False) -> str:
    """The chat prompt as one string, `<image>` in the image's place."""
    before, after = around_image(question, conv, start_end)
    return before + IMAGE + after


def spans_of(text: str, phrases: Sequence[str]) -> list[Span]:
    """Every place where one of the phrases stands, as whole words, in upper or lower case.

    Any white space stands for any other; an empty phrase stands nowhere.
    """
    wanted = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases if phrase.strip()]
    patterns = [rf"(?<!\w){words}(?!\w)" for words in wanted]
    return [one.span() for pattern in patterns for one in re.finditer(pattern, text, re.IGNORECASE)]


def positions_of(spans: Sequence[Span], offsets: Sequence[Span]) -> list[int]:
    """Positions of the tokens that hold a character of any span, in their order.

    Args:
        spans: characters of a text.
        offsets: per token the characters of that text that it stands for, as a tokenizer of
            transformers gives them (`return_offsets_mapping=True`); (n, n) for a token of none.
    """
    return [
        place
        for place, (begin, end) in enumerate(offsets)
        if any(begin < last and first < end for first, last in spans)
    ]
