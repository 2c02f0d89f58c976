"""RefCOCO: both file forms, un-padding, IoU against a pixel count, foreign replies."""

import json
import os
import pickle
import random

import oracles
import pytest
from mme_folders import write_jsonl

from cof.bench import refcoco
from cof.errors import DataError
from cof.regions.boxes import to_padded_square
from cof.types import Box, Question, Region

SIZE = (200, 100)
XYWH = {11: [20, 10, 60, 40], 12: [100, 50, 100, 50]}


@pytest.fixture
def root(tmp_path):
    refs = [
        {
            **{"ref_id": 1, "ann_id": 11, "image_id": 5, "split": "testA"},
            "sentences": [{"sent_id": 7, "sent": "red cup"}, {"sent_id": 8, "sent": "left one"}],
        },
        {
            **{"ref_id": 2, "ann_id": 12, "image_id": 5, "split": "testA"},
            "sentences": [{"sent_id": 9, "sent": "woman in {blue}"}],
        },
        {**{"ref_id": 3, "ann_id": 12, "image_id": 5, "split": "val"}, "sentences": []},
    ]
    images = [{"id": 5, "file_name": "COCO_train2014_5.jpg", "width": 200, "height": 100}]
    annotations = [{"id": name, "image_id": 5, "bbox": box} for name, box in XYWH.items()]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    instances = {"images": images, "annotations": annotations}
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    return tmp_path


def config(root, **options):
    return refcoco.Config(str(root), **{"split": "testA", **options})


def test_one_question_a_phrase(root):
    questions = refcoco.read(config(root))
    assert [q.id for q in questions] == ["1/7", "1/8", "2/9"]
    assert questions[2].text == (
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "woman in {blue}."
    )
    assert questions[0].image == "train2014/COCO_train2014_5.jpg"
    assert questions[0].boxes == (Box(0.1, 0.1, 0.4, 0.5),)
    assert questions[0].reference == "[20, 10, 60, 40]"


def test_json_lines_give_the_same_phrases(root, tmp_path):
    official = refcoco.read(config(root))
    rows = [
        {
            **{"image": "coco/COCO_train2014_5.jpg", "sent": sent, "width": 200, "height": 100},
            "bbox": [x, y, x + w, y + h],
        }
        for sent, (x, y, w, h) in (
            *(("red cup", XYWH[11]), ("left one", XYWH[11])),
            ("woman in {blue}", XYWH[12]),
        )
    ]
    (tmp_path / "table").mkdir()
    write_jsonl(tmp_path / "table" / "refcoco_testA.jsonl", rows)
    found = refcoco.read(config(tmp_path / "table"))
    assert [(q.text, q.image, q.boxes) for q in found] == [
        (q.text, q.image, q.boxes) for q in official
    ]


@pytest.mark.parametrize("seed", range(20))
def test_iou_equals_a_pixel_count(seed):
    rng = random.Random(seed)
    boxes = []
    for _ in range(2):
        xs, ys = sorted(rng.sample(range(21), 2)), sorted(rng.sample(range(21), 2))
        boxes.append((xs[0], ys[0], xs[1], ys[1]))
    spelt, truth = (Box(*(value / 20 for value in box)) for box in boxes)
    question = Question("1", "i", "?", boxes=(truth,))
    found = refcoco.overlap(question, refcoco.spell(spelt, "image"))
    assert found == pytest.approx(oracles.pixel_iou(*boxes, 20), abs=1e-12)


def test_hand_scored(root):
    questions = refcoco.read(config(root))
    answers = [
        refcoco.region_answer(Region((Box(0.1, 0.1, 0.4, 0.5),), "prompt", frame="padded_square")),
        refcoco.region_answer(Region((Box(0.1, 0.1, 0.28, 0.5),), "prompt", frame="image")),
        refcoco.region_answer(Region((), "prompt", frame="padded_square")),
    ]
    scores = refcoco.score(questions, answers)
    assert scores == {
        **{"benchmark": "refcoco", "version": "1", "split": "testA"},
        **{"frames": {"image": 1, "padded_square": 2}, "n": 3, "acc@0.5": 2 / 3},
        **{"mean_iou": pytest.approx(1.6 / 3), "no_box": 1},
    }
    assert [refcoco.credit(q, a) for q, a in zip(questions, answers, strict=True)] == [1, 1, 0]


def test_just_below_half_is_wrong(root):
    question = refcoco.read(config(root))[0]
    assert refcoco.credit(question, "image: [0.1, 0.1, 0.2499, 0.5]") == 0


def test_replies_in_the_padded_square_are_mapped_back(root):
    questions = refcoco.read(config(root))
    padded = [[round(x, 4) for x in to_padded_square(q.boxes[0], SIZE)] for q in questions]
    rows = [
        {"question_id": q.id, "text": f"It is at {box}."}
        for q, box in zip(questions, padded, strict=True)
    ]
    file = write_jsonl(root / "replies.jsonl", rows)
    found = refcoco.read_answers(file, config(root))
    scores = refcoco.score(found.questions, found.texts)
    assert scores["acc@0.5"] == 1
    assert scores["mean_iou"] == pytest.approx(1, abs=1e-3)
    assert scores["frames"] == {"padded_square": 3}
    found = refcoco.read_answers(file, config(root, frame="image"))
    assert refcoco.score(found.questions, found.texts)["mean_iou"] < 0.8
    exported = refcoco.export(found.questions, found.texts, root / "out")[0]
    again = refcoco.read_answers(exported, config(root))
    assert again.texts == found.texts


class Evil:
    def __reduce__(self):
        return os.getcwd, ()


def test_bad_files_are_refused_by_name(root):
    with pytest.raises(DataError, match="no reference of the split 'testB'"):
        refcoco.read(config(root, split="testB"))
    (root / "refs(google).p").write_bytes(b"")
    with pytest.raises(DataError, match="choose one with split_by"):
        refcoco.read(config(root))
    with pytest.raises(DataError, match="not a RefCOCO pickle"):
        refcoco.read(config(root, split_by="google"))
    (root / "refs(google).p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DataError, match=r"getcwd, plain data does not"):
        refcoco.read(config(root, split_by="google"))
    instances = json.loads((root / "instances.json").read_text())
    instances["annotations"].pop()
    (root / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(DataError, match="ref 2: its annotation or image is not in instances"):
        refcoco.read(config(root, split_by="unc"))
    with pytest.raises(DataError, match=r"looked for refs\(\*\).p"):
        refcoco.read(config(root / "nowhere"))


def test_bad_answers_are_refused_by_name(root):
    file = write_jsonl(root / "replies.jsonl", [{"question_id": "1/6", "text": "[0, 0, 1, 1]"}])
    with pytest.raises(DataError, match=r"replies.jsonl:1: '1/6' is not among the questions"):
        refcoco.read_answers(file, config(root))
