"""Fine stages, one file each: answer again, with the region in mind.

A fine stage is a module with what `Contract` names, and what it likes of `MayHave`. A pass that
failed is an `Answer` with an `error`; it takes no other row with it. A question with `choose` is
answered by the likeliest of its options: `Batch.encode` and `Batch.reply` do either, so a stage
that answers through them need not know. `Answer.notes` are recorded as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cof.batch import Batch
    from cof.models.base import Limits, Model
    from cof.refine import crop, guided, highlight, mean, overlay, plain
    from cof.refine.base import Look
    from cof.types import Answer, Focus, Question


class Contract(Protocol):
    """What a fine stage is."""

    @property
    def Config(self) -> type[Any]:  # noqa: N802
        """A frozen dataclass: the stage's keys in a config."""

    def refine(self, batch: Batch, focuses: Sequence[Focus], config: Any) -> list[Answer]:
        """One answer a question of the batch, in its order; `batch.limits` says how to decode."""


class MayHave(Protocol):
    """What a fine stage may also have."""

    def refine_many(
        self, batch: Batch, focuses: Sequence[Sequence[Focus]], configs: Sequence[Any]
    ) -> list[list[Answer]]:
        """Several settings of the stage at once: per config its focuses, and its answers."""

    def check_dataset(self, bench: str, questions: Sequence[Question], config: Any) -> None:
        """Refuse a benchmark that it cannot answer (DataError), before anything is loaded."""

    def check_model(self, model: Model, config: Any) -> None:
        """Refuse settings that the loaded model cannot have (ConfigError), before any question."""

    def check_limits(self, limits: Limits, config: Any) -> None:
        """Refuse ways of decoding that the stage cannot have (ConfigError), likewise."""

    def prepare(self, batch: Batch, focuses: Sequence[Focus], config: Any) -> list[Look]:
        """What each question is asked about, one `Look` a question; of a stage whose answer is
        `cof.refine.base.answer` of that. Only such stages can be part of `mean`.
        """


if TYPE_CHECKING:
    _HELD: tuple[Contract, ...] = (crop, guided, highlight, mean, overlay, plain)
