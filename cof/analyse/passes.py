"""One pass of one run as statistics see it: questions, credits, images; and two of them aligned."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, overload

from cof.analyse.failures import spoilt
from cof.analyse.gather import (
    ASKED,
    IMAGES,
    OVERVIEW,
    AnyTally,
    Asked,
    Pass,
    answers_of,
    gather,
)
from cof.analyse.naming import folder_names
from cof.analyse.statistics import Clusters, Names
from cof.errors import RunError, shown
from cof.store import dataset
from cof.store.run import Run, unfinished
from cof.types import Question, Result

if TYPE_CHECKING:
    import numpy as np


class Questions(Sequence[Question]):
    """The questions of some results, read where one is asked for.

    Attributes:
        asked: what tells them apart.
        images: the image of each.
    """

    def __init__(
        self,
        results: Sequence[Result],
        asked: Asked,
        images: Clusters,
        places: np.ndarray | None = None,
    ) -> None:
        self._results, self._places = results, places
        self.asked, self.images = asked, images

    def __len__(self) -> int:
        return len(self.asked.ids)

    @overload
    def __getitem__(self, place: int) -> Question: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Question, ...]: ...

    def __getitem__(self, place: int | slice) -> Question | tuple[Question, ...]:
        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        there = place if self._places is None else int(self._places[place])
        return self._results[there].question

    def __iter__(self) -> Iterator[Question]:
        if self._places is None:
            return (result.question for result in self._results)
        return (self[place] for place in range(len(self)))

    def take(self, places: np.ndarray) -> Questions:
        """Some of them."""
        there = places if self._places is None else self._places[places]
        asked, images = self.asked.take(places), self.images.take(places)
        return Questions(self._results, asked, images, there)


@dataclass(frozen=True)
class ScoredPass:
    """What is compared.

    Attributes:
        name: for tables and messages.
        questions: in dataset order.
        credits: 0..1 for each; a question that failed has 0.
        missing: questions of the dataset that the run has not answered yet.
        failed: 1 for each question that failed in this pass, 0 for the others; or empty.
    """

    name: str
    questions: Sequence[Question]
    credits: Sequence[float]
    missing: int = 0
    failed: bytes = b""

    @property
    def failures(self) -> int:
        """How many of the questions failed."""
        return sum(self.failed)

    @cached_property
    def asked(self) -> Asked:
        """What tells the questions apart."""
        held = isinstance(self.questions, Questions)
        return self.questions.asked if held else Asked.of(self.questions)  # type: ignore[attr-defined]

    @cached_property
    def images(self) -> Clusters:
        """The image of each question: what intervals cluster by."""
        if isinstance(self.questions, Questions):
            return self.questions.images
        names = Names()
        for question in self.questions:
            names.append(question.image)
        return names.clusters()

    def take(self, places: Sequence[int] | np.ndarray) -> ScoredPass:
        """Some of the questions."""
        import numpy as np

        chosen = np.asarray(places, np.int64)
        questions: Sequence[Question] = (
            self.questions.take(chosen)
            if isinstance(self.questions, Questions)
            else tuple(self.questions[place] for place in places)
        )
        credits: Sequence[float] = (
            array("d", np.asarray(self.credits)[chosen].tobytes())
            if isinstance(self.credits, array)
            else tuple(self.credits[place] for place in places)
        )
        failed = np.frombuffer(self.failed, np.uint8)[chosen].tobytes() if self.failed else b""
        return replace(self, questions=questions, credits=credits, failed=failed)


def scored_passes(
    passes: Sequence[tuple[Run, Pass]], allow_missing: bool = False
) -> list[ScoredPass]:
    """Several passes of runs, each with a name of its own; see `scored_pass`."""
    names = folder_names([run for run, _ in passes])
    found = [scored_pass(run, which, allow_missing) for run, which in passes]
    return [
        replace(one, name=f"{name} {which}")
        for one, name, (_, which) in zip(found, names, passes, strict=True)
    ]


def scored_pass(run: Run, which: Pass, allow_missing: bool = False) -> ScoredPass:
    """One pass of a run.

    Raises:
        RunError: see `tally_of`; or, unless allowed, the run is not finished.
    """
    tally = tally_of(run, which)
    missing = unfinished(run)
    if missing and not allow_missing:
        total = len(run.results) + missing
        raise RunError(
            f"{run.path}: {missing} of {total} questions have no record yet; the run's own command "
            "goes on with it, --allow-missing compares what there is"
        )
    asked, images = gather(run.results, {**ASKED, **IMAGES})
    if not asked.labelled:
        raise RunError(f"{run.path}: its data hold no right answers, so nothing can be compared")
    questions = Questions(run.results, asked, images)
    name = f"{run.path.name} {which}"
    return ScoredPass(name, questions, tally.credits(), missing, tally.failed())


def tally_of(run: Run, which: Pass) -> AnyTally:
    """A run's answers of one pass as its benchmark scores them, see `cof.bench.common.tally`.

    Everything else that tests and tables need of all results is gathered with them.

    Raises:
        RunError: the run has no such pass, no records, or every answer of the pass failed, so that
            no number about it would mean anything.
    """
    if not run.results:
        raise RunError(f"{run.path}: no records yet")
    if which == "plain" and not run.config["plain"]:
        raise RunError(f"{run.path}: was made without the plain pass (plain: false)")
    passes: tuple[Pass, ...] = ("plain", "cof") if run.config["plain"] else ("cof",)
    wanted = {**OVERVIEW, **ASKED, **IMAGES}
    *_, last = found = gather(run.results, {**wanted, **answers_of(*bench_of(run), passes)})
    why = spoilt(run, [which])
    if why:
        raise RunError(f"{run.path}: {why}; there is no score")
    tally: AnyTally = last if which == "cof" else found[-2]
    return tally


def has_both(run: Run) -> bool:
    """Whether CoF can be compared with plain answers: they were asked for, and answers count."""
    return bool(run.config["plain"]) and not hasattr(bench_of(run)[0], "region_answer")


def bench_of(run: Run) -> tuple[ModuleType, Any]:
    """The run's benchmark, and the benchmark's Config."""
    return dataset.bench_of(run.config)


def align(
    first: ScoredPass, second: ScoredPass, allow_missing: bool = False
) -> tuple[ScoredPass, ScoredPass, int]:
    """The questions that both have, in the order of the first, and how many were left out.

    Raises:
        RunError: a question that only one of them has (unless allowed), or that is not the same
            in both; names the first.
    """
    import numpy as np

    here, there = first.asked, second.asked
    if np.array_equal(here.ids, there.ids) and np.array_equal(here.contents, there.contents):
        return first, second, 0
    places = _places(here.ids, there.ids)
    shared = np.flatnonzero(places >= 0)
    others = places[shared]
    for place in np.flatnonzero(here.contents[shared] != there.contents[others]).tolist():
        pair = first.questions[int(shared[place])], second.questions[int(others[place])]
        _same(*pair, first.name, second.name)
    lacking = np.flatnonzero(places < 0), np.flatnonzero(_places(there.ids, here.ids) < 0)
    alone = sum(map(len, lacking))
    if alone and not (allow_missing and len(shared)):
        has, lacks = (first, second) if len(lacking[0]) else (second, first)
        name = has.questions[int(lacking[0 if has is first else 1][0])].id
        raise RunError(
            f"question {name!r} is in {has.name} but not in {lacks.name} ({alone} such questions)"
            + ("; --allow-missing compares the others" if len(shared) else "; nothing is in both")
        )
    return first.take(shared), second.take(others), alone


def _places(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The place of each id among others, -1 where it is not there; int [n]."""
    import numpy as np

    order = np.argsort(among, kind="stable")
    at = np.searchsorted(among[order], ids, side="right") - 1
    found = np.where(at >= 0, order[at], -1) if len(among) else np.full(len(ids), -1)
    return np.where(among[found] == ids, found, -1) if len(among) else found


def _same(one: Question, other: Question, first: str, second: str) -> None:
    """Raise unless two runs asked the same under one id; true boxes may have been added later."""
    for key in ("image", "text", "reference", "options"):
        here, there = getattr(one, key), getattr(other, key)
        if here != there:
            raise RunError(
                f"question {one.id!r} is not the same in both: its {key} is {shown(here)} in "
                f"{first}, {shown(there)} in {second}"
            )
