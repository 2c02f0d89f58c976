"""Does a checkpoint's chat template agree with the prompts that it will get?"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from cof.models.common.checkpoint import Checkpoint, read_json

Kind = Literal["vicuna", "other"]
log = logging.getLogger(__name__)

_ASKED = "Is it red?"
_VICUNA = re.compile(
    rf".*\bUSER:\s*(<image>\s*)?{re.escape(_ASKED)}\s*ASSISTANT:\s*", flags=re.DOTALL
)
"""Roles and their order; a template may leave out the system sentence, as llava-hf's does."""


def chat_template(checkpoint: Checkpoint, tokenizer: Any, conv: str) -> Kind | None:
    """What kind of chat template comes with a checkpoint; one warning if it is not Vicuna's.

    Args:
        checkpoint: prompts follow `conv` and not its template, as in the published code.
        tokenizer: renders the template.
        conv: the conversation mode that prompts follow.

    Returns:
        None where there is no template.
    """
    file, template = next(_templates(checkpoint.folder), (checkpoint.folder, ""))
    if not template:
        return None
    shown = [_render(tokenizer, template, content) for content in _contents()]
    if any(_VICUNA.fullmatch(text) for text in shown):
        return "vicuna"
    log.warning(
        "%s: its chat template is not Vicuna's (%r), but prompts are made as conv: %s says; "
        "answers of a model that was trained on another chat are not its best",
        *(file, next(filter(None, shown), "cannot be rendered")[:80], conv),
    )
    return "other"


def _templates(folder: Path) -> Iterator[tuple[Path, str]]:
    """Templates in the order in which transformers takes them."""
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        yield plain, plain.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        file = folder / name
        said = read_json(file).get("chat_template") if file.is_file() else None
        if isinstance(said, list):  # several by name
            named = {str(one.get("name")): one.get("template") for one in said}
            said = named.get("default") or next(iter(named.values()), None)
        if isinstance(said, str) and said:
            yield file, said


def _contents() -> tuple[Any, str]:
    """A user's turn as templates with images take it, and as those for text alone do."""
    return [{"type": "image"}, {"type": "text", "text": _ASKED}], _ASKED


def _render(tokenizer: Any, template: str, content: Any) -> str:
    turn = [{"role": "user", "content": content}]
    options = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
    try:
        return str(tokenizer.apply_chat_template(turn, **options))
    except Exception:  # a template is a program: it may raise anything for content it does not take
        return ""
