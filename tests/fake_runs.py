"""Run folders without a model: the benchmark is real, the answers are drawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cof import load_run
from cof.config import schema
from cof.evaluate.runner import _score
from cof.store import manifest, origin
from cof.store.dataset import fingerprint, read_questions
from cof.store.folder import RunFolder
from cof.store.records import to_record
from cof.store.run import Run
from cof.types import Answer, Box, Question, Region, Result

GRID = 4
TRUE = Box(0.25, 0.25, 0.5, 0.5)

Say = Callable[[Question, random.Random], tuple[str | None, str | None]]
"""Plain and CoF answer to a question; None is a pass that failed."""


class FakeModel:
    def describe(self) -> dict[str, Any]:
        return {"name": "fake", "frame": "image", "dtype": "float32", "device": "cpu"}


def right_with(plain: float, cof: float) -> Say:
    """Right answers with these probabilities, independent of each other."""

    def say(question: Question, rng: random.Random) -> tuple[str, str]:
        wrong = "No" if question.reference == "Yes" else "Yes"
        first, second = (rng.random() < share for share in (plain, cof))
        return tuple(question.reference if right else wrong for right in (first, second))

    return say


def make_run(
    root: Path,
    data: Path,
    say: Say,
    name: str = "r",
    seed: int = 0,
    keep: int | None = None,
    scored: bool = False,
    **settings: Any,
) -> Run:
    """Write the run folder root/name over the MME folder `data` and load it.

    Its regions hit the box TRUE, which is every question's true box, two times out of three.
    """
    sections = {"bench": {"name": "mme", "root": str(data)}, "out": str(root), "name": name}
    checked = schema.resolve({**sections, **settings})
    folder = RunFolder(root / name)
    folder.path.mkdir(parents=True)
    folder.write_config(checked.as_dict())
    questions = [replace(one, boxes=(TRUE,)) for one in read_questions(checked)]
    dataset = fingerprint(questions, data)
    identity = {"weights": "fake", "dtype": "float32", "device": "cpu"}
    made = origin.made(checked.as_dict(), identity, dataset)
    described = manifest.describe(checked, dataset, identity, FakeModel(), "cof eval")
    manifest.write(folder, described, 0)
    results = [_result(one, say, seed, checked.general.plain) for one in questions]
    folder.append([to_record(index, one, made) for index, one in enumerate(results[:keep])])
    if scored:
        _score(folder, checked)
    return load_run(folder.path)


def _result(question: Question, say: Say, seed: int, plainly: bool) -> Result:
    plain, cof = say(question, random.Random(f"plain {question.id}"))
    rng = random.Random(f"{seed} {question.id}")
    cof = say(question, rng)[1]
    hit = rng.random() < 2 / 3
    box = TRUE if hit else Box(0.5, 0.5, 1.0, 1.0)
    return Result(
        question=question,
        region=Region((box,), "prompt", str(list(box.as_tuple())), "image", 0.2),
        focus_boxes=(box,),
        cells=(5,) if hit else (10, 11, 14, 15),
        tokens=GRID * GRID,
        status="boxes",
        cof=None if cof is None else Answer(cof, (1,), 0.1),
        plain=Answer(plain, (1,), 0.1) if plainly and plain is not None else None,
        error="a pass: broke" if None in (plain, cof) else "",
        target=(5,),
    )
