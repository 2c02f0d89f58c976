"""What the language stage is taught, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cof_lab.segments import Diet


@dataclass(frozen=True)
class LanguageConfig:
    """Everything about the second stage that is not its length.

    attention: weight of the supervision of where object phrases look (until `attention_until`
        of the steps) and where coordinates look (until `boxes_until`); 0 makes the control model.
    reader: 'easy' teaches all that reading teaches (replies, hints, names, where to look) on
        starter and easy scenes only (variant `gap`).
    kinds: of question; all of them, or fewer in a smaller study.
    """

    attention: float = 1.0
    attention_until: float = 0.7
    attention_layer: int = 1
    boxes_until: float = 0.9
    boxes_layer: int = 3
    hints: float = 0.5
    names: float = 0.5
    names_layer: int = 3  # the phrase's attribute can be read after so many layers
    hints_layer: int = 4  # and the fact behind the question after so many
    points: float = 4.0  # a linear map of the phrase's state there should give the boxes' code
    patches: float = 0.3  # keeps the tower from losing fine digits while it trains along
    vision_scale: float = 0.2  # 0 freezes the tower
    reader: Literal["all", "easy"] = "all"
    kinds: tuple[str, ...] = Diet.kinds


# (until this share of the steps, shares of difficulty, what is asked)
CURRICULUM: tuple[tuple[float, tuple[tuple[str, float], ...], Diet], ...] = (
    (0.10, (("starter", 0.75), ("easy", 0.25)), Diet(0.5, False, 0.4, 0.1, 0.6, group=0.2)),
    (
        0.28,
        (("starter", 0.25), ("easy", 0.25), ("mixed", 0.375), ("dense", 0.125)),
        Diet(0.4, False, 0.5, 0.2, 0.5, group=0.3),
    ),
    (
        0.5,
        (("starter", 0.125), ("easy", 0.25), ("mixed", 0.25), ("small", 0.125), ("dense", 0.25)),
        Diet(0.2, True, 0.65, 0.35, 0.35, 0.1, group=0.35),
    ),
    (
        0.73,
        (("starter", 0.125), ("easy", 0.25), ("mixed", 0.125), ("small", 0.25), ("dense", 0.25)),
        Diet(0.08, True, 0.7, 0.6, 0.2, 0.15, group=0.4),
    ),
    (
        1.0,
        (("easy", 0.25), ("mixed", 0.125), ("small", 0.375), ("dense", 0.25)),
        Diet(0.08, True, 0.7, 0.6, 0.2, 0.1, group=0.4, short=8, long=10),
    ),
)
