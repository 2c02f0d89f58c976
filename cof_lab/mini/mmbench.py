"""MiniMMBench: multiple choice as one TSV with images inside, every rotation a row of its own."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from cof.bench.mmbench import COLUMNS, ROTATION
from cof.files import write_whole
from cof_lab.mini.common import JPEG, MiniConfig, Picture, pictures, write_lines
from cof_lab.question_context import GeneratedQuestion, QuestionContext, UnaskableError
from cof_lab.questions import WORD_KINDS, ask, multiple_choice

PART = 20
FILE = "mmbench_dev_20230712.tsv"
LEVELS = {
    "what_color": "finegrained_perception (instance-level)",
    "what_shape": "finegrained_perception (instance-level)",
    "what_digit": "finegrained_perception (instance-level)",
    "how_many": "finegrained_perception (cross-instance)",
    "which_side": "finegrained_perception (cross-instance)",
}


def write(folder: Path, config: MiniConfig) -> int:
    """Write the TSV and regions.jsonl; returns the number of rows, rotations included."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    regions = []
    for number in range(config.size * len(WORD_KINDS)):
        kind = WORD_KINDS[number % len(WORD_KINDS)]
        picture, question = _find(config, kind, number)
        rows += _rotations(number, picture, question)
        regions.append(
            {
                "index": number,
                "question": question.text.split("\n")[0],
                "boxes": picture.boxes(question.region),
                "scene": picture.index,
            }
        )
    rows.sort(key=lambda row: row["index"])
    file = io.StringIO()
    table = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(folder / FILE, file.getvalue())
    write_lines(folder / "regions.jsonl", regions)
    return len(rows)


def _find(config: MiniConfig, kind: str, number: int) -> tuple[Picture, GeneratedQuestion]:
    """The first scene from this question's own stretch that allows the kind."""
    for picture in pictures(config, PART + number):
        random = Random(f"{config.seed}-{kind}-{picture.index}")
        try:
            question = ask(QuestionContext(picture.things, random), kind)
        except UnaskableError:
            continue
        return picture, multiple_choice(question, random)
    raise AssertionError("scenes are endless")


def _rotations(number: int, picture: Picture, question: GeneratedQuestion) -> list[dict[str, Any]]:
    options = list(question.options)
    right = options["ABCD".index(question.answer)]
    image = _encode(picture)
    rows = []
    for k in range(len(options)):
        turned = options[k:] + options[:k]
        letters = dict(zip("ABCD", turned, strict=False))
        rows.append(
            {
                "index": k * ROTATION + number,
                "question": question.text.split("\n")[0],
                **letters,
                "answer": "ABCD"[turned.index(right)],
                "category": question.kind,
                "source": "cof-tiny",
                "l2-category": LEVELS[question.kind],
                "split": "dev",
                "image": image,
            }
        )
    return rows


def _encode(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "JPEG", **JPEG)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
