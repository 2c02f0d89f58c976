"""`cof data check`: counts, missing images, hashes, and where to get what is missing."""

import hashlib
import json
import shutil

import mme_folders
import pytest
import tables
from click.testing import CliRunner
from PIL import Image

from cof.bench import mmbench
from cof.cli import main


def check(*arguments):
    return CliRunner().invoke(main, ["data", "check", *(str(a) for a in arguments)])


@pytest.fixture
def folder(mini, tmp_path):
    return shutil.copytree(mini, tmp_path / "out")


def test_a_whole_folder_is_counted_and_verified(folder):
    result = check("pope", folder / "MiniPOPE", "--open", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    files = [f for f in (folder / "MiniPOPE").rglob("*") if f.is_file()]
    assert report["questions"] == {"adversarial": 12, "random": 12, "popular": 12}
    assert report["images"] == len(list((folder / "MiniPOPE" / "val2014").iterdir()))
    assert report["verified"] == len(files)
    assert report["problems"] == []
    assert "36 questions" in check("pope", folder / "MiniPOPE").stdout


def test_a_changed_file_is_named(folder):
    file = folder / "MiniPOPE" / "coco_pope_random.json"
    file.write_text(file.read_text().replace("yes", "no"))
    result = check("pope", folder / "MiniPOPE")
    assert result.exit_code == 1
    assert f"problem: {file}: sha256 is" in result.stdout


def test_missing_images_are_named_with_where_to_get_them(folder):
    next((folder / "MiniPOPE" / "val2014").iterdir()).unlink()
    result = check("pope", folder / "MiniPOPE")
    assert result.exit_code == 1
    assert "images are missing: val2014/COCO_val2014_" in result.stdout
    assert "get pope from: github.com/RUCAIBox/POPE" in result.stdout


def test_a_broken_image_is_found_when_images_are_opened(folder):
    (folder / "sha256.json").unlink()
    image = next((folder / "MiniPOPE" / "val2014").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    assert str(image) not in check("pope", folder / "MiniPOPE").stdout
    assert str(image) in check("pope", folder / "MiniPOPE", "--open").stdout


def test_counts_are_compared_with_the_published_ones(tmp_path):
    mme_folders.make(tmp_path, images=30, subtasks=("existence", "count"))
    result = check("mme", tmp_path)
    assert result.exit_code == 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem")]
    assert len(problems) == 12, "existence and count are complete"
    assert "problem: posters: 0 questions, the published number is 294" in problems


def test_the_published_release_passes(tmp_path):
    for subtask, count in {
        **dict.fromkeys(("existence", "count", "position", "color"), 60),
        **{"posters": 294, "celebrity": 340, "scene": 400, "landmark": 400, "artwork": 400},
        **{"OCR": 40, "commonsense_reasoning": 140, "numerical_calculation": 40},
        **{"text_translation": 40, "code_reasoning": 40},
    }.items():
        mme_folders.make(tmp_path, images=count // 2, subtasks=(subtask,))
    result = check("mme", tmp_path)
    assert result.exit_code == 0
    assert "2374 questions, 1187 images" in result.stdout


def test_known_hashes(tmp_path, monkeypatch):
    table = tmp_path / "MMBench_DEV_EN.tsv"
    picture = tmp_path / "1.png"
    Image.new("RGB", (2, 2)).save(picture)
    columns = "index\tquestion\tA\tB\tanswer\timage\n"
    import base64

    cell = base64.b64encode(picture.read_bytes()).decode()
    table.write_text(f"{columns}1\t?\ta\tb\tA\t{cell}\n")
    option = "file=MMBench_DEV_EN.tsv"
    result = check("mmbench", tmp_path, option)
    assert result.exit_code == 1
    assert "md5 is" in result.stdout
    digest = hashlib.md5(table.read_bytes()).hexdigest()
    monkeypatch.setattr(mmbench, "KNOWN_MD5", {table.name: ("of an older version", digest)})
    result = check("mmbench", tmp_path, option)
    assert result.exit_code == 0
    assert "1 files verified" in result.stdout


def test_what_cannot_be_read_is_a_problem(tmp_path):
    result = check("textvqa", tmp_path)
    assert result.exit_code == 1
    assert "holds nothing; looked for TextVQA_0.5.1_val.json" in result.stdout
    assert "textvqa.org" in result.stdout
    assert check("nonsense", tmp_path).exit_code == 2
    assert check("mme", tmp_path, "colour=red").exit_code == 2


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_pictures_of_another_size_than_is_annotated(tmp_path, kind):
    """TextVQA has the sizes; of RefCOCO, whose boxes need them, such a picture is refused."""
    (tmp_path / "train_images").mkdir()
    rows = []
    for name, width in (("a", 8), ("b", 9), ("c", None)):
        file = tmp_path / "train_images" / f"{name}.jpg"
        Image.new("RGB", (8, 6)).save(file)
        row = {"question_id": len(rows), "image_id": name, "question": "?", "answers": ["x"] * 10}
        rows.append(row | {"image_width": width, "image_height": 6, "image": file.read_bytes()})
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        tables.write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", rows)
        shutil.rmtree(tmp_path / "train_images")
    else:
        data = [{key: row[key] for key in row if key != "image"} for row in rows]
        (tmp_path / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": data}))
    said = "1 of 3 images are not of the annotated size: train_images/b.jpg is 8 x 6 pixels, ann"
    assert said in check("textvqa", tmp_path, "--open").stdout
    assert said not in check("textvqa", tmp_path).stdout
