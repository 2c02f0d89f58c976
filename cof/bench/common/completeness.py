"""Is a benchmark's folder complete, and is it what was published?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from cof.bench.common.containers import places
from cof.bench.common.files import file_of, read_json
from cof.bench.common.finding import folder_of
from cof.bench.common.rows import Row, inside
from cof.errors import DataError
from cof.files import Folder
from cof.types import Question

HASHES = "sha256.json"
"""File name -> SHA-256, in the folder or the one above; `cof data mini` writes it."""


@dataclass
class FolderCheck:
    """What was found.

    Attributes:
        questions: questions a category.
        images: distinct image files that the questions name.
        verified: files whose hash was compared and agreed.
        problems: one line each; empty where all is well.
    """

    questions: dict[str, int] = field(default_factory=dict)
    images: int = 0
    verified: int = 0
    problems: list[str] = field(default_factory=list)


def check_folder(bench: ModuleType, config: Any, open_images: bool = False) -> FolderCheck:
    """Read a benchmark as a run would, then count, look for its images and compare hashes.

    Counts are compared with the published ones (`bench.expected`) unless the folder has hashes of
    its own: then it is somebody's benchmark in that layout, and its hashes decide.

    Args:
        bench: the benchmark's module.
        config: its Config.
        open_images: also decode every image, and compare its size with an annotated one.
    """
    root = folder_of(config.root)
    check = FolderCheck()
    try:
        questions = bench.read(config)
    except DataError as error:
        check.problems.append(str(error))
        return check
    check.questions = dict(Counter(question.category for question in questions))
    sizes: Mapping[str, tuple[int, int]] | None
    sizes = getattr(bench, "sizes", lambda config: {})(config) if open_images else None
    _images(check, questions, places(bench, config), sizes)
    try:
        own = _own_hashes(check, root)
    except DataError as error:
        check.problems.append(str(error))
        return check
    _known_hashes(check, root, getattr(bench, "KNOWN_MD5", {}))
    if not own:
        _counts(check, bench.expected(config))
    return check


def _images(
    check: FolderCheck,
    questions: list[Question],
    root: Folder,
    sizes: Mapping[str, tuple[int, int]] | None,
) -> None:
    """Look for the images; with `sizes`, which may be empty, open them."""
    names = list(dict.fromkeys(question.image for question in questions))
    check.images = len(names)
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        check.problems.append(f"{len(missing)} of {len(names)} images are missing: {shown}")
    if sizes is not None:
        lost = set(missing)
        _open(check, root, [name for name in names if name not in lost], sizes)


def _open(
    check: FolderCheck, root: Folder, names: list[str], sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Decode images, and compare their sizes with those that are annotated, as they are stored."""
    from cof.images import load_image

    other = []
    for name in names:
        try:
            size = load_image(root / name, exif="ignore").size
        except DataError as error:
            check.problems.append(str(error))
            continue
        if size != sizes.get(name, size):
            found, known = (f"{width} x {height}" for width, height in (size, sizes[name]))
            other.append(f"{name} is {found} pixels, annotated as {known}")
    if other:
        check.problems.append(
            f"{len(other)} of {len(names)} images are not of the annotated size: {other[0]}"
        )


def _own_hashes(check: FolderCheck, root: Path) -> bool:
    """Compare with a sha256.json; True where there is one that speaks of this folder."""
    for place in (root, root.parent):
        if not (place / HASHES).is_file():
            continue
        here = root.relative_to(place).as_posix()
        known = Row.of(read_json(place / HASHES), str(place / HASHES))
        mine = [name for name in known.values if here == "." or name.startswith(f"{here}/")]
        for name in mine:
            file = place / inside(name, known.where)
            _compare(check, file, [known.text(name)], "sha256")
        if mine:
            return True
    return False


def _known_hashes(check: FolderCheck, root: Path, known: Mapping[str, Sequence[str]]) -> None:
    """Compare published files that are there."""
    for name, digests in known.items():
        if (root / name).is_file():
            _compare(check, root / name, digests, "md5")


def _compare(check: FolderCheck, file: Path, digests: Sequence[str], kind: str) -> None:
    try:
        with file_of(file).open("rb") as opened:
            found = hashlib.file_digest(opened, kind).hexdigest()
    except DataError as error:
        check.problems.append(str(error))
        return
    except OSError as error:
        check.problems.append(f"{file}: cannot be read ({error.strerror})")
        return
    if found in digests:
        check.verified += 1
    else:
        recorded = " or ".join(digests)
        check.problems.append(f"{file}: {kind} is {found}, recorded {recorded}; it was changed")


def _counts(check: FolderCheck, expected: dict[str, tuple[int, ...]]) -> None:
    """Compare the counts with the published ones; "" stands for all questions together."""
    for category, allowed in expected.items():
        total = sum(check.questions.values())
        found = check.questions.get(category, 0) if category else total
        if found not in allowed:
            wanted = " or ".join(str(number) for number in allowed)
            name = f"{category}: " if category else ""
            check.problems.append(f"{name}{found} questions, the published number is {wanted}")
