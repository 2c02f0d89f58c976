"""A grounding set: expressions and their boxes, as JSON lines beside the images."""

from __future__ import annotations

from pathlib import Path
from random import Random

from cof_lab import wording
from cof_lab.mini.common import MiniConfig, pictures, write_lines
from cof_lab.question_context import QuestionContext

PART = 12_000


def write(folder: Path, config: MiniConfig) -> int:
    """Write images/*.jpg and grounding.jsonl, one expression an image.

    A line has image, expression, question (LLaVA's referring prompt), bbox (x0, y0, x1, y1 as
    fractions of the image) and bbox_xywh (pixels, RefCOCO's form).
    """
    rows = []
    source = pictures(config, PART)
    for number in range(config.size):
        picture = next(source)
        context = QuestionContext(picture.things, Random(f"{config.seed}-{picture.index}"))
        index = context.thing()
        name = f"images/{number:04d}.jpg"
        picture.save(folder / name)
        (box,) = picture.boxes([index])
        height, width = picture.pixels.shape[:2]
        rows.append(
            {
                "image": name,
                "expression": picture.things[index].name,
                "question": wording.REFER[0].format(a=picture.things[index].name),
                "bbox": box,
                "bbox_xywh": [
                    round(value, 1)
                    for value in (
                        box[0] * width,
                        box[1] * height,
                        (box[2] - box[0]) * width,
                        (box[3] - box[1]) * height,
                    )
                ],
                "scene": picture.index,
            }
        )
    write_lines(folder / "grounding.jsonl", rows)
    return len(rows)
