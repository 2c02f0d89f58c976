"""lmms-eval's own command on its own MME and POPE, where it is installed: as `cof eval`."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import tables
from minis import FOLDERS

from cof.config import plugins, schema
from cof.evaluate.runner import run
from cof.store.records import from_record

METRICS = {
    "mme": {"mme_perception_score": "perception"},
    "pope": {f"pope_{name}": name for name in ("accuracy", "precision", "recall")}
    | {"pope_f1_score": "f1"},
}
"""Benchmark -> what lmms-eval calls a score, and we."""

UNSHIPPED = """\
output_type: generate_until
doc_to_visual: !function utils.mme_doc_to_visual
doc_to_text: !function utils.mme_doc_to_text
doc_to_target: answer
generation_kwargs: {max_new_tokens: 16, temperature: 0, do_sample: false}
process_results: !function utils.mme_process_results
metric_list:
  - metric: mme_perception_score
    aggregation: !function utils.mme_aggregate_results
    higher_is_better: true
lmms_eval_specific_kwargs:
  default: {pre_prompt: "", post_prompt: "\\nAnswer the question using a single word or phrase."}
"""
"""MME's task around its own functions: packages of 0.5 and 0.6 hold no definitions of tasks."""


def write_data(file, rows):
    """A table as `datasets` opens it, with decoded pictures."""
    import pyarrow
    import pyarrow.parquet

    text, picture = {"dtype": "string", "_type": "Value"}, {"_type": "Image"}
    features = {name: picture if name == "image" else text for name in rows[0]}
    described = json.dumps({"info": {"features": features}})
    cells = [{**row, "image": {"bytes": row["image"], "path": ""}} for row in rows]
    table = pyarrow.Table.from_pylist(cells).replace_schema_metadata({"huggingface": described})
    pyarrow.parquet.write_table(table, file)


def write_task(folder, name, shipped):
    """The definition that lmms-eval ships, with the dataset from disk; or MME's by hand."""
    own = (
        f"dataset_path: parquet\ndataset_kwargs: {{data_files: {{test: {folder}/{name}.parquet}}}}"
    )
    text = f"include: {shipped}\n" if shipped.exists() else UNSHIPPED
    (folder / "utils.py").write_text("from lmms_eval.tasks.mme.utils import *\n")
    (folder / f"mini_{name}.yaml").write_text(
        f"{text}{own}\ntask: mini_{name}\ntest_split: test\n", encoding="utf-8"
    )


def call(folder, tasks):
    """lmms-eval with our model; by entry point or LMMS_EVAL_PLUGINS, whichever it reads.

    Returns: what it says of each task.
    """
    command = [
        *(sys.executable, "-m", "lmms_eval", "--model", "cof", "--device", "cpu"),
        *("--model_args", "pretrained=cof-tiny,weight=4.5,name=records", "--batch_size", "8"),
        *("--include_path", str(folder), "--tasks", ",".join(tasks)),
        *("--output_path", str(folder / "out"), "--log_samples"),
    ]
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    given = {
        **os.environ,
        **{"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        **{"PYTHONPATH": os.pathsep.join(filter(None, places))},
    }
    known = any(one.name == "cof" for one in metadata.entry_points(group="lmms_eval.models"))
    if not known or metadata.version("lmms_eval") < "0.6":
        given["LMMS_EVAL_PLUGINS"] = "cof.harness.lmms_eval"
    done = subprocess.run(command, env=given, capture_output=True, text=True, cwd=folder)
    found = list((folder / "out").glob("*/*_results.json"))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(found[0].read_text())["results"]


@pytest.mark.slow
def test_its_own_command_gives_what_cof_eval_gives(mini, tmp_path):
    lmms_eval = pytest.importorskip("lmms_eval")
    pytest.importorskip("datasets")
    shipped = Path(lmms_eval.__file__).parent / "tasks"
    names = [name for name in METRICS if name == "mme" or (shipped / name / "pope.yaml").exists()]
    roots = {name: mini / FOLDERS[name] for name in names}
    asked = {}
    for name, root in roots.items():
        bench = plugins.load("bench", name)
        asked[name] = sorted(bench.read(bench.Config(str(root))), key=lambda x: (x.category, x.id))
        rows = list(getattr(tables, f"{name}_rows")(root, asked[name]))
        write_data(tmp_path / f"{name}.parquet", rows)
        write_task(tmp_path, name, shipped / name / f"{name}.yaml")
    said = call(tmp_path, [f"mini_{name}" for name in names])
    lines = (tmp_path / "out" / "records" / "records.jsonl").read_text().splitlines()
    records = {(one["task"], one["doc_id"]): one for one in map(json.loads, lines)}
    assert len(lines) == sum(map(len, asked.values()))
    for name, root in roots.items():
        limits = {"max_new_tokens": records[f"mini_{name}", 0]["limits"]["max_new_tokens"]}
        config = {
            "model": {"path": "cof-tiny", "device": "cpu"},
            "bench": {"name": name, "root": str(root)},
            **{"limits": limits, "batch_size": 8, "out": str(tmp_path), "name": name},
        }
        ours = run(schema.resolve({**config, "plain": False}))
        scores = ours.scores["cof"].get("pooled", ours.scores["cof"])
        for theirs, own in METRICS[name].items():
            assert said[f"mini_{name}"][f"{theirs},none"] == pytest.approx(scores[own]), theirs
        found = {result.question.id: result for result in ours.results}
        for row, question in enumerate(asked[name]):
            other, result = from_record(records[f"mini_{name}", row]), found[question.id]
            assert other.question.text == question.text
            assert (other.region.reply, other.cells) == (result.region.reply, result.cells)
            assert (other.cof.text, other.cof.tokens) == (result.cof.text, result.cof.tokens)
