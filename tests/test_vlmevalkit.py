"""The launcher for VLMEvalKit: on VLMEvalKit where it is installed, else on what it touches."""

import csv
import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tables

from cof import CoF
from cof.bench import mme
from cof.prompts import SHORT_ANSWER

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ["pretrained=cof-tiny", "device=cpu", "weight=2", "max_new_tokens=8", "name=mine"]

STAND_IN = {
    "vlmeval/__init__.py": "",
    "vlmeval/config.py": "supported_VLM = {}\n",
    "vlmeval/dataset.py": "DATASET_TYPE = lambda name: 'Y/N' if name == 'MME' else 'MCQ'\n",
    "vlmeval/vlm/__init__.py": "",
    "vlmeval/vlm/base.py": """
class BaseModel:
    def __init__(self):
        self.dump_image_func = None
    def set_dump_image(self, function):
        self.dump_image_func = function
    def dump_image(self, line, dataset):
        return self.dump_image_func(line)
    def generate(self, message, dataset=None):
        return self.generate_inner(message, dataset)
""",
    # a benchmark that fails is skipped, and the model asked for by name again
    "run.py": """
import argparse, json, os
from vlmeval.config import supported_VLM
parser = argparse.ArgumentParser()
parser.add_argument("--data", nargs="+"), parser.add_argument("--model", nargs="+")
parser.add_argument("--work-dir")
given = parser.parse_args()
rows, said, model = json.load(open("rows.json")), [], given.model[0]
for name in given.data:
    try:
        if isinstance(model, str):
            kept = os.environ.pop("WORLD_SIZE", None)
            built = supported_VLM[model]()
            os.environ.update({"WORLD_SIZE": kept} if kept else {})
        built.set_dump_image(lambda line: [line["image_path"]])
        if not built.use_custom_prompt(name):
            twice = [dict(type="image", value="a"), dict(type="image", value="b")]
            built.generate(message=twice, dataset=name)
        for row in rows:
            message = built.build_prompt(row, dataset=name)
            said.append(built.generate(message=message, dataset=name))
        model = built
    except Exception as error:
        said.append(str(error))
json.dump(said, open("said.json", "w"))
""",
}

REAL = """
from vlmeval.dataset.image_yorn import ImageYORNDataset
ImageYORNDataset.DATASET_MD5 = {}  # this table is no download of theirs
from vlmeval.run import main
main()
"""


def launch(folder, *theirs, **given):
    """The launcher, in a folder with `kit/run.py`."""
    command = [sys.executable, str(ROOT / "examples/vlmevalkit.py"), "kit", *OPTIONS, *theirs]
    path = ":".join([str(ROOT), *filter(None, sys.path)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **given}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def asked(mini):
    """Questions of MiniMME, and the answers of the pipeline."""
    root = mini / "MiniMME"
    questions = mme.read(mme.Config(str(root)))[:4]
    cof = CoF.from_pretrained("cof-tiny", weight=2, max_new_tokens=8, device="cpu")
    return root, questions, [cof(root / one.image, one.text).text for one in questions]


@pytest.mark.slow
def test_its_run_py_gets_the_answers_of_the_pipeline(asked, tmp_path):
    root, questions, expected = asked
    for name, text in STAND_IN.items():
        (tmp_path / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kit" / name).write_text(text)
    rows = [
        {
            "question": f"{one.text.removesuffix(SHORT_ANSWER)} Please answer yes or no.",
            "image_path": str(root / one.image),
        }
        for one in questions
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    printed = launch(tmp_path, "--data", "MMBench", "MME", "--work-dir", "out", **ranks)
    refused, *said = json.loads((tmp_path / "said.json").read_text())
    assert said == expected
    assert "MMBench: CoF asks about one picture; this message has image, image" in refused
    lines = (tmp_path / "out" / "mine" / "records-1.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["question"] for record in records] == [one.text for one in questions]
    assert [record["index"] for record in records] == [1, 3, 5, 7]
    assert printed.count("CoF: 4 questions, records in") == 1


@pytest.mark.parametrize(
    ("theirs", "more"),
    [
        (["--data", "MME"], ["--model", "cof"]),
        (["--data", "MME", "--model=cof"], []),
        (["--config", "any.json"], []),
    ],
)
def test_the_model_is_named_where_nothing_else_names_one(theirs, more):
    found = runpy.run_path(str(ROOT / "examples/vlmevalkit.py"))
    assert found["with_model"](theirs) == theirs + more


def test_records_go_beside_its_own_output(monkeypatch):
    found = runpy.run_path(str(ROOT / "examples/vlmevalkit.py"))["work_dir"]
    assert [found([]), found(["--data", "MME", "--work-dir=a"])] == ["./outputs", "a"]
    monkeypatch.setenv("MMEVAL_ROOT", "b")
    assert found(["--work-dir", "a"]) == "b"


@pytest.mark.slow
def test_vlmevalkit_itself_gets_them_where_it_is_installed(asked, tmp_path):
    if find_spec("vlmeval") is None:
        pytest.skip("VLMEvalKit is not installed")
    root, questions, expected = asked
    rows = list(tables.mme_rows(root, questions))
    named = [row | {"image_path": Path(row["question_id"]).stem + ".png"} for row in rows]
    tables.write_tsv(tmp_path / "data" / "MME.tsv", named)
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "run.py").write_text(REAL)
    theirs = ("--data", "MME", "--judge", "exact_matching", "--work-dir", "out")
    launch(tmp_path, *theirs, LMUData=str(tmp_path / "data"), MMEVAL_ROOT="there")
    lines = (tmp_path / "there" / "mine" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    order = sorted(range(len(questions)), key=lambda row: questions[row].id)
    assert [one["question"] for one in records] == [questions[row].text for row in order]
    assert [one["cof"]["text"] for one in records] == [expected[row] for row in order]
    with (tmp_path / "there/cof/cof_MME_score.csv").open() as file:
        [score] = csv.DictReader(file)
    right = [expected[row] == questions[row].reference for row in order]
    pairs = [all(right[place : place + 2]) for place in range(0, len(right), 2)]
    perception = 100 * (sum(right) / len(right) + sum(pairs) / len(pairs))
    assert float(score["perception"]) == pytest.approx(perception)
