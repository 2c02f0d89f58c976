"""Benchmarks, one file each: reader, scorer and exporter.

A benchmark is a module with what `Contract` names, and what it likes of `MayHave`.

`Question.text` already ends with the prompt suffix that the published numbers were made with, and
`Question.id` is unique and the same on every machine. `score` is a pure function of its lists
(same length, same order) and of those options of `config` that choose a rule, None for the
defaults; it needs no field of a question that a record does not keep. What it returns is JSON-able,
in a fixed key order, and starts with `benchmark` and `version`. An answer that is None is that of a
question that failed: wrong everywhere, and never exported, so that an answer file that lacks one is
seen to. Of a benchmark without a `tally` all questions and answers of a run are held in memory to
be scored. Scoring what `export` wrote gives what `score` gave. `table` speaks in the points that
papers print: shares times 100.

Everything that is wrong with a file is a `cof.errors.DataError` that names it, with the line where
there is one. `common/` has what benchmarks share: containers (tables that hold questions and
pictures), reading and writing files, values out of JSON, answers put to questions, boxes in pixels.
A file's name that a data file gives goes through `Row.inside`. Boxes are annotated on pictures as
they are stored, and pictures are shown so (`images.exif: ignore`); `cof.store.dataset` turns both
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cof.bench import (
        cvbench,
        gqa,
        hallusionbench,
        hrbench,
        jsonl,
        mmbench,
        mme,
        mmvp,
        pope,
        refcoco,
        scienceqa,
        seedbench,
        textvqa,
        vstar,
    )
    from cof.bench.common.answers import Answers
    from cof.bench.common.tally import Tally
    from cof.files import Folder
    from cof.types import Question, Region


class Contract(Protocol):
    """What a benchmark is."""

    @property
    def Config(self) -> type[Any]:  # noqa: N802
        """A frozen dataclass: its `root` and options."""

    @property
    def VERSION(self) -> str:  # noqa: N802
        """Of the reader and scorer; recorded."""

    @property
    def SOURCE(self) -> str:  # noqa: N802
        """Where to get it."""

    def read(self, config: Any) -> list[Question]:
        """Every question; image paths relative to `config.root`, or as `pictures` knows them."""

    def expected(self, config: Any) -> Mapping[str, tuple[int, ...]]:
        """Published numbers of questions a category, "" for all."""

    def credit(self, question: Question, answer: str | None, config: Any = None) -> float:
        """0..1 for one answer, for statistics."""

    def score(
        self, questions: Sequence[Question], answers: Sequence[str | None], config: Any = None
    ) -> dict[str, Any]:
        """The published metrics, all digits."""

    def table(self, scores: dict[str, Any]) -> list[tuple[str, float, int]]:
        """Rows (name, points, n) to print."""

    def export(
        self,
        questions: Sequence[Question],
        answers: Sequence[str],
        folder: Path,
        config: Any = None,
    ) -> list[Path]:
        """Write answers in the published formats."""

    def read_answers(self, path: Path, config: Any, allow_missing: bool = False) -> Answers:
        """Foreign answer files, for `cof score`."""


class MayHave(Protocol):
    """What a benchmark may also have."""

    def pictures(self, config: Any) -> Folder:
        """Where images are found by their names, if not in the folder `config.root`."""

    def together(self, question: Question) -> str:
        """What several images are judged together by, so that a draw of images and the groups of
        a jackknife keep them together (MMVP's pairs).
        """

    def ranges(self, scores: dict[str, Any]) -> dict[str, tuple[float, float]]:
        """Bounds of the rows of `table` that are not in points of 0 to 100 (MME's sums)."""

    def tally(self, config: Any) -> Tally:
        """What `score` counts with, so that a run of any size is scored in little memory."""

    def yes_no(self, answer: str | None, config: Any = None) -> str:
        """`yes`, `no` or `other`, where every question wants yes or no; for reports."""

    def region_answer(self, region: Region) -> str:
        """What stands for the answer where the coarse stage is scored (RefCOCO)."""

    def sizes(self, config: Any) -> Mapping[str, tuple[int, int]]:
        """Image name -> width and height in pixels that its annotation says, for `data check`."""

    @property
    def KNOWN_MD5(self) -> Mapping[str, tuple[str, ...]]:  # noqa: N802
        """File name -> the MD5 of each of its versions, for `cof data check`."""


if TYPE_CHECKING:
    _HELD: tuple[Contract, ...] = (
        *(cvbench, gqa, hallusionbench, hrbench, jsonl, mmbench, mme, mmvp, pope, refcoco),
        *(scienceqa, seedbench, textvqa, vstar),
    )
