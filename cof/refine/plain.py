"""No fine stage: the model's own answer, the region ignored. The baseline of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cof.refine.base import Look

if TYPE_CHECKING:
    from cof.batch import Batch
    from cof.types import Answer, Focus


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def prepare(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Look]:
    """A look at each image as it is."""
    return [Look(view) for view in batch.views]


def refine(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Answer]:
    """Answer each question in one pass; the batch's plain answers, whoever else asks for them."""
    return list(batch.plain)
