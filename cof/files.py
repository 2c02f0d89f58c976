"""Files on a user's disk: written whole or not at all, and opened only where they are files.

Every writer of this project goes through `write_whole`, every reader of a file that a user names
through `regular`; what the system refuses becomes a `DiskError`: one line with file and reason.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cof.errors import CofError


class DiskError(CofError):
    """A file or folder cannot be read or written: disk full, read-only, gone, no file at all."""


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file so that after a kill or a full disk it is the old one or the new one; its path.

    A temporary file in the same folder, flushed to the disk, then renamed. Folders are made where
    needed; text is UTF-8 with the newlines that it has. A symbolic link is written through.

    Raises:
        DiskError: the folder cannot be made or written, the disk is full, the path is a folder.
    """
    data = content.encode() if isinstance(content, str) else content
    with blamed(path, "written"):
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
    return path


def regular(path: Path) -> Path:
    """The path, if it is a file (or a link to one): no folder, device, socket or pipe.

    Opening one of those may hang for ever, or do something.

    Raises:
        DiskError: it is something else, does not exist, or cannot be looked at.
    """
    with blamed(path, "read"):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path
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
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a path
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DiskError(f"{path}: cannot be {what} ({reason})") from error
