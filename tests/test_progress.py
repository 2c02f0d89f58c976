"""What a command says of how far it is, and what it would do."""

import io
import re
import sys

import pytest
from click.testing import CliRunner
from committed import ROOT

from cof.cli import main
from cof.evaluate import progress as module
from cof.evaluate.progress import duration, progress, quiet


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the module reads."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_whole_lines_now_and_then_and_one_at_the_end(capsys, clock):
    with progress(40, "question", "run", done=10) as shown:
        for _ in range(30):
            clock[0] += 7
            shown.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "run: 15 of 40 questions, about 3 min left"
    assert lines[-1] == "run: 40 of 40 questions in 4 min"
    assert len(lines) == 30 * 7 // 35 + 1
    assert all("\r" not in line for line in lines)


def test_nothing_done_says_nothing_and_one_is_no_plural(capsys, clock):
    with progress(3, "question", "run", done=3):
        pass
    with progress(None, "scene", "drawing") as shown:
        shown.set_description("more")
        shown.update()
    assert capsys.readouterr().err == "more: 1 scene in 0 s\n"


def fails():
    with progress(3, "question", "run") as shown:
        shown.update()
        raise ZeroDivisionError


def test_a_failure_is_not_called_an_end(capsys):
    with pytest.raises(ZeroDivisionError):
        fails()
    assert not capsys.readouterr().err


def test_a_terminal_has_a_bar_unless_it_is_quiet_or_not_its_turn(monkeypatch):
    said = {}
    for name in ("bar", "quiet", "other rank"):
        monkeypatch.setattr(sys, "stderr", Terminal())
        block = quiet() if name == "quiet" else progress(1, "x", "none", shown=False)
        with block, progress(2, "question", "run", shown=name != "other rank") as shown:
            shown.update(2)
            shown.set_description("run")
        said[name] = sys.stderr.getvalue()
    assert "\r" in said["bar"]
    assert not said["quiet"]
    assert not said["other rank"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (130, "2 min"), (9000, "2.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def config(mini, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model: {{path: cof-tiny, device: cpu}}\nbench: {{name: mme, root: {mini / 'MiniMME'}}}\n"
        f"limits: {{max_new_tokens: 4}}\nbatch_size: 4\nout: {tmp_path / 'runs'}\nname: mine\n"
    )
    return str(file)


def cof(*words):
    return CliRunner().invoke(main, ["eval", *words])


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(config, tmp_path):
    done = cof(config, "--dry-run", "bench.limit=3")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "runs").exists()
    said = dict(re.findall(r"^(\w+) +(.*)$", done.stdout, re.M))
    assert said["folder"] == str(tmp_path / "runs" / "mine")
    assert said["questions"] == "6 about 3 images, 0 of them answered already"
    assert said["batches"] == "2 to go, of at most 4 questions"
    assert said["passes"] == "plain, locate=prompt, refine=highlight"
    assert "float32" in said["model"]
    assert "not known without a trial" in said["time"]


def test_a_trial_measures_and_a_finished_run_leaves_nothing(config, tmp_path):
    tried = cof(config, "--dry-run", "--trial", "4", "bench.limit=3")
    assert tried.exit_code == 0, tried.output
    assert not (tmp_path / "runs").exists()
    assert re.search(r"^tokens     (\d+) visual tokens an image$", tried.stdout, re.M)
    assert re.search(r"^time       about .* for 6 questions on one process$", tried.stdout, re.M)
    # the first batch of four warms up, the second one is timed
    assert "measured on 2 questions)" in tried.stdout
    assert re.search(r"^memory     0\.\d\d GiB|^memory     \d+\.\d\d GiB", tried.stdout, re.M)
    run = cof(config, "--quiet", "bench.limit=3")
    assert run.exit_code == 0
    assert "of 6 questions" not in run.stderr
    left = cof(config, "--dry-run", "--trial", "4", "bench.limit=3")
    assert "6 of them answered already" in left.stdout
    assert "nothing is left to ask" in left.stdout
    other = cof(config, "--dry-run", "bench.limit=3", "refine.weight=2")
    assert other.exit_code == 2
    assert "made with other settings" in other.stderr
    anew = cof(config, "--dry-run", "bench.limit=3", "refine.weight=2", "--overwrite")
    assert "0 of them answered already" in anew.stdout


def test_a_trial_without_a_dry_run_is_refused(config):
    assert "belongs to --dry-run" in cof(config, "--trial", "4").stderr


def test_a_run_in_a_log_has_one_line_and_no_carriage_return(config):
    done = cof(config, "bench.limit=1")
    assert "\r" not in done.stderr
    assert re.search(r"^mine: 2 of 2 questions in \d+ s$", done.stderr, re.M)


def test_transformers_own_bars_stay_out_of_a_log(tmp_path):
    words = ["tiny", "export", str(ROOT / "base_models" / "cof-tiny"), str(tmp_path / "out")]
    done = CliRunner().invoke(main, words)
    assert done.stdout.endswith(" MB\n")
    assert not done.stderr
