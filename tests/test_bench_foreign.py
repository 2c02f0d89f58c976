"""Tables as others have them: the wrong one, in parts, in the Hub's cache, pictures as text."""

import base64
import csv
import random

import pytest
import small_benchmarks
import tables

from cof.bench.common import _parquet
from cof.bench.common.containers import entries, places
from cof.bench.common.finding import TSV_NAMES, owner
from cof.config import plugins, schema
from cof.errors import DataError
from cof.images import load_image
from cof.store.dataset import questions_hash, read_questions

CHOICE = ("mmbench", "mmvp", "hrbench", "seedbench", "scienceqa")
TABLES = [(name, kind) for name in CHOICE[1:] for kind in ("tsv", "parquet")]


def read(name, root, **options):
    bench = plugins.load("bench", name)
    config = bench.Config(str(root), **options)
    return bench.read(config), places(bench, config)


@pytest.mark.parametrize("other", CHOICE)
@pytest.mark.parametrize(("name", "kind"), TABLES)
def test_a_table_of_another_benchmark_is_refused(name, kind, other, tmp_path):
    """Their columns are alike: without a word MMVP was scored as SEED-Bench, and so on."""
    pytest.importorskip("pyarrow")
    root = small_benchmarks.write(name, kind, tmp_path)
    files = [root, *tmp_path.rglob(f"*.{kind}")]
    for place in files if other != name else []:
        with pytest.raises(DataError, match=f"looked for .*; `cof data fetch {other} FOLDER` gets"):
            read(other, place)


def test_a_table_with_a_name_of_its_own_has_to_be_named(tmp_path):
    """In a folder it may be MMStar's, whose columns are alike."""
    root = small_benchmarks.write("seedbench", "tsv", tmp_path)
    mine = root.rename(tmp_path / "mine.tsv")
    for name in ("seedbench", "scienceqa", "mmbench"):
        assert len(read(name, mine)[0]) == 3
        with pytest.raises(DataError, match=r"holds mine.tsv; looked for"):
            read(name, tmp_path)
    named = [owner(tmp_path / f"{one}.tsv") for names in TSV_NAMES.values() for one in names]
    assert {*named} == {*TSV_NAMES}
    for stem in ("MMBench_TEST_CN_V11", "ccbench", "mmbench_dev_20230712"):
        assert owner(tmp_path / f"{stem}.tsv") == "mmbench"


def as_text(row):
    return {**row, "image": base64.b64encode(row["image"]["bytes"]).decode()}


def test_pictures_as_base64_text(tmp_path):
    """HR-Bench's own parquet has the TSV's strings; a picture that is none fails alone."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    file = small_benchmarks.write("hrbench", "parquet", tmp_path) / "hr_bench_4k.parquet"
    asked, there = read("hrbench", file)
    first = load_image(there / "images/0.jpg")
    rows = [as_text(row) for row in parquet.read_table(file).to_pylist()]
    rows[4]["image"] = "no picture"
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    again, texts = read("hrbench", file)
    assert again == asked
    assert load_image(texts / "images/0.jpg") == first
    with pytest.raises(DataError, match=r"row 5: image is not base64"):
        load_image(texts / "images/4.jpg")


@pytest.mark.parametrize("text", [False, True])
def test_a_large_row_group_is_read_in_pieces(tmp_path, monkeypatch, text):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    data = [None if k == 5 else bytes([k]) * 90 for k in range(100)]
    column = [one and base64.b64encode(one).decode() for one in data] if text else data
    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"n": [*range(100)], "image": column}), file)
    begun, whole = [], _parquet._Table._pieces
    monkeypatch.setattr(
        _parquet._Table, "_pieces", lambda self, group: begun.append(group) or whole(self, group)
    )
    found = list(entries(file))
    assert [one.picture is not None for one in found] == [one is not None for one in data]
    begun.clear()
    order = [k for k in range(100) if k != 5]
    assert [found[k].picture.read() for k in order] == [data[k] for k in order]
    assert begun == [0], "read through once"
    random.Random(0).shuffle(order)
    assert [found[k].picture.read() for k in order] == [data[k] for k in order]
    assert len(_parquet._HELD) <= _parquet._KEPT


def test_two_readers_of_a_row_group_do_not_begin_anew(tmp_path, monkeypatch):
    """The model is fed from one place while images are hashed at another."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"image": [bytes([k]) for k in range(200)]}), file)
    begun, whole = [], _parquet._Table._pieces
    monkeypatch.setattr(
        _parquet._Table, "_pieces", lambda self, group: begun.append(group) or whole(self, group)
    )
    found = list(entries(file))
    for k in range(100):
        assert found[k].picture.read() + found[2 * k].picture.read() == bytes([k, 2 * k])
    assert len(begun) == 2


def test_a_table_in_parts_of_which_one_is_missing(tmp_path):
    pytest.importorskip("pyarrow")
    rows = list(range(5))
    for number in (0, 2):
        file = tmp_path / f"data/test-{number:05d}-of-00003.parquet"
        tables.write_parquet(file, [{"question_id": one} for one in rows])
    for name in ("mme", "pope", "seedbench"):
        with pytest.raises(DataError, match=r"test-\*.parquet: 1 of 3 files are missing"):
            read(name, tmp_path)


def test_the_hubs_cache(tmp_path):
    pytest.importorskip("pyarrow")
    plain = read("seedbench", small_benchmarks.write("seedbench", "parquet", tmp_path / "plain"))[0]
    cache = tmp_path / "datasets--lmms-lab--SEED-Bench"
    blob = cache / "blobs" / "0a1b"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(next((tmp_path / "plain").rglob("*.parquet")).read_bytes())
    for revision in ("aa", "bb"):
        file = cache / f"snapshots/{revision}/data/test-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        file.symlink_to(blob)
    with pytest.raises(DataError, match="snapshots: holds aa, bb; name one of them"):
        read("seedbench", cache)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("bb")
    asked, pictures = read("seedbench", cache)
    assert asked == plain
    assert load_image(pictures / asked[0].image).size == (8, 6)
    assert read("seedbench", cache / "snapshots/aa")[0] == plain


def rewritten(file, change):
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t"))
    rows = change(rows)
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, list(rows[0]), delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return file


def test_a_picture_is_another_rows_by_an_index_that_is_no_number(tmp_path):
    """HallusionBench's indexes are words; VLMEvalKit takes a cell of 64 characters for one."""
    file = small_benchmarks.write("hallusionbench", "tsv", tmp_path)

    def share(rows):
        assert len(rows[0]["image"]) > 64
        rows[1]["image"] = rows[0]["index"]
        return rows

    asked, pictures = read("hallusionbench", rewritten(file, share))
    same = [load_image(pictures / asked[k].image) for k in (0, 1)]
    assert asked[0].image != asked[1].image
    assert same[0] == same[1]
    with pytest.raises(DataError, match=r"HallusionBench.tsv:4: index 'VD_.*' occurs twice"):
        read("hallusionbench", rewritten(file, lambda rows: [*rows[:2], rows[1]]))


def test_mmvps_pairs_are_those_of_vlmevalkit(tmp_path):
    file = small_benchmarks.write("mmvp", "tsv", tmp_path)
    asked = read("mmvp", file)[0]
    shuffled = read("mmvp", rewritten(file, lambda rows: [rows[k] for k in (2, 0, 3, 1)]))[0]
    assert questions_hash(shuffled) == questions_hash(asked)
    assert [one.id for one in asked] == ["1/1", "1/2", "2/3", "2/4"]

    def from_one(rows):
        return [{**row, "index": int(row["index"]) + 1, "image": ""} for row in rows]

    assert read("mmvp", rewritten(file, from_one))[0] == asked
    small_benchmarks.write("mmvp", "tsv", tmp_path)
    with pytest.raises(DataError, match=r"MMVP.tsv:3: asks another question than its pair's first"):
        read("mmvp", rewritten(file, lambda rows: [rows[0], rows[2]]))


def test_popes_table_without_names_of_pictures(tmp_path):
    picture = {n: small_benchmarks.picture(n) for n in (1, 2)}
    row = {"question": "Is there a cup?", "answer": "Yes", "category": "random,popular"}
    rows = [{**row, "question": f"{n}?", "image": picture[1 + n // 2]} for n in range(4)]
    asked, pictures = read("pope", tables.write_tsv(tmp_path / "POPE.tsv", rows))
    assert [one.image for one in asked[:4]] == ["val2014/0.jpg"] * 2 + ["val2014/2.jpg"] * 2
    assert len(asked) == 8
    assert load_image(pictures / "val2014/2.jpg").size == (8, 6)
    with pytest.raises(DataError, match=r"looked for label files \(gqa_pope_random.json, ...\);"):
        read("pope", tmp_path, source="gqa")


def test_mmbench_in_english_comes_before_all_languages(tmp_path):
    row = {"question": "What?", "A": "one", "B": "two", "answer": "A"}
    row["image"] = small_benchmarks.picture(1)
    for language in ("ar", "cn", "en", "pt", "ru", "tr"):
        asked = [{**row, "question": f"{language}?"}]
        tables.write_tsv(tmp_path / f"MMBench_dev_{language}.tsv", asked)
    assert read("mmbench", tmp_path)[0][0].text.startswith("en?")


def test_a_split_of_scienceqa_is_not_taken_for_another(tmp_path):
    file = small_benchmarks.write("scienceqa", "tsv", tmp_path)
    file.rename(tmp_path / "ScienceQA_VAL.tsv")
    assert len(read("scienceqa", tmp_path, split="val")[0]) == 2
    with pytest.raises(DataError, match=r"VAL.tsv: is another table of scienceqa; looked for"):
        read("scienceqa", tmp_path / "ScienceQA_VAL.tsv")
    with pytest.raises(
        DataError, match=r"holds ScienceQA_VAL.tsv; looked for .*ScienceQA_TEST.tsv"
    ):
        read("scienceqa", tmp_path)


def test_a_table_without_its_pictures_says_so(tmp_path):
    """As VLMEvalKit's *_local.tsv, which names files; scoring alone needs none."""
    file = small_benchmarks.write("hrbench", "tsv", tmp_path) / "hr_bench_4k.tsv"
    file.write_text(file.read_text().replace("\timage\n", "\timage_path\n"))
    assert len(read("hrbench", file)[0]) == 8
    settings = schema.resolve({"bench": {"name": "hrbench", "root": str(tmp_path)}})
    with pytest.raises(DataError, match=r"2 of 2 images are missing, .*; the table lacks them$"):
        read_questions(settings)
