"""What a family's box replies are: the frame of their numbers, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Frame:
    """What the coordinates of a family's box replies are.

    Attributes:
        name: `padded_square`, `centre_crop`, `image` (fractions of these), `thousandths`,
            `resized_pixels` (of what the model saw), ...; recorded with every region.
        unit: what stands for the whole width and height: (1, 1) for fractions, (1000, 1000) for
            thousandths; None is the size in pixels that the model saw (`View.shown`).
        order: `xyxy`, or `yxyx` where the vertical coordinate comes first.
        assumed: nobody has documented it, we guess.
    """

    name: str
    unit: tuple[float, float] | None = (1.0, 1.0)
    order: Literal["xyxy", "yxyx"] = "xyxy"
    assumed: bool = False

    @property
    def label(self) -> str:
        """Its name, and whether we guess, as a manifest has it."""
        return f"{self.name} (assumed)" if self.assumed else self.name


@dataclass(frozen=True)
class BoxForm:
    """One way in which a family writes the boxes of a reply, as a grammar follows it.

    A reply is `opening`, any number of boxes with `between` among them, and `closing`; a box is
    `before`, its four numbers with ", " among them, and `after`. Fractions have two decimals; in
    any other unit numbers are integers from 0 to the unit.

    Attributes:
        between: None where there is at most one box.
    """

    opening: str
    closing: str
    before: str = ""
    after: str = ""
    between: str | None = None

    def write(self, boxes: Sequence[Sequence[str]]) -> str:
        """A reply with these boxes, four numbers each, as the family would write it."""
        rows = [self.before + ", ".join(numbers) + self.after for numbers in boxes]
        return self.opening + (self.between or "").join(rows) + self.closing
