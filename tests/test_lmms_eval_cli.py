"""lmms-eval's own command with the plug-in, where lmms-eval is installed: as `cof eval`."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cof.bench import mme
from cof.prompts import SHORT_ANSWER
from cof.store.records import from_record

TASK = """\
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {folder}/test.parquet}}}}
task: mini_mme
test_split: test
output_type: generate_until
doc_to_visual: !function utils.mme_doc_to_visual
doc_to_text: !function utils.mme_doc_to_text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 16, temperature: 0, do_sample: false}}
process_results: !function utils.mme_process_results
metric_list:
  - metric: mme_perception_score
    aggregation: !function utils.mme_aggregate_results
    higher_is_better: true
lmms_eval_specific_kwargs:
  default: {{pre_prompt: "", post_prompt: "{suffix}"}}
"""


def write_task(folder, root, questions):
    """A task of lmms-eval with MME's own functions, its dataset on disk."""
    import pyarrow
    import pyarrow.parquet

    names = ("question_id", "question", "answer", "category")
    rows = [
        {
            "question_id": one.image,
            "question": f"{one.text.removesuffix(SHORT_ANSWER)} Please answer yes or no.",
            "answer": one.reference,
            "category": one.category,
            "image": {"bytes": (root / one.image).read_bytes(), "path": one.image},
        }
        for one in questions
    ]
    features = {name: {"dtype": "string", "_type": "Value"} for name in names}
    described = json.dumps({"info": {"features": {**features, "image": {"_type": "Image"}}}})
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": described})
    pyarrow.parquet.write_table(table, folder / "test.parquet")
    (folder / "utils.py").write_text("from lmms_eval.tasks.mme.utils import *\n")
    suffix = SHORT_ANSWER.replace("\n", "\\n")
    (folder / "mini_mme.yaml").write_text(TASK.format(folder=folder, suffix=suffix))


@pytest.mark.slow
def test_its_own_command_gives_what_cof_eval_gives(mini, tmp_path):
    """Entry point or LMMS_EVAL_PLUGINS, whichever the installed version reads."""
    for name in ("lmms_eval", "datasets", "pyarrow"):
        pytest.importorskip(name)
    from cof.config import schema
    from cof.evaluate.runner import run

    root = mini / "MiniMME"
    write_task(tmp_path, root, mme.read(mme.Config(str(root))))
    command = [
        *(sys.executable, "-m", "lmms_eval", "--model", "cof", "--device", "cpu"),
        *("--model_args", "pretrained=cof-tiny,weight=4.5,name=records", "--batch_size", "8"),
        *("--include_path", str(tmp_path), "--tasks", "mini_mme"),
        *("--output_path", str(tmp_path / "out"), "--log_samples"),
    ]
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    given = {
        **os.environ,
        **{"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        **{"PYTHONPATH": os.pathsep.join(filter(None, places))},
    }
    known = any(one.name == "cof" for one in metadata.entry_points(group="lmms_eval.models"))
    if not known or metadata.version("lmms_eval") < "0.6":
        given["LMMS_EVAL_PLUGINS"] = "cof.harness.lmms_eval"
    done = subprocess.run(command, env=given, capture_output=True, text=True, cwd=tmp_path)
    found = list((tmp_path / "out").glob("*/*_results.json"))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    config = schema.resolve(
        {
            "model": {"path": "cof-tiny", "device": "cpu"},
            "bench": {"name": "mme", "root": str(root)},
            "limits": {"max_new_tokens": 16},
            **{"plain": False, "batch_size": 8, "out": str(tmp_path), "name": "run"},
        }
    )
    ours = run(config)
    score = json.loads(found[0].read_text())["results"]["mini_mme"]["mme_perception_score,none"]
    assert score == pytest.approx(ours.scores["cof"]["perception"])
    lines = (tmp_path / "out" / "records" / "records.jsonl").read_text().splitlines()
    theirs = {record["doc_id"]: from_record(record) for record in map(json.loads, lines)}
    for row, result in enumerate(ours.results):
        other = theirs[row]
        assert (other.region.reply, other.cells) == (result.region.reply, result.cells)
        assert (other.cof.text, other.cof.tokens) == (result.cof.text, result.cof.tokens)
