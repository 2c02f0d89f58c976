"""How a fine stage asks again: a `Look` a question, and the pass that several of them share.

A stage that only chooses what is shown and what is lit has `prepare(batch, focuses, config)`, one
`Look` a question; `answer` asks. Two such stages can be combined in one batch (`cof.refine.mean`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from cof.errors import ConfigError
from cof.prompts import Span
from cof.refine._words import widened
from cof.regions.bias import Highlight, Scope
from cof.regions.mask import key_bias
from cof.types import Answer

if TYPE_CHECKING:
    from torch import Tensor

    from cof.batch import Batch
    from cof.models.base import Encoded, Limits
    from cof.types import View


@dataclass(frozen=True)
class Look:
    """What one question is asked about: a picture, and which of its visual tokens are lit.

    Attributes:
        view: the picture as the model sees it, of `Batch.views` or `Batch.look`.
        mask: bool [T] of this view's visual tokens; None lights none.
        weight: lambda of the lit tokens.
        scope: as `highlight.Config`, and so are `layers`, `heads` and `perturb`.
        words: characters of the question that are lit as well.
        notes: recorded with the answer.
    """

    view: View
    mask: Tensor | None = None
    weight: float = 1.0
    scope: Scope = "all"
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    perturb: float = 1.0
    words: tuple[Span, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lights(self) -> bool:
        """Whether anything about the prompt differs from a plain look at this view."""
        changes = self.weight != 1 or self.perturb != 1
        return changes and (self.words != () or (self.mask is not None and bool(self.mask.any())))

    def same(self, other: Look) -> bool:
        """Whether both ask the same; what is noted aside."""
        if self.view is not other.view or self.lights != other.lights:
            return False
        if not self.lights or self.mask is None or other.mask is None:
            return True
        how = ("weight", "scope", "layers", "heads", "perturb", "words")
        alike = all(getattr(self, name) == getattr(other, name) for name in how)
        return alike and bool(torch.equal(self.mask, other.mask))


def answer(batch: Batch, looks: Sequence[Look]) -> list[Answer]:
    """Ask each question with its look; one that is as the batch has it has the plain answer."""
    plain = [look.same(Look(view)) for look, view in zip(looks, batch.views, strict=True)]
    rows = [row for row, same in enumerate(plain) if not same]
    said = dict(zip(rows, _ask(batch.take(rows), [looks[row] for row in rows]), strict=True))
    said |= {row: batch.plain[row] for row, same in enumerate(plain) if same}
    return [noted(said[row], look.notes) for row, look in enumerate(looks)]


def noted(said: Answer, notes: Mapping[str, Any]) -> Answer:
    """The answer with what a stage has to say about it."""
    return replace(said, notes={**said.notes, **notes}) if notes and not said.error else said


def whole(first: Answer, second: Answer) -> Answer:
    """The answer of two passes that took the same tokens: the first's; it fails with either."""
    seconds = first.seconds + second.seconds
    if error := first.error or second.error:
        return Answer("", seconds=seconds, error=error)
    return replace(first, seconds=seconds)


def check_greedy(limits: Limits, stage: str) -> None:
    """Refuse beams and sampling for a stage whose passes go on with one and the same token.

    Raises:
        ConfigError: they are asked for.
    """
    if limits.num_beams != 1 or limits.temperature != 0:
        raise ConfigError(
            f"refine.name={stage} needs limits.num_beams=1 and limits.temperature=0: its two "
            "passes take the same token at each step"
        )


def _ask(batch: Batch, looks: Sequence[Look]) -> list[Answer]:
    if not looks:
        return []
    encoded, highlight = light(batch, looks)
    with batch.model.highlighted(highlight):
        return batch.reply(encoded)


def light(batch: Batch, looks: Sequence[Look]) -> tuple[Encoded, Highlight | None]:
    """The batch's prompts with their looks, and the highlight that they are to be run under.

    Args:
        batch: B questions.
        looks: one a question.

    Returns:
        One prompt a question, or one an option (`Batch.prompts`); None lights nothing.

    Raises:
        ConfigError: looks that light different layers or heads.
    """
    encoded = batch.encode(views=[look.view for look in looks])
    chosen = [looks[prompt.row] for prompt in batch.prompts]
    lit = [look for look in chosen if look.lights]
    if not lit:
        return encoded, None
    narrow = {(look.layers, look.heads) for look in lit}
    if len(narrow) > 1:
        raise ConfigError("one pass cannot light different layers or heads for different questions")
    masks = [
        torch.zeros(len(places), dtype=torch.bool) if look.mask is None else look.mask
        for look, places in zip(chosen, encoded.visual, strict=True)
    ]
    asked = [batch.questions[prompt.row].text for prompt in batch.prompts]
    spans = [look.words if look.lights else () for look in chosen]
    wide, masks = widened(batch.model, encoded, asked, masks, spans)
    bias = key_bias(masks, wide.visual, encoded.keys, [look.weight for look in chosen])
    if any(look.perturb != 1 for look in lit):
        encoded = replace(encoded, scale=tuple(map(_scale, chosen)))
    return encoded, Highlight(bias, _queries(encoded, chosen), *narrow.pop())


def _scale(look: Look) -> Tensor | None:
    """Factors on the embeddings of a look's visual tokens, float [T]."""
    if look.mask is None or look.perturb == 1:
        return None
    return torch.where(look.mask.cpu(), torch.tensor(look.perturb), torch.ones(()))


def _queries(encoded: Encoded, looks: Sequence[Look]) -> Tensor | None:
    """Which positions see the bias as queries, bool [B, K]; None is all."""
    if all(look.scope == "all" for look in looks):
        return None
    queries = torch.ones(len(looks), encoded.keys, dtype=torch.bool)
    for row, (look, places) in enumerate(zip(looks, encoded.visual, strict=True)):
        if look.scope == "text":
            queries[row, places] = False
    return queries
