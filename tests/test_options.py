"""Options of every command: numbers have a range, and no work begins that cannot be written."""

import re

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from cof.cli import COMMANDS, main
from cof_lab.mini.common import MiniConfig


def commands(command=main, name="cof"):
    """Every command and subcommand with its full name."""
    if not isinstance(command, click.Group):
        yield pytest.param(command, id=name)
        return
    context = click.Context(command)
    for part in command.list_commands(context):
        yield from commands(command.get_command(context, part), f"{name} {part}")


def invoke(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_all_commands_are_looked_at():
    assert len(list(commands())) > len(COMMANDS)


@pytest.mark.parametrize("command", commands())
def test_every_number_has_a_range(command):
    for option in command.params:
        if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
            assert isinstance(option.type, click.IntRange | click.FloatRange), option.name
            assert option.type.min is not None, option.name


@pytest.mark.parametrize("command", commands())
def test_every_place_to_write_to_is_checked_first(command):
    for option in command.params:
        if option.name in ("out", "plot") or (command.name == "train" and option.name == "folder"):
            assert option.callback is not None, option.name


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_numbers_that_make_no_sense(value):
    for call in (
        ["data", "mini", "out", "--size", value],
        ["ask", "i.png", "?", "--weight", value],
        ["ask", "i.png", "?", "--max-new-tokens", value],
        ["sweep", "c.yaml", "weight=1,2", "--rows", value],
    ):
        done = invoke(*call)
        assert done.exit_code == 2
        assert "Invalid value" in done.stderr
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        MiniConfig(size=0)


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png")
    return tmp_path / "i.png"


def test_a_picture_of_no_known_kind_is_refused_before_the_model_runs(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("cof.models.llava.load", None)
    for name, message in {
        "x.xyz": "must be one of .*pdf, .*png",
        "x": "must be one of",
        "none/x.png": "there is no folder",
        "i.png/x.png": "is no folder",
    }.items():
        done = invoke("ask", photo, "What?", "--plot", tmp_path / name)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("cof: --plot")
        assert re.search(message, line)


@pytest.mark.parametrize(
    "call",
    [
        ["report", "run", "--out"],
        ["pack", "run", "--out"],
        ["probe", "run", "--out"],
        ["data", "mini"],
        ["data", "fetch", "mme"],
        ["tiny", "overview", "folder", "--out"],
    ],
    ids=" ".join,
)
def test_a_place_below_a_file_is_refused_first(call, photo):
    done = invoke(*call, photo / "below")
    assert done.exit_code == 2
    assert "is no folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_may_not_be_written_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    done = invoke("report", "run", "--out", tmp_path / "new")
    assert done.exit_code == 2
    assert "cannot be written (read-only)" in done.stderr
