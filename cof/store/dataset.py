"""What is asked, in which batches, and a fingerprint of it: all from the dataset's order alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Literal

from cof import prompts
from cof.bench.common.containers import places
from cof.bench.common.finding import folder_of
from cof.config import plugins
from cof.config.build import build
from cof.config.general import SUBSET
from cof.config.schema import RunConfig
from cof.errors import DataError
from cof.exif import turned
from cof.files import DiskError, Folder, Member, Packed, regular
from cof.images import header
from cof.store import subset
from cof.types import Box, Question

PlannedBatch = tuple[tuple[int, Question], ...]
"""Questions of one batch, each with its index in the dataset."""

AUTO = 64
"""Most questions in a batch of `batch_size: auto`, before memory limits it."""


def read_questions(config: RunConfig) -> list[Question]:
    """The benchmark's questions, or those of the images that `bench.limit` leaves.

    With `images.exif=apply` their true boxes, annotated on the pictures as they are stored, are
    turned with the pictures.

    Raises:
        DataError: not such a benchmark, no questions, a blank one, two with one id, or a folder
            that lacks most of the images; a few missing ones fail their own questions.
    """
    bench = plugins.load("bench", config.names["bench"])
    questions: list[Question] = bench.read(config.bench)
    ids = [question.id for question in questions]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(f"{config.bench.root}: two questions have the id {twice!r}")
    blank = next((question for question in questions if _is_blank(question)), None)
    if blank is not None:
        raise DataError(f"{config.bench.root}: the question {blank.id!r} is empty")
    kept = set(subset.chosen(questions, config.subset, getattr(bench, "together", None)))
    questions = [question for question in questions if question.image in kept]
    if not questions:
        raise DataError(f"{config.bench.root}: no questions")
    places = pictures(config)
    _check_images(config, places, subset.images_of(questions))
    return _upright(questions, places) if config.images.exif == "apply" else questions


def bench_of(resolved: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """A run's benchmark and its Config, from the resolved config of the run.

    Raises:
        ConfigError: the benchmark cannot be imported, or has no longer such keys.
    """
    module = plugins.load("bench", resolved["bench"]["name"])
    return module, build(module.Config, own_keys(resolved["bench"]), "bench")


def own_keys(section: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config's `bench` the keys that are the benchmark's own."""
    return {key: value for key, value in section.items() if key not in ("name", "sha256", *SUBSET)}


def pictures(config: RunConfig) -> Folder:
    """Where the images of a run's questions are: the benchmark's folder, or files that hold them.

    Raises:
        DataError: such a file is gone or damaged.
    """
    return places(plugins.load("bench", config.names["bench"]), config.bench)


def _check_images(config: RunConfig, root: Folder, names: Sequence[str]) -> None:
    """Refuse a folder that lacks most of the images: it is the wrong one."""
    missing = [name for name in names if not _is_file(root / name)]
    if 2 * len(missing) > len(names):
        raise DataError(
            f"{config.bench.root}: {len(missing)} of {len(names)} images are missing, the first is "
            f"{root / missing[0]}"
            + (
                "; the table lacks them"
                if isinstance(root, Packed)
                else _elsewhere(config, missing[0])
            )
        )


def _elsewhere(config: RunConfig, name: str) -> str:
    """Where an image is, one folder above or below its place, and which key says so."""
    root, folder = folder_of(config.bench.root), getattr(config.bench, "images", "")
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    inner = name.removeprefix(f"{folder}/") if folder else name
    for base in (root, root.parent, *below):
        for part in dict.fromkeys((name, inner)):
            if _is_file(base / part):
                place = (base / part).parents[len(PurePosixPath(inner).parts) - 1]
                here = Path(os.path.relpath(place, root)).as_posix()
                named = hasattr(config.bench, "images")
                say = f"bench.images={here}" if named else f"bench.root={place}"
                return f"; {base / part} is there: set {say}"
    return "; bench.root has to name the folder that holds them"


def _is_file(path: Path | Member) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or one that no file can have
        return False


def _upright(questions: Sequence[Question], root: Folder) -> list[Question]:
    """The questions with their boxes turned as their pictures' EXIF tags say."""
    tags = {name: _tag(root / name) for name in {one.image for one in questions if one.boxes}}
    return [
        replace(one, boxes=tuple(_turned(box, tags[one.image], one) for box in one.boxes))
        for one in questions
    ]


def first_tagged(config: RunConfig, questions: Sequence[Question]) -> str:
    """The first picture whose EXIF tag turns it, "" where none has one."""
    root = pictures(config)
    return next((name for name in subset.images_of(questions) if _tag(root / name) != 1), "")


def _tag(path: Path | Member) -> int:
    """A picture's orientation; one that cannot be opened fails its questions later."""
    try:
        return header(path)[1]
    except DataError:
        return 1


def _turned(box: Box, tag: int, question: Question) -> Box:
    try:
        return turned(box, tag)
    except ValueError as error:  # too thin to be turned
        raise DataError(f"question {question.id}: {error}") from error


def _is_blank(question: Question) -> bool:
    """Whether nothing is asked: what benchmarks put around a question, its options included, is not
    asking.
    """
    asked = question.core or question.text
    for suffix in prompts.SUFFIXES:
        asked = asked.removesuffix(suffix)
    if question.options and not question.choose:
        asked = asked.partition("\nA. ")[0]
    before, after = prompts.DESCRIBED.split("{text}")
    if asked.startswith(before) and asked.endswith(after):
        asked = asked[len(before) : -len(after)]
    return not asked.strip()


def batch_limit(size: int | Literal["auto"]) -> int:
    """Most questions of a planned batch; `auto` asks them in pieces where they do not fit."""
    return AUTO if size == "auto" else size


def plan_batches(questions: Sequence[Question], size: int | Literal["auto"]) -> list[PlannedBatch]:
    """Batches of at most `size` questions; questions of one image stand together.

    Depends on the order of the dataset and `size` only, so that a resumed run, or one on several
    processes, computes the very batches of an undisturbed run.
    """
    size = batch_limit(size)
    place = {image: rank for rank, image in enumerate(subset.images_of(questions))}
    rows = sorted(enumerate(questions), key=lambda row: place[row[1].image])
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


def fingerprint(questions: Sequence[Question], root: Folder) -> dict[str, Any]:
    """Counts and hashes of a dataset, for a manifest; both hashes are hex SHA-256."""
    return described(questions, hash_images(questions, root))


def described(questions: Sequence[Question], images: str) -> dict[str, Any]:
    """`fingerprint`, with what is known of the images."""
    return {
        "questions": questions_hash(questions),
        "images": images,
        "question_count": len(questions),
        "image_count": len(subset.images_of(questions)),
    }


def hash_images(
    questions: Sequence[Question],
    root: Folder,
    stop: Callable[[], bool] = lambda: False,
    known: Mapping[str, str] | None = None,
) -> str:
    """Hash of the bytes of every image file, wherever the root is; a missing file counts as such.

    Args:
        questions: whose images.
        root: folder of the image names.
        stop: asked before each file, whether nobody wants to know any more.
        known: what stands for some of the files' own hashes.
    """
    known = known or {}
    found = hashlib.sha256()
    for name in subset.images_of(questions):
        if stop():
            break
        found.update(f"{name} {known.get(name) or file_hash(root / name)}\n".encode())
    return found.hexdigest()


def questions_hash(questions: Sequence[Question]) -> str:
    """Hex SHA-256 of everything asked, references and true boxes included.

    An empty `core` is left out, so that runs made before there was one go on.
    """
    rows = [asdict(question) for question in questions]
    kept = [{key: value for key, value in row.items() if key != "core" or value} for row in rows]
    asked = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def benchmark_hash(config: RunConfig) -> str:
    """`questions_hash` of a whole benchmark, whatever part of it `bench.limit` asks."""
    return questions_hash(plugins.load("bench", config.names["bench"]).read(config.bench))


def file_hash(path: Path | Member) -> str:
    """Hex SHA-256 of a file's bytes; of one that cannot be read the name of the error."""
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except DiskError as error:
        return type(error.__cause__ or error).__name__
    except (OSError, DataError) as error:
        return type(error).__name__
