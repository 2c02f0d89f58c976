"""Several processes answer one run: the folder is that of one process, whoever was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import make_mme

from cof import load_run
from cof.errors import RunError
from cof.store.folder import RunFolder
from cof.store.launch import Meeting, Ranks
from cof.store.records import comparable
from cof.store.waiting import Launcher, Wait, named

HERE = Path(__file__).resolve().parent
IMAGES = 20
TOTAL = 2 * IMAGES


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Name of a run -> the arguments of Python that make it."""
    root = tmp_path_factory.mktemp("parallel")
    settings = {
        "bench": {"name": "mme", "root": str(make_mme(root / "mme", IMAGES))},
        "refine": {"name": "plain"},
        "batch_size": 3,
        "out": str(root / "runs"),
    }
    (root / "c.yaml").write_text(json.dumps(settings))
    return lambda name: [str(HERE / "stub_eval.py"), "eval", str(root / "c.yaml"), f"name={name}"]


@pytest.fixture(scope="module")
def runs(command):
    return Path(command("x")[2]).parent / "runs"


@pytest.fixture(scope="module")
def alone(command, runs):
    """Records and scores of an undisturbed run in one process."""
    assert start(command("alone")).wait() == 0
    return folder_of(runs / "alone")


def start(arguments, **environment):
    there = {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **there, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def torchrun(arguments, size, **environment):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={size}"]
    return start([*launcher, *arguments], **environment)


def start_ranks(arguments, size, **environment):
    """The processes of a launch, without a launcher that ends them all when one is killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [
        start(arguments, **there, RANK=str(rank), LOCAL_RANK=str(rank), **environment)
        for rank in range(size)
    ]


def folder_of(path):
    """All that a run left, but for seconds and for where it is."""
    names = sorted(file.name for file in path.iterdir())
    lines = (path / "records.jsonl").read_text().splitlines()
    answers = sorted(file for file in (path / "answers").rglob("*") if file.is_file())
    return {
        "names": names,
        "records": [json.dumps(comparable(json.loads(line))) for line in lines],
        "manifest": {**json.loads((path / "manifest.json").read_text()), "command": ""},
        "scores": (path / "scores.json").read_text(),
        "answers": [(str(file.relative_to(path)), file.read_bytes()) for file in answers],
    }


def shards(path):
    return {file.name: file.read_bytes() for file in path.glob("records-*.jsonl")}


@pytest.mark.slow
def test_torchrun_leaves_the_folder_of_one_process(command, runs, alone):
    process = torchrun(command("torchrun"), 3)
    said = process.communicate()[1].decode()
    assert process.returncode == 0, said
    assert folder_of(runs / "torchrun") == alone
    finished = ".lock answers config.yaml manifest.json records.jsonl scores.json"
    assert alone["names"] == finished.split()
    assert [json.loads(line)["index"] for line in alone["records"]] == list(range(TOTAL))


@pytest.mark.slow
def test_a_second_launch_on_the_same_folder_is_refused_and_the_first_goes_on(
    command, runs, alone, tmp_path
):
    path, gate = runs / "twice", tmp_path / "gate"
    first = torchrun(command("twice"), 2, STUB_GATE=str(gate))
    wait_until(lambda: len(shards(path)) == 2, first)
    written = shards(path)
    seconds = [start(command("twice")), *start_ranks(command("twice"), 2)]
    for process in seconds:
        said = process.communicate()[1].decode()
        assert process.returncode == 2, said
        assert "another process is writing this run" in said
    assert shards(path) == written
    assert first.poll() is None
    gate.touch()
    said = first.communicate()[1].decode()
    assert first.returncode == 0, said
    assert folder_of(path) == alone


@pytest.mark.slow
def test_a_killed_rank_is_made_up_for_by_another_number_of_processes(
    command, runs, alone, tmp_path
):
    path, gate = runs / "killed", tmp_path / "gate"
    ranks = start_ranks(command("killed"), 3, STUB_GATE=str(gate))
    wait_until(lambda: len(shards(path)) == 3, *ranks)
    ranks[1].send_signal(signal.SIGKILL)
    gate.touch()
    said = [process.communicate()[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [2, -signal.SIGKILL, 0], said
    assert "has no record" in said[0]
    assert "the same command goes on from here" in said[0]
    left = shards(path)
    assert set(left) == {"records-0.jsonl", "records-1.jsonl", "records-2.jsonl"}
    assert not (path / "scores.json").exists()
    assert 0 < len(load_run(path).results) < TOTAL

    torn = left["records-1.jsonl"] + b'{"index": 7, "id'
    (path / "records-1.jsonl").write_bytes(torn)
    done = [process.wait() for process in start_ranks(command("killed"), 2)]
    assert done == [0, 0]
    assert folder_of(path) == alone
    kept = (path / "records.jsonl").read_bytes().splitlines(keepends=True)
    first = [line for data in left.values() for line in data.splitlines(keepends=True)]
    assert set(first) <= set(kept)


def wait_until(true, *processes):
    """As long as it takes, while the processes that shall make it true are alive."""
    while not true():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


LAUNCHER = """
import os, subprocess, sys, time
rank = subprocess.Popen(sys.argv[2:], stderr=open(sys.argv[1], "w"))
time.sleep(600)
"""
"""Starts one process of a launch, then does nothing until it is killed."""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_gives_up_when_the_launcher_is_gone(command, runs, tmp_path, rank):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    there |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "none"}
    there |= {"STUB_ORPHANED": "1", "STUB_SILENT": "0.5", "STUB_EXIT": str(tmp_path / "code")}
    said = tmp_path / "said"
    arguments = [sys.executable, *command(f"orphan-{rank}")]
    launcher = start(["-c", LAUNCHER, str(said), *arguments], **there)
    whom = f"rank {rank} waits for rank {1 - rank}"
    wait_until(lambda: said.exists() and whom in said.read_text(), launcher)
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while not (tmp_path / "code").exists():
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)
    assert (tmp_path / "code").read_text() == "2"
    last = said.read_text().splitlines()[-1]
    assert last.startswith(f"cof: {whom}, but torchrun (or accelerate), process {launcher.pid},")
    assert last.endswith("it goes on from the records that there are")


class Clock:
    """Time that passes while somebody sleeps, and a launcher that ends at some time."""

    def __init__(self, ends=None):
        self.now, self.ends = 0.0, ends

    def __str__(self):
        return "srun, process 7,"

    @property
    def gone(self):
        return self.ends is not None and self.now >= self.ends

    def sleep(self, seconds):
        self.now += seconds

    def wait(self, rank=1):
        return Wait(rank, self, lambda: self.now, self.sleep)


class TestWaiting:
    def test_it_ends_when_all_are_there(self, caplog):
        clock = Clock()
        clock.wait().until(lambda: [0] if clock.now < 29 else [])
        assert 29 <= clock.now < 30
        assert not caplog.records

    def test_a_long_one_is_spoken_of_once(self, caplog):
        clock = Clock()
        clock.wait(0).until(lambda: [1, 2, 5] if clock.now < 900 else [])
        assert [record.message for record in caplog.records] == [
            "rank 0 waits for ranks 1, 2 and 5"
        ]

    def test_without_a_launcher_it_goes_on_for_a_minute(self):
        clock = Clock(ends=200)
        with pytest.raises(
            RunError, match=r"rank 1 waits for rank 0, but srun, process 7, is gone"
        ):
            clock.wait().until(lambda: [0])
        assert 260 <= clock.now < 262

    def test_who_comes_within_that_minute_is_in_time(self):
        clock = Clock(ends=200)
        clock.wait().until(lambda: [0] if clock.now < 250 else [])

    def test_nobody_waits_for_more_than_an_hour(self):
        clock = Clock()
        with pytest.raises(RunError, match="rank 1 waits for rank 0 for 60 minutes; start"):
            clock.wait().until(lambda: [0])
        assert 3600 <= clock.now < 3602

    def test_processes_started_by_hand_have_no_launcher_to_lose(self):
        assert not Launcher.here({}).name
        assert not Launcher("", 1).gone
        assert Launcher.here({"SLURM_STEP_ID": "0"}) == Launcher("srun", os.getppid())
        assert Launcher("srun", os.getppid() + 1).gone

    def test_many_ranks_are_counted(self):
        assert named(range(1, 64)) == "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 55 more"

    def test_a_meeting_says_who_is_absent_and_that_the_launch_ended(self, monkeypatch):
        class Store(dict):
            def set(self, key, value):
                self[key] = value

            def check(self, keys):
                if len(self) == 3:
                    raise RuntimeError("Connection reset\nmore")
                self[len(self)] = ""  # somebody else's
                return keys[0].endswith("-2")

        monkeypatch.setattr("cof.store.launch._store", lambda ranks: Store())
        with pytest.raises(
            RunError, match=r"rank 0 waits for ranks 1 and 3, .*\(Connection reset\)"
        ):
            Meeting(Ranks(0, 4)).gather("here")


class TestMerge:
    @pytest.fixture
    def folder(self, tmp_path):
        return RunFolder(tmp_path)

    def write(self, folder, name, indexes, text="x"):
        lines = [json.dumps({"index": index, "text": text}) + "\n" for index in indexes]
        (folder.path / name).write_text("".join(lines))

    def test_shards_become_one_file_in_dataset_order(self, folder):
        self.write(folder, "records.jsonl", [4, 0])
        self.write(folder, "records-0.jsonl", [3])
        self.write(folder, "records-10.jsonl", [2, 1])
        folder.merge(5)
        assert [record["index"] for record in folder.records()] == [0, 1, 2, 3, 4]
        assert [file.name for file in folder.path.iterdir()] == ["records.jsonl"]

    def test_the_first_missing_question_is_named(self, folder):
        self.write(folder, "records-0.jsonl", [0, 1, 4])
        with pytest.raises(RunError, match=r"question 2 has no record \(3 of 5 have\)"):
            folder.merge(5)
        assert (folder.path / "records-0.jsonl").exists()

    def test_a_question_with_two_records_is_named(self, folder):
        self.write(folder, "records-0.jsonl", [0, 1])
        self.write(folder, "records-1.jsonl", [1, 2])
        with pytest.raises(RunError, match=r"question 1 has records in records-0.* and records-1"):
            folder.merge(3)

    def test_a_record_of_no_question_is_named(self, folder):
        self.write(folder, "records-0.jsonl", [0, 1, 2])
        with pytest.raises(RunError, match=r"a record of question 2, but there are 2"):
            folder.merge(2)

    def test_a_merge_that_was_killed_is_done_again(self, folder):
        self.write(folder, "records.jsonl", [0, 1, 2])
        self.write(folder, "records-1.jsonl", [1])
        folder.merge(3)
        assert [record["index"] for record in folder.records()] == [0, 1, 2]
        assert not (folder.path / "records-1.jsonl").exists()
        self.write(folder, "records-1.jsonl", [1], text="another answer")
        with pytest.raises(RunError, match="question 1 has records in"):
            folder.merge(3)


class TestLocks:
    def test_the_ranks_of_one_launch_write_together_and_others_are_refused(self, tmp_path):
        zero, one, same = (RunFolder(tmp_path, Ranks(rank, 2)) for rank in (0, 1, 1))
        with zero.locked(), one.locked():
            for other in (RunFolder(tmp_path), same, RunFolder(tmp_path, Ranks(0, 3))):
                with pytest.raises(RunError, match="another process is writing"), other.locked():
                    pass

    def test_a_process_left_of_a_launch_keeps_the_next_one_out(self, tmp_path):
        with (
            RunFolder(tmp_path, Ranks(2, 3)).locked(),
            pytest.raises(RunError, match="another process is writing"),
            RunFolder(tmp_path).locked(),
        ):
            pass


class TestGpu:
    """Which GPU a process takes, on a machine that seems to have two."""

    @pytest.fixture
    def taken(self, monkeypatch):
        """The numbers that were made current."""
        import torch

        chosen = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: [0, *chosen][-1])
        return chosen

    @pytest.mark.parametrize(
        ("ranks", "device", "place"),
        [
            (Ranks(3, 4, 1), "auto", "cuda:1"),
            (Ranks(3, 4, 1), "cuda", "cuda:1"),
            (Ranks(2, 4, 0), "auto", "cuda:0"),
            (Ranks(3, 4, 1), "cuda:0", "cuda:0"),
            (Ranks(3, 4, 1), "cpu", "cpu"),
            (Ranks(0, 1, 1), "auto", "cuda:0"),
        ],
    )
    def test_local_rank_names_it(self, taken, ranks, device, place):
        from cof.models.llava.model import pick_device

        ranks.take_gpu(device)
        assert pick_device(device) == place

    def test_more_processes_than_gpus_are_refused(self, taken):
        with pytest.raises(RunError, match="LOCAL_RANK=2: there are 2 GPUs"):
            Ranks(2, 3, 2).take_gpu("auto")
        assert not taken

    def test_without_a_gpu_nothing_is_taken(self, taken, monkeypatch):
        import torch

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        Ranks(2, 3, 2).take_gpu("auto")
        assert not taken


class TestEnvironment:
    def test_without_a_launcher_there_is_one_process(self, monkeypatch):
        for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(key, raising=False)
        assert Ranks.here() == Ranks(0, 1, 0)

    @pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("0", "x")])
    def test_nonsense_is_refused_with_its_values(self, monkeypatch, rank, size):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(RunError, match=f"RANK={rank}, WORLD_SIZE={size}"):
            Ranks.here()

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_every_batch_is_dealt_once(self, size):
        dealt = [Ranks(rank, size).deal(range(20)) for rank in range(size)]
        assert sorted(number for part in dealt for number in part) == list(range(20))
