"""MiniMME: five of MME's subtasks in its release layout, a yes and a no question an image."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from random import Random
from typing import Any

from cof.files import write_whole
from cof_lab import wording
from cof_lab.mini.common import MiniConfig, Picture, pictures, write_lines
from cof_lab.question_context import GeneratedQuestion, QuestionContext, UnaskableError
from cof_lab.questions import YES_NO_KINDS, ask


def write(folder: Path, config: MiniConfig, kinds: Collection[str] = YES_NO_KINDS) -> int:
    """Write <subtask>/<number>.jpg and .txt, and regions.jsonl; returns the number of questions.

    `kinds` leaves subtasks out; those that are written do not depend on it.

    regions.jsonl is ours and no MME reader looks at it: image, question as in the .txt, answer,
    and the boxes that hold the answer as fractions of the image.
    """
    rows: list[dict[str, Any]] = []
    for part, kind in enumerate(YES_NO_KINDS):
        if kind not in kinds:
            continue
        source = pictures(config, part)
        written = 0
        while written < config.size:
            picture = next(source)
            pair = _pair(picture, kind, config.seed)
            if pair is None:
                continue
            rows += _write_pair(folder / kind, f"{written:04d}", picture, pair)
            written += 1
    write_lines(folder / "regions.jsonl", rows)
    return len(rows)


def _pair(
    picture: Picture, kind: str, seed: int
) -> tuple[GeneratedQuestion, GeneratedQuestion] | None:
    """The same draw with both truths, where the scene allows it."""
    try:
        yes, no = (
            ask(
                QuestionContext(picture.things, Random(f"{seed}-{kind}-{picture.index}")),
                kind,
                truth,
            )
            for truth in (True, False)
        )
    except UnaskableError:
        return None
    return yes, no


def _write_pair(
    folder: Path, stem: str, picture: Picture, pair: tuple[GeneratedQuestion, GeneratedQuestion]
) -> list[dict[str, Any]]:
    picture.save(folder / f"{stem}.jpg")
    texts = [question.text + wording.YES_NO for question in pair]
    lines = [f"{text}\t{q.answer}\n" for text, q in zip(texts, pair, strict=True)]
    write_whole(folder / f"{stem}.txt", "".join(lines))
    return [
        {
            "image": f"{folder.name}/{stem}.jpg",
            "question": text,
            "answer": q.answer,
            "boxes": picture.boxes(q.region),
            "scene": picture.index,
        }
        for text, q in zip(texts, pair, strict=True)
    ]
