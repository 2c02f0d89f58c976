"""The launcher for VLMEvalKit, on a stand-in of the parts of it that the launcher touches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cof import CoF
from cof.bench import mme
from cof.prompts import SHORT_ANSWER

ROOT = Path(__file__).resolve().parents[1]

STAND_IN = {
    "vlmeval/__init__.py": "",
    "vlmeval/config.py": "supported_VLM = {}\n",
    "vlmeval/dataset.py": "DATASET_TYPE = lambda name: 'Y/N' if name == 'MME' else 'MCQ'\n",
    "vlmeval/vlm/__init__.py": "",
    "vlmeval/vlm/base.py": """
class BaseModel:
    def dump_image(self, line, dataset):
        return [line["image_path"]]
    def generate(self, message, dataset=None):
        return self.generate_inner(message, dataset)
""",
    "run.py": """
import argparse, json, os
from vlmeval.config import supported_VLM
parser = argparse.ArgumentParser()
parser.add_argument("--data"), parser.add_argument("--model"), parser.add_argument("--work-dir")
given = parser.parse_args()
os.environ.pop("WORLD_SIZE", None)  # as its own inference does around building a model
model = supported_VLM[given.model]()
rows = json.load(open("rows.json"))
assert model.use_custom_prompt("MME") and not model.use_custom_prompt("MMBench")
asked = [model.build_prompt(row, dataset="MME") for row in rows]
said = [model.generate(message=message, dataset="MME") for message in asked]
try:
    model.generate(message=[dict(type="image", value="a"), dict(type="image", value="b")])
except Exception as error:
    said.append(str(error))
json.dump(said, open("said.json", "w"))
""",
}


@pytest.mark.slow
def test_its_run_py_gets_the_answers_of_the_pipeline(mini, tmp_path):
    for name, text in STAND_IN.items():
        (tmp_path / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kit" / name).write_text(text)
    root = mini / "MiniMME"
    questions = mme.read(mme.Config(str(root)))[:3]
    rows = [
        {
            "question": f"{one.text.removesuffix(SHORT_ANSWER)} Please answer yes or no.",
            "image_path": str(root / one.image),
        }
        for one in questions
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    options = ["pretrained=cof-tiny", "device=cpu", "weight=2", "max_new_tokens=8", "name=mine"]
    command = [sys.executable, str(ROOT / "examples/vlmevalkit.py"), "kit", *options]
    theirs = ["--data", "MME", "--work-dir", "out"]
    launch = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *theirs],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **launch},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cof = CoF.from_pretrained("cof-tiny", weight=2, max_new_tokens=8, device="cpu")
    expected = [cof(root / one.image, one.text).text for one in questions]
    *said, refused = json.loads((tmp_path / "said.json").read_text())
    assert said == expected
    assert "this message has image, image" in refused
    lines = (tmp_path / "out" / "mine" / "records-1.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["question"] for record in records] == [one.text for one in questions]
    assert [record["index"] for record in records] == [1, 3, 5]
    assert "CoF: 3 questions, records in" in done.stdout
