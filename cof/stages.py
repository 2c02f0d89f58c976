"""The stage that a config belongs to, and its call: coarse replies once, like fine passes together.

A stage is found by its config's class (`cof.config.plugins.owner`), so that nothing is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cof.batch import Batch
from cof.config import plugins
from cof.config.general import Gate
from cof.config.settings import Settings
from cof.errors import ConfigError, ModelError
from cof.models.base import Model
from cof.regions.mask import token_mask
from cof.types import Answer, Focus, Gated, Region

if TYPE_CHECKING:
    from cof.store.replies import ReplyCache

_T = TypeVar("_T")


class Step(NamedTuple):
    """What the stages made of one question.

    Attributes:
        region: of the coarse stage.
        focus: the region on the question's visual tokens.
        cof: of the fine stage.
        gate: what the doubt gate made of it, None where there was none.
    """

    region: Region
    focus: Focus
    cof: Answer
    gate: Gated | None = None


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
        return _held("locate", stage, stage.locate(batch, config), Region, len(batch))
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
            held = [_held("refine", stage, one, Answer, len(batch)) for one in said]
            answers |= dict(zip(some, held, strict=True))
    return [answers[number] for number in range(len(configs))]


def _held(kind: str, stage: Any, found: Any, wanted: type[_T], count: int) -> list[_T]:
    """What a stage returned, which may be anybody's.

    Raises:
        ConfigError: it is not one `wanted` a question.
    """
    rows = list(found) if isinstance(found, Iterable) else [found]
    if len(rows) == count and all(isinstance(one, wanted) for one in rows):
        return rows
    names = " and ".join(sorted({type(one).__name__ for one in rows}))
    said = f"{len(rows)} {names}".rstrip()
    raise ConfigError(
        f"{kind}: {plugins.label(stage.__name__)} returned {said} for {count} questions; it has to "
        f"return a list with one {wanted.__name__} a question, in their order"
    )


def gated(
    batch: Batch,
    gate: Gate,
    known: Sequence[Region | None],
    ask: Callable[[Batch, Sequence[Region | None]], list[list[Step]]],
) -> list[list[Step]]:
    """Keep the plain answers that are sure, and ask the other questions again.

    Args:
        batch: B questions.
        gate: what is sure.
        known: B regions that were given, or (); a question that has one is asked in any case.
        ask: both stages of V variants for some rows, with their known regions.

    Returns:
        Per variant the B steps.

    Raises:
        ModelError: the model's answers have no margin.
    """
    plain, first = _counted(batch.model, lambda: batch.plain, len(batch))
    given = known or [None] * len(batch)
    rows = [row for row in range(len(batch)) if given[row] or _asks(gate, batch, row)]
    doubtful, some = batch.take(rows), [given[row] for row in rows]
    variants, then = _counted(batch.model, lambda: ask(doubtful, some), len(rows))
    found = []
    for steps in variants:
        share = _Work(then.forwards / len(variants), then.positions / len(variants))
        asked = {
            row: step._replace(gate=_note(plain[row], first, share))
            for row, step in zip(rows, steps, strict=True)
        }
        found.append([asked.get(row) or _kept(batch, row, first) for row in range(len(batch))])
    return found


class _Work(NamedTuple):
    """What the decoder computed, a question: forward calls and positions."""

    forwards: float = 0.0
    positions: float = 0.0


def _counted(model: Model, work: Callable[[], _T], rows: int) -> tuple[_T, _Work]:
    """What some work comes to, and each row's share of what the decoder computed for it."""
    done = model.counters
    before = done.forwards, done.positions
    made, share = work(), max(rows, 1)
    spent = done.forwards - before[0], done.positions - before[1]
    return made, _Work(*(count / share for count in spent))


def _asks(gate: Gate, batch: Batch, row: int) -> bool:
    """Whether a plain answer is in doubt; one that failed is."""
    said = batch.plain[row]
    if said.error or gate.threshold is None:
        return True
    if said.margin is None:
        raise ModelError(
            f"{batch.model.name}: its answers have no margin, by which a gate tells doubt; "
            "take gate out of the config"
        )
    return said.margin <= gate.threshold


def _kept(batch: Batch, row: int, spent: _Work) -> Step:
    """The step of a question that keeps its plain answer, which took no time of its own."""
    said = batch.plain[row]
    nowhere = Focus(token_mask((), batch.views[row].cells), (), "no_box")
    gate = replace(_note(said, spent, _Work()), asked=False)
    return Step(Region((), "gate"), nowhere, replace(said, seconds=0.0), gate)


def _note(plain: Answer, first: _Work, then: _Work) -> Gated:
    """What is recorded of a question that was asked."""
    work = zip(first, then, strict=True)
    return Gated(plain.margin, True, *work)


def check_model(model: Model, settings: Settings) -> None:
    """Let both stages hold their configs against the model, where they know how.

    Raises:
        ConfigError: a setting that this model, or this way of decoding, cannot have.
    """
    limits = settings.limits
    if settings.gate and (limits.num_beams != 1 or limits.temperature != 0):
        raise ConfigError(
            "gate needs limits.num_beams=1 and limits.temperature=0: beams and sampling leave no "
            "margin to tell doubtful answers by"
        )
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
