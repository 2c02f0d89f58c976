"""What statistics need of a run's results, gathered in one go through them: bytes a question.

The results of a large run are read from disk each time that somebody goes through them
(`cof.store.record_view`). So everything that tables, tests and intervals ask about is gathered
here, several things at a time, and kept with the results.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cof.analyse.statistics import Clusters, Names
from cof.bench.common.tally import Tally, number_of
from cof.types import Question, Result

if TYPE_CHECKING:
    import numpy as np

Pass = Literal["plain", "cof"]


class Gatherer(Protocol):
    """Takes results one by one; `found` is what is kept of them."""

    def add(self, result: Result) -> None:
        """Take one."""

    def found(self) -> Any:
        """What all of them come to."""


Wanted = Mapping[Hashable, Callable[[], Gatherer]]


def gather(results: Sequence[Result], wanted: Wanted) -> list[Any]:
    """What is wanted of all results; each thing under its key, which tells it from all others.

    What was gathered of them before is there already, if they are those of a large run.
    """
    kept: dict[Hashable, Any] = getattr(results, "kept", {})
    fresh = {key: start() for key, start in wanted.items() if key not in kept}
    for result in results if fresh else ():
        for gatherer in fresh.values():
            gatherer.add(result)
    kept.update({key: gatherer.found() for key, gatherer in fresh.items()})
    return [kept[key] for key in wanted]


class _Images:
    def __init__(self, name_of: Callable[[Question], str] = attrgetter("image")) -> None:
        self._names, self._name_of = Names(), name_of

    def add(self, result: Result) -> None:
        self._names.append(self._name_of(result.question))

    def found(self) -> Clusters:
        return self._names.clusters()


IMAGES: Wanted = {"images": _Images}
"""The image of each question, as `Clusters`."""


def together(bench: ModuleType) -> Wanted:
    """What each question is judged together with, as `Clusters`; of a benchmark that says so."""
    return {("together", bench.__name__): lambda: _Images(bench.together)}


@dataclass
class Overview:
    """Counts over all results.

    Attributes:
        status: of regions, where there was one.
        errors: questions of which some pass failed.
        first: id and error of the first of them.
        failed: pass -> answers that are not there, a region that nobody looked for among them.
        seconds: part -> sum, and over how many questions; a kept answer took none of `cof`.
        kept: plain answers that a doubt gate kept.
    """

    status: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    first: tuple[str, str] = ("", "")
    failed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, tuple[float, int]] = field(default_factory=dict)
    kept: int = 0

    def add(self, result: Result) -> None:
        """Take one result."""
        if result.error and not self.errors:
            self.first = (result.question.id, result.error)
        self.errors += bool(result.error)
        self.status.update([result.status] if result.region else [])
        self.kept += result.kept
        for part in PARTS:
            said = getattr(result, part)
            if said is None:
                self.failed[part] += 1
            elif part != "cof" or not result.kept:
                total, count = self.seconds.get(part, (0.0, 0))
                self.seconds[part] = total + said.seconds, count + 1

    def found(self) -> Overview:
        """Itself."""
        return self


PARTS = ("region", "cof", "plain")
OVERVIEW: Wanted = {"overview": Overview}


def overview(results: Sequence[Result]) -> Overview:
    """Counts over all results."""
    found: Overview = gather(results, OVERVIEW)[0]
    return found


@dataclass(frozen=True)
class Asked:
    """Questions as an alignment needs them.

    Attributes:
        ids: a number for the id of each, int64 [n].
        contents: a number for everything that two runs have to agree on, int64 [n].
        category: of each, its place in `categories`, int32 [n].
        categories: the names there are.
        labelled: whether any has a right answer or a true box.
        digest: of everything that was asked, in this order; None of some of the questions.
    """

    ids: np.ndarray
    contents: np.ndarray
    category: np.ndarray
    categories: tuple[str, ...]
    labelled: bool
    digest: bytes | None

    @classmethod
    def of(cls, questions: Iterable[Question]) -> Asked:
        """Of questions that are in memory."""
        gatherer = _Asked()
        for question in questions:
            gatherer.take(question)
        return gatherer.found()

    def take(self, places: np.ndarray) -> Asked:
        """Some of them."""
        chosen = {name: getattr(self, name)[places] for name in ("ids", "contents", "category")}
        return replace(self, **chosen, digest=None)


class _Asked:
    def __init__(self) -> None:
        self._ids, self._contents, self._category = array("q"), array("q"), array("i")
        self._places: dict[str, int] = {}
        self._labelled, self._digest = False, hashlib.blake2b()

    def add(self, result: Result) -> None:
        self.take(result.question)

    def take(self, one: Question) -> None:
        self._ids.append(number_of(one.id))
        self._contents.append(number_of(one.id, one.image, one.text, one.reference, *one.options))
        self._category.append(self._places.setdefault(one.category, len(self._places)))
        self._labelled = self._labelled or bool(one.reference or one.boxes)
        self._digest.update(repr(one).encode())

    def found(self) -> Asked:
        import numpy as np

        return Asked(
            np.asarray(self._ids),
            np.asarray(self._contents),
            np.asarray(self._category),
            tuple(self._places),
            self._labelled,
            self._digest.digest(),
        )


ASKED: Wanted = {"asked": _Asked}


class _PlainTexts:
    def __init__(self) -> None:
        self._texts = array("q")

    def add(self, result: Result) -> None:
        self._texts.append(number_of("said", result.plain.text) if result.plain else 0)

    def found(self) -> np.ndarray:
        import numpy as np

        return np.asarray(self._texts)


PLAIN_TEXTS: Wanted = {"plain texts": _PlainTexts}
"""A number for the text of each plain answer, 0 where there is none; int64 [n]."""


class _Said:
    """Fills a benchmark's tally with the answers of one pass."""

    def __init__(self, bench: ModuleType, config: Any, which: Pass) -> None:
        self._tally = bench.tally(config) if hasattr(bench, "tally") else Kept(bench, config)
        self._said = answer_of(bench, which)

    def add(self, result: Result) -> None:
        self._tally.add(result.question, self._said(result))

    def found(self) -> Any:
        if isinstance(self._tally, Tally):
            self._tally.close()
        return self._tally


def answers_of(bench: ModuleType, config: Any, passes: Iterable[Pass]) -> Wanted:
    """The tally of each pass, see `cof.bench.common.tally`."""
    name = f"{bench.__name__} {config!r}"
    return {
        ("answers", name, which): lambda which=which: _Said(bench, config, which)  # type: ignore[misc]
        for which in passes
    }


def answer_of(bench: ModuleType, which: Pass) -> Callable[[Result], str | None]:
    """How to get from a result what the benchmark scores of a pass, None where that failed.

    That is the answer's text; for a benchmark of the coarse stage its region, in both passes.
    """
    if hasattr(bench, "region_answer"):
        return lambda result: bench.region_answer(result.region) if result.region else None

    def text(result: Result) -> str | None:
        said = getattr(result, which)
        return said.text if said else None

    return text


class Kept:
    """Stands in for the tally of a benchmark that has none: keeps all questions and answers."""

    def __init__(self, bench: ModuleType, config: Any) -> None:
        self._bench, self._config = bench, config
        self._questions: list[Question] = []
        self._answers: list[str | None] = []

    def add(self, question: Question, answer: str | None) -> None:
        """Take one answer."""
        self._questions.append(question)
        self._answers.append(answer)

    def score(self, places: Sequence[int] | None = None) -> dict[str, Any]:
        """What the benchmark makes of all answers, or of some."""
        chosen = range(len(self._answers)) if places is None else places
        asked, said = ([column[i] for i in chosen] for column in (self._questions, self._answers))
        scores: dict[str, Any] = self._bench.score(asked, said, self._config)
        return scores

    def credits(self) -> array[float]:
        """0..1 for each answer."""
        pairs = zip(self._questions, self._answers, strict=True)
        return array("d", (float(self._bench.credit(*pair, self._config)) for pair in pairs))

    def failed(self) -> bytes:
        """1 for each question that failed, 0 for the others."""
        return bytes(answer is None for answer in self._answers)


AnyTally = Tally | Kept
