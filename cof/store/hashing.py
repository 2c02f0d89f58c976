"""The hash of a dataset's images, computed beside everything else.

Reading every image takes seconds, on a shared disk minutes. Meanwhile a fresh run loads its model
and answers its first batch; but no record is written before the manifest has the hash, and a run
that goes on waits for it before it touches its folder. So records never outlive a kill that their
manifest says nothing about.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cof.files import Folder
from cof.store.dataset import file_hash, hash_images
from cof.types import Question

PENDING = "pending"
"""What a manifest has in the hash's place until it is known; there are no records then."""


class ImageHash:
    """The hash of a dataset's images, by one thread.

    Args:
        questions: whose images.
        root: folder of the image names.
    """

    def __init__(self, questions: Sequence[Question], root: Folder) -> None:
        self._questions, self._root = questions, root
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._found: Future[str] | None = None

    def start(self) -> None:
        """Begin, unless it has begun; returns at once."""
        if self._found is None:
            self._found = self._pool.submit(
                hash_images, self._questions, self._root, self._stop.is_set
            )

    @property
    def known(self) -> bool:
        """Whether `wait` returns at once."""
        return self._found is not None and self._found.done()

    @property
    def now(self) -> str:
        """The hash, `PENDING` while it is not known."""
        return self.wait() if self.known else PENDING

    def wait(self) -> str:
        """The hash, however long it takes."""
        self.start()
        assert self._found is not None
        return self._found.result()

    def as_if(self, known: Mapping[str, str]) -> str:
        """The hash that there would be if some images had other hashes; reads all others."""
        return hash_images(self._questions, self._root, self._stop.is_set, known)

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Some images by name, each with its own hash."""
        return {name: file_hash(self._root / name) for name in names}

    def close(self) -> None:
        """Give up behind the image that is being read; nobody may wait any more."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
