"""EvalAI's normalisation of short answers, its oddities included, as the VQA challenges score."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cof.bench.common.answers import add_up

_NUMBERS = {
    **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"},
    **{"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"},
}
_ARTICLES = ("a", "an", "the")
_MARKS = ';/[]"{}()=+\\_-><@`!'
_PERIOD = re.compile(r"\.(?!\d)")
_THOUSANDS = re.compile(r"\d,\d")

_CONTRACTED = re.findall(
    r"\S+",
    """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""",
)


def _contractions() -> dict[str, str]:
    """Each contraction with one apostrophe left out -> the contraction."""
    table = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTED
        for place, letter in enumerate(word)
        if letter == "'"
    }
    return table | {"somebody'd": "somebodyd"}  # published the wrong way round


_CONTRACTIONS = _contractions()


def normalise(answer: str) -> str:
    """Lower case; punctuation and articles gone; number words as digits; apostrophes put back."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    words = [_NUMBERS.get(word, word) for word in without_marks(text).split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, truths: Sequence[str]) -> float:
    """VQA's credit of an answer, in [0, 1]: min(1, matches / 3) among all truths but one, averaged
    over the ways to leave one out.
    """
    known, said = [normalise(truth) for truth in truths], normalise(answer)
    if said not in known:
        return 0.0
    count = known.count(said)
    return add_up(min(1.0, float(count - (one == said)) / 3) for one in known) / len(known)


def without_marks(text: str, marks: str = _MARKS) -> str:
    """Marks that touch a space go, others become one; so does a period that no digit follows.

    Where a comma stands between digits, as published, every mark goes.
    """
    out, close = text, _THOUSANDS.search(text) is not None
    for mark in marks:
        drop = close or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if drop else " ")
    return _PERIOD.sub("", out, count=32)  # published: re.UNICODE (32) stands in count's place
