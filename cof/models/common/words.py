"""Where words of a question stand in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cof.errors import ModelError
from cof.models.base import Encoded
from cof.prompts import Span, positions_of


def places(
    encoded: Encoded,
    begins: Sequence[int],
    offsets: Sequence[Sequence[Span]],
    spans: Sequence[Sequence[Span]],
) -> list[Tensor]:
    """Positions of the tokens that hold some characters of the questions, per row int64 [n].

    Args:
        encoded: B prompts.
        begins: per row where the question begins in the text that its prompt ends with.
        offsets: per row the characters of that text that each of the last tokens stands for.
        spans: per row characters of the question.
    """
    rows = []
    for row, (begin, some, wanted) in enumerate(zip(begins, offsets, spans, strict=True)):
        moved = [(first + begin, last + begin) for first, last in wanted]
        found = [] if row in encoded.refused else positions_of(moved, some)
        rows.append(torch.tensor(found, dtype=torch.long) + (encoded.keys - len(some)))
    return rows


def chat_offsets(tokenizer: Any, text: str, question: str) -> tuple[int, list[Span]]:
    """Where a question begins in a prompt's text, and the characters that each token stands for.

    Raises:
        ModelError: the chat template changes the question, or the tokenizer does not say.
    """
    begin = text.rfind(question.strip())
    if begin < 0:
        raise ModelError(f"the chat template changes {question[:60]!r}; leave refine.text out")
    special = tokenizer.bos_token and text.startswith(tokenizer.bos_token)
    try:
        said = tokenizer(text, add_special_tokens=not special, return_offsets_mapping=True)
    except NotImplementedError as error:
        kind = type(tokenizer).__name__
        raise ModelError(f"{kind} does not say which characters its tokens stand for") from error
    return begin - (len(question) - len(question.lstrip())), list(said.offset_mapping)
