"""The keys of a config that belong to no plug-in: the run, how much of the data, its pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from cof.errors import shown
from cof.exif import Exif

LONGEST_NAME = 200
"""Most bytes of a run's folder name; file systems take 255."""


@dataclass(frozen=True)
class General:
    """The keys outside any section.

    Attributes:
        name: folder of the run inside `out`; None derives one from the config and the dataset.
        out: folder that holds run folders, relative to where the command is called.
        plain: also answer every question without the highlight, for the comparison.
        batch_size: most questions in a batch, or `auto`: what fits into memory, 64 at most. In
            half precision part of the hash, since padding rounds; in float32 answers do not
            depend on it unless they are sampled, and a run may go on with another.
        seed: of the permutation test; sampling has `limits.seed`.
        cache: file of coarse replies that runs share (`cof.store.replies`); None asks anew.
        workers: threads of each process that decode images ahead of the model.
        deterministic: kernels that give the same bits every time, without TF32; slower on a GPU.
    """

    name: str | None = None
    out: str = "runs"
    plain: bool = True
    batch_size: int | Literal["auto"] = 1
    seed: int = 0
    cache: str | None = None
    workers: int = 2
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.batch_size != "auto" and not 1 <= self.batch_size <= 65536:
            raise ValueError(
                f"batch_size={self.batch_size} must be at least 1, at most 65536, or auto"
            )
        if not 1 <= self.workers <= 256:
            raise ValueError(f"workers={self.workers} must be at least 1, at most 256")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.name is not None and not plain_name(self.name):
            raise ValueError(
                f"name={shown(self.name)} must be a plain folder name; `out` is a path"
            )


def plain_name(name: str) -> bool:
    """Whether a text can be a run's folder: one visible part of a path on every system."""
    fits = 0 < len(name.encode(errors="replace")) <= LONGEST_NAME
    return fits and name.isprintable() and name[0] != "." and not set(name) & set("/\\")


@dataclass(frozen=True)
class Subset:
    """Keys of `bench` that leave images out; those that stay keep all their questions.

    Attributes:
        limit: so many images, as evenly from the benchmark's categories as can be, drawn by
            `limit_seed`; a larger limit keeps the images of a smaller one. Images that are judged
            together stay together (MMVP's pairs, HallusionBench's sets), so there may be more.
            None is all.
        limit_first: the first so many images instead, which are often of one category.
        limit_seed: other seeds draw other images for `limit`.
    """

    limit: int | None = None
    limit_first: int | None = None
    limit_seed: int = 0

    def __post_init__(self) -> None:
        for key, value in (("limit", self.limit), ("limit_first", self.limit_first)):
            if value is not None and value < 1:
                raise ValueError(f"{key}={value} must be at least 1, or null for all images")
        if self.limit is not None and self.limit_first is not None:
            raise ValueError(
                f"limit={self.limit} and limit_first={self.limit_first}: give one of them"
            )
        if self.limit_seed < 0:
            raise ValueError(f"limit_seed={self.limit_seed} must not be negative")


SUBSET = tuple(field.name for field in fields(Subset))
"""Keys of `bench` that are not the benchmark's own."""


@dataclass(frozen=True)
class Gate:
    """`gate`: only doubtful questions are located and refined; the others keep their plain answer.

    It saves what locating and refining cost; it is no way to more right answers.

    Attributes:
        threshold: nats; a plain answer whose margin (`cof.types.Answer.margin`) is above it is
            kept. None asks every question and notes the margins, for `cof tune gate`.
        chosen_on: hash of the benchmark whose answers chose the threshold, as `cof tune gate`
            writes it; a run over that benchmark is refused. "" is not known.
    """

    threshold: float | None = None
    chosen_on: str = ""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise ValueError(
                f"threshold={self.threshold} must be a finite margin of at least 0 nats, or null, "
                "which asks every question"
            )


@dataclass(frozen=True)
class Images:
    """`images`: how the benchmark's pictures are opened.

    Attributes:
        exif: `ignore` shows a picture as it is stored, as published; `apply` turns it upright, as
            its EXIF tag says, and its ground-truth boxes with it.
    """

    exif: Exif = "ignore"
