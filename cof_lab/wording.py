"""Every sentence of the embedded world: templates, suffixes and the prompts that LLaVA sees.

The last template of each list is held out of training, to measure rewording.
"""

from __future__ import annotations

from collections.abc import Sequence

from cof import prompts
from cof.bench.mme import RELEASE_SUFFIX

OPENING, _AFTER = prompts.around_image("", "vicuna_v1")  # the image and a new line follow
SUFFIX = _AFTER.removeprefix("\n")

GROUNDING = prompts.GROUNDING.removeprefix("{question}")  # the paper's, letter by letter
GROUNDINGS = (
    GROUNDING,
    "\nGive the bounding box of the region that answers it as JSON.",
    "\nWhich region contains the answer? Reply with JSON boxes.",
    "\nProvide the bounding box of the relevant region in JSON.",
)
REFER = (
    prompts.DESCRIBED.replace("{text}", "{a}"),
    "Give the bounding box of the {a}.",
    "Where is the {a}? Reply with JSON boxes.",
    "Locate the {a} in JSON format.",
)
YES_NO = RELEASE_SUFFIX  # MME
WORD = prompts.SHORT_ANSWER  # LLaVA-1.5
LETTER = prompts.OPTION_LETTER  # MMBench

BY_GLYPH = ("shape with the digit {g}", "shape marked {g}", "object with the number {g}")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "existence": (
        "Is there {an} {a} in this image?",
        "Is there {an} {a} in the image?",
        "Does the image contain {an} {a}?",
        "Can you see {an} {a}?",
        "Is {an} {a} visible in the picture?",
    ),
    "count": (
        "Are there {n} {many} in this image?",
        "Are there a total of {n} {many} in the image?",
        "Does the image show {n} {many}?",
        "Can you count {n} {many} in the picture?",
    ),
    "count_one": (
        "Is there only one {many} in this image?",
        "Is there only one {many} in the image?",
        "Does the image show exactly one {many}?",
        "Can you see just one {many}?",
    ),
    "position": (
        "Is the {a} {side} the {b}?",
        "Is the {a} {side} the {b} in the image?",
        "In this image, is the {a} {side} the {b}?",
        "Can the {a} be found {side} the {b}?",
    ),
    "color": (
        "Is the {a} {color}?",
        "Is the color of the {a} {color}?",
        "Does the {a} have the color {color}?",
        "Would you say that the {a} is {color}?",
    ),
    "OCR": (
        "Is the digit on the {a} {g}?",
        "Is the number on the {a} {g}?",
        "Does the {a} show the digit {g}?",
        "Can you read the digit {g} on the {a}?",
    ),
    "what_color": (
        "What color is the {a}?",
        "What is the color of the {a}?",
        "Which color does the {a} have?",
    ),
    "what_shape": (
        "Which shape has the digit {g}?",
        "What is the shape with the number {g}?",
        "What shape is marked {g}?",
    ),
    "what_digit": (
        "Which digit is on the {a}?",
        "What is the number on the {a}?",
        "What digit can be read on the {a}?",
    ),
    "how_many": (
        "How many {many} are there?",
        "How many {many} are in the image?",
        "What is the number of {many}?",
    ),
    "which_side": (
        "Is the {a} {one} or {other} the {b}?",
        "Where is the {a}, {one} or {other} the {b}?",
        "Tell me whether the {a} is {one} or {other} the {b}.",
    ),
    "describe": (
        "Describe the {a}.",
        "What can you say about the {a}?",
        "Give details of the {a}.",
    ),
    "list": (
        "Give the bounding boxes of all {many}.",
        "Where are the {many}? Reply with JSON boxes.",
        "Locate all {many} in JSON format.",
    ),
}
SIDES: dict[str, tuple[str, ...]] = {
    "left": ("on the left side of", "to the left of", "on the left of"),
    "right": ("on the right side of", "to the right of", "on the right of"),
    "above": ("above", "above", "on top of"),
    "below": ("below", "below", "under"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def template(kind: str, pick: float, held_out: bool = False) -> str:
    """A template of this kind; `pick` in [0, 1) chooses among those that training may use."""
    options = TEMPLATES[kind]
    return options[-1] if held_out else options[int(pick * (len(options) - 1))]


def article(noun: str) -> str:
    """'an' before 'orange star', else 'a'."""
    return "an" if noun[0] in "aeiou" else "a"


def bbox_reply(boxes: Sequence[Sequence[float]]) -> str:
    """The model's JSON: one box flat, several nested, none as an empty list.

    Boxes are (x0, y0, x1, y1) as fractions of the padded square, written with two decimals.
    """
    rows = ["[" + ", ".join(f"{min(max(v, 0), 1):.2f}" for v in box) + "]" for box in boxes]
    body = rows[0] if len(rows) == 1 else "[" + ", ".join(rows) + "]"
    return '{"bbox": ' + body + "}"


def choices(options: Sequence[str]) -> str:
    """Multiple choice lines, 'A. red' and so on, each on its own line."""
    return "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
