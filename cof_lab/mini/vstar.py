"""MiniVStar: V*Bench's two folders; the first option is right, boxes are x, y, w, h in pixels."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from cof.files import write_whole
from cof_lab.mini.common import MiniConfig, Picture, pictures
from cof_lab.question_context import GeneratedQuestion, QuestionContext, UnaskableError
from cof_lab.questions import ask

PART = 11_000
KINDS = {
    "direct_attributes": ("what_color", "what_digit", "what_shape"),
    "relative_position": ("which_side",),
}


def write(folder: Path, config: MiniConfig) -> int:
    """Write <type>/<stem>.jpg with <stem>.json beside it."""
    total = 0
    for part, (name, kinds) in enumerate(KINDS.items()):
        written = 0
        for picture in pictures(config, PART + part):
            kind = kinds[written % len(kinds)]
            random = Random(f"{config.seed}-{name}-{picture.index}")
            try:
                question = ask(QuestionContext(picture.things, random), kind)
            except UnaskableError:
                continue
            _write(folder / name / f"mini_{written:04d}", picture, question, random)
            written += 1
            if written == config.size:
                break
        total += written
    return total


def _write(stem: Path, picture: Picture, question: GeneratedQuestion, random: Random) -> None:
    picture.save(stem.with_suffix(".jpg"))
    wrong = [option for option in question.options if option != question.answer]
    height, width = picture.pixels.shape[:2]
    boxes = [
        [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
        for x0, y0, x1, y1 in picture.boxes(question.region)
    ]
    content = {
        "target_object": [picture.things[k].name for k in question.region],
        "bbox": [[round(value) for value in box] for box in boxes],
        "question": question.text,
        "options": [question.answer, *random.sample(wrong, min(3, len(wrong)))],
    }
    write_whole(stem.with_suffix(".json"), json.dumps(content) + "\n")
