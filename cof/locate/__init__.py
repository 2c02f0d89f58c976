"""Coarse stages, one file each: which region of the image holds the answer?

A coarse stage is a module with what `Contract` names, and what it likes of `MayHave`. What it says
of a question must not depend on the rest of the batch; where it fails for one, that `Region` has an
`error`. `Region.notes` are recorded as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cof.batch import Batch
    from cof.locate import (
        attention,
        centre,
        detector,
        file,
        gradient,
        iterate,
        oracle,
        prompt,
        random,
        shuffled,
        whole,
    )
    from cof.models.base import Model
    from cof.regions.boxes import BoxConfig
    from cof.types import Question, Region, View


class Contract(Protocol):
    """What a coarse stage is."""

    @property
    def Config(self) -> type[Any]:  # noqa: N802
        """A frozen dataclass: the stage's keys in a config."""

    def locate(self, batch: Batch, config: Any) -> list[Region]:
        """One region a question of the batch, in its order."""


class MayHave(Protocol):
    """What a coarse stage may also have."""

    def check_dataset(self, bench: str, questions: Sequence[Question], config: Any) -> None:
        """Refuse a benchmark that it cannot serve (DataError), before anything is loaded."""

    def check_model(self, model: Model, config: Any, boxes: BoxConfig) -> None:
        """Refuse a model that it cannot ask (ModelError, ConfigError), before any question."""

    def source(self, config: Any) -> str:
        """Hash of what the file says that it reads its regions from, "" for none; recorded."""

    @property
    def CACHEABLE(self) -> bool:  # noqa: N802
        """True where the model's reply depends on model, image, question and `Config` alone."""

    def read_reply(self, model: Model, reply: str, view: View) -> Region:
        """The region of a kept reply; every stage with `CACHEABLE` has it. Notes are kept too."""


if TYPE_CHECKING:
    _HELD: tuple[Contract, ...] = (
        *(attention, centre, detector, file, gradient, iterate),
        *(oracle, prompt, random, shuffled, whole),
    )
