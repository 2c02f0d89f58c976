"""Boxes that cannot be in their unit are refused, with what they look like, over the whole file."""

import json

import pytest
from mme_folders import write_jsonl
from PIL import Image

from cof.bench import pope, refcoco, vstar
from cof.config import schema
from cof.errors import ConfigError, DataError

SIZE = (640, 480)
BOXES = [(64, 48, 320, 240), (100, 300, 630, 470), (5, 5, 600, 60), (320, 0, 640, 480)]


def table(root, boxes=BOXES, size=SIZE):
    rows = [
        {"image": "a.jpg", "sent": "it", "bbox": list(box), "width": size[0], "height": size[1]}
        for box in boxes
    ]
    write_jsonl(root / "refcoco_val.jsonl", rows)
    return root


def scaled(across, down, boxes=BOXES):
    return [(a * across, b * down, c * across, d * down) for a, b, c, d in boxes]


def read(root, **options):
    return refcoco.read(refcoco.Config(str(root), **options))


def test_boxes_of_any_declared_unit_are_the_same(tmp_path):
    expected = [question.boxes for question in read(table(tmp_path))]
    for unit, per in (("fraction", 1), ("per_mille", 1000)):
        given = scaled(per / SIZE[0], per / SIZE[1])
        found = [question.boxes for question in read(table(tmp_path, given), unit=unit)]
        for one, other in zip(found, expected, strict=True):
            assert one[0].as_tuple() == pytest.approx(other[0].as_tuple(), abs=1e-12)


@pytest.mark.parametrize(
    ("boxes", "size", "unit", "said"),
    [
        (scaled(1 / 640, 1 / 480), SIZE, "pixels", r"jsonl:1: bbox .*fit as fractions.*unit=fract"),
        (scaled(1000 / 640, 1000 / 480), SIZE, "pixels", r"jsonl:1: .*thousandths.*unit=per_mille"),
        (BOXES, SIZE[::-1], "pixels", r"jsonl:2: .*480 x 640 pixels.*width and height exchanged"),
        (
            [(a, b, c - a, d - b) for a, b, c, d in BOXES],
            *(SIZE, "pixels", r"jsonl:2: .*would fit as x, y, width, height in pixels"),
        ),
        ([*BOXES, (0, 0, 9000, 10)], SIZE, "pixels", r"jsonl:5: .*640 x 480 pixels; see the file"),
        ([*BOXES, (700, 10, 720, 30)], SIZE, "pixels", r"jsonl:5: "),
        ([(30, 30, 20, 40), *BOXES], SIZE, "pixels", r"jsonl:1: bbox \[30, 30, 20, 40\] cannot"),
        (BOXES, SIZE, "fraction", r"jsonl:1: .*in fractions of the image on .*unit=pixels"),
        (scaled(1 / 640, 1 / 480), SIZE, "per_mille", r"jsonl:1: .*unit=fraction"),
        (BOXES[:1], (24, 16), "per_mille", r"^$"),
    ],
)
def test_what_cannot_be_in_its_unit_is_refused_with_what_it_looks_like(
    tmp_path, boxes, size, unit, said
):
    table(tmp_path, boxes, size)
    if said == "^$":
        assert len(read(tmp_path, unit=unit)) == 1
        return
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, unit=unit)
    assert "refcoco_val.jsonl:" in str(caught.value)


def test_a_few_pixels_outside_are_clipped(tmp_path):
    (question,) = read(table(tmp_path, [(-2, -1, 642, 100)]))
    assert question.boxes[0].as_tuple() == (0, 0, 1, 100 / 480)
    assert json.loads(question.reference) == [-2, -1, 644, 101]


def test_one_small_box_among_others_is_no_fraction(tmp_path):
    assert len(read(table(tmp_path, [(0, 0, 1, 1), *BOXES]))) == 5


def test_an_unknown_unit_is_refused(tmp_path):
    bench = {"name": "refcoco", "root": str(tmp_path), "unit": "inches"}
    with pytest.raises(ConfigError, match=r"bench.unit: .*'pixels', 'fraction' or 'per_mille'"):
        schema.resolve({"bench": bench})


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.4, 0.3]], "would fit as fractions of the image"),
        ([[20, 10, 60, 40], [150, 60, 199, 99]], r"fit as .*x0, y0, x1, y1 in pixels"),
        ([[20, 10, 60, 40], [150, 60, 1900, 10]], "see the file"),
        (
            [[20, 10, 60, "40"], [1, 1, 9, 9]],
            r"sa_0.json: bbox \[20, 10, 60, '40'\], expe",
        ),
        ([[20, 10, 60, 40], 7], "sa_1.json: bbox 7, expected x, y, width, height in pixels"),
    ],
)
def test_vstar_boxes_are_judged_together(tmp_path, boxes, said):
    folder = tmp_path / "direct_attributes"
    folder.mkdir()
    for number, box in enumerate(boxes):
        Image.new("RGB", (200, 100)).save(folder / f"sa_{number}.jpg")
        note = {"bbox": [box], "question": "?", "options": ["a", "b"]}
        (folder / f"sa_{number}.json").write_text(json.dumps(note))
    with pytest.raises(DataError, match=said) as caught:
        vstar.read(vstar.Config(str(tmp_path)))
    assert "bench.unit" not in str(caught.value)


@pytest.mark.parametrize(
    "box", [[10, 10, 50, 60], [100, 200, 900, 999], ["0", 0, 1, 1], [True] * 4]
)
def test_regions_are_fractions(tmp_path, box):
    label = {"image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    write_jsonl(tmp_path / "coco_pope_random.json", [label])
    row = {"image": "a.jpg", "question": label["text"], "boxes": [[0, 0, 1, 1], box]}
    write_jsonl(tmp_path / "regions.jsonl", [row])
    with pytest.raises(DataError, match=r"regions.jsonl:1: box .*(look like pixels|expected)"):
        pope.read(pope.Config(str(tmp_path)))
