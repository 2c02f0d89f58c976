"""Boxes in replies as families really write them: the unit is known before a number is judged."""

from types import SimpleNamespace

import pytest

from cof.errors import ConfigError
from cof.locate import prompt
from cof.models.base import Model
from cof.models.common.family import FRAMES
from cof.regions.boxes import BoxConfig
from cof.regions.parse import parse_boxes
from cof.types import View

SIZE, SHOWN = (640, 480), (560, 448)
BOX, OTHER = (0.25, 0.5, 0.5, 0.75), (0.0, 0.125, 1.0, 0.25)
FORMS = [  # frame, reply, boxes
    # Qwen2-VL: special tokens, thousandths
    ("thousandths", "<|box_start|>(250,500),(500,750)<|box_end|>", [BOX]),
    (
        "thousandths",
        "<|object_ref_start|>cups<|object_ref_end|><|box_start|>(250,500),(500,750)<|box_end|>"
        "<|box_start|>(0,125),(1000,250)<|box_end|>",
        [BOX, OTHER],
    ),
    ("thousandths", "<|box_start|>(250,500),(500,750)", []),  # cut off
    ("thousandths", "the cup(250,500),(500,750)", []),  # the tokens were lost: two points
    # Qwen2.5-VL: JSON, pixels of the resized image
    (
        "resized_pixels",
        '```json\n[\n\t{"bbox_2d": [140, 224, 280, 336], "label": "cup"}\n]\n```',
        [BOX],
    ),
    (
        "resized_pixels",
        '[{"bbox_2d": [140, 224, 280, 336], "label": "a"}, {"bbox_2d": [0, 56, 560, 112]}]',
        [BOX, OTHER],
    ),
    ("resized_pixels", '{"bbox_2d": [140, 224, 280, 2000]}', []),  # far outside
    # Qwen3-VL: JSON, thousandths
    ("thousandths", '[\n{"bbox_2d": [250, 500, 500, 750], "label": "cup"}\n]', [BOX]),
    # InternVL: <box>, thousandths; its tokens kept or lost
    ("thousandths", "<ref>the cup</ref><box>[[250, 500, 500, 750]]</box>", [BOX]),
    ("thousandths", "<box>[[250, 500, 500, 750], [0, 125, 1000, 250]]</box>", [BOX, OTHER]),
    ("thousandths", "the cup[[250, 500, 500, 750]]", [BOX]),
    # DeepSeek-VL2
    ("thousandths", "<|ref|>cup<|/ref|><|det|>[[250, 500, 500, 750]]<|/det|>", [BOX]),
    # PaliGemma: four of 1024 bins, y first
    ("bins_yx", "<loc0512><loc0256><loc0768><loc0512> cup", [BOX]),
    (
        "bins_yx",
        "<loc0512><loc0256><loc0768><loc0512> cup ; <loc0128><loc0000><loc0256><loc1024> table",
        [BOX, OTHER],
    ),
    ("bins_yx", "<loc0512><loc0256><loc0768>", []),
    ("bins_yx", "<loc0512><loc0256><loc0768><loc0512><loc0001>", []),  # which four?
    ("bins_yx", "<loc512><loc256><loc768><loc512>", []),
    ("image", "<loc0512><loc0256><loc0768><loc0512> cup", []),  # bins are no fractions
    # LLaVA: fractions
    ("image", "[0.25, 0.5, 0.5, 0.75]", [BOX]),
    ("image", "[250, 500, 500, 750]", []),
    ("thousandths", "[0.25, 0.5, 0.5, 0.75]", []),  # fractions are no thousandths
    ("resized_pixels", "[0.25, 0.5, 0.5, 0.75]", []),
    ("thousandths", "[0, 0, 2, 1]", [(0.0, 0.0, 0.002, 0.001)]),
    ("thousandths_yx", "[500, 250, 750, 500]", [BOX]),
]


@pytest.mark.parametrize(("frame", "reply", "boxes"), FORMS, ids=lambda value: str(value)[:40])
def test_a_reply_in_its_frame(frame, reply, boxes):
    model = SimpleNamespace(frame=FRAMES[frame], rectangle=lambda size: (0.0, 0.0, 1.0, 1.0))
    found = Model.boxes(model, reply, View(None, None, None, SIZE, SHOWN))
    assert [box.as_tuple() for box in found] == pytest.approx([pytest.approx(one) for one in boxes])


@pytest.mark.parametrize("piece", ["<loc0001>", "<loc", "<loc0001", "<loc0001> "])
def test_a_megabyte_of_locations_is_one_scan(piece):
    assert len(parse_boxes(piece * 100_000, (1024.0, 1024.0), "yxyx")) <= 1


@pytest.mark.parametrize("name", FRAMES)
def test_the_published_pattern_is_for_fractions_alone(name):
    model = SimpleNamespace(name="m", grounding="box of {question}?", frame=FRAMES[name])
    rules = BoxConfig(rules="reference")
    prompt.check_model(model, prompt.Config(), BoxConfig())
    if FRAMES[name].unit == (1.0, 1.0):
        prompt.check_model(model, prompt.Config(), rules)
    else:
        with pytest.raises(ConfigError, match=f"boxes of m are {name}; use boxes.rules=clean"):
            prompt.check_model(model, prompt.Config(), rules)
