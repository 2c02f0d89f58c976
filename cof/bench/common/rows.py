"""One JSON object of a file, asked for what it should hold; other valid JSON is an error.

A reader takes what it wants by kind (`text`, `texts`, `parts`, ...), never from `values` itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from cof.errors import DataError, cut, shown

Numbers = tuple[int | float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file, with the place it came from.

    Every method raises a DataError where the key is absent or holds something else.

    Attributes:
        values: the object.
        where: `file:line`, for messages.
    """

    values: Mapping[str, Any]
    where: str

    @classmethod
    def of(cls, value: Any, where: str) -> Row:
        """A value that should be an object."""
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected a JSON object, found {shown(value)}")
        return cls(value, where)

    def value(self, name: str) -> Any:
        """Whatever stands under a key."""
        if name not in self.values:
            there = cut(", ".join(map(str, self.values)))
            raise DataError(f"{self.where}: no {shown(name)}; there is: {there}")
        return self.values[name]

    def text(self, name: str) -> str:
        """A string."""
        return _text(self.value(name), name, self.where)

    def asked(self, name: str) -> str:
        """A string that is not blank, as questions are."""
        text = self.text(name)
        if not text.strip():
            raise DataError(f"{self.where}: {name!r} is empty")
        return text

    def key(self, name: str) -> str:
        """An identifier, which files write as a string or as an integer."""
        value = self.value(name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return str(value) if whole else self.text(name)

    def number(self, name: str) -> int:
        """An identifier that has to be a whole number from 0."""
        return whole_number(self.key(name), name, self.where)

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        value = self.value(name)
        if not isinstance(value, list):
            raise DataError(f"{self.where}: {name!r} is {shown(value)}, expected a list of texts")
        return [_text(item, name, self.where) for item in value]

    def numbers(self, name: str, meaning: str) -> Numbers:
        """Four numbers, such as a box."""
        return numbers(self.value(name), name, meaning, self.where)

    def parts(self, name: str) -> list[Row]:
        """A list of objects."""
        value = self.value(name)
        if not isinstance(value, list):
            raise DataError(f"{self.where}: {name!r} is {shown(value)}, expected a list of objects")
        return [Row.of(item, f"{self.where}: {name} {k}") for k, item in enumerate(value, start=1)]

    def inside(self, name: str) -> str:
        """The name of a file in a folder, which it does not leave; see `inside`."""
        return inside(self.text(name), self.where)


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {name!r} is {shown(value)}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        raise DataError(f"{where}: {name!r} is {shown(value)}, no valid Unicode text") from error
    return value


def whole_number(text: str, name: str, where: str) -> int:
    """A text of digits as a number from 0.

    Raises:
        DataError: something else, or more digits than any index has.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise DataError(f"{where}: {name} {shown(text)} is no number")
    return int(text)


def numbers(value: Any, name: str, meaning: str, where: str) -> Numbers:
    """Four finite numbers of a JSON list, as they are.

    Raises:
        DataError: something else; it says `<where>: <name> <value>, expected <meaning>`.
    """
    if not (isinstance(value, list) and len(value) == 4 and all(map(_is_finite, value))):
        raise DataError(f"{where}: {name} {shown(value)}, expected {meaning}")
    return tuple(value)


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e12  # NaN is not; and no integer that floats cannot hold


def inside(name: str, where: str) -> str:
    """A file's name below a folder, as a data file gives it.

    Raises:
        DataError: it is absolute or has a `..`: data must not name files outside its folder.
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    outside = windows.drive or windows.root or posix.root or ".." in windows.parts
    longest = max((len(part.encode(errors="replace")) for part in posix.parts), default=0)
    if outside or not posix.name or "\0" in name or longest > 255:
        raise DataError(
            f"{where}: {shown(name)} is not the name of a file inside the benchmark's folder"
        )
    return name


def spelled(value: Any) -> str:
    """A text, or a finite number as people write it (3 for 3.0); "" for anything else."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
