"""The stage that a config belongs to, and its call: coarse replies once, like fine passes together.

A stage is found by its config's class (`cof.config.plugins.owner`), so that nothing is registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cof.batch import Batch
from cof.config import plugins
from cof.config.settings import Settings
from cof.models.base import Model
from cof.types import Answer, Focus, Region

if TYPE_CHECKING:
    from cof.store.replies import ReplyCache


def locate(
    batch: Batch,
    config: Any,
    cache: ReplyCache | None = None,
    known: Sequence[Region | None] = (),
) -> list[Region]:
    """The coarse stage that a config belongs to; only for replies that are not in the cache.

    Args:
        batch: B questions.
        config: of the stage.
        cache: of replies.
        known: B regions that were given; None where the stage is to find them, () finds all.
    """
    unknown = [row for row, region in enumerate(known) if region is None]
    if len(unknown) < len(known):
        found = iter(locate(batch.take(unknown), config, cache) if unknown else ())
        return [region or next(found) for region in known]
    stage = plugins.owner("locate", config)
    if cache is None or not getattr(stage, "CACHEABLE", False):
        return stage.locate(batch, config)  # type: ignore[no-any-return]
    return cache.regions(batch, stage, config)


def refine(
    batch: Batch,
    focuses: Sequence[Sequence[Focus]],
    configs: Sequence[Any],
    rows: int | None = None,
) -> list[list[Answer]]:
    """The fine stages of V variants; a stage with `refine_many` gets several of its own at once.

    Args:
        batch: B questions.
        focuses: per variant the B focuses.
        configs: per variant the config of its stage.
        rows: most rows (questions times variants) in one pass; None puts all into one.

    Returns:
        Per variant the B answers.
    """
    count = max(1, rows // len(batch)) if rows else len(configs)
    answers: dict[int, list[Answer]] = {}
    for stage, numbers in _by_stage(configs):
        many = getattr(stage, "refine_many", None)
        step = count if many else 1
        for start in range(0, len(numbers), step):
            some = numbers[start : start + step]
            if many and len(some) > 1:
                said = many(batch, [focuses[n] for n in some], [configs[n] for n in some])
            else:
                said = [stage.refine(batch, focuses[n], configs[n]) for n in some]
            answers |= dict(zip(some, said, strict=True))
    return [answers[number] for number in range(len(configs))]


def check_model(model: Model, settings: Settings) -> None:
    """Let both stages hold their configs against the model, where they know how.

    Raises:
        ConfigError: a setting that this model, or this way of decoding, cannot have.
    """
    asks = getattr(plugins.owner("locate", settings.locate), "check_model", None)
    if asks is not None:
        asks(model, settings.locate, settings.boxes)
    stage = plugins.owner("refine", settings.refine)
    for name, given in (("check_model", model), ("check_limits", settings.limits)):
        holds = getattr(stage, name, None)
        if holds is not None:
            holds(given, settings.refine)


def _by_stage(configs: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Each fine stage, with the places of its configs."""
    found: dict[int, tuple[Any, list[int]]] = {}
    for number, config in enumerate(configs):
        stage = plugins.owner("refine", config)
        found.setdefault(id(stage), (stage, []))[1].append(number)
    return list(found.values())
