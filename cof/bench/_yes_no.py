"""Is an answer a yes or a no? POPE's incompatible parsers, each under its own name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def parse_llava(answer: str) -> str:
    """LLaVA's rule, and POPE's own: a `No`, `no` or `not` in the first sentence, else yes."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def parse_strict(answer: str) -> str:
    """lmms-eval's rule: the whole answer is yes or no, else `other`."""
    bare = answer.lower().strip()
    return bare if bare in ("yes", "no") else "other"


def parse_word(answer: str) -> str:
    """VLMEvalKit's rule: exactly one of the words yes and no occurs, else `other`."""
    words = set(re.findall(r"[^\W_]+", answer.lower()))
    found = [word for word in ("yes", "no") if word in words]
    return found[0] if len(found) == 1 else "other"


PARSERS: Mapping[str, Callable[[str], str]] = {
    "llava": parse_llava,
    "strict": parse_strict,
    "word": parse_word,
}
