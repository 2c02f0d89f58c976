"""Damaged values in every benchmark's files: read, or a DataError that names the file."""

import copy
import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from mme_folders import write_jsonl
from openpyxl import Workbook
from PIL import Image

from cof.bench import _mme_files as mme_files
from cof.bench import _pope_files as pope_files
from cof.bench import (
    cvbench,
    gqa,
    hallusionbench,
    hrbench,
    jsonl,
    mmbench,
    mme,
    mmvp,
    pope,
    refcoco,
    scienceqa,
    seedbench,
    textvqa,
    vstar,
)
from cof.bench.common.completeness import check_folder
from cof.bench.common.tables import Entry
from cof.errors import DataError
from cof.files import Member
from cof.locate._boxes_file import read_boxes

FAST = limits(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SUFFIX = "\nAnswer the question using a single word or phrase."
DEEP = "[" * 100_000
HUGE = 10**400

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([HUGE, -1, 0, 2**70, float("nan"), float("inf"), -0.5, 1e300]),
    st.sampled_from(
        ["", " ", "x", "7", "9" * 5000, "../up", "/etc/passwd", "a\0b", "\ud800", "Yes"]
    ),
    st.sampled_from([[], {}, [[]], [None], {"a": 1}, [1, 2, 3, 4], ["a", ["b"]], [[0, 0, 1, 1]]]),
)


def places(value, path=()):
    """Every place in nested data, the root included."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, part in items:
        yield from places(part, (*path, key))


@st.composite
def damaged(draw, value):
    """The value with one or two parts replaced or dropped."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(sorted(places(value), key=str)))
        if not path:
            return draw(odd)
        *above, last = path
        place = value
        for key in above:
            place = place[key]
        if draw(st.booleans()):
            place[last] = copy.deepcopy(draw(odd))
        else:
            del place[last]
    return value


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dump_lines(path, rows):
    rows = rows if isinstance(rows, list) else [rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def dump_pickle(path, value):
    path.write_bytes(pickle.dumps(value))


# Each case: what a valid file holds, how it is written, where, and what reads it.

POPE_ROWS = [
    {"question_id": k, "image": f"{k}.jpg", "text": "Is there a dog?", "label": "yes"}
    for k in (1, 2)
]
POPE_LLAVA = [
    {"question_id": 10_000_000 + k, "image": f"{k}.jpg", "category": "random"}
    | {"text": "Is there a dog?" + SUFFIX}
    for k in (1, 2)
]
POPE_REGIONS = [
    {"image": f"{k}.jpg", "question": "Is there a dog?", "boxes": [[0, 0, 0.5, 1]]} for k in (1, 2)
]
GQA_ITEM = {"imageId": "n1", "question": "Is it red?", "answer": "no", "isBalanced": True}
GQA = {"07": {**GQA_ITEM, "types": {"structural": "verify", "semantic": "attr"}}}
TEXTVQA = {
    "data": [
        {"question_id": 3, "image_id": "ab", "question": "what?", "answers": ["stop"] * 10},
    ]
}
VSTAR = {"target_object": ["cup"], "bbox": [[20, 10, 40, 30]], "question": "What?"}
VSTAR |= {"options": ["red", "blue"]}
INSTANCES = {
    "images": [{"id": 5, "file_name": "a.jpg", "width": 200, "height": 100}],
    "annotations": [{"id": 11, "image_id": 5, "bbox": [20, 10, 60, 40]}],
}
REFS = [
    {"ref_id": 1, "ann_id": 11, "image_id": 5, "split": "val"}
    | {"sentences": [{"sent_id": 7, "sent": "red cup"}]}
]
TABLED = [{"image": "a.jpg", "sent": "it", "bbox": [1, 2, 30, 40], "width": 200, "height": 100}]
GROUNDING = [{"image": "a.jpg", "expression": "it", "bbox": [0.1, 0.2, 0.5, 0.6]}]
MME_LLAVA = [
    {"question_id": "color/1.jpg", "text": f"Is it {word}?{SUFFIX}"} for word in ("red", "blue")
]
MME_REGIONS = [
    {"image": "color/1.jpg", "question": f"Is it {word}? Please answer yes or no."}
    | {"boxes": [[0, 0, 1, 1]]}
    for word in ("red", "blue")
]
KEPT = [{"id": "q", "image": "a.jpg", "boxes": [[0, 0, 1, 1]]}]
RECORD = [{"id": "q", "image": "a.jpg", "region": {"boxes": [[0, 0, 1, 1]]}, "truth": []}]


def said(key, text="Yes", **more):
    return [{"question_id": key, "prompt": "Is it?", "text": text, **more}]


HALLUSION = {"category": "VD", "subcategory": "figure", "visual_input": "1", "set_id": "0"}
HALLUSION |= {"figure_id": "1", "question_id": "2", "question": "Is it?", "gt_answer": "1"}
HALLUSION |= {"filename": "./hallusion_bench/VD/figure/0_1.png"}
SEED = {"question_id": "1", "question": "?", "answer": "A", "choice_a": "a", "choice_b": "b"}
SEED |= {"data_type": "image", "data_id": "1.jpg", "question_type_id": 1}
LETTERED = {"index": 1, "question": "?", "A": "a", "B": "b", "answer": "A", "category": "c"}
SCIENCE = {"question": "?", "choices": ["a", "b"], "answer": 1, "image": "image.png", "hint": "h"}
OWN = [
    {"image": "a.jpg", "question": "Is it?", "answer": "yes", "boxes": [[0, 0, 1, 1]]},
    {"image": "a.jpg", "question": "?", "answer": "B", "options": ["a", "b"], "id": "q"},
]
CASES = {
    "hallusionbench": ([HALLUSION], dump, "hallusionbench/HallusionBench.json", hallusionbench),
    "seedbench": ({"questions": [SEED]}, dump, "seedbench/SEED-Bench.json", seedbench),
    "scienceqa": ({"3": SCIENCE}, dump, "scienceqa/problems.json", scienceqa),
    "scienceqa splits": ({"test": ["3"]}, dump, "scienceqa/pid_splits.json", scienceqa),
    "jsonl": (OWN, dump_lines, "jsonl/questions.jsonl", jsonl),
    "pope labels": (POPE_ROWS, dump, "pope/coco_pope_random.json", pope),
    "pope lines": (POPE_ROWS, dump_lines, "pope/coco_pope_random.json", pope),
    "pope questions": (POPE_LLAVA, dump_lines, "pope/llava.jsonl", pope),
    "pope regions": (POPE_REGIONS, dump_lines, "pope/regions.jsonl", pope),
    "pope answers": (
        said(10_000_001, prompt="Is there a dog?"),
        dump_lines,
        "pope/answers.jsonl",
        pope,
    ),
    "gqa questions": (GQA, dump, "gqa/testdev_balanced_questions.json", gqa),
    "gqa answers": (
        [{"questionId": "07", "prediction": "no"}],
        *(dump, "gqa/answers.json", gqa),
    ),
    "gqa llava": (
        [{"question_id": "07", "text": "Is it red?" + SUFFIX}],
        *(dump_lines, "gqa/llava.jsonl", gqa),
    ),
    "textvqa questions": (TEXTVQA, dump, "textvqa/TextVQA_0.5.1_val.json", textvqa),
    "textvqa llava": (
        [{"question_id": "ab", "text": "Reference OCR token: a\nwhat?" + SUFFIX}],
        *(dump_lines, "textvqa/llava.jsonl", textvqa),
    ),
    "textvqa answers": (
        [{"question_id": "ab", "prompt": "what?", "text": "stop"}],
        *(dump_lines, "textvqa/answers.jsonl", textvqa),
    ),
    "vstar note": (VSTAR, dump, "vstar/direct_attributes/sa.json", vstar),
    "vstar answers": (
        said("direct_attributes/sa", options=["red", "blue"]),
        *(dump_lines, "vstar/answers.jsonl", vstar),
    ),
    "vstar official": (
        {
            "direct_attributes": [
                {"image": "sa.jpg", "options": ["red", "blue"], "option_chosen": 0}
            ]
        },
        *(dump, "vstar/answers.json", vstar),
    ),
    "refcoco instances": (INSTANCES, dump, "official/instances.json", refcoco),
    "refcoco refs": (REFS, dump_pickle, "official/refs(unc).p", refcoco),
    "refcoco table": (TABLED, dump_lines, "table/refcoco_val.jsonl", refcoco),
    "refcoco grounding": (GROUNDING, dump_lines, "mini/grounding.jsonl", refcoco),
    "refcoco answers": (
        said("val/1", "[0, 0, 1, 1]", truth=[0.005, 0.02, 0.15, 0.4]),
        *(dump_lines, "table/answers.jsonl", refcoco),
    ),
    "mme questions": (MME_LLAVA, dump_lines, "mme/llava.jsonl", mme),
    "mme regions": (MME_REGIONS, dump_lines, "mme/regions.jsonl", mme),
    "mme answers": (said("color/1.jpg", prompt="Is it red?"), dump_lines, "mme/answers.jsonl", mme),
    "mmbench answers": (
        said(7, "A", round_id=0, options=["a", "b"]),
        *(dump_lines, "mmbench/answers.jsonl", mmbench),
    ),
    "mmbench own answers": (
        said(7, "A", options=["a", "b"], answer="B", category="c"),
        *(dump_lines, "own/answers.jsonl", mmbench),
    ),
}


@pytest.fixture(scope="module")
def root():
    """Valid mini files of every benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for value, write, place, _ in CASES.values():
            if "/answers" not in place and "llava" not in place:
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                write(root / place, value)
        for place in ("vstar/direct_attributes/sa.jpg", "mini/a.jpg", "mme/color/1.jpg"):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (200, 100)).save(root / place)
        lines = [f"Is it {word}? Please answer yes or no.\tYes\n" for word in ("red", "blue")]
        (root / "mme/color/1.txt").write_text("".join(lines))
        (root / "mmbench").mkdir()
        (root / "own").mkdir()
        table = "index\tquestion\tA\tB\tanswer\n7\t?\ta\tb\tA\n"
        (root / "mmbench" / "mmbench_dev_20230712.tsv").write_text(table)
        yield root


def use(file, bench):
    """Read what the file is part of, as a run or as `cof score` would."""
    folder = next(path for path in (file.parent, file.parent.parent) if path.parent.name != "vstar")
    config = bench.Config("" if folder.name == "own" else str(folder))
    if "llava" in file.name:
        config = bench.Config(str(folder), questions=str(file))
    if not file.name.startswith("answers"):
        bench.read(config)
        return
    found = bench.read_answers(file, config, allow_missing=True)
    bench.score(found.questions, found.texts, config)


def refusal(read, *given):
    """What a reader says against a file, "" where it reads it; anything but a DataError fails."""
    try:
        read(*given)
    except DataError as error:
        return str(error)
    return ""


def attempt(file, bench):
    said = refusal(use, file, bench)
    assert "\n" not in said
    assert len(said) < 900
    return said


@pytest.mark.parametrize("name", CASES)
def test_the_valid_file_is_read(root, name):
    value, write, place, bench = CASES[name]
    file = root / place
    kept = file.read_bytes() if file.exists() else None
    write(file, value)
    assert attempt(file, bench) == ""
    if kept is None:
        file.unlink()


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_value_is_read_or_refused_by_name(root, name):
    value, write, place, bench = CASES[name]
    file = root / place

    @FAST
    @given(damaged(value))
    def run(broken):
        write(file, broken)
        attempt(file, bench)

    kept = file.read_bytes() if file.exists() else None
    try:
        run()
        if write is not dump_pickle:
            file.write_text(DEEP + "\n")
            assert "nested too deeply" in attempt(file, bench)
    finally:
        file.unlink(missing_ok=True) if kept is None else file.write_bytes(kept)


ENTRIES = {
    "mme": (
        *(mme, mme_files.from_rows),
        [
            {"question_id": "color/1.jpg", "question": "Is it?", "answer": word}
            for word in ("Yes", "No")
        ],
    ),
    "pope": (
        *(pope, pope_files.from_rows),
        [{"image_source": "a", "question": "Is it?", "answer": "yes", "category": "random"}],
    ),
    "textvqa": (textvqa, textvqa._from_rows, TEXTVQA["data"]),
    "gqa": (gqa, gqa._from_rows, [{"id": "n1"}, {"id": "07", **GQA["07"]}]),
    "mmbench": (
        *(mmbench, mmbench._from_rows),
        [{"index": 7, "question": "?", "A": "a", "B": "b", "answer": "A", "image": ""}],
    ),
    "hallusionbench": (hallusionbench, hallusionbench._from_rows, [HALLUSION]),
    "mmvp": (
        *(mmvp, mmvp._from_hub),
        [{"Index": 1, "Question": "?", "Options": "(a) x (b) y", "Correct Answer": "(a)"}],
    ),
    "MMVP.tsv": (mmvp, mmvp._from_tsv, [{**LETTERED, "index": number} for number in (0, 1)]),
    "hrbench": (
        *(hrbench, hrbench._from_rows),
        [{"index": 1, "question": "?", "A": "a", "B": "b", "answer": "A", "category": "single"}],
    ),
    "seedbench": (seedbench, seedbench._released, [SEED]),
    "SEEDBench_IMG.tsv": (seedbench, seedbench._from_tsv, [LETTERED]),
    "scienceqa": (scienceqa, scienceqa._from_rows, [{**SCIENCE, "image": None}]),
    "cvbench": (
        *(cvbench, cvbench._from_rows),
        [
            {"idx": 1, "type": "2D", "task": "Count", "source": "COCO", "question": "?"}
            | {"choices": ["a", "b"], "answer": "(A)"}
        ],
    ),
}
"""Benchmark -> its module, how it reads the rows of a table, and valid rows."""


@pytest.mark.parametrize("name", ENTRIES)
def test_damaged_cells_of_a_table_are_read_or_refused(name):
    bench, read, rows = ENTRIES[name]
    picture = Member("p", bytes)

    def entries(rows):
        rows = rows if isinstance(rows, list) else [rows]
        return [Entry(row, "x: row 1", picture, b"m") for row in rows if isinstance(row, dict)]

    config = bench.Config("x")
    assert list(read(entries(rows), config))

    @FAST
    @given(damaged(rows))
    def run(broken):
        said = refusal(list, read(entries(broken), config))
        assert "\n" not in said
        assert len(said) < 900

    run()


@FAST
@given(st.data())
def test_boxes_files(tmp_path, data):
    rows = data.draw(st.sampled_from([KEPT, RECORD]).flatmap(damaged))
    dump_lines(tmp_path / "boxes.jsonl", rows)
    for truth in (False, True):
        said = refusal(read_boxes, str(tmp_path / "boxes.jsonl"), truth)
        assert not said or str(tmp_path) in said


@FAST
@given(damaged({"gqa.json": "0" * 64, "../x": "1"}))
def test_hashes(tmp_path, root, value):
    dump(tmp_path / "sha256.json", value)
    Path(tmp_path / "testdev_balanced_questions.json").write_text(json.dumps(GQA))
    check_folder(gqa, gqa.Config(str(tmp_path)))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@FAST
@given(st.lists(st.lists(st.one_of(CELLS, st.just("7"), st.just("A")), max_size=7), max_size=3))
def test_tables(tmp_path, rows):
    head = ["index", "question", "A", "B", "answer", "image", "prediction"]
    text = "".join("\t".join(row) + "\n" for row in [head, *rows])
    (tmp_path / "mmbench_dev_20230712.tsv").write_text(text, encoding="utf-8")
    book = Workbook()
    for row in [head, *rows]:
        book.active.append([cell if cell.isprintable() else "" for cell in row])
    book.save(tmp_path / "answers.xlsx")
    for read in (
        lambda: mmbench.read(mmbench.Config(str(tmp_path))),
        lambda: mmbench.read_answers(tmp_path / "answers.xlsx", mmbench.Config("")),
    ):
        said = refusal(read)
        assert not said or str(tmp_path) in said


@FAST
@given(st.binary(max_size=60), st.integers(0, 4000))
def test_damaged_archives_and_pickles(tmp_path, noise, place):
    book = Workbook()
    for row in (["index", "A", "B", "answer", "prediction"], [7, "a", "b", "A", "A"]):
        book.active.append(row)
    book.save(tmp_path / "answers.xlsx")
    whole = (tmp_path / "answers.xlsx").read_bytes()
    (tmp_path / "answers.xlsx").write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    refs = pickle.dumps(REFS)
    place %= len(refs)
    (tmp_path / "refs(unc).p").write_bytes(refs[:place] + noise + refs[place + len(noise) :])
    dump(tmp_path / "instances.json", INSTANCES)
    for read in (
        lambda: mmbench.read_answers(tmp_path / "answers.xlsx", mmbench.Config("")),
        lambda: refcoco.read(refcoco.Config(str(tmp_path))),
    ):
        said = refusal(read)
        assert not said or str(tmp_path) in said


def test_long_values_are_cut(tmp_path):
    row = {"image": "a.jpg", "text": "?", "label": "y" * 5000}
    write_jsonl(tmp_path / "coco_pope_random.json", [row])
    with pytest.raises(DataError) as caught:
        pope.read(pope.Config(str(tmp_path)))
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 200
