"""One batch on its way through the stages; everything that its questions share is computed once."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cof.models.base import Limits, Model
from cof.refine import highlight, plain
from cof.regions.boxes import BoxConfig
from cof.regions.mask import focus, token_mask
from cof.types import Answer, Focus, Question, Region, Result, View

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cof.store.replies import ReplyCache


@dataclass(frozen=True)
class Batch:
    """B questions and what the model saw of their images.

    Attributes:
        model: the multi-modal LLM.
        questions: B questions.
        images: the B RGB images they are about.
        views: the B images as the model saw them; one object for one image.
    """

    model: Model
    questions: Sequence[Question]
    images: Sequence[Image]
    views: Sequence[View]

    @classmethod
    def look(cls, model: Model, questions: Sequence[Question], images: Sequence[Image]) -> Batch:
        """Show each image to the model once, however many questions are about it."""
        unique = {id(image): image for image in images}
        seen = dict(zip(unique, model.look(list(unique.values())), strict=True))
        return cls(model, questions, images, [seen[id(image)] for image in images])

    def locate(self, config: Any, cache: ReplyCache | None = None) -> list[Region]:
        """The coarse stage, for the questions whose reply is not in the cache."""
        stage = _stage(config)
        if cache is None or not getattr(stage, "CACHEABLE", False):
            return stage.locate(self.model, self.questions, self.views, config)  # type: ignore[no-any-return]
        return cache.regions(self.model, stage, self.questions, self.images, self.views, config)

    def focus(self, regions: Sequence[Region], rules: BoxConfig) -> list[Focus]:
        """Pure geometry: from each region to the visual tokens to highlight."""
        pairs = zip(regions, self.views, strict=True)
        return [focus(region, view, rules) for region, view in pairs]

    def plain(self, limits: Limits) -> list[Answer]:
        """The model's own answers."""
        return plain.refine(self.model, self.questions, self.views, (), plain.Config(), limits)

    def refine(
        self,
        focuses: Sequence[Sequence[Focus]],
        configs: Sequence[Any],
        limits: Limits,
        rows: int | None = None,
    ) -> list[list[Answer]]:
        """The fine stage of several variants, at most `rows` rows (None: all) in one pass."""
        count = max(1, rows // len(self.questions)) if rows else len(configs)
        answers: list[list[Answer]] = []
        for start in range(0, len(configs), count):
            chosen = slice(start, start + count)
            answers += self._refine(focuses[chosen], configs[chosen], limits)
        return answers

    def _refine(
        self, focuses: Sequence[Sequence[Focus]], configs: Sequence[Any], limits: Limits
    ) -> list[list[Answer]]:
        """In one batch where the stage knows how, else variant by variant."""
        asked = (self.model, self.questions, self.views)
        stages = [_stage(config) for config in configs]
        if len(configs) > 1 and all(stage is highlight for stage in stages):
            return highlight.refine_many(*asked, focuses, configs, limits)
        variants = zip(stages, focuses, configs, strict=True)
        return [stage.refine(*asked, spots, one, limits) for stage, spots, one in variants]

    def results(
        self,
        regions: Sequence[Region],
        focuses: Sequence[Focus],
        answers: Sequence[Answer],
        plains: Sequence[Answer] | None,
    ) -> list[Result]:
        """One result a question, in order."""
        said: Sequence[Answer | None] = plains or [None] * len(self.questions)
        rows = zip(self.questions, self.views, regions, focuses, answers, said, strict=True)
        return [_result(*row) for row in rows]


def check(model: Model, config: Any) -> None:
    """Let a stage hold its config against the model, if it knows how.

    Raises:
        ConfigError: a setting that this model cannot have.
    """
    holds = getattr(_stage(config), "check", None)
    if holds is not None:
        holds(model, config)


def _stage(config: Any) -> Any:
    """The plug-in that owns a config: the module in which its class is written."""
    return importlib.import_module(type(config).__module__)


def _result(
    question: Question, view: View, region: Region, spot: Focus, answer: Answer, said: Answer | None
) -> Result:
    """A pass that failed leaves nothing behind but its error; the other one stays."""
    located = not region.error
    return Result(
        question=question,
        region=region if located else None,
        focus_boxes=spot.boxes if located else (),
        cells=_indices(spot.mask) if located else (),
        tokens=len(spot.mask),
        status=spot.status,
        cof=answer if located and not answer.error else None,
        plain=said if said and not said.error else None,
        error=_error(region, answer, said),
        target=_indices(token_mask(question.boxes, view.cells)),
    )


def _error(region: Region, answer: Answer, said: Answer | None) -> str:
    """Which passes failed and why; without a region there is no CoF pass that could."""
    found = {
        "coarse pass": region.error,
        "CoF pass": "" if region.error else answer.error,
        "plain pass": said.error if said else "",
    }
    reasons: dict[str, list[str]] = {}
    for name, why in found.items():
        if why:
            reasons.setdefault(why, []).append(name)
    return "; ".join(f"{' and '.join(names)}: {why}" for why, names in reasons.items())


def _indices(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())
