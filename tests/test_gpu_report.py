"""`tests/gpu.sh` without a GPU, and its page from made-up findings."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("gpu_report", ROOT / "scripts/gpu_report.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_report"] = module
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_and_is_content(report, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert report.main([]) == 0
    assert "no GPU is visible" in capsys.readouterr().out


def test_what_takes_too_long_or_comes_too_late_is_said(report, monkeypatch):
    def slow(left):
        raise subprocess.TimeoutExpired("x", left)

    now = iter([0.0, 1.0, 1.0, 50.0, 58.0, 58.0])
    monkeypatch.setattr(report.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(report, "parts", lambda: [("one", slow), ("two", slow)])
    one, two = report.run(1.0)
    assert (one.name, one.verdict, one.seconds) == ("one", "no time", 49.0)
    assert (two.name, two.verdict, two.said) == ("two", "no time", "")


def test_the_page_holds_costs_and_verdicts(report):
    costs = {
        "timings": [{"name": "plain", "ratio": 1.0, "seconds": 0.0314, "mib": 14.2}],
        "bars": [{"name": "all / plain", "value": 2.5, "limit": 2.0, "met": False}],
        "goals": [],
    }
    parts = [
        report.Part("parity", "ok", 3.2, "0 mismatches"),
        report.Part("costs", "FAILED", 60.0, "missed: all / plain", costs),
    ]
    text = report.page({"card": "a card"}, parts)
    assert "- card: a card" in text
    assert "| parity | ok | 3 | 0 mismatches |" in text
    assert "| plain | 1.00 | 0.0314 | 14 |" in text
    assert "| all / plain | 2.500 | 2 | missed |" in text


def test_every_command_it_calls_exists(report, monkeypatch):
    """Commands and options are those of the real command line."""
    words = []

    def call(arguments, seconds):
        words.append(list(arguments))
        return subprocess.CompletedProcess(arguments, 1, "", "no")

    monkeypatch.setattr(report, "call", call)
    assert {part.verdict for part in (attempt(9.0) for _, attempt in report.parts())} == {"FAILED"}
    from cof.cli import main

    for line in words:
        if line[:2] == ["-m", "cof.cli"]:
            command = main.get_command(None, line[2])
            if line[2] == "data":
                command = command.get_command(None, line[3])
                line = line[1:]
            with command.make_context(line[2], [*line[3:]], resilient_parsing=True):
                pass
