"""A record as it must be to be read: a line of records.jsonl that is JSON may still be anything."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from cof.store.manifest_check import explain
from cof.store.records import from_record
from cof.types import FocusStatus, Result

_STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def _whole(text: str) -> str:
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError("holds half a character")
    return text


_Text = Annotated[str, AfterValidator(_whole)]
_Count = Annotated[int, Field(ge=0, le=1 << 24)]
_Four = Annotated[list[float], Field(min_length=4, max_length=4)]


@with_config(_STRICT)
class _Region(TypedDict):
    source: _Text
    frame: _Text
    reply: _Text
    boxes: list[_Four]
    notes: NotRequired[dict[str, Any]]


@with_config(_STRICT)
class _Focus(TypedDict):
    status: FocusStatus
    boxes: list[_Four]
    cells: list[_Count]
    target: list[_Count]
    tokens: _Count
    grid: NotRequired[Annotated[list[_Count], Field(min_length=2, max_length=2)]]
    frame: NotRequired[_Four]
    lit: NotRequired[list[_Four]]


@with_config(_STRICT)
class _Answer(TypedDict):
    text: _Text
    tokens: list[int]
    notes: NotRequired[dict[str, Any]]


@with_config(_STRICT)
class _Gate(TypedDict):
    margin: Annotated[float, Field(ge=0)] | None
    asked: bool
    forwards: Annotated[list[float], Field(min_length=2, max_length=2)]
    positions: Annotated[list[float], Field(min_length=2, max_length=2)]


@with_config(_STRICT)
class _Record(TypedDict):
    index: Annotated[int, Field(ge=0)]
    id: _Text
    image: _Text
    category: _Text
    question: _Text
    reference: _Text
    truth: list[_Four]
    options: list[_Text]
    choose: bool
    core: NotRequired[_Text]
    region: _Region | None
    focus: _Focus
    plain: _Answer | None
    cof: _Answer | None
    error: _Text
    logprobs: NotRequired[dict[str, list[float]]]
    seconds: dict[str, Annotated[float, Field(ge=0)]]
    gate: NotRequired[_Gate]
    made: NotRequired[dict[str, str]]


_ADAPTER: TypeAdapter[_Record] = TypeAdapter(_Record)


def result_of(record: Any) -> Result:
    """The result that a record holds.

    Raises:
        ValueError: a key that is missing, of another type, or impossible; on one line.
    """
    try:
        _ADAPTER.validate_python(record)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    result = from_record(record)
    for name, cells in (("cells", result.cells), ("target", result.target)):
        if any(cell >= result.tokens for cell in cells):
            raise ValueError(f"focus.{name}: {max(cells)} of {result.tokens} tokens")
    _check_places(result)
    if result.cof is None and not result.error:
        raise ValueError("neither an answer (cof) nor a reason why there is none (error)")
    return result


def _check_places(result: Result) -> None:
    if result.grid is not None:
        if result.grid[0] * result.grid[1] != result.tokens or result.frame is None:
            raise ValueError(f"focus.grid: {list(result.grid)} for {result.tokens} tokens")
    elif result.lit and len(result.lit) != len(result.cells):
        raise ValueError(f"focus.lit: {len(result.lit)} rectangles for {len(result.cells)} tokens")
