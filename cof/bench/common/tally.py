"""Scoring answers as they come: a benchmark's `Tally` keeps a few bytes of each, and no text.

What a benchmark's numbers need to know of an answer is mostly one of a few dozen things (a subtask,
right or wrong, readable or not): its mark. A tally keeps the number of each answer's mark, of
benchmarks that judge several answers together also the number of the answer's group, and scores all
answers or some of them, as often as a jackknife asks.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from cof.types import Question

if TYPE_CHECKING:
    import numpy as np

Mark = tuple[Any, ...]
Said = str | None


def number_of(*texts: str) -> int:
    """A 64-bit number for some text; of a million texts two share one with a chance of 3e-8."""
    digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class Part:
    """Some of a tally's answers, in the order in which they came."""

    def __init__(self, tally: Tally, places: Sequence[int] | None) -> None:
        import numpy as np

        self._tally = tally
        self._places = slice(None) if places is None else np.asarray(places)
        self._codes = np.asarray(tally.codes, np.int32)[self._places]

    def __len__(self) -> int:
        return len(self._codes)

    @cached_property
    def counts(self) -> Counter[Mark]:
        """Mark -> how many answers have it."""
        import numpy as np

        found: Counter[Mark] = Counter()
        for code, count in enumerate(np.bincount(self._codes).tolist()):
            if count:
                found[self._tally.marks[code]] += count
        return found

    @property
    def first(self) -> Mark:
        """The mark of the first answer."""
        return self._tally.marks[self._codes[0]]

    @property
    def credits(self) -> np.ndarray:
        """The credit of each answer, float [n]."""
        return self.of_marks(self._tally.values)

    @property
    def group_numbers(self) -> np.ndarray:
        """The number of each answer's group, int [n], of a tally that has groups."""
        return self._tally.grouped()[self._places]

    @property
    def numbers(self) -> np.ndarray:
        """The number of each answer, float [n], of a tally that keeps one."""
        import numpy as np

        return np.asarray(self._tally.numbers, np.float64)[self._places]

    def of_marks(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        """For each answer the value that its mark has, by the mark's place in `Tally.marks`."""
        import numpy as np

        return np.asarray(values)[self._codes] if len(values) else np.zeros(0)

    def of_answers(self, values: np.ndarray) -> np.ndarray:
        """Of something that each of the tally's answers has, [n of them], that of the part's."""
        return values[self._places]

    def where(self, true: Callable[[Mark], bool]) -> int:
        """How many answers have a mark of which something is true."""
        return sum(count for mark, count in self.counts.items() if true(mark))

    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the part's answers by group, each group's in order, and where groups start."""
        import numpy as np

        group = self._tally.grouped()[self._places]
        order = np.argsort(group, kind="stable")
        turns = np.flatnonzero(np.diff(group[order])) + 1
        return order, np.concatenate([[0], turns]) if len(order) else turns

    def alike(self) -> tuple[bytes, ...]:
        """What the part's score depends on: equal for two parts, so are their scores."""
        import numpy as np

        found = [self._codes.tobytes()]
        grouped = self._tally.grouped()
        if len(grouped):
            group = grouped[self._places]
            found.append(np.unique(group, return_inverse=True)[1].tobytes())
        if self._tally.numbers:
            found.append(self.numbers.tobytes())
        return tuple(found)


class Tally(ABC):
    """Takes answers one by one and scores them.

    Attributes:
        marks: every mark that was seen, in order of first appearance.
        values: the credit that goes with each.
        codes: of each answer the place of its mark.
        groups: of each answer a number for its group, or empty.
        numbers: of each answer a number that marks are too coarse for, or empty.
    """

    def __init__(self, config: Any = None) -> None:
        self.config = config
        self.marks: list[Mark] = []
        self.values = array("d")
        self.codes, self.groups, self.numbers = array("i"), array("q"), array("d")
        self._known: dict[tuple[float, bool, Mark], int] = {}
        self._failed: list[bool] = []
        self._grouped: np.ndarray | None = None

    @abstractmethod
    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        """An answer's credit, and what else its score needs to know."""

    def group(self, question: Question) -> int | None:
        """A number of the group that a question is judged with, None where there are none."""
        return None

    def number(self, question: Question, answer: Said) -> float | None:
        """A number of an answer that goes into the score as it is."""
        return None

    @abstractmethod
    def total(self, part: Part) -> dict[str, Any]:
        """The published metrics of some answers, as the benchmark's `score` returns them."""

    def add(self, question: Question, answer: Said) -> None:
        """Take one answer."""
        credit, mark = self.mark(question, answer)
        key = (credit, answer is None, mark)
        code = self._known.get(key)
        if code is None:
            code = self._known[key] = len(self.marks)
            self.marks.append(mark)
            self.values.append(credit)
            self._failed.append(answer is None)
        self.codes.append(code)
        group, number = self.group(question), self.number(question, answer)
        if group is not None:
            self.groups.append(group)
        if number is not None:
            self.numbers.append(number)

    def close(self) -> None:
        """All answers are in: what is needed for further ones alone is forgotten."""
        self.grouped()
        self.groups = array("q")

    def score(self, places: Sequence[int] | None = None) -> dict[str, Any]:
        """The metrics of all answers, or of those at some places."""
        return self.total(Part(self, places))

    def alike(self, places: Sequence[int]) -> tuple[bytes, ...]:
        """Equal for two sets of places: so is what `score` says of them."""
        return Part(self, places).alike()

    def credits(self) -> array[float]:
        """0..1 for each answer."""
        return array("d", Part(self, None).credits.tobytes())

    def failed(self) -> bytes:
        """1 for each question that failed, 0 for the others."""
        import numpy as np

        return Part(self, None).of_marks(np.array(self._failed, np.uint8)).tobytes()

    def grouped(self) -> np.ndarray:
        """The group of each answer as a number from 0, in order of first appearance, int [n]."""
        import numpy as np

        if self._grouped is None or len(self.groups) > len(self._grouped):
            found = np.unique(self.groups, return_index=True, return_inverse=True)
            rank = np.empty(len(found[1]), np.int32)
            rank[np.argsort(found[1])] = np.arange(len(rank), dtype=np.int32)
            self._grouped = rank[found[2]]
        return self._grouped


def scored(tally: Tally, questions: Iterable[Question], answers: Iterable[Said]) -> dict[str, Any]:
    """The metrics of as many answers as questions."""
    for question, answer in zip(questions, answers, strict=True):
        tally.add(question, answer)
    return tally.score()


def added(values: np.ndarray) -> float:
    """Sum from left to right, as `cof.bench.common.answers.add_up` does."""
    import numpy as np

    return float(np.cumsum(values)[-1]) if len(values) else 0.0


def sizes(groups: np.ndarray) -> np.ndarray:
    """Of each answer, by its group's number, how many answers its group has; int [n]."""
    import numpy as np

    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    found: np.ndarray = counts[places]
    return found


class AllRight(NamedTuple):
    """Share of complete groups all of whose answers are right, None where none is complete; and how
    many groups are not complete and left out.
    """

    share: float | None
    incomplete: int


def all_right(groups: np.ndarray, right: np.ndarray, whole: np.ndarray | int) -> AllRight:
    """Judge groups of answers.

    Args:
        groups: the group of each answer, a number [n].
        right: 1 where it is right, else 0; float [n].
        whole: how many answers its group has where none is missing, [n] or the same for all.
    """
    import numpy as np

    full = sizes(groups) >= whole
    lost = len(np.unique(groups[~full]))
    _, places = np.unique(groups[full], return_inverse=True)
    if not len(places):
        return AllRight(None, lost)
    worst = np.ones(places.max() + 1)
    np.minimum.at(worst, places, right[full])
    return AllRight(float(worst.mean()), lost)


def left_out(**metrics: int) -> dict[str, Any]:
    """What scores say of incomplete groups, by the metric that leaves them out; nothing of none."""
    lost = {name: count for name, count in metrics.items() if count}
    return {"incomplete": lost} if lost else {}
