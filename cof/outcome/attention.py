"""Where an answer looks: attention on each visual token, without and with the highlight."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cof.config import plugins
from cof.errors import AnswerError
from cof.models.base import Encoded, Limits, Model
from cof.models.common.recording import record_attention
from cof.refine import highlight, plain
from cof.regions.bias import Highlight

if TYPE_CHECKING:
    from PIL.Image import Image


class Attention(NamedTuple):
    """Attention on T visual tokens, float32 [layers, T] each, without and with the highlight."""

    plain: Tensor
    cof: Tensor

    def mean(self) -> Attention:
        """Mean of the layers, float32 [T] each."""
        return Attention(self.plain.mean(0), self.cof.mean(0))


def visual_attention(
    model: Model, encoded: Encoded, chosen: Highlight | None = None
) -> list[Tensor]:
    """Attention of the position that chooses the first answer token, on each visual token.

    Of a model whose visual tokens are keys of a cross-attention, the mean of that one's queries.

    Args:
        model: whose decoder is highlightable (see `cof.attention.attach`).
        encoded: B prompts.
        chosen: on during the pass; None is the plain model.
    Returns: B times float32 [layers, T] on the CPU, mean of the heads, as shares of all attention.

    Raises:
        AnswerError: a pass failed, so that its attention means nothing.
    """
    with ExitStack() as stack:
        if chosen is not None:
            stack.enter_context(model.highlighted(chosen))
        recorded = stack.enter_context(record_attention())
        said = model.generate(encoded, Limits(max_new_tokens=1))
    for answer in said:
        if answer.error:
            raise AnswerError(f"no attention to measure: {answer.error}")
    if not recorded:
        raise AnswerError(f"{model.name}: its attention does not pass through cof.attention")
    layers = torch.stack([recorded[layer].mean(1).cpu() for layer in sorted(recorded)])
    return [layers[:, row, places.cpu()] for row, places in enumerate(encoded.visual)]


def attention(model: Model, image: Image, question: str, mask: Tensor, stage: Any) -> Attention:
    """See `Outcome.attention`."""
    encoded = model.encode(model.look([image]), [question])
    before = visual_attention(model, encoded)[0]
    if isinstance(stage, plain.Config):
        return Attention(before, before)
    if not isinstance(stage, highlight.Config):
        name = plugins.label(plugins.owner("refine", stage).__name__)
        raise AnswerError(f"refine stage {name} is no highlight, so its attention is not shown")
    changed = highlight.perturbed(encoded, [mask], stage.perturb)
    chosen = highlight.lit(model, changed, [question], [mask], stage)
    after = visual_attention(model, changed, chosen)[0]
    return Attention(before, after)
