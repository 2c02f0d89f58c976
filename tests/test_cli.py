import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import cof
from cof.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "scipy", "matplotlib", "PIL", "numpy"} | {
    "pydantic",
    "yaml",
    "tqdm",
}


def modules_after(code):
    """Names of the top-level modules that a fresh interpreter has imported after `code`."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    call = "from cof.cli import main; main(['--help'], standalone_mode=False)"
    assert not modules_after(call) & HEAVY


def test_the_package_imports_nothing_heavy():
    assert not modules_after("import cof; cof.Box; cof.Question") & HEAVY


def test_help_of_eval_imports_nothing_heavy():
    call = "from cof.cli import main; main(['eval', '--help'], standalone_mode=False)"
    assert not modules_after(call) & HEAVY


def test_help_lists_every_command():
    text = CliRunner().invoke(main, ["--help"]).output
    assert re.findall(r"^  (\w+) ", text, re.M) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_explains_itself(name):
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"main {name}" in done.output


@pytest.mark.parametrize("name", cof.__all__)
def test_every_public_name_loads(name):
    assert getattr(cof, name).__doc__


def test_an_unknown_public_name_lists_what_exists():
    with pytest.raises(AttributeError, match="load_run"):
        importlib.import_module("cof").nothing  # noqa: B018


def test_a_users_error_is_one_line_and_exit_code_2(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("bench: {name: mme, root: nowhere}\ncolour: red\n")
    done = CliRunner().invoke(main, ["eval", str(file)])
    assert done.exit_code == 2
    assert re.fullmatch(r"cof: colour: unknown key .*\n", done.stderr)


def test_a_bug_is_not_dressed_up_as_a_users_error(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(importlib.import_module("cof.config.schema"), "load", broken)
    done = CliRunner().invoke(main, ["eval", str(tmp_path / "x.yaml")])
    assert isinstance(done.exception, ZeroDivisionError)


class TestRequirements:
    script = ROOT / "scripts" / "check_requirements.py"

    def check(self, tmp_path, text):
        file = tmp_path / "requirements.txt"
        file.write_text(text)
        command = [sys.executable, str(self.script), str(file)]
        return subprocess.run(command, capture_output=True, text=True)

    def test_a_missing_package_is_named_with_the_remedy(self, tmp_path):
        done = self.check(tmp_path, "# comment\nclick==1.0\nno-such-package==1.0\n")
        assert done.returncode == 1
        assert "lacks no-such-package; run:" in done.stderr

    def test_another_version_is_a_note(self, tmp_path):
        done = self.check(tmp_path, "click==1.0\n")
        assert done.returncode == 0
        assert re.search(r"note: .* has click \S+ \(tested: 1\.0\)", done.stderr)


def test_the_ranges_of_setup_allow_the_pins():
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    ranges = re.findall(r'^        "([\w-]+[<>=].*)",$', (ROOT / "setup.py").read_text(), re.M)
    wanted = {one.name: one.specifier for one in map(Requirement, ranges)}
    assert wanted.keys() == pins.keys()
    assert all(wanted[name].contains(pin) for name, pin in pins.items())
    assert next(iter(pins)) == "torch"
