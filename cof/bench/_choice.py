"""Multiple choice: the prompt, and the option that an answer names, without a judge."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cof.prompts import OPTION_LETTER

LETTERS = tuple("ABCDEFGHIJ")
"""Of options; not one string, in which "AB" and "" would be found too."""

UNRESOLVED = "Z"
"""Stands for an answer that names no option, or more than one."""

_PUNCTUATION = re.compile(r"[.()\[\],:;!*#{}]")
_ANSWER_IS = re.compile(r"\b[Aa]nswer\s+is\s*:?\s*\(?\**([A-Z])\b")


def ask(question: str, options: Sequence[str], suffix: str = OPTION_LETTER) -> str:
    """The question, a line an option with its letter, and the suffix."""
    lines = [question, *(f"{LETTERS[k]}. {option}" for k, option in enumerate(options))]
    return "\n".join(lines) + suffix


def extract(answer: str | None, options: Sequence[str]) -> str:
    """The letter of the option that an answer names, or `UNRESOLVED`; nothing is guessed.

    VLMEvalKit's exact matching: (1) exactly one option letter among the words, one of the last
    five of them, where `A` in an answer of more than three words may be an article; (2) `answer is
    X`; (3) the text of exactly one option within an answer that is at most twice as long as all
    options together.
    """
    if answer is None:
        return UNRESOLVED
    letters = LETTERS[: len(options)]
    words = _PUNCTUATION.sub(" ", answer).split()
    found = [letter for letter in letters if letter in words]
    article = found == ["A"] and len(words) > 3
    if len(found) == 1 and not article and words.index(found[0]) >= len(words) - 5:
        return found[0]
    said = set(_ANSWER_IS.findall(answer))
    if len(said) == 1 and said <= set(letters):
        return said.pop()
    return _by_text(answer.lower(), options)


def _by_text(answer: str, options: Sequence[str]) -> str:
    if len(answer) > 2 * sum(len(option) for option in options):
        return UNRESOLVED
    found = [LETTERS[k] for k, option in enumerate(options) if option.lower() in answer]
    return found[0] if len(found) == 1 else UNRESOLVED
