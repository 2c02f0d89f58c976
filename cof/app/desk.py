"""What the components of the page call: plain values in, what each component shows out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cof.app import answers, asking, pictures
from cof.app.asking import Asked
from cof.app.browse import Browser, Entry
from cof.app.pictures import Picture
from cof.app.text import safe
from cof.app.uploads import Bounds, read_boxes, read_upload, write_boxes
from cof.config import plugins
from cof.errors import AnswerError, DataError, shown
from cof.evaluate.memory import out_of_memory
from cof.types import Region

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.outcome import Outcome
    from cof.pipeline import CoF


class Opened(NamedTuple):
    """A picture that was chosen; what was known of the one before is gone."""

    picture: Picture | None
    panels: str = ""
    remark: str = ""
    boxes: str = ""
    asked: Asked | None = None
    answers: str = ""
    maps: str = ""


class Replied(NamedTuple):
    """A question that was answered; the attention of the one before is gone."""

    asked: Asked
    panels: str
    boxes: str
    answers: str
    maps: str = ""


class Turned(NamedTuple):
    """A question of a run: its number, out of how many, and itself."""

    number: int
    total: str
    page: str
    entry: Entry | None


@dataclass(frozen=True)
class Desk:
    """A model, and the runs and uploads of a page.

    Attributes:
        cof: model and settings.
        uploads: the folder of uploads; no other file is read for a visitor but those of `browsers`.
        bounds: of uploads.
        browsers: name -> a run to step through.
        rows: most λ in one pass; None puts all into one.
        remark: what to say about a picture, "" for nothing.
    """

    cof: CoF
    uploads: Path
    bounds: Bounds = field(default_factory=Bounds)
    browsers: Mapping[str, Browser] = field(default_factory=dict)
    rows: int | None = None
    remark: Callable[[Image], str] = lambda _: ""

    @property
    def asks(self) -> str:
        """Who answers, `cof-tiny: prompt, then highlight`; of a path its last part."""
        settings = self.cof.settings
        stages = (("locate", settings.locate), ("refine", settings.refine))
        named = [plugins.label(plugins.owner(kind, stage).__name__) for kind, stage in stages]
        return f"{Path(self.cof.model.name).name}: {', then '.join(named)}"

    def open(self, path: str | None) -> Opened:
        """An upload; None where it was taken away.

        One that cannot be opened leaves no picture, so that nobody asks about the one before, and
        the remark says why.
        """
        if path is None:
            return Opened(None)
        try:
            return self.show(read_upload(path, self.uploads, self.bounds))
        except DataError as error:
            return Opened(None, remark=f'<p class="cof-error">{safe(str(error))}</p>')

    def show(self, image: Image) -> Opened:
        """A picture that has been read, RGB."""
        picture, remark = Picture.of(image), self.remark(image)
        note = f"<small>{safe(remark)}</small>" if remark else ""
        return Opened(picture, pictures.blank(picture), note)

    def ask(
        self,
        picture: Picture | None,
        question: str,
        expand: float,
        weight: float,
        boxes: str | None = None,
    ) -> Replied:
        """Answer a question.

        Args:
            picture: to ask about.
            question: as it should be asked.
            expand: α.
            weight: λ of the answers that are shown first.
            boxes: as `write_boxes` writes them, in place of the coarse stage's.

        Raises:
            AnswerError: no picture, no question, no box, or a pass failed.
        """
        region = None if boxes is None else asking.given(read_boxes(boxes))
        return self._ask(picture, question, expand, weight, region)

    def again(
        self, picture: Picture | None, asked: Asked | None, expand: float, weight: float
    ) -> Replied | None:
        """The same question and region with another α; None where there is nothing to ask."""
        if asked is None or asked.expand == expand:
            return None
        return self._ask(picture, asked.question, expand, weight, asked.region)

    def _ask(
        self,
        picture: Picture | None,
        question: str,
        expand: float,
        weight: float,
        region: Region | None,
    ) -> Replied:
        if picture is None:
            raise AnswerError("there is no picture to ask about; choose one first")
        try:
            asked = asking.ask(self.cof, picture.image, question, region, expand, self.rows)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise AnswerError(
                "this does not fit into memory; start the page with fewer --rows, or with a "
                "smaller model or dtype"
            ) from error
        panels = pictures.outcome_stages(picture, asked.outcomes[0])
        boxes = write_boxes(asked.region.boxes if asked.region else ())
        return Replied(asked, panels, boxes, answers.answers(asked, weight))

    def attend(
        self, asked: Asked | None, weight: float, layer: float
    ) -> tuple[Outcome | None, str]:
        """Attention under the nearest λ, and the outcome that keeps it for other layers.

        Raises:
            AnswerError: nothing was asked, or see `Outcome.attention`.
        """
        if asked is None:
            raise AnswerError("there is no answer whose attention could be measured; ask first")
        outcome = asked.at(weight)
        return outcome, pictures.attention(outcome, int(layer))

    def turn(self, run: str, kind: str, number: float | None, step: int = 0) -> Turned:
        """The question of a run that is `step` after a number.

        Raises:
            AnswerError: no such run or filter.
            RunError: the records were changed since the page was started.
        """
        if run not in self.browsers:
            raise AnswerError(f"no run {shown(run)}; there is: {', '.join(self.browsers)}")
        browser = self.browsers[run]
        there = int(number or 1) + step
        entry = browser.show(kind, there)
        if entry is None:
            why = f": {browser.note}" if browser.note and kind in ("gained", "lost") else ""
            return Turned(1, "none", f"<p>No such question{safe(why)}.</p>", None)
        count = browser.counts[kind]
        return Turned(min(max(there, 1), count), str(count), entry.page, entry)


def box_of(drawn: Any, others: str = "") -> str:
    """A box that was drawn, as the text of `write_boxes`.

    Args:
        drawn: what the browser says, not to be trusted: four numbers.
        others: boxes that it joins, as the same text; "" for none.

    Raises:
        AnswerError: it is none, or they are none.
    """
    try:
        corners = ", ".join(str(float(corner)) for corner in drawn)
    except (TypeError, ValueError):
        raise AnswerError(f"{shown(drawn)} is no box; draw it again") from None
    return write_boxes((*(read_boxes(others) if others.strip() else ()), *read_boxes(corners)))


def at_weight(asked: Asked | None, weight: float) -> str:
    """The answers at another λ; the model is not asked."""
    return answers.answers(asked, weight) if asked else ""


def at_layer(outcome: Outcome | None, layer: float) -> str:
    """Attention of another layer; the model is not asked."""
    return pictures.attention(outcome, int(layer)) if outcome else ""
