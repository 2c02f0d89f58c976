"""One pass of one run as statistics see it: questions, credits, images; and two of them aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from cof.analyse.failures import spoilt
from cof.analyse.naming import folder_names
from cof.analyse.scores import Pass, answers
from cof.config import plugins
from cof.config.build import build
from cof.errors import RunError, shown
from cof.store.folder import Run, unfinished
from cof.types import Question


@dataclass(frozen=True)
class ScoredPass:
    """What is compared.

    Attributes:
        name: for tables and messages.
        questions: in dataset order.
        credits: 0..1 for each; a question that failed has 0.
        missing: questions of the dataset that the run has not answered yet.
        failed: ids of the questions that failed in this pass.
    """

    name: str
    questions: tuple[Question, ...]
    credits: tuple[float, ...]
    missing: int = 0
    failed: frozenset[str] = frozenset()

    @property
    def failures(self) -> int:
        """How many of the questions failed."""
        return sum(question.id in self.failed for question in self.questions)

    @property
    def images(self) -> list[str]:
        """The image of each question: what intervals cluster by."""
        return [question.image for question in self.questions]

    def take(self, places: Sequence[int]) -> ScoredPass:
        """Some of the questions."""
        questions = tuple(self.questions[place] for place in places)
        return replace(
            self, questions=questions, credits=tuple(self.credits[place] for place in places)
        )


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
        RunError: see `texts_of`; or, unless allowed, the run is not finished.
    """
    bench, config = bench_of(run)
    texts = texts_of(run, which)
    missing = unfinished(run)
    if missing and not allow_missing:
        total = len(run.results) + missing
        raise RunError(
            f"{run.path}: {missing} of {total} questions have no record yet; the run's own command "
            "goes on with it, --allow-missing compares what there is"
        )
    questions = tuple(result.question for result in run.results)
    if not any(question.reference or question.boxes for question in questions):
        raise RunError(f"{run.path}: its data hold no right answers, so nothing can be compared")
    pairs = zip(questions, texts, strict=True)
    credits = tuple(float(bench.credit(question, text, config)) for question, text in pairs)
    said = zip(questions, texts, strict=True)
    failed = frozenset(question.id for question, text in said if text is None)
    return ScoredPass(f"{run.path.name} {which}", questions, credits, missing, failed)


def texts_of(run: Run, which: Pass) -> list[str | None]:
    """What the benchmark scores of one pass, in dataset order; None where a question failed.

    Raises:
        RunError: the run has no such pass, no records, or every answer of the pass failed, so that
            no number about it would mean anything.
    """
    if not run.results:
        raise RunError(f"{run.path}: no records yet")
    if which == "plain" and not run.config["plain"]:
        raise RunError(f"{run.path}: was made without the plain pass (plain: false)")
    why = spoilt(run, [which])
    if why:
        raise RunError(f"{run.path}: {why}; there is no score")
    return answers(bench_of(run)[0], run.results, which)


def has_both(run: Run) -> bool:
    """Whether CoF can be compared with plain answers: they were asked for, and answers count."""
    return bool(run.config["plain"]) and not hasattr(bench_of(run)[0], "region_answer")


def bench_of(run: Run) -> tuple[ModuleType, Any]:
    """The run's benchmark, and the benchmark's Config."""
    data = dict(run.config["bench"])
    module = plugins.load("bench", data.pop("name"))
    data.pop("sha256", None)
    data.pop("limit", None)
    return module, build(module.Config, data, "bench")


def align(
    first: ScoredPass, second: ScoredPass, allow_missing: bool = False
) -> tuple[ScoredPass, ScoredPass, int]:
    """The questions that both have, in the order of the first, and how many were left out.

    Raises:
        RunError: a question that only one of them has (unless allowed), or that is not the same
            in both; names the first.
    """
    places = {question.id: place for place, question in enumerate(second.questions)}
    for question in first.questions:
        if question.id in places:
            _same(question, second.questions[places[question.id]], first.name, second.name)
    shared = [one for one in range(len(first.questions)) if first.questions[one].id in places]
    ids = {question.id for question in first.questions}
    alone = [(q.id, first.name, second.name) for q in first.questions if q.id not in places]
    alone += [(q.id, second.name, first.name) for q in second.questions if q.id not in ids]
    if alone and not (allow_missing and shared):
        name, there, absent = alone[0]
        raise RunError(
            f"question {name!r} is in {there} but not in {absent} ({len(alone)} such questions)"
            + ("; --allow-missing compares the others" if shared else "; nothing is in both")
        )
    others = [places[first.questions[one].id] for one in shared]
    return first.take(shared), second.take(others), len(alone)


def _same(one: Question, other: Question, first: str, second: str) -> None:
    """Raise unless two runs asked the same under one id; true boxes may have been added later."""
    for key in ("image", "text", "reference", "options"):
        here, there = getattr(one, key), getattr(other, key)
        if here != there:
            raise RunError(
                f"question {one.id!r} is not the same in both: its {key} is {shown(here)} in "
                f"{first}, {shown(there)} in {second}"
            )
