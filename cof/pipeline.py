"""The two stages, read aloud: look, locate, focus, refine.

`CoF` holds a model and the settings. Calling it asks one question about one image; the benchmark
runner calls `answer_batch`, and `answer_many` where several settings share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from cof.batch import Batch, Prepared
from cof.config.routing import route
from cof.config.settings import Settings, read_setup
from cof.errors import AnswerError
from cof.given import Picture, read
from cof.models.base import Model
from cof.outcome import Outcome, result_of
from cof.regions.mask import focus
from cof.stages import Step, check_model, gated, locate, refine
from cof.types import Answer, Question, Region, Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.store.replies import ReplyCache

__all__ = ["CoF", "Settings"]


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
        check_model(model, self.settings)

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, settings: Settings | None = None, **options: Any
    ) -> CoF:
        """Load a model: `CoF.from_pretrained("cof-tiny", weight=2, expand=1.5, device="cpu")`.

        Args:
            path: `cof-tiny` (embedded, the default), a folder, or a hub name.
            settings: stages, box rules, decoding; keywords change what they name in it.
            options: any field of the model family's `Config` (`device`, `dtype`, ...), the fine
                stage's (`weight`, ...), `BoxConfig` (`expand`, ...), `Limits` (`max_new_tokens`,
                ...), and what is left of the coarse stage's. `family`, `refine` and `locate` take
                the name of a plug-in, of a module or of a `.py` file, or its `Config`.

        Raises:
            ConfigError: a keyword that nothing has (the message lists all), or a wrong value.
            ModelError: no such model; unknown device or dtype.
        """
        setup = route(path, settings, options)
        return cls(setup.load(), setup.settings)

    @classmethod
    def from_model(
        cls,
        network: Any,
        path: str | Path | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> CoF:
        """Take a network that you have loaded, quantised or trained in your own way.

        Its decoder is switched to the attention of `cof.attention`, which is transformers' `sdpa`,
        bit by bit, while nothing is highlighted.

        Args:
            network: transformers' `LlavaForConditionalGeneration`; with `family=`, that family's.
            path: folder or hub name of its tokenizer and image settings; None is where
                transformers loaded it from.
            settings: as in `from_pretrained`.
            options: likewise, but for `device`, `dtype`, `device_map` and `quantization`.

        Raises:
            ModelError: another kind of network, or it does not fit what `path` says.
        """
        setup = route(path or "", settings, options)
        return cls(setup.wrap(network), setup.settings)

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any], *overrides: str) -> CoF:
        """Model and settings of a run's config: `CoF.from_config("my.yaml", "refine.weight=2")`.

        Its benchmark is not looked at; pictures are shown upright (`images.exif` is a run's).

        Raises:
            ConfigError: an unknown key or plug-in, a wrong type or value.
        """
        setup = read_setup(config, overrides)
        return cls(setup.load(), setup.settings)

    @overload
    def __call__(
        self, image: Picture, question: str, box: Any = ..., plain: bool = ..., boxes: Any = ...
    ) -> Outcome: ...
    @overload
    def __call__(
        self, image: Any, question: Any, box: Any = ..., plain: bool = ..., boxes: Any = ...
    ) -> list[Outcome]: ...
    def __call__(
        self, image: Any, question: Any, box: Any = None, plain: bool = False, boxes: Any = None
    ) -> Outcome | list[Outcome]:
        """Ask one question about one image, or many at once in one batch.

        A list of images, of questions, or one of each (equally long) gives a list of outcomes;
        every image is seen once. Pictures are turned upright, as their EXIF tag has people see
        them; so are all boxes.

        Args:
            image: what to look at: a file, a Pillow image, an array or a tensor (`Picture`).
            question: as it should be asked, any suffix included.
            box: skip the coarse stage and highlight this region (fractions of the image). With
                several questions: one for all, or a list of one (or None) a question.
            plain: also answer without the highlight.
            boxes: several regions instead of one; with several questions a list a question.

        Raises:
            DataError: an image is none, or lists of different lengths.
            AnswerError: a question is blank; of a single one also: it is too long, holds the
                image's placeholder, or a pass failed. Among several, that is its `Outcome.error`.
            ValueError: `box` is no box.
        """
        asked = read(image, question, box, boxes)
        if not asked.questions:
            return []
        batch = Batch.of(self.model, asked.questions, asked.images, self.settings.limits)
        [steps] = self.both_stages(batch, [self.settings], known=asked.regions)
        said = batch.plain if plain else [None] * len(batch)
        outcomes = [
            Outcome.of(batch, row, step, said[row], self.settings.refine)
            for row, step in enumerate(steps)
        ]
        if asked.several:
            return outcomes
        if outcomes[0].error:
            raise AnswerError(outcomes[0].error)
        return outcomes[0]

    def prepare(self, image: Image) -> Prepared:
        """What of an RGB image can be made ready while the model is busy; threads may share this.

        The methods below take the result in the image's place.
        """
        if self.cache is not None:
            self.cache.digest(image)
        return Prepared.of(self.model, image)

    def answer_batch(
        self, questions: Sequence[Question], images: Sequence[Image | Prepared]
    ) -> list[Result]:
        """Take B questions and their RGB images (one object an image) through both stages.

        A pass that fails leaves an `error` in its question's result, and nothing elsewhere.
        """
        return self.answer_many(questions, images, [self.settings])[0]

    def answer_many(
        self,
        questions: Sequence[Question],
        images: Sequence[Image | Prepared],
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
        if len({(one.limits, one.gate) for one in variants}) != 1:
            raise ValueError("variants of a batch must have the same limits and the same gate")
        batch = Batch.of(self.model, questions, images, variants[0].limits)
        steps = self.both_stages(batch, variants, rows)
        none: list[Answer | None] = [None] * len(batch)
        plain = batch.plain if any(one.plain for one in variants) else none
        lists = [zip(questions, batch.views, one, plain, strict=True) for one in steps]
        return [[result_of(ask, see, step, said) for ask, see, step, said in one] for one in lists]

    def both_stages(
        self,
        batch: Batch,
        variants: Sequence[Settings],
        rows: int | None = None,
        known: Sequence[Region | None] = (),
    ) -> list[list[Step]]:
        """Locate, focus, refine, for a caller who needs more than results.

        Args:
            batch: B questions.
            variants: as `answer_many`.
            rows: likewise.
            known: B regions that were given, None where the coarse stage is to find one; () none.

        Returns:
            For each variant the B steps; behind a gate sure answers are kept.
        """
        gate, ask = variants[0].gate, partial(self._stages, variants, rows)
        return gated(batch, gate, known, ask) if gate else ask(batch, known)

    def _stages(
        self,
        variants: Sequence[Settings],
        rows: int | None,
        batch: Batch,
        known: Sequence[Region | None],
    ) -> list[list[Step]]:
        """Locate, focus, refine: for each variant the B steps."""
        if not len(batch):
            return [[] for _ in variants]
        stages = dict.fromkeys(one.locate for one in variants)
        found = {stage: locate(batch, stage, self.cache, known) for stage in stages}
        regions = [found[one.locate] for one in variants]
        focuses = [
            [focus(region, view, one.boxes) for region, view in zip(some, batch.views, strict=True)]
            for some, one in zip(regions, variants, strict=True)
        ]
        answers = refine(batch, focuses, [one.refine for one in variants], rows)
        parts = zip(regions, focuses, answers, strict=True)
        return [[Step(*row) for row in zip(*part, strict=True)] for part in parts]
