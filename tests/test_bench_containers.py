"""One dataset in every container that people have it in: the same hash, the same records."""

import json
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import tables
from click.testing import CliRunner
from fakes import StubPipeline
from minis import FOLDERS
from mme_folders import write_jsonl
from PIL import Image

from cof.app.browse import Browser
from cof.bench import mme, pope
from cof.bench.common import _parquet, finding
from cof.bench.common.containers import entries
from cof.cli import main
from cof.config import plugins, schema
from cof.errors import DataError
from cof.evaluate import runner
from cof.images import load_image

SHORT = "\nAnswer the question using a single word or phrase."


def settings_of(name, root, **options):
    bench = {"name": name, "root": str(root), **options}
    return schema.resolve({"bench": bench, "refine": {"name": "plain"}, "batch_size": 4})


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key != "seconds"}
    return value


@pytest.fixture
def made(tmp_path, monkeypatch):
    """What a run says of a root: its dataset's hashes, and its records without times."""
    monkeypatch.setattr(runner, "build_pipeline", lambda settings: StubPipeline(True))

    def make(name, root, **options):
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        done = runner.run(settings_of(name, root, **options).with_({"out": str(out)}))
        assert not done.failed
        lines = (done.path / "records.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        records = [timeless(json.loads(line)) for line in lines]
        return done.manifest["dataset"], records, done.path.name

    return make


def into(kind, name, source, folder):
    """A copy of a mini benchmark in another container; returns what `bench.root` may be."""
    bench = plugins.load("bench", name)
    questions = bench.read(bench.Config(str(source)))
    folder.mkdir()
    shutil.copy(source / "regions.jsonl", folder)
    rows = {
        "mme": lambda: list(tables.mme_rows(source, questions)),
        "pope": lambda: list(tables.pope_rows(source, questions)),
        "mmbench": lambda: list(tables.mmbench_rows(source / "mmbench_dev_20230712.tsv")),
    }[name]()
    if kind == "tsv":
        names = {"mme": "MME", "pope": "POPE", "mmbench": "MMBench_DEV_EN"}
        return tables.write_tsv(folder / f"{names[name]}.tsv", rows).parent
    pytest.importorskip("pyarrow")
    if kind == "file":
        return tables.write_parquet(folder / "x.parquet", rows)
    half = len(rows) // 2
    split = {"mme": "data/test", "pope": "data/test", "mmbench": "en/dev"}[name]
    for number, part in enumerate((rows[:half], rows[half:])):
        tables.write_parquet(folder / f"{split}-{number:05d}-of-00002.parquet", part)
    if name == "pope":
        for setting in ("random", "popular", "adversarial"):
            part = [row for row in rows if row["category"] == setting]
            bare = [{key: value for key, value in row.items() if key != "category"} for row in part]
            tables.write_parquet(folder / f"Full/{setting}-00000-of-00001-ab12.parquet", bare)
    return folder


@pytest.mark.parametrize("kind", ["folder", "file", "tsv"])
@pytest.mark.parametrize("name", ["mme", "pope", "mmbench"])
def test_the_same_questions_give_the_same_hash_and_records(made, mini, tmp_path, name, kind):
    root = into(kind, name, mini / FOLDERS[name], tmp_path / "copy")
    assert made(name, root) == made(name, mini / FOLDERS[name])
    checked = CliRunner().invoke(main, ["data", "check", name, str(root), "--open"])
    assert "images are missing" not in checked.output
    assert "cannot be read" not in checked.output


def test_a_run_goes_on_in_another_container(mini, tmp_path, monkeypatch):
    asked = []

    class Stub(StubPipeline):
        def answer_batch(self, questions, images):
            asked.extend(question.id for question in questions)
            return super().answer_batch(questions, images)

    monkeypatch.setattr(runner, "build_pipeline", lambda settings: Stub(True))
    copy = into("tsv", "mme", mini / "MiniMME", tmp_path / "copy")
    same = {"out": str(tmp_path), "name": "same"}
    done = runner.run(settings_of("mme", mini / "MiniMME").with_(same))
    records = done.path / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:-4]))
    runner.run(settings_of("mme", copy).with_(same))
    assert len(asked) == len(lines) + 4
    assert records.read_bytes().count(b"\n") == len(lines)


def test_the_page_shows_the_pictures_of_any_container_and_says_no_path(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "build_pipeline", lambda settings: StubPipeline(True))
    copy = into("tsv", "mme", mini / "MiniMME", tmp_path / "copy")
    done = runner.run(settings_of("mme", copy).with_({"out": str(tmp_path), "name": "tsv"}))
    browser = Browser.of(done.path)
    first = done.results[0].question.image
    assert browser.show("all", 1).image == load_image(mini / "MiniMME" / first, exif="apply")
    shutil.rmtree(copy)
    gone = Browser.of(done.path).show("all", 1)
    assert gone.image is None
    assert str(tmp_path) not in gone.page


def test_few_row_groups_are_in_memory_and_threads_may_share_them(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{"image": bytes([k]) * 100, "n": k} for k in range(20)]
    files = [
        tables.write_parquet(tmp_path / f"{k}.parquet", rows[k * 10 : k * 10 + 10]) for k in (0, 1)
    ]
    found = [entry for file in files for entry in entries(file)]
    order = [k for k in range(20) for _ in range(3)]
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda k: found[k].picture.read(), order))
    assert read == [rows[k]["image"] for k in order]
    assert len(_parquet._HELD) <= _parquet._KEPT
    assert sum(len(piece.rest) for piece in _parquet._HELD.values()) <= _parquet._GOING


def test_a_row_without_a_picture_is_told_beside_a_column_of_a_longer_name(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{"image_path": f"{k}.png", "image": b"x" if k else None, "n": k} for k in range(3)]
    found = list(entries(tables.write_parquet(tmp_path / "t.parquet", rows)))
    assert [entry.picture is not None for entry in found] == [False, True, True]


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"test.parquet: needs .* pip install pyarrow"):
        mme.read(mme.Config(str(tmp_path)))


def test_a_question_of_several_settings_may_be_one_row(mini, tmp_path):
    """VLMEvalKit's POPE: the questions with the answer yes are those of all three settings."""
    source = mini / "MiniPOPE"
    merged = {}
    for row in tables.pope_rows(source, pope.read(pope.Config(str(source)))):
        key = (row["image_source"], row["question"])
        merged.setdefault(key, {**row, "category": []})["category"].append(row["category"])
    rows = [{**row, "category": ",".join(row["category"])} for row in merged.values()]
    assert len(rows) < 36
    root = tables.write_tsv(tmp_path / "POPE.tsv", rows)
    questions = pope.read(pope.Config(str(root)))
    wanted = pope.read(pope.Config(str(source)))
    assert len(questions) == len(wanted) == 36
    asked = [
        {(q.category, q.image, q.text, q.reference) for q in some} for some in (questions, wanted)
    ]
    assert asked[0] == asked[1]


def picture(folder, colour="red"):
    file = folder / f"{colour}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(file)
    return file.read_bytes()


def test_textvqa_and_gqa_as_parquet(made, tmp_path):
    pytest.importorskip("pyarrow")
    answers = ["stop"] * 7 + ["go"] * 3
    red, blue = (picture(tmp_path / "pictures", colour) for colour in ("red", "blue"))
    rows = [
        {"question_id": k, "image_id": name, "question": f"what {k}?", "answers": answers}
        for k, name in ((3, "a"), (4, "a"), (5, "b"))
    ]
    own = tmp_path / "textvqa"
    (own / "train_images").mkdir(parents=True)
    (own / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": rows}))
    held = {"a": red, "b": blue}
    for name, data in held.items():
        (own / f"train_images/{name}.jpg").write_bytes(data)
    packed = [{**row, "image": held[row["image_id"]]} for row in rows]
    for split, some in (("validation", packed), ("train", packed[:1]), ("test", packed[:1])):
        tables.write_parquet(tmp_path / f"hub/data/{split}-00000-of-00001.parquet", some)
    assert made("textvqa", tmp_path / "hub") == made("textvqa", own)

    types = {"structural": "query", "semantic": "obj"}
    items = [
        {"id": str(k), "imageId": name, "question": f"what {k}?", "answer": "cup", "types": types}
        for k, name in ((1, "a"), (2, "b"), (3, "a"))
    ]
    own = tmp_path / "gqa"
    (own / "images").mkdir(parents=True)
    for name, data in held.items():
        (own / f"images/{name}.jpg").write_bytes(data)
    asked = {item["id"]: item for item in items}
    (own / "testdev_balanced_questions.json").write_text(json.dumps(asked))
    shown = [{"id": name, "image": data} for name, data in held.items()]
    hub = tmp_path / "gqa_hub"
    tables.write_parquet(hub / "testdev_balanced_images/testdev-00000-of-00001.parquet", shown)
    tables.write_parquet(
        hub / "testdev_balanced_instructions/testdev-00000-of-00001.parquet", items
    )
    tables.write_parquet(hub / "train_all_images/train-00000-of-00001.parquet", shown)
    assert made("gqa", hub) == made("gqa", own)


def test_llavas_question_file_stands_for_the_folder_around_it(mini, tmp_path):
    source = shutil.copytree(mini / "MiniMME", tmp_path / "MME" / "MME_Benchmark_release_version")
    questions = mme.read(mme.Config(str(source)))
    random.Random(0).shuffle(questions)
    rows = [{"question_id": q.image, "text": q.text, "category": q.category} for q in questions]
    file = write_jsonl(tmp_path / "MME" / "llava_mme.jsonl", rows)
    assert mme.read(mme.Config(str(file))) == mme.read(mme.Config(str(source), str(file)))
    config = mme.Config(str(file))
    assert all((mme.pictures(config) / q.image).is_file() for q in mme.read(config))

    source = shutil.copytree(mini / "MiniPOPE", tmp_path / "pope")
    asked = pope.read(pope.Config(str(source)))
    rows = [
        {"question_id": n, "image": q.image.rpartition("/")[2], "text": q.text}
        | {"category": q.category}
        for n, q in enumerate(asked)
    ]
    file = write_jsonl(source / "llava_pope_test.jsonl", rows)
    assert pope.read(pope.Config(str(file))) == asked
    assert pope.pictures(pope.Config(str(file))) == source


def test_pictures_stay_where_they_are_and_a_broken_one_fails_alone(tmp_path):
    good = picture(tmp_path / "pictures")
    rows = [
        {"question": "Is there a cup?", "answer": "yes", "category": "random", "image": data}
        | {"image_source": name}
        for name, data in (("a", good), ("b", good[:200]), ("c", b"####"))
    ]
    file = tables.write_tsv(tmp_path / "POPE.tsv", rows)
    text = file.read_text().replace("IyMjIw==", "####")
    file.write_text(text)
    config = pope.Config(str(file))
    places = pope.pictures(config)
    assert load_image(places / "val2014/a.jpg").size == (8, 6)
    for name, why in (("b", "is damaged or cut off"), ("c", "is not base64"), ("d", "not exist")):
        with pytest.raises(DataError, match=why):
            load_image(places / f"val2014/{name}.jpg")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["POPE.tsv", "pictures"]


def test_a_table_that_changed_is_read_anew(tmp_path):
    row = {"question": "Is there a cup?", "answer": "yes", "category": "random"}
    row |= {"image_source": "a", "image": picture(tmp_path / "pictures")}
    file = tables.write_tsv(tmp_path / "POPE.tsv", [row])
    config = pope.Config(str(file))
    assert pope._held(config) is pope._held(config)
    assert len(pope.read(config)) == 1
    tables.write_tsv(file, [row, {**row, "question": "Is there a dog?"}])
    assert len(pope.read(config)) == 2


def test_quoted_cells_and_line_ends_leave_pictures_in_place(tmp_path):
    data = {name: picture(tmp_path / "pictures", name) for name in ("red", "blue")}
    rows = [
        {"question": 'a "quoted"\nß question', "image": data["red"], "x": ""},
        {"question": "plain", "image": data["blue"], "x": "tab\tin it"},
        {"question": "the first again", "image": data["red"], "x": ""},
    ]
    file = tables.write_tsv(tmp_path / "t.tsv", rows)
    for text in (file.read_bytes(), b"\xef\xbb\xbf" + file.read_bytes()):
        file.write_bytes(text)
        found = list(entries(file))
        assert [entry.cells["question"] for entry in found] == [row["question"] for row in rows]
        assert [entry.picture.read() for entry in found] == [row["image"] for row in rows]
        assert found[0].mark == found[2].mark != found[1].mark


def test_mini_data_that_was_not_drawn_has_the_command_that_draws_it():
    way = "`cof data mini a/b --only MiniMME` draws it"
    with pytest.raises(DataError, match=f"no such folder.*; {way}$"):
        plugins.load("bench", "mme").read(mme.Config("a/b/MiniMME"))


@pytest.mark.parametrize("name", ["mme", "pope", "mmbench", "textvqa", "gqa", "vstar", "refcoco"])
def test_a_folder_of_something_else_says_what_is_there_and_what_helps(tmp_path, name):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    bench = plugins.load("bench", name)
    with pytest.raises(DataError) as caught:
        bench.read(bench.Config(str(tmp_path)))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: holds holiday/, notes.txt; looked for ")
    assert said.endswith(f"; `cof data fetch {name} FOLDER` gets it")
    with pytest.raises(DataError, match="nowhere: no such folder or file; looked for"):
        bench.read(bench.Config(str(tmp_path / "nowhere")))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 300])
def test_what_is_no_table_is_named(tmp_path, content):
    pytest.importorskip("pyarrow")
    for suffix in ("parquet", "tsv"):
        file = tmp_path / f"test.{suffix}"
        file.write_bytes(content)
        for bench in (mme, pope):
            with pytest.raises(DataError, match=str(file)):
                bench.read(bench.Config(str(file)))


def test_splits_are_told_by_their_names(tmp_path):
    for name in (
        *("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        *("data/test-00000-of-00001.parquet", "cn/dev/0000.parquet"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {
        pattern: [file.name for file in finding.shards("", str(tmp_path), pattern)]
        for pattern in ("train$", "(^|/)test$", "cn/dev$", "nothing")
    }
    assert found["train$"] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert found["(^|/)test$"] == ["test-00000-of-00001.parquet"]
    assert found["cn/dev$"] == ["0000.parquet"]
    assert found["nothing"] == []
