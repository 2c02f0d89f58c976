"""The two stages, read aloud: look, locate, highlight, answer.

`CoF` holds a model and the settings of a run; `answer_batch` takes one batch of questions through
both stages and is what the benchmark runner calls, `__call__` asks one question about one image.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof import plugins
from cof.boxes import BoxConfig
from cof.images import load_image, to_rgb
from cof.locate import prompt
from cof.models.base import Config, Limits, Model, View
from cof.refine import highlight, plain
from cof.tokens import focus
from cof.types import Answer, Box, Focus, Question, Region, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """Everything that decides an answer, the model aside.

    Attributes:
        locate: the coarse stage, as the `Config` of a module in `cof.locate`.
        boxes: how a region becomes a mask.
        refine: the fine stage, as the `Config` of a module in `cof.refine`.
        limits: how answers are decoded, plain and highlighted alike.
        plain: also answer without the highlight, for the comparison.
    """

    locate: Any = field(default_factory=prompt.Config)
    boxes: BoxConfig = field(default_factory=BoxConfig)
    refine: Any = field(default_factory=highlight.Config)
    limits: Limits = field(default_factory=Limits)
    plain: bool = True


@dataclass(frozen=True)
class Outcome:
    """One question about one image, answered.

    Attributes:
        image: what was asked about, RGB.
        view: how the model saw it; `view.cells` are the rectangles of its visual tokens.
        region: the coarse stage's boxes and raw reply (`region.reply`, "" where a box was given).
        focus: boxes after expansion, and the mask (`focus.mask`, bool [T]) that was highlighted.
        result: both answers, in the form of a run's record.
    """

    image: Image
    view: View
    region: Region
    focus: Focus
    result: Result

    @property
    def text(self) -> str:
        """The answer with the region highlighted, as the model wrote it."""
        return self.result.cof.text if self.result.cof else ""

    @property
    def plain(self) -> str | None:
        """The same model's answer without the highlight, None unless asked for."""
        return self.result.plain.text if self.result.plain else None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The highlighted regions, fractions of the image, expansion included."""
        return self.focus.boxes

    @property
    def mask(self) -> Tensor:
        """The highlighted visual tokens, bool [T]."""
        return self.focus.mask

    @property
    def seconds(self) -> float:
        """Wall time of the coarse stage and the answers, vision tower not included."""
        parts = (self.region, self.result.cof, self.result.plain)
        return sum(part.seconds for part in parts if part is not None)

    def plot(self) -> Figure:
        """Draw the two stages: the boxes on the image, the highlighted tokens, the answers."""
        from cof.plot import draw_two_stages

        return draw_two_stages(
            self.image,
            self.result.question.text,
            self.focus,
            self.view.cells,
            self.text,
            boxes=self.region.boxes,
            plain=self.plain,
            reply=self.region.reply,
        )


class CoF:
    """A model and the two stages.

    Args:
        model: the multi-modal LLM that locates and answers.
        settings: stages, box rules, decoding.
    """

    def __init__(self, model: Model, settings: Settings | None = None) -> None:
        self.model, self.settings = model, settings or Settings()

    @classmethod
    def from_pretrained(
        cls,
        path: str = "cof-tiny",
        settings: Settings | None = None,
        family: str = "llava",
        **loading: Any,
    ) -> CoF:
        """Load a model by name.

        Args:
            path: `cof-tiny` (embedded), a folder, or a hub name (either LLaVA-1.5 layout).
            settings: stages, box rules, decoding; the paper's method by default.
            family: the model's file in `cof.models`.
            loading: `device`, `dtype`, `device_map`, `conv` (see `cof.models.base.Config`).

        Raises:
            ModelError: no such model; unknown device or dtype.
        """
        module = plugins.load("models", family)
        return cls(module.load(Config(path=path, **loading)), settings)

    def __call__(
        self,
        image: str | Path | Image,
        question: str,
        box: Box | Sequence[float] | None = None,
        plain: bool = False,
    ) -> Outcome:
        """Ask one question about one image.

        Args:
            image: a file that Pillow opens, or an RGB image.
            question: as it should be asked, any suffix included.
            box: skip the coarse stage and highlight this region (fractions of the image).
            plain: also answer without the highlight.

        Raises:
            DataError: the file is no usable image.
            ValueError: `box` is no box.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        picture = load_image(image) if isinstance(image, str | Path) else to_rgb(image)
        asked = Question(id="0", image=name, text=question)
        given = None if box is None else [_given(box)]
        settings = replace(self.settings, plain=plain)
        views, regions, focuses, results = self._run([asked], [picture], settings, given)
        return Outcome(picture, views[0], regions[0], focuses[0], results[0])

    def answer_batch(self, questions: Sequence[Question], images: Sequence[Image]) -> list[Result]:
        """Take one batch of questions through both stages.

        Args:
            questions: B questions.
            images: the B RGB images they are about.
        """
        return self._run(questions, images, self.settings, None)[-1]

    def _run(
        self,
        questions: Sequence[Question],
        images: Sequence[Image],
        settings: Settings,
        given: list[Region] | None,
    ) -> tuple[list[View], list[Region], list[Focus], list[Result]]:
        model = self.model
        views = _look(model, images)
        regions = given or _stage(settings.locate).locate(model, questions, views, settings.locate)
        focuses = [focus(r, v, settings.boxes) for r, v in zip(regions, views, strict=True)]
        batch = (model, questions, views, focuses)
        answers = _stage(settings.refine).refine(*batch, settings.refine, settings.limits)
        plains: Sequence[Answer | None] = [None] * len(questions)
        if settings.plain:
            plains = plain.refine(*batch, plain.Config(), settings.limits)
        rows = zip(questions, regions, focuses, answers, plains, strict=True)
        return views, regions, focuses, [_result(*row) for row in rows]


def _look(model: Model, images: Sequence[Image]) -> list[View]:
    """Show each image to the model once, however many questions of the batch are about it."""
    unique = {id(image): image for image in images}
    seen = dict(zip(unique, model.look(list(unique.values())), strict=True))
    return [seen[id(image)] for image in images]


def _stage(config: Any) -> Any:
    """The plug-in that owns a config: the module in which its class is written."""
    return importlib.import_module(type(config).__module__)


def _given(box: Box | Sequence[float]) -> Region:
    return Region((box if isinstance(box, Box) else Box(*box),), "given")


def _result(
    question: Question, region: Region, spot: Focus, answer: Answer, said: Answer | None
) -> Result:
    cells = tuple(spot.mask.nonzero().flatten().tolist())
    return Result(question, region, spot.boxes, cells, len(spot.mask), spot.status, answer, said)
