"""Mini benchmarks: the published layouts, repeatable, with true regions."""

from __future__ import annotations

import csv
import json

import pytest
from click.testing import CliRunner
from PIL import Image

from cof.cli import main
from cof.cli.data import mini
from cof.errors import DataError
from cof_lab.mini.common import MiniConfig
from cof_lab.mini.write import PARTS, write_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini") / "a"
    write_all(out, MiniConfig(seed=5, size=3))
    return out


def test_the_same_command_writes_the_same_files(folder, tmp_path):
    write_all(tmp_path / "b", MiniConfig(seed=5, size=3))
    assert (folder / "sha256.json").read_bytes() == (tmp_path / "b/sha256.json").read_bytes()
    for other in (MiniConfig(), MiniConfig(seed=5, size=30), MiniConfig(5, 3, "fine")):
        with pytest.raises(DataError, match="not empty"):
            write_all(tmp_path / "b", other)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").touch()
    with pytest.raises(DataError, match="not empty"):
        write_all(tmp_path / "c", MiniConfig(seed=5, size=3))


def test_only_what_is_asked_for_is_drawn_and_pieces_make_the_whole(folder, tmp_path, monkeypatch):
    out, settings = tmp_path / "b", MiniConfig(seed=5, size=3)
    assert write_all(out, settings, ["grounding"]) == {"grounding": 3}
    assert {path.name for path in out.iterdir()} == {"grounding", "README.md", "sha256.json"}
    assert "--difficulty easy --only grounding`" in (out / "README.md").read_text()
    with monkeypatch.context() as killed:
        killed.setattr("cof_lab.mini.mme.write_lines", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_all(out, settings, ["MiniMME"])
    assert not (out / "MiniMME").exists()
    drawn = (out / "grounding").stat().st_mtime_ns
    assert write_all(out, settings, ["MiniMME", "grounding"]) == {"MiniMME": 30, "grounding": 3}
    write_all(out, settings)
    assert (out / "grounding").stat().st_mtime_ns == drawn
    for name in ("README.md", "sha256.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_the_command_draws_what_scripts_and_configs_use(tmp_path):
    done = CliRunner().invoke(
        main, ["data", "mini", str(tmp_path / "a"), "--size", "1", "--only", "MiniMME"]
    )
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'a' / 'MiniMME'}: 10 questions\n")
    assert "--difficulty fine" in (tmp_path / "a" / "README.md").read_text()
    (option,) = [one for one in mini.params if one.name == "only"]
    assert tuple(option.type.choices) == tuple(PARTS)


def test_minimme_is_the_release_layout(folder):
    root = folder / "MiniMME"
    names = {path.name for path in root.iterdir() if path.is_dir()}
    assert names == {"existence", "count", "position", "color", "OCR"}
    for text in root.glob("*/*.txt"):
        with Image.open(text.with_suffix(".jpg")) as image:
            assert max(image.size) == 140
        rows = [line.split("\t") for line in text.read_text(encoding="utf-8").splitlines()]
        assert [answer for _, answer in rows] == ["Yes", "No"]
        assert all(question.endswith(" Please answer yes or no.") for question, _ in rows)
    regions = [json.loads(line) for line in (root / "regions.jsonl").read_text().splitlines()]
    assert len(regions) == 5 * 3 * 2
    for row in regions:
        assert all(0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 for box in row["boxes"])
        assert bool(row["boxes"]) or row["image"].startswith("existence")


def test_minipope_shares_its_yes_questions(folder):
    asked = {}
    for setting in ("random", "popular", "adversarial"):
        path = folder / f"MiniPOPE/coco_pope_{setting}.json"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["question_id"] for row in rows] == list(range(1, 19))
        asked[setting] = [(r["image"], r["text"]) for r in rows if r["label"] == "yes"]
        assert len(asked[setting]) == 9
        assert all((folder / "MiniPOPE/val2014" / row["image"]).exists() for row in rows)
    assert asked["random"] == asked["popular"] == asked["adversarial"]


def test_minimmbench_holds_every_rotation(folder):
    path = folder / "MiniMMBench/mmbench_dev_20230712.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    groups: dict[int, list[dict]] = {}
    for row in rows:
        groups.setdefault(int(row["index"]) % 1_000_000, []).append(row)
    assert len(groups) == 15
    for group in groups.values():
        options = [row[letter] for letter in "ABCD" if (row := group[0])[letter]]
        assert len(group) == len(options)
        assert len({row[row["answer"]] for row in group}) == 1


def test_minivstar_puts_the_right_option_first(folder):
    files = sorted((folder / "MiniVStar").glob("*/*.json"))
    assert len(files) == 6
    for path in files:
        row = json.loads(path.read_text())
        assert path.with_suffix(".jpg").exists()
        assert len(row["target_object"]) == len(row["bbox"])
        if path.parent.name == "relative_position":
            assert row["options"][0] != row["options"][1]
            assert len(row["options"]) == 2
