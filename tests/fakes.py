"""Stand-ins for the model and the pipeline: deterministic, instant, and honest about contracts."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from cof.models.base import Counters, Encoded, Limits, Mix, Model
from cof.regions.frame import Frame
from cof.types import Answer, Box, Question, Region, Result, View

GRID = 4


def make_mme(root: Path, images: int, tasks: Sequence[str] = ("existence", "color")) -> Path:
    """An MME release of tiny images, two questions each, in both folder shapes."""
    for number in range(images):
        task = tasks[number % len(tasks)]
        shape = [root / task] * 2
        if task == tasks[0]:
            shape = [root / task / "images", root / task / "questions_answers_YN"]
        for folder in shape:
            folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number % 256, 99, 7)).save(shape[0] / f"{number:04}.png")
        lines = [f"Is there a thing {number}{end} Please answer yes or no." for end in "?!"]
        text = "".join(
            f"{line}\t{answer}\n" for line, answer in zip(lines, ("Yes", "No"), strict=True)
        )
        (shape[1] / f"{number:04}.txt").write_text(text)
    return root


def pick(*parts: object) -> int:
    """A number that looks random and is the same in every process."""
    return zlib.crc32(repr(parts).encode())


class StubPipeline:
    """Answers from a checksum of the question, its pixels and its company in the batch.

    So a record is right only if its batch was planned as in an undisturbed run.
    """

    model = SimpleNamespace(
        describe=lambda: {"name": "stub"},
        **{"layers": 2, "heads": 2, "narrows": True, "space": "self"},
        grounding="{question} where?",
    )

    def __init__(self, plain: bool = True, delay: float = 0.0) -> None:
        self.plain, self.delay = plain, delay
        self.batches: list[list[str]] = []

    def prepare(self, image: Any) -> Any:
        return image

    def answer_batch(self, questions: Sequence[Question], images: Sequence[Any]) -> list[Result]:
        self.batches.append([question.id for question in questions])
        time.sleep(self.delay)
        company = [question.id for question in questions]
        return [self._answer(*row, company) for row in zip(questions, images, strict=True)]

    def _answer(self, question: Question, image: Any, company: list[str]) -> Result:
        number = pick(question.text, image.tobytes(), company)
        box = Box(0.0, number % 7 / 8, 1.0, 1.0)
        plain = Answer("Yes", (1, 2), time.perf_counter() % 1) if self.plain else None
        return Result(
            question=question,
            region=Region((box,), "stub", f"box {number} é \u2028", "image", 0.25),
            focus_boxes=(box,),
            cells=(number % 5, 7),
            tokens=GRID * GRID,
            status="boxes" if number % 3 else "whole",
            cof=Answer("Yes" if number % 2 else "No", (number,), time.perf_counter() % 1),
            plain=plain,
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a StubModel generated from: the prompt it read, and whether it was highlighted."""

    prompt: str
    highlighted: bool


class StubModel(Model):
    """The model contract without a network: embeddings spell the prompt, one character a position.

    A prompt that asks for a bounding box is answered with `reply`; any other with "Yes" while a
    highlight is on and "No" otherwise. `seen` logs every generated row.
    """

    def __init__(self, reply: str = '{"box": [0.25, 0.25, 0.5, 0.5]}') -> None:
        self.name, self.frame, self.reply = "stub", Frame("image"), reply
        self.dtype = "float32"
        self.layers, self.heads, self.counters = 2, 2, Counters()
        self.seen: list[Seen] = []
        self.highlights: list[Any] = []

    def look(self, images: Sequence[Any]) -> list[View]:
        import torch

        place = torch.arange(GRID * GRID)
        rows, columns = place // GRID, place % GRID
        corners = torch.stack([columns, rows, columns + 1, rows + 1], dim=1) / GRID
        features = torch.full((GRID * GRID, 1), -1.0)
        return [View(features, corners, (GRID, GRID), image.size) for image in images]

    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Encoded:
        import torch

        rows = [
            torch.cat([view.features[:, 0], torch.tensor([float(ord(char)) for char in text])])
            for view, text in zip(views, questions, strict=True)
        ]
        length = max(len(row) for row in rows)
        embeds, mask = torch.zeros(len(rows), length, 1), torch.zeros(len(rows), length).long()
        for number, row in enumerate(rows):
            embeds[number, length - len(row) :, 0] = row
            mask[number, length - len(row) :] = 1
        tokens = torch.arange(GRID * GRID)
        visual = tuple(length - len(row) + tokens for row in rows)
        return Encoded({"embeds": embeds}, mask, visual, keys=length)

    @contextlib.contextmanager
    def highlighted(self, highlight: Any) -> Iterator[None]:
        outside = self.highlights
        self.highlights = [] if highlight is None else [*outside, highlight]
        try:
            yield
        finally:
            self.highlights = outside

    def generate(
        self,
        encoded: Encoded,
        limits: Limits,
        done: Callable[[str], bool] | None = None,
        mix: Mix | None = None,
    ) -> list[Answer]:
        rows = enumerate(encoded.inputs["embeds"])
        return [self._generate(number, row[:, 0].tolist(), limits) for number, row in rows]

    def _generate(self, number: int, row: list[float], limits: Limits) -> Answer:
        prompt = "".join(chr(int(value)) for value in row if value > 0)
        highlighted = any(bool(one.bias[number].any()) for one in self.highlights)
        self.seen.append(Seen(prompt, highlighted))
        text = self.reply if "bounding box" in prompt else "Yes" if highlighted else "No"
        tokens = tuple(ord(char) for char in text)[: limits.max_new_tokens]
        return Answer("".join(map(chr, tokens)), tokens, 0.001)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "reply": self.reply}

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}
