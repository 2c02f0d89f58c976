"""Two fine stages at once: at each token the mean of their log-probabilities.

Both ask the same question, each in its own way: the plain image and a crop of it, say. They take
the same token, the best of the mean, and go on from there. Of a question whose options are weighed
the mean of the two losses decides. (An ensemble of the model with itself; ours, not a paper's.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Discriminator
from torch import Tensor

from cof.batch import Batch, likeliest
from cof.errors import ConfigError
from cof.models.base import Limits, Model
from cof.refine import crop, highlight, overlay, plain
from cof.refine.base import Look, answer, check_greedy, light, noted, whole
from cof.types import Answer, Focus, Question


@dataclass(frozen=True)
class Plain(plain.Config):
    """The stage `plain`, as a part."""

    name: Literal["plain"] = "plain"


@dataclass(frozen=True)
class Highlight(highlight.Config):
    """The stage `highlight`, as a part."""

    name: Literal["highlight"] = "highlight"


@dataclass(frozen=True)
class Crop(crop.Config):
    """The stage `crop`, as a part."""

    name: Literal["crop"] = "crop"


@dataclass(frozen=True)
class Overlay(overlay.Config):
    """The stage `overlay`, as a part."""

    name: Literal["overlay"] = "overlay"


Part = Annotated[Plain | Highlight | Crop | Overlay, Discriminator("name")]
"""A stage by its name, with its keys: `{name: crop, window: 4}`. From Python, the `Config` of any
stage that has `prepare`."""


@dataclass(frozen=True)
class Config:
    """Which two.

    Attributes:
        first: a stage and its keys.
        second: likewise.
    """

    first: Part = Plain()
    second: Part = Crop()

    def __post_init__(self) -> None:
        narrow = {
            (one.layers, one.heads)
            for one in (self.first, self.second)
            if isinstance(one, highlight.Config)
        }
        if len(narrow) > 1:
            raise ValueError("first and second light different layers or heads; give both the same")


def check_dataset(bench: str, questions: Sequence[Question], config: Config) -> None:
    """Hold both parts against the questions."""
    for part in (config.first, config.second):
        holds = getattr(stage_of(part), "check_dataset", None)
        if holds is not None:
            holds(bench, questions, part)


def check_model(model: Model, config: Config) -> None:
    """Hold both parts against the model."""
    for part in (config.first, config.second):
        holds = getattr(stage_of(part), "check_model", None)
        if holds is not None:
            holds(model, part)


def check_limits(limits: Limits, config: Config) -> None:
    """Refuse beams and sampling: both stages take one and the same token at each step."""
    check_greedy(limits, "mean")


def refine(batch: Batch, focuses: Sequence[Focus], config: Config) -> list[Answer]:
    """Answer each question by both stages; once where both ask the same.

    Raises:
        ModelError: beams or sampling.
    """
    firsts = list(stage_of(config.first).prepare(batch, focuses, config.first))
    seconds = firsts  # of a stage and itself: that stage
    if config.second != config.first:
        seconds = list(stage_of(config.second).prepare(batch, focuses, config.second))
    same = [one.same(other) for one, other in zip(firsts, seconds, strict=True)]
    once = [row for row, both in enumerate(same) if both]
    apart = [row for row, both in enumerate(same) if not both]
    said = dict(zip(once, answer(batch.take(once), [firsts[row] for row in once]), strict=True))
    pairs = [look for row in apart for look in (firsts[row], seconds[row])]
    said |= dict(zip(apart, _both(batch, apart, pairs), strict=True))
    notes = [{**two.notes, **one.notes} for one, two in zip(firsts, seconds, strict=True)]
    return [noted(said[row], note) for row, note in enumerate(notes)]


def stage_of(config: Any) -> ModuleType:
    """The stage whose `Config` a part is, or is made from.

    Raises:
        ConfigError: it has no `prepare`.
    """
    for kind in type(config).__mro__:
        module = sys.modules.get(kind.__module__)
        if module is not None and getattr(module, "Config", None) is kind:
            if hasattr(module, "prepare"):
                return module
            break
    raise ConfigError(f"refine.mean: {type(config).__module__} has no prepare, so it is no part")


def _both(batch: Batch, rows: Sequence[int], looks: Sequence[Look]) -> list[Answer]:
    """The mean's answers to some rows; their looks stand in pairs."""
    if not rows:
        return []
    wide = batch.take([row for row in rows for _ in range(2)])
    encoded, lit = light(wide, looks)
    with batch.model.highlighted(lit):
        if batch.questions[rows[0]].choose:
            weighed = wide.weigh(encoded)
            pairs = zip(weighed[0::2], weighed[1::2], strict=True)
            return [likeliest([_pair(*two) for two in zip(*both, strict=True)]) for both in pairs]
        said = wide.reply(encoded, mix=mean)
    return [whole(one, two) for one, two in zip(said[0::2], said[1::2], strict=True)]


def mean(scores: Tensor) -> Tensor:
    """Scores [2 B, V] in pairs -> mean log-probabilities, for both of a pair."""
    logs = scores.log_softmax(-1)
    return ((logs[0::2] + logs[1::2]) / 2).repeat_interleave(2, dim=0)


def _pair(first: Answer, second: Answer) -> Answer:
    """One option as both stages weigh it: token by token the mean of their log-probabilities."""
    both = zip(first.logprobs, second.logprobs, strict=not (first.error or second.error))
    return replace(whole(first, second), logprobs=tuple((a + b) / 2 for a, b in both))
