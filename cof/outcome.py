"""What `CoF` returns for one question about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cof.types import Box, Focus, Region, Result, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor


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
