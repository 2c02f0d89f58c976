"""Files on a user's disk: written whole or not at all, and opened only where they are files.

Every writer of this project goes through `write_whole` or, where a library does the writing,
`whole` and `whole_folder`; every reader of a file that a user names goes through `regular`. What
the system refuses becomes a `DiskError`: one line with file and reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cof.errors import CofError


class DiskError(CofError):
    """A file or folder cannot be read or written: disk full, read-only, gone, no file at all."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside another one, such as a picture in a table; stands where a Path may.

    Attributes:
        name: the outer file and the place in it, for messages.
        read: its bytes; raises a CofError where the outer file is damaged or gone.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)

    def is_file(self) -> bool:
        """It is: nobody has a Member of what is not there."""
        return True

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Its bytes as a file."""
        return io.BytesIO(self.read())

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Packed:
    """A folder of which some files lie inside other ones; `/` finds either.

    Attributes:
        folder: where the outer files are.
        members: name -> file.
    """

    folder: Path
    members: Mapping[str, Member] = field(repr=False)

    def __truediv__(self, name: str) -> Path | Member:
        return self.members.get(name) or self.folder / name


Folder = Path | Packed
"""Where pictures are found by their names."""


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file so that after a kill or a full disk it is the old one or the new one; its path.

    Text is UTF-8 with the newlines that it has. For the rest see `whole`.
    """
    data = content.encode() if isinstance(content, str) else content
    with whole(path) as fresh:
        fresh.write_bytes(data)
    return path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write the new content of a file; it takes the file's place when the block ends.

    A name in the same folder with the same suffix, flushed to the disk, then renamed; gone where
    the block fails. Folders are made where needed; a symbolic link is written through.

    Raises:
        DiskError: the folder cannot be made or written, the disk is full, the path is a folder.
    """
    with blamed(path, "written"):
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{_mark(target.stem)}{target.suffix}")
        try:
            yield fresh
            _settle(fresh, target)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Where to write files that then move into a folder, each whole; others in it stay.

    For libraries that write several files at once. A kill may leave some new files and some old
    ones, never a part of one.

    Raises:
        DiskError: as `whole`.
    """
    with blamed(folder, "written"):
        target = folder.resolve()
        target.mkdir(parents=True, exist_ok=True)
        fresh = target / _mark("files")
        try:
            fresh.mkdir()
            yield fresh
            for file in sorted(file for file in fresh.rglob("*") if file.is_file()):
                place = target / file.relative_to(fresh)
                place.parent.mkdir(parents=True, exist_ok=True)
                _settle(file, place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what killed writers left in a folder; nobody may be writing into it."""
    for left in folder.glob(f".*{_MARK}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


_MARK = ".being-written-"


def _mark(stem: str) -> str:
    """A name for what is being written, hidden, and another one in every process."""
    return f".{stem}{_MARK}{os.getpid()}"


def _settle(fresh: Path, target: Path) -> None:
    """See a file to the disk, then put it in its place."""
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(target)


_File = TypeVar("_File", Path, Path | Member)


def regular(path: _File) -> _File:
    """The path, if it is a file (or a link to one): no folder, device, socket or pipe.

    Opening one of those may hang for ever, or do something.

    Raises:
        DiskError: it is something else, does not exist, or cannot be looked at.
    """
    if isinstance(path, Member):
        return path
    with blamed(path, "read"):
        mode = path.stat().st_mode
    refuse_kind(path, mode)
    return path


def refuse_kind(path: Path, mode: int) -> None:
    """Raise DiskError unless the mode that `stat` gave is that of a file."""
    if not stat.S_ISREG(mode):
        raise DiskError(f"{path}: is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, expected a file")


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def blamed(path: Path | str, what: str) -> Iterator[None]:
    """Inside the block an OSError becomes a DiskError: `<path>: cannot be <what> (<reason>)`."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"{path}: cannot be {what} ({reason(error)})") from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise DiskError(f"{str(path)!r}: cannot be {what} (a NUL byte in its name)") from error


def reason(error: OSError) -> str:
    """Why the system refused, on one line."""
    return error.strerror or " ".join(str(error).split())
