"""Multiple choice: the prompt, and the option that an answer names, without a judge.

Three rules, `bench.extract`:

`vlmevalkit` (default, what leaderboards compare) is VLMEvalKit's exact matching, `can_infer`, as
it runs without a judge and without VERBOSE (its rule that `A` may be an article needs VERBOSE):

1. an answer that refuses in one of four wordings names nothing;
2. without the signs `.()[],:;!*#{}` it holds exactly one option's letter as a word, and the first
   such word is one of the last four (index > n - 5): that letter;
3. no option's letter but the word `Z`: nothing;
4. `answer is` and then a letter A to D, all in any case and the letter not necessarily a word, so
   that "the answer is black" is B: that letter, if it is an option's;
5. the text of exactly one option within an answer at most twice as long as all options together.

`clean` reads what a person would, so that an answer of one form counts the same whichever letter
is right: option texts are cut out, with an article before them; the letter is the only one that
ends the answer, or stands before a sign or a word such as `is`; else as `answer is` and a whole
capital letter of any option, else by the text.

`llava` is LLaVA's for ScienceQA (eval_science_qa.py): the whole answer is a letter, or begins with
a letter, a full stop and a blank, or holds "The answer is X." exactly once; else it names nothing.

Under the first two, full-width signs are their plain counterparts and Chinese cues set a letter
apart ("答案是A", "A选项"): an extension of ours; VLMEvalKit leaves such answers to its judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from cof.prompts import OPTION_LETTER

Extract = Literal["vlmevalkit", "clean", "llava"]

LETTERS = tuple("ABCDEFGHIJ")
"""Of options; not one string, in which "AB" and "" would be found too."""

UNRESOLVED = "Z"
"""Stands for an answer that names no option, or more than one."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = re.compile(r"[.()\[\],:;!*#{}]")
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_ANSWER_IS_WHOLE = re.compile(r"\b(?i:answer\s+is)\s*:?\s*\(?\**([A-Z])\b")

_SET_OFF = re.compile(
    r"(?<!\w)([A-J])(?=\s*(?:$|[^\w\s'-]|-\W|(?:is|was|as|because|since|and|or|would|seems)\b))"
)

_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | dict.fromkeys(
    map(ord, "　、。《》「」『』【】〔〕"), " "
)
_CUE_BEFORE = re.compile(r"(?:答案|选)[^A-Za-z0-9]{0,4}?([A-J])(?![A-Za-z])")
_CUE_AFTER = re.compile(r"(?<![A-Za-z])([A-J])(?=选?项(?!目))")


def ask(question: str, options: Sequence[str], suffix: str = OPTION_LETTER) -> str:
    """The question, a line an option with its letter, and the suffix."""
    lines = [question, *(f"{LETTERS[k]}. {option}" for k, option in enumerate(options))]
    return "\n".join(lines) + suffix


def extract(answer: str | None, options: Sequence[str], rule: Extract = "vlmevalkit") -> str:
    """The letter of the option that an answer names, or `UNRESOLVED`; nothing is guessed."""
    if answer is not None and rule == "llava":
        return _by_llava(answer, LETTERS[: len(options)])
    if answer is None or any(refusal in answer for refusal in _REFUSALS):
        return UNRESOLVED
    plain = _plain(answer)
    letters = LETTERS[: len(options)]
    if rule == "clean":
        rest = _without_texts(plain, options)
        found = _one({*_SET_OFF.findall(rest)} & {*letters})
        found = found or _one({*_ANSWER_IS_WHOLE.findall(plain)} & {*letters})
    else:
        found = _by_letter(plain, letters)
        said = _ANSWER_IS.search(plain)
        if found is None and said and said[1].upper() in letters:
            found = said[1].upper()
    return found or _by_text(answer, options)


def _by_llava(answer: str, letters: Sequence[str]) -> str:
    found = _LLAVA_SAID.findall(answer)
    if answer in letters:
        said = answer
    elif len(answer) >= 3 and answer[0] in _LLAVA_LETTERS and answer[1:3] == ". ":
        said = answer[0]
    else:
        said = found[0] if len(found) == 1 else UNRESOLVED
    return said if said in letters else UNRESOLVED


_LLAVA_LETTERS = tuple("ABCDE")
_LLAVA_SAID = re.compile(r"The answer is ([A-Z]).")


def disputed(answer: str | None, options: Sequence[str]) -> bool:
    """Whether the two rules read an answer differently."""
    return extract(answer, options) != extract(answer, options, "clean")


def _plain(answer: str) -> str:
    """Full-width forms as plain ones, letters that a Chinese cue points to as words."""
    text = answer.translate(_PLAIN)
    return _CUE_AFTER.sub(r" \1. ", _CUE_BEFORE.sub(r" \1. ", text))


def _by_letter(answer: str, letters: Sequence[str]) -> str | None:
    """The only option letter among the words; `UNRESOLVED` for the word that says none."""
    words = _PUNCTUATION.sub(" ", answer).split()
    found = _one({*letters} & {*words})
    if found and words.index(found) > len(words) - 5:
        return found
    return UNRESOLVED if UNRESOLVED in words and not {*letters} & {*words} else None


def _one(found: set[str]) -> str | None:
    return found.pop() if len(found) == 1 else None


def _without_texts(answer: str, options: Sequence[str]) -> str:
    """The answer less the options' texts and an article right before one, longest texts first."""
    for option in sorted(options, key=len, reverse=True):
        if len(option) > 1:
            answer = re.sub(
                rf"(?:\b(?i:an?|the)\s+)?(?<!\w)(?i:{re.escape(option)})(?!\w)", " ", answer
            )
    return answer


def _by_text(answer: str, options: Sequence[str]) -> str:
    low = answer.lower()
    if len(low) > 2 * sum(len(option) for option in options):
        return UNRESOLVED
    found = [LETTERS[k] for k, option in enumerate(options) if option.lower() in low]
    return found[0] if len(found) == 1 else UNRESOLVED
