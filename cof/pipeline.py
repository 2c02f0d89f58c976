"""The two stages, read aloud: look, locate, focus, refine.

`CoF` holds a model and the settings. Calling it asks one question about one image; the benchmark
runner calls `answer_batch`, and `answer_many` where several settings share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.batch import Batch, check
from cof.config import plugins
from cof.errors import AnswerError
from cof.exif import upright
from cof.images import load_image, to_rgb
from cof.locate import prompt
from cof.models.base import Config, Limits, Model
from cof.outcome import Outcome
from cof.prompts import check_question
from cof.refine import highlight
from cof.regions.boxes import BoxConfig
from cof.types import Box, Focus, Question, Region, Result

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
        check(model, self.settings.refine)

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
        return cls(family.load(Config(path=path, **loading)), settings)

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
        settings = replace(self.settings, plain=plain)
        batch = Batch.look(self.model, [Question(id="0", image=name, text=question)], [picture])
        if box is None:
            regions = batch.locate(settings.locate, self.cache)
        else:
            regions = [Region((box if isinstance(box, Box) else Box(*box),), "given")]
        focuses, results = _finish(batch, [regions], [settings])
        if results[0][0].error:
            raise AnswerError(results[0][0].error)
        return Outcome(picture, batch.views[0], regions[0], focuses[0][0], results[0][0])

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
        batch = Batch.look(self.model, questions, images)
        stages = dict.fromkeys(one.locate for one in variants)
        found = {stage: batch.locate(stage, self.cache) for stage in stages}
        return _finish(batch, [found[one.locate] for one in variants], variants, rows)[1]


def _finish(
    batch: Batch,
    regions: Sequence[Sequence[Region]],
    variants: Sequence[Settings],
    rows: int | None = None,
) -> tuple[list[list[Focus]], list[list[Result]]]:
    """From regions to answers: per variant the B focuses and the B results."""
    limits = variants[0].limits
    focuses = [batch.focus(found, one.boxes) for found, one in zip(regions, variants, strict=True)]
    plains = batch.plain(limits) if any(one.plain for one in variants) else None
    answers = batch.refine(focuses, [one.refine for one in variants], limits, rows)
    parts = zip(regions, focuses, answers, strict=True)
    return focuses, [batch.results(*part, plains) for part in parts]
