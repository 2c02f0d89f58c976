"""What the system refuses is one line with file and reason, and everything goes on afterwards."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import StubPipeline, make_mme

from cof import load_run
from cof.cli import LazyGroup, main
from cof.config import schema
from cof.evaluate import runner
from cof.evaluate.runner import run
from cof.files import DiskError
from cof.store import locks
from cof.store.folder import RunFolder
from cof.store.launch import Ranks
from cof.store.records import comparable

ROOT = Path(__file__).resolve().parents[1]
NEED_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


def invoke(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def is_one_line(done, *parts):
    assert done.exit_code not in (0, 1), done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("cof: ")
    for part in parts:
        assert str(part) in line, (part, line)


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path / "runs", make_mme(tmp_path / "mme", 4), right_with(0.5, 0.7))


@pytest.fixture
def blocked(tmp_path):
    """A folder that nobody can make, root neither: it lies below a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


class TestOutput:
    @NEED_FULL
    @pytest.mark.parametrize("arguments", [["--help"], ["pack", "--help"]])
    def test_a_full_standard_output(self, arguments):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "cof.cli", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        assert done.returncode == 2
        assert done.stderr == "cof: output: No space left on device\n"

    def test_unwritable_places(self, made, blocked):
        is_one_line(invoke("report", made.path, "--out", blocked), blocked, "is no folder")
        is_one_line(invoke("pack", made.path, "--out", blocked), blocked, "is no folder")
        is_one_line(invoke("data", "mini", blocked, "--size", 1), blocked, "is no folder")

    def test_whatever_else_the_system_refuses(self, monkeypatch):
        def broken(self, ctx):
            raise OSError(errno.EMFILE, "Too many open files", "/some/file")

        monkeypatch.setattr(LazyGroup, "invoke", broken)
        is_one_line(invoke("pack"), "/some/file: Too many open files")

    def test_an_error_without_a_number_is_a_bug(self, monkeypatch):
        def broken(self, ctx):
            raise OSError("cannot identify image file")

        monkeypatch.setattr(LazyGroup, "invoke", broken)
        assert isinstance(invoke("pack").exception, OSError)

    def test_nothing_that_is_quoted_breaks_the_line(self, tmp_path):
        done = invoke("compare", tmp_path / "a\nb\u202ec\x1b[31m")
        is_one_line(done, "not a run folder")
        assert "\u202e" not in done.stderr
        assert "\x1b" not in done.stderr

    def test_windows_is_told_at_the_start(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "win32")
        is_one_line(invoke("pack", "x", "--out", "y"), "Linux and macOS")


class TestRuns:
    @pytest.fixture
    def settings(self, tmp_path, monkeypatch):
        data = make_mme(tmp_path / "mme", 6)
        monkeypatch.setattr(runner, "build_pipeline", lambda one: StubPipeline())
        bench = {"name": "mme", "root": str(data)}

        def make(name):
            top = {"out": str(tmp_path / "runs"), "name": name, "batch_size": 4}
            return schema.resolve({"bench": bench, "refine": {"name": "plain"}, **top})

        return make

    @pytest.mark.parametrize("step", range(1, 13))
    def test_a_disk_that_fills_at_any_moment_loses_nothing(self, settings, monkeypatch, step):
        """Every flush to the disk, of config, manifest, records and scores, fails once."""
        calls, fsync = [], os.fsync

        def full(number):
            calls.append(number)
            if len(calls) == step:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(number)

        monkeypatch.setattr(os, "fsync", full)
        try:
            done = run(settings("r"))
        except DiskError as error:
            assert "No space left on device" in str(error)  # noqa: PT017
            done = run(settings("r"))
        monkeypatch.setattr(os, "fsync", fsync)
        whole = run(settings("whole"))
        texts = [
            [comparable(line) for line in RunFolder(one.path).records()] for one in (done, whole)
        ]
        assert texts[0] == texts[1]
        assert done.scores == whole.scores
        assert not [file for file in done.path.iterdir() if "being-written" in file.name]

    def test_a_folder_that_vanishes(self, settings, tmp_path, monkeypatch):
        append = RunFolder.append

        def gone(self, rows):
            os.rename(self.path, tmp_path / "elsewhere")
            append(self, rows)

        monkeypatch.setattr(RunFolder, "append", gone)
        with pytest.raises(DiskError, match=r"records.jsonl: cannot be written \(No such file"):
            run(settings("r"))

    def test_a_torn_record_is_cut_off(self, settings):
        whole = run(settings("r"))
        with (whole.path / "records.jsonl").open("ab") as file:
            file.write(b'{"index": 12, "id"')
        assert load_run(whole.path).results == whole.results

    def test_what_killed_writers_left_is_cleared_away(self, settings):
        path = run(settings("r")).path
        (path / ".records.being-written-99.jsonl").write_text("x")
        (path / ".files.being-written-99").mkdir()
        run(settings("r"))
        assert not list(path.glob(".*being*"))


class TestLocks:
    @pytest.fixture
    def precious(self, tmp_path):
        file = tmp_path / "thesis.tex"
        file.write_text("years of work")
        return file

    @pytest.mark.parametrize("name", [".lock", ".lock-1"])
    def test_a_link_is_neither_followed_nor_emptied(self, tmp_path, precious, name):
        folder = tmp_path / "r"
        folder.mkdir()
        (folder / name).symlink_to(precious)
        ranks = Ranks(1, 2) if name == ".lock-1" else Ranks()
        with (
            pytest.raises(Exception, match=r"cannot be written"),
            RunFolder(folder, ranks).locked(),
        ):
            pass
        assert precious.read_text() == "years of work"

    def test_a_link_that_leads_nowhere_makes_no_file(self, tmp_path):
        folder = tmp_path / "r"
        folder.mkdir()
        (folder / ".lock").symlink_to(tmp_path / "none")
        with pytest.raises(Exception, match=r"cannot be written"), RunFolder(folder).locked():
            pass
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_what_is_no_file_does_not_hang(self, tmp_path, make):
        folder = tmp_path / "r"
        folder.mkdir()
        make(folder / ".lock")
        with (
            pytest.raises(Exception, match=r"Is a directory|is a pipe"),
            RunFolder(folder).locked(),
        ):
            pass

    def test_what_a_lock_file_holds_stays(self, tmp_path):
        (tmp_path / ".lock").write_text("kept")
        with locks.acquire(tmp_path, Ranks()):
            pass
        assert (tmp_path / ".lock").read_text() == "kept"


class TestWhatIsNoFile:
    """A pipe would hang for ever where it is opened."""

    @pytest.mark.parametrize(
        "name", ["config.yaml", "manifest.json", "records.jsonl", "scores.json"]
    )
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_in_a_run_folder(self, made, name, make):
        (made.path / name).unlink(missing_ok=True)
        make(made.path / name)
        is_one_line(invoke("compare", made.path), name, "expected a file")

    @pytest.mark.parametrize("command", [["eval"], ["sweep", "weight=1,2"], ["controls"]])
    def test_as_a_config(self, tmp_path, command):
        os.mkfifo(tmp_path / "c.yaml")
        name, *rest = command
        is_one_line(invoke(name, tmp_path / "c.yaml", *rest), "c.yaml: is a pipe, expected a file")
        is_one_line(invoke(name, tmp_path, *rest), "is a folder, expected a file")
        is_one_line(invoke(name, "/dev/null", *rest), "is a device, expected a file")
