"""The results of a run: those of a small one in memory, those of a large one read when asked for.

Of a large run ten bytes a question are kept in memory. Going through the whole reads and checks
every record once more, in about the time that `load_run` took; whoever needs one number of each
question gathers them in one go (`cof.analyse.gather`) and leaves them in `kept`.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, overload

from cof.errors import RunError
from cof.store.places import Places, Reader
from cof.store.record_check import result_of
from cof.types import Result


class HeldResults(tuple[Result, ...]):
    """The results of a small run, in dataset order.

    Attributes:
        kept: as `RecordView.kept`.
    """

    kept: dict[Hashable, Any]

    def __new__(cls, results: Iterable[Result]) -> HeldResults:
        """With nothing worked out yet."""
        found = super().__new__(cls, results)
        found.kept = {}
        return found


class RecordView(Sequence[Result]):
    """Results in dataset order. Two are equal where their results are, to tuples as well.

    Attributes:
        kept: what somebody worked out of all results, by a key of his own.

    Raises (wherever a result is read):
        RunError: the files are not what they were when the run was loaded.
    """

    def __init__(self, places: Places) -> None:
        self._places, self._order = places, places.order()
        self.kept: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, place: int) -> Result: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Result, ...]: ...

    def __getitem__(self, place: int | slice) -> Result | tuple[Result, ...]:
        if isinstance(place, slice):
            return tuple(self._read(self._order[place]))
        return next(self._read([self._order[place]]))

    def __iter__(self) -> Iterator[Result]:
        return self._read(self._order)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordView | tuple) or len(self) != len(other):
            return NotImplemented if not isinstance(other, RecordView | tuple) else False
        return self is other or all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} results>"

    def _read(self, order: Sequence[int]) -> Iterator[Result]:
        with Reader(self._places.files) as reader:
            for index in order:
                place = self._places.get(index)
                assert place is not None
                try:
                    record = json.loads(reader.line(place))
                    if record["index"] != index:
                        raise ValueError("another question's record")
                    result = result_of(record)
                except (ValueError, TypeError, KeyError, RecursionError):
                    file = self._places.files[place[0]]
                    raise RunError(f"{file}: was changed while it was read; start again") from None
                yield result
