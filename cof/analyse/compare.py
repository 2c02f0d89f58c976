"""Is the difference real? Answers to the same questions, compared question by question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cof.analyse import escape
from cof.analyse.passes import ScoredPass, align
from cof.analyse.significance import change, holm, mcnemar
from cof.analyse.statistics import Estimate, mean
from cof.analyse.tables import INTERVALS, TESTED, Cell, Table, percent, plural, points
from cof.types import Question

if TYPE_CHECKING:
    import numpy as np


class Ids(Sequence[str]):
    """Ids of some questions, each read when it is asked for.

    Attributes:
        places: of the questions, int [n].
    """

    def __init__(self, questions: Sequence[Question], places: np.ndarray) -> None:
        self._questions, self.places = questions, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(self._questions[int(there)].id for there in self.places[place])
        return self._questions[int(self.places[place])].id

    def __iter__(self) -> Iterator[str]:
        return (self._questions[int(there)].id for there in self.places)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ids | tuple):
            return NotImplemented
        return len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Ids:
        return self


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`; credits are fractions.

    Attributes:
        first: name of the pass that is compared with.
        second: name of the pass that is judged.
        before: mean credit of the first.
        after: mean credit of the second.
        difference: of the two, paired; the interval is over images.
        gained: ids of questions with more credit in the second, a sequence of texts.
        lost: ids of questions with less.
        p: of the sign-flip permutation test over images.
        p_holm: p corrected for the family that was compared with the same first pass; of a
            category, for all categories.
        p_mcnemar: of McNemar's exact test on gained against lost, as if questions were independent.
        images: clusters behind interval and test.
        left_out: questions of the data that not both passes have an answer to.
        failed: questions of the first and of the second pass that failed and count as wrong there:
            so many of those gained or lost may be failures.
        categories: the same for each of the benchmark's own groups, where it has several.
    """

    first: str
    second: str
    before: Estimate
    after: Estimate
    difference: Estimate
    gained: Ids
    lost: Ids
    p: float
    p_holm: float
    p_mcnemar: float
    images: int
    left_out: int = 0
    failed: tuple[int, int] = (0, 0)
    categories: Mapping[str, Comparison] = field(default_factory=dict)


def compare(
    first: ScoredPass,
    second: ScoredPass,
    seed: int,
    allow_missing: bool = False,
    by_category: bool = True,
) -> Comparison:
    """Compare two passes, with `by_category` also each of the benchmark's groups.

    `left_out` is exact where one pass's data holds the other's (the same, or a `limit`), else the
    least that it can be: a question without a record has no id to know it by.

    Raises:
        RunError: see `align`.
    """
    asked = max(len(one.questions) + one.missing for one in (first, second))
    first, second, alone = align(first, second, allow_missing)
    left_out = max(alone, asked - len(first.questions))
    whole = replace(_pair(first, second, seed), left_out=left_out)
    groups = _groups(first) if by_category else {}
    if len(groups) < 2:
        return whole
    parts = [_pair(first.take(places), second.take(places), seed) for places in groups.values()]
    return replace(whole, categories=dict(zip(groups, corrected(parts), strict=True)))


def _groups(one: ScoredPass) -> dict[str, np.ndarray]:
    """Category -> places of its questions, in order of first appearance."""
    import numpy as np

    category = one.asked.category
    found, first = np.unique(category, return_index=True)
    numbers = found[np.argsort(first)].tolist()
    return {one.asked.categories[k]: np.flatnonzero(category == k) for k in numbers}


def compare_with_first(
    passes: Sequence[ScoredPass], seed: int, allow_missing: bool = False, by_category: bool = True
) -> list[Comparison]:
    """Every pass against the first one; their p-values are corrected by Holm's method."""
    found = [compare(passes[0], one, seed, allow_missing, by_category) for one in passes[1:]]
    return corrected(found)


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons as one family, `p_holm` filled in."""
    values = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, values, strict=True)]


def _pair(first: ScoredPass, second: ScoredPass, seed: int) -> Comparison:
    images = first.images
    gained, lost = changes(first, second)
    whole = change(first.credits, second.credits, images, seed)
    return Comparison(
        first=first.name,
        second=second.name,
        before=mean(first.credits, images),
        after=mean(second.credits, images),
        difference=whole.estimate,
        gained=gained,
        lost=lost,
        p=whole.p,
        p_holm=whole.p,
        p_mcnemar=mcnemar(len(gained), len(lost)),
        images=images.count,
        failed=(first.failures, second.failures),
    )


def changes(first: ScoredPass, second: ScoredPass) -> tuple[Ids, Ids]:
    """Ids of questions with more, and with less, credit in the second of two aligned passes."""
    import numpy as np

    before, after = np.asarray(first.credits), np.asarray(second.credits)
    gained, lost = (
        np.flatnonzero(one).astype(np.int32) for one in (after > before, after < before)
    )
    return Ids(first.questions, gained), Ids(first.questions, lost)


EVIDENCE = ("gained", "lost", TESTED, "p (Holm)", "p (McNemar)")
"""Heads of the columns that `evidence` fills."""


def evidence(one: Comparison, family: bool = True) -> tuple[Cell, ...]:
    """Questions gained and lost, and every p; without a `family`, none corrected for it."""
    changed = (len(one.gained), len(one.lost))
    return *changed, one.p, one.p_holm if family else None, one.p_mcnemar


def category_table(one: Comparison, names: tuple[str, str] = ("first", "second")) -> Table:
    """The whole, then each category.

    Args:
        one: the comparison.
        names: what the columns call its passes.
    """
    rows = {"all": one, **one.categories}
    body = [
        (
            name,
            part.before.n,
            percent(part.before),
            percent(part.after),
            points(part.difference),
            *evidence(part, family=part is not one),
        )
        for name, part in rows.items()
    ]
    columns = (f"{names[0]}, %", f"{names[1]}, %", "difference, points", *EVIDENCE)
    caption = f"{one.second}: {names[1]} against {names[0]}; Holm over the groups; {INTERVALS}"
    return Table("comparison", caption, ("", "n", *columns), tuple(body))


def family_table(found: Sequence[Comparison], name: str = "comparisons") -> Table:
    """One row a comparison with the same first pass."""
    head = ("", "n", "%", "difference, points", *EVIDENCE)
    rows: list[tuple[Cell, ...]] = [
        (found[0].first, found[0].before.n, percent(found[0].before), *[None] * 6)
    ]
    rows += [
        (one.second, one.after.n, percent(one.after), points(one.difference), *evidence(one))
        for one in found
    ]
    caption = f"Against {found[0].first}; Holm over the rows; {INTERVALS}"
    return Table(name, caption, head, tuple(rows))


SHOWN = 10
"""Most ids of gained and lost questions in a text; JSON has all."""


def comparison_text(one: Comparison) -> str:
    """A comparison for the terminal."""
    lines = [
        category_table(one).text(),
        "",
        f"first: {one.first}; second: {one.second}; over {plural(one.images, 'image')}",
        INTERVALS,
        f"permutation over images: p = {one.p:.3g}; McNemar's exact test, which takes questions "
        f"as independent: p = {one.p_mcnemar:.3g}",
        f"gained {len(one.gained)}: {_ids(one.gained)}",
        f"lost {len(one.lost)}: {_ids(one.lost)}",
    ]
    if one.left_out:
        lines.append(f"left out: {plural(one.left_out, 'question')} without a partner")
    lines += failures([one])
    return "\n".join(lines)


def family_text(found: Sequence[Comparison]) -> str:
    """Several comparisons with one first pass, for the terminal."""
    left_out = {one.second: one.left_out for one in found if one.left_out}
    notes = [
        f"left out for {name}: {plural(count, 'question')}" for name, count in left_out.items()
    ]
    notes += failures(found)
    head = [family_table(found).text(), "", f"first: {found[0].first}", INTERVALS]
    return "\n".join([*head, *notes])


def failures(found: Sequence[Comparison]) -> list[str]:
    """A line a comparison of which questions failed: a difference may be theirs."""
    return [
        f"failed, counted as wrong: {one.first} {one.failed[0]}, {one.second} {one.failed[1]} "
        f"(of {one.after.n})"
        for one in found
        if any(one.failed)
    ]


def _ids(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    shown = ", ".join(escape.clean(name) for name in names[:SHOWN]) or "none"
    return shown + (f" and {more} more (--json lists all)" if more > 0 else "")
