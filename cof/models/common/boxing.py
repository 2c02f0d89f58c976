"""Replies that are lists of boxes by construction: a family's forms, followed by a grammar."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from cof.models.base import Encoded
from cof.models.common.box_decoding import write_boxes
from cof.models.common.grammar import Grammar, bounds
from cof.models.common.replying import Replying
from cof.regions.frame import Frame
from cof.types import Answer, View

_STEP = 512
"""Pixels; a grammar of replies in pixels is made for images up to the next multiple."""


class Boxing(Replying):
    """A model whose `box_form` says how it writes boxes."""

    @abstractmethod
    def reply_ids(self, text: str) -> list[int]:
        """Ids of a text as it follows a prompt, without the end of reply."""

    @cached_property
    def _grammars(self) -> dict[tuple[Frame, int], Grammar]:
        return {}

    def generate_boxes(
        self, encoded: Encoded, views: Sequence[View], max_new_tokens: int
    ) -> list[Answer]:
        """Decode one reply of boxes a row, in one of `box_form`."""
        started = time.perf_counter()
        largest = [bounds(self.frame, view) for view in views]
        grammar = self._grammar(max(map(max, largest)))
        boxes = grammar.fits(max_new_tokens)
        cursors = [grammar.cursor(one, boxes) for one in largest]
        written = write_boxes(self.loop(encoded), encoded, cursors, max_new_tokens)
        share = (time.perf_counter() - started) / len(written)
        answers = [self._answer(encoded, one.row, share) for one in written]
        return [
            answer if answer.error else replace(answer, logprobs=(), notes=one.notes())
            for answer, one in zip(answers, written, strict=True)
        ]

    def _grammar(self, top: int) -> Grammar:
        """The grammar of numbers up to `top`; of pixels one for each `_STEP`, not for each size."""
        if self.frame.unit is None:
            top = -(-top // _STEP) * _STEP
        key = (self.frame, top)
        if key not in self._grammars:
            stop = min(self.stops)
            self._grammars[key] = Grammar(self.box_form, self.frame, top, self.reply_ids, stop)
        return self._grammars[key]
