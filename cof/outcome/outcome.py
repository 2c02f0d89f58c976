"""`Outcome`: one question about one image, answered, and whatever can be asked about that."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cof.batch import Batch
from cof.config import plugins
from cof.errors import AnswerError
from cof.models.base import Model
from cof.outcome.attention import Attention, attention
from cof.outcome.results import result_of
from cof.outcome.weigh import YES_NO, Weighed, YesNo, weigh, yes_no
from cof.stages import Step
from cof.types import Answer, Box, Focus, Region, Result, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """One question about one image, answered.

    Attributes:
        image: what was asked about, RGB, upright.
        view: how the model saw it: `view.cells` are the rectangles of its visual tokens. Their
            features are not kept: they hold the device's memory.
        region: the coarse stage's boxes and raw reply (`region.reply`, "" where a box was given).
        focus: boxes after expansion, and the mask (`focus.mask`, bool [T]) that was highlighted.
        result: both answers, in the form of a run's record.
        model: which model answered.
        stage: the fine stage's `Config`.
    """

    image: Image
    view: View
    region: Region
    focus: Focus
    result: Result
    model: Model
    stage: Any

    @classmethod
    def of(
        cls,
        batch: Batch,
        row: int,
        step: Step,
        plain: Answer | None,
        stage: Any,
    ) -> Outcome:
        """The outcome of one row of a batch, after both stages."""
        view = batch.views[row]
        result = result_of(batch.questions[row], view, step, plain)
        seen = replace(view, features=None, shared=None)
        return cls(batch.images[row], seen, step.region, step.focus, result, batch.model, stage)

    @property
    def question(self) -> str:
        """What was asked."""
        return self.result.question.text

    @property
    def text(self) -> str:
        """The answer with the region highlighted, as the model wrote it; "" where it failed."""
        return self.result.cof.text if self.result.cof else ""

    @property
    def plain(self) -> str | None:
        """The same model's answer without the highlight, None unless asked for."""
        return self.result.plain.text if self.result.plain else None

    @property
    def error(self) -> str:
        """Which passes failed and why, "" where none did."""
        return self.result.error

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The highlighted regions, fractions of the image, expansion included."""
        return self.focus.boxes

    @property
    def mask(self) -> Tensor:
        """The highlighted visual tokens, bool [T]."""
        return self.focus.mask

    @property
    def seconds(self) -> float:
        """Wall time of the coarse stage and the answers, vision tower not included."""
        parts = (self.region, self.result.cof, self.result.plain)
        return sum(part.seconds for part in parts if part is not None)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token of the answer, in nats; see `Answer.logprobs`."""
        return self.result.cof.logprobs if self.result.cof else ()

    @property
    def logprob(self) -> float | None:
        """Log-probability of the whole answer, its end included; None where not computed."""
        return self.result.cof.logprob if self.result.cof else None

    @cached_property
    def yes_no(self) -> YesNo:
        """Probability of yes against no, plain and highlighted; two passes at the first use.

        p(first token of `Yes`) / (p(first token of `Yes`) + p(first token of `No`)), where p is
        what the model gives to the token that begins its answer, and `Yes` and `No` are written
        as the chat template has answers, as MME's are.

        Raises:
            AnswerError: a pass failed, or both words begin with the same token.
            ModelError: the model family cannot weigh given answers.
        """
        return yes_no(self.weigh(YES_NO))

    @property
    def p_yes(self) -> float:
        """Probability of yes against no with the highlight, see `yes_no`."""
        return self.yes_no.cof

    def weigh(self, texts: Sequence[str]) -> Weighed:
        """How likely each of some given answers is, plain and highlighted.

        Returns: `plain` and `cof`, for each text an `Answer` with the log-probabilities of its
            tokens, end of reply included (`logprob` is their sum).

        Raises:
            AnswerError: a pass failed.
            ModelError: the model family cannot weigh given answers.
        """
        self.check()
        asked = (self.model, self.image, self.result.question, self.focus, self.stage)
        return weigh(*asked, texts)

    @cached_property
    def _attention(self) -> Attention:
        self.check()
        return attention(self.model, self.image, self.question, self.mask, self.stage)

    def attention(self) -> Attention:
        """Where the answer looks: attention on the visual tokens, plain and highlighted.

        Of the last prompt position, which chooses the answer's first token; mean of the heads. Of
        all attention, so that a layer's sum is what the image gets of it. Two passes, at the first
        call.

        Returns: `plain` and `cof`, float32 [layers, T] each; `mean()` is [T] over layers.

        Raises:
            AnswerError: a pass failed, or the fine stage is no highlight.
        """
        return self._attention

    def plot(self, attention: bool = False) -> Figure:
        """Draw the two stages: the boxes on the image (and the heat map that they were read from,
        where it was kept), the highlighted tokens, the answers.

        With `attention` instead where the answer looks, without and with the highlight.
        """
        if attention:
            return self.plot_attention()
        from cof.plot import draw_two_stages
        from cof.regions.heat import heat_of

        return draw_two_stages(
            self.image,
            self.question,
            self.focus,
            self.view.cells,
            self.text,
            boxes=self.region.boxes,
            plain=self.plain,
            reply=self.region.reply,
            stage=plugins.label(plugins.owner("refine", self.stage).__name__),
            heat=heat_of(self.region),
        )

    def plot_attention(self) -> Figure:
        """Draw where the answer looks, without and with the highlight; see `attention`."""
        from cof.plot import draw_attention

        found = self.attention().mean()
        maps = {"plain": found.plain, "CoF": found.cof}
        return draw_attention(self.image, self.question, self.focus, self.view.cells, maps)

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures and tensors, as JSON has it; boxes in fractions of the image."""
        result, region = self.result, self.region
        passes = {"plain": result.plain, "cof": result.cof}
        return {
            "image": result.question.image,
            "question": self.question,
            "answer": self.text,
            "plain": self.plain,
            "error": self.error,
            "boxes": [list(box.as_tuple()) for box in self.boxes],
            "status": result.status,
            "cells": list(result.cells),
            "visual_tokens": result.tokens,
            "source": region.source,
            "found": [list(box.as_tuple()) for box in region.boxes],
            "reply": region.reply,
            "seconds": self.seconds,
            "logprobs": {key: list(said.logprobs) for key, said in passes.items() if said},
            "notes": {
                key: dict(part.notes)
                for key, part in {"region": region, **passes}.items()
                if part and part.notes
            },
        }

    def __repr__(self) -> str:
        corners = [", ".join(f"{x:.3f}" for x in box.as_tuple()) for box in self.boxes]
        boxes = ", ".join(f"[{four}]" for four in corners)
        said = f"failed: {self.error}" if self.error else repr(self.text)
        return f"Outcome({' '.join(self.question.split())!r} -> {said}, boxes: {boxes or 'none'})"

    def _repr_png_(self) -> bytes:
        """The plot, for notebooks."""
        buffer = io.BytesIO()
        self.plot().savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def check(self) -> None:
        """Raise AnswerError where there is no answer to ask about."""
        if self.error:
            raise AnswerError(self.error)
