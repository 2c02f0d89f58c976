"""From Hub rows to the layouts that the readers read; the Hub itself is not asked."""

import io
import sys

import pytest
import small_benchmarks
from click.testing import CliRunner
from PIL import Image

from cof.bench.common import hub
from cof.bench.common.containers import places
from cof.cli import main
from cof.config import plugins
from cof.errors import ConfigError, DataError


def image(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(buffer, "JPEG")
    return {"bytes": buffer.getvalue(), "path": None}


def mme():
    asked = (("Is it? Please answer yes or no.", "Yes"), ("Not? Please answer yes or no.", "No"))
    for path in ("artwork/images/1.jpg", "count/0001.jpg"):
        for question, answer in asked:
            yield {
                **{"question_id": path, "image": image(), "question": question},
                **{"answer": answer, "category": path.split("/")[0]},
            }


def pope():
    for answer in ("yes", "no"):
        yield {
            **{"question": f"Is there a {answer} in the image?", "answer": answer},
            **{"image_source": "COCO_val2014_000000000001", "image": image()},
        }


def mmbench():
    for index, answer in ((5, "A"), (1_000_005, "B")):
        options = {"A": "red", "B": "blue"} if answer == "A" else {"A": "blue", "B": "red"}
        yield {
            **{"index": index, "question": "What?", "hint": "nan", "answer": answer, **options},
            **{"C": None, "D": None, "category": "fine", "L2-category": "broad", "split": "dev"},
            "image": image(),
        }


def textvqa():
    yield {
        **{"image_id": "a1", "question_id": 7, "question": "what?", "answers": ["stop"] * 10},
        **{"image": image(), "ocr_tokens": ["STOP"]},
    }


def refcoco():
    yield {
        **{
            "question_id": "1",
            "image": image(),
            "answer": ["red cup", "left"],
            "bbox": [4, 2, 8, 4],
        },
        "file_name": "COCO_train2014_000000000001_3.jpg",
    }


def gqa(subset):
    if subset.endswith("_images"):
        return [{"id": "n1", "image": image()}]
    types = {"structural": "query", "semantic": "obj"}
    return [{"id": "1", "imageId": "n1", "question": "What?", "answer": "cup", "types": types}]


ROWS = {"mme": mme, "pope": pope, "mmbench": mmbench, "textvqa": textvqa, "refcoco": refcoco}
COUNTS = {"mme": 4, "pope": 6, "mmbench": 2, "textvqa": 1, "refcoco": 2, "gqa": 1}


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_fetched_can_be_read(name, tmp_path, monkeypatch):
    def rows(repository, subset, split):
        assert repository == hub.RECIPES[name][0]
        return gqa(subset) if name == "gqa" else ROWS[name]()

    monkeypatch.setattr(hub, "read_hub", rows)
    result = CliRunner().invoke(main, ["data", "fetch", name, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    bench = plugins.load("bench", name)
    config = bench.Config(str(tmp_path / "out"))
    questions = bench.read(config)
    assert len(questions) == COUNTS[name]
    for question in questions:
        with (places(bench, config) / question.image).open("rb") as file:
            assert file.read() == image()["bytes"], "stored bytes, not encoded again"
    answers = [question.reference for question in questions]
    if name in ("mme", "pope", "mmbench", "gqa"):
        assert all(bench.credit(*pair) == 1 for pair in zip(questions, answers, strict=True))
    if name == "refcoco":
        assert questions[0].boxes[0].as_tuple() == pytest.approx((0.1, 0.1, 0.3, 0.3))


def test_parquet_files_in_the_lmms_lab_form(tmp_path):
    datasets = pytest.importorskip("datasets")
    source = tmp_path / "source" / "Full"
    source.mkdir(parents=True)
    for setting in ("random", "popular", "adversarial"):
        table = datasets.Dataset.from_list(list(pope())).cast_column("image", datasets.Image())
        table.to_parquet(source / f"{setting}-00000-of-00001.parquet")
    text = "".join(
        f"  - split: {setting}\n    path: Full/{setting}-*\n"
        for setting in ("random", "popular", "adversarial")
    )
    card = f"---\nconfigs:\n- config_name: Full\n  data_files:\n{text}---\n"
    (tmp_path / "source" / "README.md").write_text(card)
    hub.fetch_benchmark("pope", tmp_path / "out", str(tmp_path / "source"))
    bench = plugins.load("bench", "pope")
    assert len(bench.read(bench.Config(str(tmp_path / "out")))) == 6


@pytest.mark.parametrize(
    ("name", "wanted"), [("hrbench", None), ("scienceqa", "ScienceQA-IMG/test-*"), ("vstar", None)]
)
def test_some_are_kept_as_the_hub_has_them(name, wanted, tmp_path, monkeypatch):
    asked = []

    def download(*names, **options):
        asked.append((names, options))
        file = options["local_dir"] / (wanted or "table-*").replace("*", "0.parquet")
        file.parent.mkdir(exist_ok=True)
        file.touch()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub.fetch_benchmark(name, tmp_path / "out") == tmp_path / "out"
    (repository,), options = asked[0]
    assert repository == hub.RECIPES[name][0]
    assert options == {
        **{"repo_type": "dataset", "local_dir": tmp_path / "out"},
        "allow_patterns": wanted,
    }
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *names, **options: None)
    with pytest.raises(DataError, match=f"{repository}: no file .*came"):
        hub.fetch_benchmark(name, tmp_path / "nothing")


KEPT = [
    name for name, (_, write) in hub.RECIPES.items() if write in (hub._as_it_is, hub._scienceqa)
]


@pytest.mark.parametrize("name", KEPT)
def test_what_the_hub_does_not_give_is_one_line(name, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for source in ("", "some/where/else/altogether"):
        with pytest.raises(DataError, match="no such folder, and the Hub does not give it") as told:
            hub.fetch_benchmark(name, tmp_path / "out", source)
        assert "\n" not in str(told.value)
    split = "*" if name == "scienceqa" else "test"
    with pytest.raises(DataError, match="--split"):
        hub.fetch_benchmark(name, tmp_path / "out", split=split)


@pytest.mark.parametrize("name", ["hallusionbench", "scienceqa"])
def test_a_folder_is_copied(name, tmp_path):
    pytest.importorskip("pyarrow")
    source = tmp_path / "source"
    small_benchmarks.write(name, "parquet", source)
    args = ["data", "fetch", name, str(tmp_path / "out"), "--from", str(source)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    bench = plugins.load("bench", name)
    read = [bench.read(bench.Config(str(root))) for root in (source, tmp_path / "out")]
    assert read[0] == read[1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no file .*came"):
        hub.fetch_benchmark(name, tmp_path / "none", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="copied into itself"):
        hub.fetch_benchmark(name, source / "deeper", str(source))


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"lmms-lab/POPE: .* pip install 'cof\[hub\]'"):
        hub.fetch_benchmark("pope", tmp_path / "out")


def test_an_unknown_name_lists_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="there is: mme, pope, mmbench, vstar"):
        hub.fetch_benchmark("imagenet", tmp_path)


@pytest.mark.parametrize("name", ["mme", "textvqa", "refcoco", "gqa"])
def test_rows_write_no_file_outside_the_folder(name, tmp_path, monkeypatch):
    key = {"mme": "question_id", "textvqa": "image_id", "refcoco": "file_name", "gqa": "id"}[name]
    rows = gqa("_images") if name == "gqa" else ROWS[name]()
    bad = [{**row, key: "../../x"} for row in rows]
    monkeypatch.setattr(hub, "read_hub", lambda *asked: bad)
    with pytest.raises(DataError, match=r"lmms-lab/.*: '../../x.*' is not the name of a file"):
        hub.fetch_benchmark(name, tmp_path / "out")
