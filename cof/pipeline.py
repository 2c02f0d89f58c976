"""The two stages, read aloud: look, locate, highlight, answer.

`CoF` holds a model and the settings. `__call__` asks one question about one image; `answer_batch`
takes a batch through both stages and is what the benchmark runner calls; `answer_many` does so
for several settings at once, sharing everything that they have in common.
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
from cof.outcome import Outcome
from cof.refine import highlight, plain
from cof.tokens import focus, token_mask
from cof.types import Answer, Box, Focus, Question, Region, Result

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cof.cache import ReplyCache


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


class CoF:
    """A model and the two stages.

    Args:
        model: the multi-modal LLM that locates and answers.
        settings: stages, box rules, decoding; the paper's method by default.
        cache: where coarse replies are kept between runs; None keeps none.
    """

    def __init__(
        self, model: Model, settings: Settings | None = None, cache: ReplyCache | None = None
    ) -> None:
        self.model, self.settings, self.cache = model, settings or Settings(), cache

    @classmethod
    def from_pretrained(
        cls, path: str = "cof-tiny", settings: Settings | None = None, **loading: Any
    ) -> CoF:
        """Load a model by name.

        Args:
            path: `cof-tiny` (embedded), a folder, or a hub name (either LLaVA-1.5 layout).
            settings: stages, box rules, decoding; the paper's method by default.
            loading: `device`, `dtype`, `device_map`, `conv` (see `cof.models.base.Config`);
                `family`, the model's file in `cof.models`, is `llava` unless given.

        Raises:
            ModelError: no such model; unknown device or dtype.
        """
        family = plugins.load("models", loading.pop("family", "llava"))
        return cls(family.load(Config(path=path, **loading)), settings)

    def __call__(
        self,
        image: str | Path | Image,
        question: str,
        box: Box | Sequence[float] | None = None,
        plain: bool = False,
    ) -> Outcome:
        """Ask one question about one image.

        Args:
            image: a file that Pillow opens, or an image.
            question: as it should be asked, any suffix included.
            box: skip the coarse stage and highlight this region (fractions of the image).
            plain: also answer without the highlight.

        Raises:
            DataError: the file is no usable image.
            ValueError: `box` is no box.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        picture = load_image(image) if isinstance(image, str | Path) else to_rgb(image)
        asked = [Question(id="0", image=name, text=question)]
        views = _look(self.model, [picture])
        given = None if box is None else Region((_box(box),), "given")
        regions = [given] if given else self._locate(asked, [picture], views)
        settings = replace(self.settings, plain=plain)
        spots, results = _finish(self.model, asked, views, [regions], [settings])
        return Outcome(picture, views[0], regions[0], spots[0][0], results[0][0])

    def answer_batch(self, questions: Sequence[Question], images: Sequence[Image]) -> list[Result]:
        """Take one batch of questions through both stages.

        Args:
            questions: B questions.
            images: the B RGB images they are about; one object for one image, so that the vision
                tower sees it once.
        """
        return self.answer_many(questions, images, [self.settings])[0]

    def answer_many(
        self,
        questions: Sequence[Question],
        images: Sequence[Image],
        variants: Sequence[Settings],
        rows: int | None = None,
    ) -> list[list[Result]]:
        """Answer a batch under several settings; vision, plain pass, each coarse stage run once.

        Args:
            questions: B questions.
            images: the B RGB images they are about.
            variants: settings that differ in `locate`, `boxes` and `refine` only.
            rows: most rows (questions times variants) in one fine pass, for memory's sake; the B
                rows of one variant stay together. None puts all into one.

        Returns:
            For each variant the B results.
        """
        if len({one.limits for one in variants}) != 1:
            raise ValueError("variants of a batch must have the same limits")
        views = _look(self.model, images)
        stages = dict.fromkeys(one.locate for one in variants)
        regions = {stage: self._locate(questions, images, views, stage) for stage in stages}
        found = [regions[one.locate] for one in variants]
        return _finish(self.model, questions, views, found, variants, rows)[1]

    def _locate(
        self,
        questions: Sequence[Question],
        images: Sequence[Image],
        views: Sequence[View],
        config: Any = None,
    ) -> list[Region]:
        """The coarse stage, for the questions whose reply is not in the cache."""
        config = config or self.settings.locate
        stage = _stage(config)
        if self.cache is None or not getattr(stage, "CACHEABLE", False):
            return stage.locate(self.model, questions, views, config)  # type: ignore[no-any-return]
        return self.cache.regions(self.model, stage, questions, images, views, config)


def _look(model: Model, images: Sequence[Image]) -> list[View]:
    """Show each image to the model once, however many questions of the batch are about it."""
    unique = {id(image): image for image in images}
    seen = dict(zip(unique, model.look(list(unique.values())), strict=True))
    return [seen[id(image)] for image in images]


def _finish(
    model: Model,
    questions: Sequence[Question],
    views: Sequence[View],
    regions: Sequence[Sequence[Region]],
    variants: Sequence[Settings],
    rows: int | None = None,
) -> tuple[list[list[Focus]], list[list[Result]]]:
    """From regions to answers: per variant the B focuses and the B results."""
    spots = [
        [focus(region, view, one.boxes) for region, view in zip(found, views, strict=True)]
        for one, found in zip(variants, regions, strict=True)
    ]
    targets = [
        token_mask(question.boxes, view.cells)
        for question, view in zip(questions, views, strict=True)
    ]
    limits = variants[0].limits
    plains: Sequence[Answer | None] = [None] * len(questions)
    if any(one.plain for one in variants):
        plains = plain.refine(model, questions, views, spots[0], plain.Config(), limits)
    size = max(1, (rows or len(variants) * len(questions)) // len(questions))
    answers: list[list[Answer]] = []
    for start in range(0, len(variants), size):
        some = [one.refine for one in variants[start : start + size]]
        answers += _refine(model, questions, views, spots[start : start + size], some, limits)
    results = [
        [_result(*row) for row in zip(questions, *found, targets, plains, strict=True)]
        for found in zip(regions, spots, answers, strict=True)
    ]
    return spots, results


def _refine(
    model: Model,
    questions: Sequence[Question],
    views: Sequence[View],
    spots: Sequence[Sequence[Focus]],
    configs: Sequence[Any],
    limits: Limits,
) -> list[list[Answer]]:
    """The fine stage of every variant; in one batch where the stage knows how."""
    stages = [_stage(config) for config in configs]
    if len(configs) > 1 and all(stage is highlight for stage in stages):
        return highlight.refine_many(model, questions, views, spots, configs, limits)
    rows = zip(stages, spots, configs, strict=True)
    return [stage.refine(model, questions, views, spot, one, limits) for stage, spot, one in rows]


def _stage(config: Any) -> Any:
    """The plug-in that owns a config: the module in which its class is written."""
    return importlib.import_module(type(config).__module__)


def _box(box: Box | Sequence[float]) -> Box:
    return box if isinstance(box, Box) else Box(*box)


def _result(
    question: Question,
    region: Region,
    spot: Focus,
    answer: Answer,
    target: Tensor,
    said: Answer | None,
) -> Result:
    return Result(
        question=question,
        region=region,
        focus_boxes=spot.boxes,
        cells=_indices(spot.mask),
        tokens=len(spot.mask),
        status=spot.status,
        cof=answer,
        plain=said,
        target=_indices(target),
    )


def _indices(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())
