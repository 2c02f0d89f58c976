"""The two stages, read aloud: look, locate, focus, refine.

`CoF` holds a model and the settings. Calling it asks one question about one image; the benchmark
runner calls `answer_batch`, and `answer_many` where several settings share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.batch import Batch
from cof.config import plugins
from cof.errors import AnswerError
from cof.exif import upright
from cof.images import load_image, to_rgb
from cof.locate import prompt
from cof.models.base import Limits, Model
from cof.outcome import Outcome, result_of
from cof.prompts import check_question
from cof.refine import highlight
from cof.regions.boxes import BoxConfig
from cof.regions.mask import focus
from cof.types import Answer, Box, Focus, Question, Region, Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.store.replies import ReplyCache


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
        asks = getattr(plugins.owner("locate", self.settings.locate), "check_model", None)
        if asks is not None:
            asks(model, self.settings.locate, self.settings.boxes)
        holds = getattr(plugins.owner("refine", self.settings.refine), "check_model", None)
        if holds is not None:
            holds(model, self.settings.refine)

    @classmethod
    def from_pretrained(
        cls, path: str = "cof-tiny", settings: Settings | None = None, **loading: Any
    ) -> CoF:
        """Load a model: `cof-tiny` (embedded), a folder, or a hub name (either LLaVA-1.5 layout).

        `loading` takes fields of `cof.models.base.Config`, such as `device` and `dtype`, and
        `family`, the model's file in `cof.models`, `llava` unless given.

        Raises:
            ModelError: no such model; unknown device or dtype.
        """
        family = plugins.load("models", loading.pop("family", "llava"))
        return cls(family.load(family.Config(path=path, **loading)), settings)

    def __call__(
        self,
        image: str | Path | Image,
        question: str,
        box: Box | Sequence[float] | None = None,
        plain: bool = False,
    ) -> Outcome:
        """Ask one question about one image (a file that Pillow opens, or an image).

        The picture is turned upright, as its EXIF tag has people see it; so are all boxes.

        Args:
            image: what to look at.
            question: as it should be asked, any suffix included.
            box: skip the coarse stage and highlight this region (fractions of the image).
            plain: also answer without the highlight.

        Raises:
            DataError: the file is no usable image.
            AnswerError: the question is blank, too long or holds the image's placeholder, or a
                pass failed; says which and why.
            ValueError: `box` is no box.
        """
        check_question(question)
        if isinstance(image, str | Path):
            name, picture = str(image), load_image(image, exif="apply")
        else:
            name, picture = "image", to_rgb(upright(image))
        asked = [Question(id="0", image=name, text=question)]
        batch = Batch.of(self.model, asked, [picture], self.settings.limits)
        if box is None:
            regions = locate(batch, self.settings.locate, self.cache)
        else:
            regions = [Region((box if isinstance(box, Box) else Box(*box),), "given")]
        focuses = [focus(regions[0], batch.views[0], self.settings.boxes)]
        answers = refine(batch, [focuses], [self.settings.refine])[0]
        parts = zip(batch.views, regions, focuses, answers, strict=True)
        result = result_of(asked[0], *next(parts), batch.plain[0] if plain else None)
        if result.error:
            raise AnswerError(result.error)
        return Outcome(picture, batch.views[0], regions[0], focuses[0], result)

    def answer_batch(self, questions: Sequence[Question], images: Sequence[Image]) -> list[Result]:
        """Take B questions and their RGB images (one object an image) through both stages.

        A pass that fails leaves an `error` in its question's result, and nothing elsewhere.
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
            rows: most rows (questions times variants) in one fine pass; None puts all into one.

        Returns:
            For each variant the B results.
        """
        if len({one.limits for one in variants}) != 1:
            raise ValueError("variants of a batch must have the same limits")
        batch = Batch.of(self.model, questions, images, variants[0].limits)
        stages = dict.fromkeys(one.locate for one in variants)
        found = {stage: locate(batch, stage, self.cache) for stage in stages}
        regions = [found[one.locate] for one in variants]
        focuses = [
            [focus(region, view, one.boxes) for region, view in zip(some, batch.views, strict=True)]
            for some, one in zip(regions, variants, strict=True)
        ]
        answers = refine(batch, focuses, [one.refine for one in variants], rows)
        none: list[Answer | None] = [None] * len(batch)
        plain = batch.plain if any(one.plain for one in variants) else none
        parts = zip(regions, focuses, answers, strict=True)
        lists = [zip(questions, batch.views, *part, plain, strict=True) for part in parts]
        return [[result_of(*row) for row in one] for one in lists]


def locate(batch: Batch, config: Any, cache: ReplyCache | None = None) -> list[Region]:
    """The coarse stage that a config belongs to; only for replies that are not in the cache."""
    stage = plugins.owner("locate", config)
    if cache is None or not getattr(stage, "CACHEABLE", False):
        return stage.locate(batch, config)  # type: ignore[no-any-return]
    return cache.regions(batch, stage, config)


def refine(
    batch: Batch,
    focuses: Sequence[Sequence[Focus]],
    configs: Sequence[Any],
    rows: int | None = None,
) -> list[list[Answer]]:
    """The fine stages of V variants; a stage with `refine_many` gets several of its own at once.

    Args:
        batch: B questions.
        focuses: per variant the B focuses.
        configs: per variant the config of its stage.
        rows: most rows (questions times variants) in one pass; None puts all into one.

    Returns:
        Per variant the B answers.
    """
    count = max(1, rows // len(batch)) if rows else len(configs)
    answers: dict[int, list[Answer]] = {}
    for stage, numbers in _by_stage(configs):
        many = getattr(stage, "refine_many", None)
        step = count if many else 1
        for start in range(0, len(numbers), step):
            some = numbers[start : start + step]
            if many and len(some) > 1:
                said = many(batch, [focuses[n] for n in some], [configs[n] for n in some])
            else:
                said = [stage.refine(batch, focuses[n], configs[n]) for n in some]
            answers |= dict(zip(some, said, strict=True))
    return [answers[number] for number in range(len(configs))]


def _by_stage(configs: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Each fine stage, with the places of its configs."""
    found: dict[int, tuple[Any, list[int]]] = {}
    for number, config in enumerate(configs):
        stage = plugins.owner("refine", config)
        found.setdefault(id(stage), (stage, []))[1].append(number)
    return list(found.values())
