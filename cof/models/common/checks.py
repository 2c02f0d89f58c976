"""What makes a reply no answer: numbers that are not finite, and positions the model does not have.

Logits are looked at where they are made, on the device, and the verdict travels with what is read
back anyway; a row that has gone wrong ends, and the rows beside it do not notice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from cof import prompts
from cof.types import Answer

_NEVER = -1e4
"""Score of everything but the end in a row that has gone wrong; finite, so that nothing spreads."""


def finite(logits: Tensor) -> Tensor:
    """Which rows hold neither NaN nor inf, bool [...], of float [..., V]; one pass over them.

    The sum is float32, in which no sum of finite half-precision logits overflows.
    """
    return logits.sum(-1, dtype=torch.float32).isfinite()


class Watch(LogitsProcessor):  # type: ignore[misc]
    """Ends rows of transformers' `generate` whose scores are not finite, and remembers them.

    Without it sampling raises for the whole batch (on CUDA for the whole process), and beams go on.

    Args:
        stop: an id that ends a reply.
    """

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self._broken: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [rows, V], those of a broken row replaced."""
        broken = ~finite(scores)
        self._broken = broken if self._broken is None else self._broken | broken
        ended = torch.full_like(scores[:1], _NEVER)
        ended[:, self.stop] = 0
        return torch.where(broken[:, None], ended, scores)

    def sound(self, rows: int) -> list[bool]:
        """For each of `rows` prompts whether all its beams stayed finite."""
        if self._broken is None:
            return [True] * rows
        return (~self._broken.view(rows, -1).any(1)).tolist()  # type: ignore[no-any-return]


def refusal(question: str, length: int, positions: int, placeholder: str = prompts.IMAGE) -> str:
    """Why a question cannot be asked, "" where it can.

    Args:
        question: as it is asked.
        length: positions of its prompt, visual tokens included.
        positions: what the model has for prompt and reply.
        placeholder: what stands for the image in prompts.
    """
    if placeholder in question:
        return f"the question contains {placeholder}, which stands for the image in prompts"
    if length >= positions:
        return (
            f"the prompt takes {length} positions, but the model has {positions} for prompt and "
            "reply; shorten the question"
        )
    return ""


def overrun(reply: int, room: int) -> str:
    """Why a reply of so many tokens is none, "" where the model has the positions for it."""
    if reply <= room:
        return ""
    return (
        f"prompt and reply take more positions than the model has ({reply} tokens of reply, room "
        f"for {room}); shorten the question or lower limits.max_new_tokens"
    )


def fail_together(answers: Sequence[Answer], rows: int) -> list[Answer]:
    """Answers of rows whose scores were mixed: where one of a group failed, all of it did."""
    found = list(answers)
    for start in range(0, len(found), rows):
        group = found[start : start + rows]
        error = next((answer.error for answer in group if answer.error), "")
        if error:
            failed = [Answer("", seconds=answer.seconds, error=error) for answer in group]
            found[start : start + rows] = failed
    return found
