"""`batch_size: auto`: a batch is asked in pieces that fit into the device's memory."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cof.errors import RunError
from cof.types import Question, Result

if TYPE_CHECKING:
    from cof.batch import Prepared

log = logging.getLogger(__name__)

Ask = Callable[[Sequence[Question], Sequence["Prepared"]], list[list[Result]]]
"""Questions and pictures of a batch -> for each cell the results."""

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


class Fitted:
    """An `Ask` that survives running out of memory: it halves its pieces, and loses nothing.

    The plan of the batches stays as it is, so that a run can go on with any number of processes;
    in float32 an answer does not depend on the pieces.

    Args:
        ask: what may run out of memory.
        size: most questions in one piece, at first.
        shrink: halve and go on; False stops with a RunError that says what to do.
        changed: told each new size.

    Attributes:
        size: most questions in one piece, now.
    """

    def __init__(
        self, ask: Ask, size: int, shrink: bool, changed: Callable[[int], None] = lambda size: None
    ) -> None:
        self._ask, self.size, self._shrink, self._changed = ask, size, shrink, changed

    def __call__(
        self, questions: Sequence[Question], images: Sequence[Prepared]
    ) -> list[list[Result]]:
        """Answer B questions, for each cell B results.

        Raises:
            RunError: not even one question fits, or the size is fixed.
        """
        parts: list[list[list[Result]]] = []
        start = 0
        while start < len(questions):
            piece = slice(start, start + self.size)
            answered = self._try(questions[piece], images[piece])
            if answered is None:
                _free_memory()
                continue
            parts.append(answered)
            start += self.size
        return [list(itertools.chain(*cell)) for cell in zip(*parts, strict=True)]

    def _try(
        self, questions: Sequence[Question], images: Sequence[Prepared]
    ) -> list[list[Result]] | None:
        """None where it did not fit; `size` is smaller then."""
        try:
            return self._ask(questions, images)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self._halve(len(questions), error)
            return None

    def _halve(self, asked: int, error: Exception) -> None:
        if not self._shrink or asked == 1:
            way = (
                "use a smaller model or dtype" if asked == 1 else "set batch_size to auto, or less"
            )
            raise RunError(f"{asked} questions at once do not fit into memory; {way}") from error
        self.size = asked // 2
        log.warning(
            "%d questions at once do not fit into memory; going on with %d", asked, self.size
        )
        self._changed(self.size)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the device or the machine was not enough."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(sign in str(error).lower() for sign in _SIGNS)


def _free_memory() -> None:
    """Give back what the failed attempt left in torch's pool."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
