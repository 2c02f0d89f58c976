"""How MMBench's answers are counted: rows one by one, and the rows of a question together."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.bench import _mmbench_files
from cof.bench._mmbench_table import ROTATION, table_lines
from cof.bench.common.answers import Said
from cof.bench.common.choice import UNRESOLVED, disputed, extract
from cof.bench.common.containers import Found, Reader, held
from cof.bench.common.lettered import rule_of
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Mark, Part, Tally, left_out
from cof.errors import DataError
from cof.types import Question

if TYPE_CHECKING:
    import numpy as np


def _indexes(rows: Iterable[Entry], config: Any) -> Iterator[Found]:
    """The rows of a table by their index alone; its images may be left out."""
    for line in table_lines(list(rows), Path(config.root)):
        yield Question(str(line.index), "", ""), None


_INDEXES = Reader("mmbench", _indexes, ("index",))


class MMBenchTally(Tally):
    """Marks are (category, has a right answer, row of its own, unresolved, disputed); groups are
    the rows that rotate one question. Of each answer it knows how many its group has.
    """

    def __init__(self, config: Any, version: str) -> None:
        super().__init__(config)
        self._version = version
        self._rows, self._rounds = array("i"), array("i")
        self._rotated = False

    @cached_property
    def _table(self) -> Counter[int] | None:
        """Of each group how many rows the table has; None where there is none to be read."""
        if not self.config.root:
            return None
        try:
            tables = _mmbench_files.tables(self.config.root, self.config.file)
            rows = held(_INDEXES, self.config, tables).questions
        except DataError:
            return None
        return Counter(map(self.group, rows))

    def add(self, question: Question, answer: Said) -> None:
        super().add(question, answer)
        known = (self._table if self.config else None) or Counter()
        self._rows.append(known[self.group(question)])
        self._rounds.append(len(question.options))
        self._rotated |= not question.id.isdecimal()

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        option = extract(answer, question.options, rule_of(self.config))
        own = question.id.isdecimal() and int(question.id) < ROTATION
        lost, split = option == UNRESOLVED, disputed(answer, question.options)
        mark = (question.category, bool(question.reference), own, lost, split)
        return float(option == question.reference), mark

    def group(self, question: Question) -> int:
        return _mmbench_files.index_of(question) % ROTATION

    def total(self, part: Part) -> dict[str, Any]:
        import numpy as np

        labelled = part.where(lambda mark: mark[1]) == len(part)
        rows, rounds = np.asarray(self._rows), np.asarray(self._rounds)
        groups = Groups.of(part, self.marks, rows * rounds if self._rotated else rows)
        return {
            "benchmark": "mmbench",
            "version": self._version,
            "rows": len(part),
            "extract": rule_of(self.config),
            "unresolved": part.where(lambda mark: mark[3]),
            "disputed": part.where(lambda mark: mark[4]),
            **groups.accuracy(labelled),
            "l2_categories": groups.by_category(labelled, 0),
            "categories": groups.by_category(labelled, 2),
            **left_out(circular=groups.incomplete),
            **({"unchecked_groups": True} if self.config and self._table is None else {}),
        }


@dataclass(frozen=True)
class Groups:
    """Rows that rotate one question, a group each.

    Attributes:
        names: the categories there are.
        category: of each group, that of its first row: its place in `names`.
        full: whether it has every row that there is.
        circular: 1 where every row of the group is right.
        base: how many of its rows are unrotated.
        vanilla: how many of those are right.
    """

    names: tuple[str, ...]
    category: np.ndarray
    full: np.ndarray
    circular: np.ndarray
    base: np.ndarray
    vanilla: np.ndarray

    @classmethod
    def of(cls, part: Part, marks: Sequence[Mark], whole: np.ndarray) -> Groups:
        """The groups of some answers; `whole` has of each answer of the tally its group's size."""
        import numpy as np

        names = tuple(dict.fromkeys(mark[0] for mark in marks))
        order, starts = part.groups()
        category = part.of_marks([names.index(mark[0]) for mark in marks])[order][starts]
        own = part.of_marks([float(mark[2]) for mark in marks])[order]
        right = part.credits[order]
        full = np.diff([*starts, len(order)]) >= part.of_answers(whole)[order][starts]
        found = (np.minimum.reduceat(right, starts), *_sums((own, own * right), starts))
        return cls(names, category, full, *found)

    @property
    def incomplete(self) -> int:
        """How many groups lack rows."""
        return int((~self.full).sum())

    def accuracy(self, labelled: bool, chosen: Any = slice(None)) -> dict[str, Any]:
        """Both accuracies of all groups, or of those that are `chosen`."""
        full = self.full[chosen]
        circular, count = int(self.circular[chosen][full].sum()), int(full.sum())
        base, vanilla = (int(one[chosen].sum()) for one in (self.base, self.vanilla))
        return {
            "groups": count,
            "circular_right": circular if labelled else None,
            "circular": circular / count if labelled and count else None,
            "base_rows": base,
            "vanilla": vanilla / base if labelled and base else None,
        }

    def by_category(self, labelled: bool, part: int) -> dict[str, Any]:
        """Accuracies a category; `part` 0 is the broad one, 2 the fine one, of `broad/fine`."""
        import numpy as np

        present = set(np.unique(self.category).tolist())
        members: dict[str, list[int]] = {}
        for number in sorted(present):
            members.setdefault(self.names[number].rpartition("/")[part], []).append(number)
        return {
            name: self.accuracy(labelled, np.isin(self.category, members[name]))
            for name in sorted(members)
            if name
        }


def _sums(columns: Sequence[np.ndarray], starts: np.ndarray) -> list[np.ndarray]:
    """Sums of each group."""
    import numpy as np

    return [np.add.reduceat(column, starts) for column in columns]
