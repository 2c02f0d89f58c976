"""MMBench, arXiv 2307.06281: multiple choice, each question with its options in every rotation.

The published TSV holds the rotations as rows of their own (index k * 1,000,000 + i). `circular`,
the published number, counts a question as right only if every row of it is right; `vanilla` counts
the unrotated rows alone. Options are extracted by matching, without a judge and without chance
(`extract`, two rules in `cof.bench.common.choice`): an answer that names no single option is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cof.bench import _mmbench_files, _mmbench_table
from cof.bench._mmbench_score import MMBenchTally
from cof.bench._mmbench_table import COLUMNS as COLUMNS  # for those who write such a table
from cof.bench._mmbench_table import ROTATION
from cof.bench.common.answers import Answers, Said, with_boxes
from cof.bench.common.choice import Extract
from cof.bench.common.containers import Found, Held, Reader, held
from cof.bench.common.files import write_jsonl
from cof.bench.common.finding import folder_of
from cof.bench.common.lettered import credit as credit  # the module's own
from cof.bench.common.tables import Entry
from cof.bench.common.tally import Tally, scored
from cof.errors import ConfigError
from cof.files import Folder
from cof.types import Question

VERSION = "3"
"""1 asked the coarse stage about the hint, where there is one; 2 took the option A of a sentence
for an article, and knew a Chinese table by `_cn` in its name alone."""
KNOWN_MD5 = {
    "MMBench_DEV_EN.tsv": ("b6caf1133a01c6bb705cf753bb527ed8",),
    "MMBench_DEV_CN.tsv": ("08b8fc3324a5ed74155350f57be69fbd",),
    "MMBench_TEST_EN.tsv": ("6939fadb0ce626fefc0bdc9c64efc528",),
    "MMBench_TEST_CN.tsv": ("7e1239baf0ee4c8b513e19705a0f317e",),
    "MMBench_DEV_EN_V11.tsv": (
        *("30c05be8f2f347a50be25aa067248184", "8b7b30bb78b8f4a87ffc6b2258890a39"),
    ),
    "MMBench_DEV_CN_V11.tsv": (
        *("593f9b5f6bea453d870a798b34ae4f37", "6e2f5cb803ae65e3b9f7c5f7abdbb2a3"),
    ),
    "MMBench_TEST_EN_V11.tsv": (
        *("26f0f15381a21720255091d3e0316ce6", "8d1a704e791df6f5d9fb3ef782b65365"),
    ),
    "MMBench_TEST_CN_V11.tsv": (
        *("74bbe4556dac745613c7cbe5ad787050", "156e6569f9547afb16603eca16e85373"),
    ),
    "CCBench.tsv": ("f5dde47f24dc5a6fb6e595b409b466ac", "adf706c28a3535c89c500385ab235e28"),
}
"""As VLMEvalKit lists them: V1.1 and CCBench were put up again."""
SOURCE = "download.openmmlab.com/mmclassification/datasets/mmbench/<file> (one TSV, images inside)"
IMAGES = "mmbench_dev_20230712_images"
"""Stands in the names of images, whatever the table: so a dataset has one hash in all of them, and
runs on the first table, which was unpacked into a folder of that name, go on."""

SHEET = ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
"""Columns of the submission, in the order of LLaVA's converter."""


@dataclass(frozen=True)
class Config:
    """Where MMBench is and how it is asked.

    Attributes:
        root: folder of the TSV, or of lmms-lab's parquet files; or such a file. For scoring alone
            its images may be left out.
        file: name of the TSV, or `language/split` of parquet files; "" is the newest table there.
        images: folder that stands in the names of images, "" is `IMAGES`; nothing is written there.
        lang: of the instruction: `en`, `cn`, or `auto`: `cn` where `cn` is a word of the file's
            name, in any case, or part of CCBench, or where most questions hold Chinese characters.
        rotate: also ask every rotation of each row's options, for a TSV that holds none.
        extract: how options are read from answers, see `cof.bench.common.choice`.
    """

    root: str
    file: str = ""
    images: str = ""
    lang: Literal["auto", "en", "cn"] = "auto"
    rotate: bool = False
    extract: Extract = "vlmevalkit"


def read(config: Config) -> list[Question]:
    """Every row of the table in its order.

    Raises:
        DataError: no such table, a row without question, options or image.
    """
    questions = _held(config).questions
    bases = [str(_mmbench_files.index_of(question) % ROTATION) for question in questions]
    return with_boxes(questions, folder_of(config.root), bases, lambda row: row.key("index"))


def pictures(config: Config) -> Folder:
    """Where the images are: in the table."""
    return _held(config).pictures


def _held(config: Config) -> Held:
    tables = _mmbench_files.tables(config.root, config.file)
    return held(_READER, replace(config, file=str(tables[0])), tables)


def _from_rows(rows: Iterable[Entry], config: Config) -> Iterator[Found]:
    """Questions in the order of the rows; rows with one image share its name."""
    path, folder = Path(config.file), config.images or IMAGES
    lines = _mmbench_table.table_lines(list(rows), path)
    names = _mmbench_table.images(lines)
    chinese = config.lang == "cn" or (
        config.lang == "auto" and _mmbench_files.is_chinese(path, lines)
    )
    for line in lines:
        image = f"{folder}/{names[line.index]}"
        for question in _mmbench_files.questions(line, image, config.rotate, chinese):
            yield question, line.picture


_READER = Reader("mmbench", _from_rows, ("index", "question", "A", "B"), look=True)


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The published number of rows, where it is known."""
    tables = _mmbench_files.tables(config.root, config.file)
    return {"": (4377,)} if tables[0].name == "mmbench_dev_20230712.tsv" else {}


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Circular and vanilla accuracy, in all and a category; shares in [0, 1].

    Metrics are None where the table holds no answers (the test splits). `disputed` counts answers
    that the two rules of extraction read differently. `circular` leaves out questions that lack
    rows of the table of `config.root` (`incomplete`); without it (`unchecked_groups`) every
    question is taken for complete.
    """
    return scored(tally(config), questions, answers)


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return MMBenchTally(config, VERSION)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: circular and vanilla accuracy, then circular accuracy a category; in percent."""
    parts = [*scores["l2_categories"].items(), *scores["categories"].items()]
    rows = [
        ("circular", scores["circular"], scores["groups"]),
        ("vanilla", scores["vanilla"], scores["base_rows"]),
        *((name, part["circular"], part["groups"]) for name, part in parts),
    ]
    return [(name, 100 * share, n) for name, share, n in rows if share is not None]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write LLaVA's answer file and the submission sheet, all rows of the TSV in its order.

    Raises:
        ConfigError: no config; the sheet repeats columns of the TSV that questions do not keep.
    """
    if config is None:
        raise ConfigError("mmbench: the submission sheet needs the config that was read")
    pairs = list(zip(questions, answers, strict=True))
    written = [
        write_jsonl(
            folder / "llava_mmbench_answers.jsonl",
            (_mmbench_files.llava_row(*p) for p in pairs),
        )
    ]
    given = {q.id: answer for q, answer in pairs}
    lines = _mmbench_table.read_table(*_mmbench_files.tables(config.root, config.file))
    columns = [name for name in SHEET if name != "answer" or "answer" in lines[0].cells]
    rows: list[list[str | int | None]] = [list(columns)]
    for line in lines:
        known = {**line.cells, "index": line.index, "prediction": given.get(str(line.index))}
        rows.append([known.get(name) for name in columns])
    return [*written, _mmbench_table.write_sheet(folder / "mmbench_submission.xlsx", rows)]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """LLaVA's answers (.jsonl), or a sheet with a column `prediction` (.xlsx, .tsv).

    Right answers come from `config.root` (the TSV or its folder); else from the file itself, whose
    rows may carry them; else from the TSV that LLaVA's layout puts into a folder above it.

    Raises:
        DataError: as `match_answers`; no right answers; options that are not the table's.
    """
    return _mmbench_files.read_answers(path, config.root, config.file, allow_missing)
