"""What a run refuses before a model is loaded: wrong folders, names that leave them, no files."""

import json
import os
import sys
from types import ModuleType

import pytest
from fakes import make_mme
from mme_folders import write_jsonl
from PIL import Image

from cof.bench import pope, refcoco, textvqa
from cof.bench.common.files import read_text
from cof.bench.common.rows import inside
from cof.config import identity, plugins, schema
from cof.config.general import Subset
from cof.errors import ConfigError, DataError
from cof.store import subset
from cof.store.dataset import fingerprint, read_questions
from cof.types import Question


def labels(folder, count=6):
    rows = [
        {"image": f"{k}.jpg", "text": f"Is there a dog {k}?", "label": "yes"} for k in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "coco_pope_random.json", rows)


def pictures(folder, count=6):
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (4, 4)).save(folder / f"{k}.jpg")


def questions_of(root, **options):
    return read_questions(schema.resolve({"bench": {"name": "pope", "root": str(root), **options}}))


@pytest.mark.parametrize(
    ("images", "root", "say"),
    [
        ("data/val2014", "data/coco", "bench.images=../val2014"),
        ("data/coco/val2014", "data", "bench.images=coco/val2014"),
        ("data/coco", "data/coco", "bench.images=."),
        ("data", "data/coco", "bench.images=.."),
    ],
)
def test_a_root_one_level_off_is_refused_with_what_to_say(tmp_path, images, root, say):
    pictures(tmp_path / images / "x")
    for file in list((tmp_path / images / "x").iterdir()):
        file.rename(tmp_path / images / file.name)
    labels(tmp_path / "data" / "coco")
    with pytest.raises(DataError) as caught:
        questions_of(tmp_path / root)
    said = str(caught.value)
    assert f"6 of 6 images are missing, the first is {tmp_path / root / 'val2014/0.jpg'}" in said
    assert said.endswith(f"set {say}")
    key, _, value = say.removeprefix("bench.").partition("=")
    assert len(questions_of(tmp_path / root, **{key: value})) == 6


def test_images_nowhere_are_refused_and_a_few_missing_ones_are_not(tmp_path):
    labels(tmp_path)
    with pytest.raises(DataError, match=r"6 of 6 images .*0.jpg; bench.root has to name"):
        questions_of(tmp_path)
    pictures(tmp_path / "val2014")
    for k in range(3):
        (tmp_path / "val2014" / f"{k}.jpg").unlink()
    assert len(questions_of(tmp_path)) == 6
    (tmp_path / "val2014" / "3.jpg").unlink()
    with pytest.raises(DataError, match="4 of 6 images are missing"):
        questions_of(tmp_path)


def test_a_grounding_set_one_level_up_is_named(tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    row = {"image": "a.png", "sent": "it", "bbox": [0, 0, 4, 4], "width": 4, "height": 4}
    write_jsonl(tmp_path / "sub" / "refcoco_val.jsonl", [row])
    bench = {"name": "refcoco", "root": str(tmp_path / "sub")}
    with pytest.raises(DataError, match=r"a.png is there: set bench.images=\.\."):
        read_questions(schema.resolve({"bench": bench}))


OUTSIDE = [
    "../a.jpg",
    "a/../../b.jpg",
    "/etc/a.jpg",
    "",
    ".",
    "..",
    "a\0.jpg",
    "C:\\a.jpg",
    "..\\a",
]


@pytest.mark.parametrize("name", [*OUTSIDE, "\\a.jpg", "n" * 300])
def test_names_that_leave_the_folder(name):
    with pytest.raises(DataError, match=r"^x:1: .* is not the name of a file inside"):
        inside(name, "x:1")


@pytest.mark.parametrize("name", ["a.jpg", "a/b c.jpg", "..a.jpg", "a..b/é.jpg", "a/./b.jpg"])
def test_names_that_stay(name):
    assert inside(name, "x:1") == name


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg"])
def test_no_benchmark_opens_a_picture_outside_its_folder(tmp_path, name):
    label = {"image": name, "text": "Is there a dog?", "label": "yes"}
    write_jsonl(tmp_path / "coco_pope_random.json", [label])
    with pytest.raises(DataError, match=r"coco_pope_random.json:1: .*secret.jpg' is not the name"):
        pope.read(pope.Config(str(tmp_path)))
    item = {"question_id": 1, "image_id": name, "question": "?"}
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": [item]}))
    with pytest.raises(DataError, match=r"val.json: data 1: .* is not the name"):
        textvqa.read(textvqa.Config(str(tmp_path)))
    row = {"image": name, "expression": "it", "bbox": [0, 0, 1, 1]}
    write_jsonl(tmp_path / "grounding.jsonl", [row])
    with pytest.raises(DataError, match=r"grounding.jsonl:1: .* is not the name"):
        refcoco.read(refcoco.Config(str(tmp_path)))


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: is a pipe, expected a file"):
        read_text(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"is a folder, expected a file"):
        read_text(tmp_path)
    with pytest.raises(DataError, match=r"is a device, expected a file"):
        read_text(tmp_path.joinpath("/dev/null"))
    data = make_mme(tmp_path / "mme", 3)
    (data / "color" / "0001.png").unlink()
    os.mkfifo(data / "color" / "0001.png")
    questions = read_questions(schema.resolve({"bench": {"name": "mme", "root": str(data)}}))
    assert fingerprint(questions, data)["image_count"] == 3  # and does not hang


def test_a_plugin_is_checked_when_it_is_loaded(monkeypatch):
    half = ModuleType("cof.bench.half")
    half.__file__ = "half.py"
    half.Config = half.read = half.score = object
    monkeypatch.setitem(sys.modules, "cof.bench.half", half)
    monkeypatch.setattr(plugins, "names", lambda kind: ["half"])
    lacks = "VERSION, SOURCE, expected, credit, table, export, read_answers"
    with pytest.raises(ConfigError, match=rf"bench: half \(half.py\) lacks {lacks}; cof/bench/__"):
        plugins.load("bench", "half")


@pytest.mark.parametrize("kind", ["locate", "refine", "bench", "models"])
def test_every_plugin_keeps_its_contract(kind):
    assert plugins.names(kind)
    for name in plugins.names(kind):
        plugins.load(kind, name)


def asked_of(counts):
    """Two questions an image, `counts` images of each category, one category after the other."""
    return [
        Question(f"{name}{k}#{n}", f"{name}{k}", "?", category=name)
        for name, count in counts.items()
        for k in range(count)
        for n in (1, 2)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_limit_is_spread_over_the_categories(seed):
    questions = asked_of({"a": 30, "b": 4, "c": 20})
    drawn = {n: subset.chosen(questions, Subset(n, limit_seed=seed)) for n in (1, 6, 12, 31, 99)}
    for n, most in ((1, {0, 1}), (6, {2}), (12, {4})):
        assert {sum(one[0] == name for one in drawn[n]) for name in "abc"} == most
        assert len(set(drawn[n])) == n
    assert sum(one[0] == "b" for one in drawn[31]) == 4
    assert len(set(drawn[99])) == 54
    assert drawn[31][:6] == drawn[6], "a larger limit keeps the images of a smaller one"


def test_seeds_draw_other_images_and_the_first_ones_are_the_first():
    questions = asked_of({"a": 30, "b": 30})
    draws = {tuple(subset.chosen(questions, Subset(8, limit_seed=seed))) for seed in range(4)}
    assert len(draws) == 4
    first = subset.chosen(questions, Subset(limit_first=3))
    assert first == ["a0", "a1", "a2"]
    assert len(subset.chosen(questions, Subset())) == 60


def test_a_limited_run_asks_all_questions_of_its_images_in_their_order(tmp_path):
    labels(tmp_path)
    pictures(tmp_path / "val2014")
    everything = questions_of(tmp_path)
    some = questions_of(tmp_path, limit=2)
    assert some == [one for one in everything if one.image in {two.image for two in some}]
    assert len(some) == 2
    with pytest.raises(ConfigError, match="limit=2 and limit_first=2: give one of them"):
        questions_of(tmp_path, limit=2, limit_first=2)
    with pytest.raises(ConfigError, match="limit_first=0 must be at least 1"):
        questions_of(tmp_path, limit_first=0)


def test_the_first_images_have_the_hash_that_older_runs_gave_them():
    def hashed(**keys):
        found = schema.resolve({"bench": {"name": "pope", "root": "x", **keys}}).as_dict()
        return identity.content_hash(found, {"dtype": "float32", "device": "cpu"})

    old = schema.resolve({"bench": {"name": "pope", "root": "x", "limit": 3}}).as_dict()
    del old["bench"]["limit_first"], old["bench"]["limit_seed"]
    before = identity.content_hash(old, {"dtype": "float32", "device": "cpu"})
    assert hashed(limit_first=3) == before
    others = {hashed(), hashed(limit=3), hashed(limit=3, limit_seed=1), before}
    assert len(others) == 4
