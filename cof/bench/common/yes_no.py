"""Is an answer a yes or a no? POPE's incompatible parsers, each under its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cof.bench.common.vqa_words import without_marks


def parse_llava(answer: str) -> str:
    """LLaVA's rule, and POPE's own: a `No`, `no` or `not` in the first sentence, else yes."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def parse_strict(answer: str) -> str:
    """lmms-eval's rule: the whole answer is yes or no, in any case, else `other`.

    lmms-eval leaves `other` out of its recall too, and its yes ratio is of the labels; ours are
    defined as for every other parser (see `cof.bench.pope`).
    """
    bare = answer.lower().strip()
    return bare if bare in ("yes", "no") else "other"


def parse_word(answer: str) -> str:
    """VLMEvalKit's rule (`YOrN_Extraction`): one of the words yes and no occurs, else `other`.

    Words stand between spaces once VQA's punctuation is gone, to which `:`, `*`, apostrophes and
    dashes do not belong: `Yes:`, `**Yes**`, `'Yes'` and `No—absolutely` hold neither word.
    """
    words = without_marks(answer.lower(), _MARKS).split()
    found = [word for word in ("yes", "no") if word in words]
    return found[0] if len(found) == 1 else "other"


_MARKS = ';/[]"{}()=+\\_-><@`,?!'


def blank_yes(answer: str | None, parse: Callable[[str], str]) -> bool:
    """Whether an answer without a word counts as yes, as LLaVA's rule has it."""
    return answer is not None and not answer.strip() and parse(answer) == "yes"


PARSERS: Mapping[str, Callable[[str], str]] = {
    "llava": parse_llava,
    "strict": parse_strict,
    "word": parse_word,
}
