"""Kill real `cof eval` processes at random moments; the final records are those of a quiet run.

The first kills strike while the process starts, the last ones while it scores, the others while
it answers.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import make_mme

from cof import load_run
from cof.store.records import comparable

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
KILLS = 24
IMAGES = 60
TOTAL = 2 * IMAGES


@pytest.fixture
def command(tmp_path):
    data = make_mme(tmp_path / "mme", IMAGES)
    file = tmp_path / "c.yaml"
    bench = {"name": "mme", "root": str(data)}
    settings = {"bench": bench, "refine": {"name": "plain"}, "batch_size": 3}
    file.write_text(json.dumps({**settings, "out": str(tmp_path / "runs")}))

    def make(name):
        return [sys.executable, HERE / "stub_eval.py", "eval", file, f"name={name}"]

    return make


def start(command, delay, stderr=subprocess.DEVNULL):
    """A run of its own; Ctrl-C reaches it even where this suite itself runs in the background."""
    environment = {**os.environ, "STUB_DELAY": str(delay), "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(process, records, target):
    """Until there are `target` records, or the process is gone."""
    while process.poll() is None:
        if records.exists() and records.read_bytes().count(b"\n") >= target:
            return
        time.sleep(0.001)


def test_killed_at_random_moments_a_run_loses_and_repeats_nothing(command, tmp_path):
    rng = random.Random(20241222)
    assert start(command("quiet"), 0).wait() == 0
    quiet = tmp_path / "runs" / "quiet" / "records.jsonl"
    records = tmp_path / "runs" / "killed" / "records.jsonl"
    killed = 0
    for kill in range(KILLS):
        starting = kill < 6
        process = start(command("killed"), 0.2 if starting else 0.01)
        if not starting:
            wait_for(process, records, min(TOTAL, TOTAL * (kill - 5 + rng.random()) / (KILLS - 8)))
        time.sleep(rng.uniform(0, 0.6 if starting else 0.02))
        process.kill()
        killed += process.wait() == -signal.SIGKILL  # a busy machine may let it end before
        (records.parent / "scores.json").unlink(missing_ok=True)
    assert killed > KILLS / 2
    assert start(command("killed"), 0).wait() == 0

    one, two = load_run(quiet.parent), load_run(records.parent)
    lines = [[json.loads(x) for x in path.read_text().splitlines()] for path in (quiet, records)]
    assert len(lines[0]) == TOTAL
    assert [comparable(x) for x in lines[1]] == [comparable(x) for x in lines[0]]
    assert two.scores == one.scores
    assert {**two.manifest, "command": ""} == {**one.manifest, "command": ""}


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(command, tmp_path):
    records = tmp_path / "runs" / "stopped" / "records.jsonl"
    process = start(command("stopped"), 0.05, stderr=subprocess.PIPE)
    wait_for(process, records, 5)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "cof: stopped; the same command goes on from here" in said
    assert "Traceback" not in said
    assert start(command("stopped"), 0).wait() == 0
    assert len(load_run(records.parent).results) == TOTAL
