"""The checkpoint's own chat template, and one question in it; a family's text where there is none.

A template is a program that comes with the weights: it is run as transformers runs it (sandboxed
jinja), and what it gives is held to one thing, that the image's mark stands in it exactly once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from cof.errors import ModelError
from cof.models.common.checkpoint import PROCESSOR, read_json

_PROBE = "What is it?"


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer, as transformers picks it.

    Raises:
        ModelError: no tokenizer files, or damaged ones.
    """
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file makes the tokenizer libraries raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: the tokenizer cannot be loaded ({reason})") from error


def chat_template(folder: Path) -> str | None:
    """The template of a folder, in the order in which transformers' processors take it."""
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    for name in ("chat_template.json", PROCESSOR, "tokenizer_config.json"):
        file = folder / name
        said = read_json(file).get("chat_template") if file.is_file() else None
        if isinstance(said, list):  # several by name
            named = {str(one.get("name")): one.get("template") for one in said}
            said = named.get("default") or next(iter(named.values()), None)
        if isinstance(said, str) and said:
            return said
    return None


@dataclass(frozen=True)
class Chat:
    """A question -> the text of its prompt, the image's mark in it once.

    Attributes:
        tokenizer: renders the template, and makes ids.
        template: the checkpoint's, None where it has none.
        mark: what stands for the image.
        default: the prompt where there is no template.
    """

    tokenizer: Any
    template: str | None
    mark: str
    default: Callable[[str], str]

    @property
    def source(self) -> str:
        """Where prompts come from: `family`, or a digest of the checkpoint's template."""
        if self.template is None:
            return "family"
        return f"checkpoint:{hashlib.sha256(self.template.encode()).hexdigest()[:16]}"

    def text(self, question: str) -> str:
        """The prompt of one question about one image, up to where the reply begins."""
        if self.template is None:
            return self.default(question)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        rendered = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return str(rendered)

    def ids(self, text: str) -> list[int]:
        """Ids of a whole prompt; its beginning-of-sequence token once, wherever it comes from."""
        begin = self.tokenizer.bos_token
        added = not (begin and text.startswith(begin))
        return list(self.tokenizer(text, add_special_tokens=added).input_ids)

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a reply as they follow a prompt, without the end.

        A prompt that ends in a word (`ASSISTANT:`) has a blank between itself and the reply.
        """
        tail = self.text("").rpartition(self.mark)[2]
        lead = "" if not tail or tail[-1].isspace() or tail[-1] in ">]" else " "
        encode = self.tokenizer
        head, both = (
            list(encode(one, add_special_tokens=False).input_ids)
            for one in (tail, f"{tail}{lead}{text}")
        )
        if both[: len(head)] == head:
            return both[len(head) :]
        return list(encode(lead + text, add_special_tokens=False).input_ids)

    def check(self, folder: Path) -> None:
        """Raise ModelError where a prompt would not show the image exactly once."""
        try:
            text = self.text(_PROBE)
        except Exception as error:  # a template is a program: it may raise anything
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{folder}: its chat template cannot be used ({reason})") from error
        if text.count(self.mark) != 1 or _PROBE not in text:
            raise ModelError(
                f"{folder}: its chat template makes {text[:200]!r} of an image and {_PROBE!r}; "
                f"expected the question, and {self.mark} for the image, once each"
            )
