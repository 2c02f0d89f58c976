"""Every command in every document works: it is run on small data, or held against what it names.

A block of a document is given to bash with programs that only write down how they were called, so
that variables, loops and braces are the shell's own business. What was called is then run in a
copy of the repository, unless `NOT_RUN` says why not; then options are parsed by the real command,
settings by the real config, and scripts have to exist and to know the variables that are set.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from committed import ROOT

from cof.cli import main
from cof.cli._config import bench_config
from cof.config import plugins, schema
from cof.evaluate.sweep import parse_settings
from cof.harness.arguments import read_arguments
from cof_lab.mini.common import MiniConfig, write_hashes
from cof_lab.mini.write import write_all

DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "results/README.md", "base_models/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]

NOT_RUN = {
    r"bash tests/run\.sh": "is this suite",
    r".*(llava-v1\.5|llava-1\.5|MME_ROOT=|mme_llava13b)": "needs real weights or a real benchmark",
    r"cof data fetch": "needs a network",
    r"pip install": "needs a network, and changes what is installed",
    r"bash base_models/llava/mme\.sh": "needs LLaVA's package; tests/test_llava_package.py runs it",
    r"cof score (?!pope runs/|jsonl )": "answers of other tools; tests/test_bench_*.py score such",
    r"cof bench": "minutes, or a GPU",
    r"lmms-eval ": "tests/test_lmms_eval_cli.py calls it where it is installed",
    r"python examples/vlmevalkit\.py": "needs VLMEvalKit; tests/test_vlmevalkit.py has a stand-in",
    r"cof app": "serves until it is ended; tests/test_app_page.py has a browser",
    r"bash scripts/site\.sh": "installs; tests/test_site.py builds the site",
    r"(torchrun|accelerate|sbatch) ": "needs a launcher; tests/test_parallel.py has its own",
    r"cof tiny (train|export (FOLDER|runs/)|card|lab|methods|overview)": "minutes to hours",
    r"bash examples/eval_scripts/evidence\.sh": "minutes; tests/test_results.py has what it calls",
    r"bash examples/eval_scripts/methods\.sh": "hours; tests/test_methods_bench.py has the rest",
    r"bash results/tables\.sh": "tests/test_results.py runs all that it calls",
    r"cof .*runs/(data/stages|where)": "minutes; tests/test_methods_look.py has small ones",
    r"python examples/text_facts\.py": "needs them; tests/test_text_facts.py runs its parts",
    r"cof .*runs/evidence": "minutes; parts of evidence.sh",
}
"""How a command begins, with the variables that are set for it -> why it is only held against
what it names."""

SHIMS = ("cof", "bash", "python", "torchrun", "accelerate", "sbatch", "pip", "lmms-eval")
SMALL = {
    "data mini": ("--size", "2"),
    "sweep": ("bench.limit=1",),
    "controls": ("bench.limit=1",),
    "eval mine.yaml": ("bench.limit=1",),
}
"""What is added to a command that is run, so that it takes a second."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its document, the line it begins at, its language, its text."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Call:
    """A program as a block calls it; `names` are variables that the block sets for it."""

    words: tuple[str, ...]
    names: dict[str, str]

    def __str__(self):
        said = [f"{name}={value}" for name, value in self.names.items()]
        return " ".join([*said, *self.words])


def blocks(document):
    """All fenced blocks of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        yield Block(document, text.count("\n", 0, found.start()) + 1, *found.groups())


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console", "sh")]
PYTHON = [block for block in BLOCKS if block.language == "python"]
YAML = [block for block in BLOCKS if block.language == "yaml"]
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
"""How a block begins that is a file."""
NAMESPACES: dict[str, dict] = {}
"""Document -> what its Python blocks have defined so far; they are run in their order."""
FILES = {found[1]: block.text for block in (*PYTHON, *YAML) if (found := NAMED.match(block.text))}


def calls(block, folder):
    """What a block calls, in order; nothing of it is run."""
    for name in ("shims", ".venv/bin", "docs", "OUT", "cwd"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / ".venv/bin/activate").touch()
    log = folder / "log"
    log.write_text("")
    say = f"printf '%s\\0' >>{log}"
    for name in SHIMS:
        shim = folder / "shims" / name
        # one record: how many words, the words, then the variables
        shim.write_text(
            f'#!/bin/bash\n{say} "$(($# + 1))" {name} "$@" "$(env -0 | tr "\\0" "\\1")"\n'
        )
        shim.chmod(0o755)
    unknown = f'command_not_found_handle() {{ {say} 2 unknown "$1" ""; }}\n'
    base = {"PATH": f"{folder}/shims:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["/bin/bash", "-c", unknown + block.text],
        env=base,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return list(_calls(log.read_text(encoding="utf-8").split("\0")[:-1], base))


def _calls(parts, base):
    while parts:
        count = int(parts.pop(0))
        words, said = tuple(parts[:count]), parts[count]
        del parts[: count + 1]
        pairs = [pair.partition("=")[::2] for pair in said.split("\1") if pair]
        own = {*base, "PWD", "OLDPWD", "SHLVL", "_"}
        yield Call(words, {name: value for name, value in pairs if name not in own})


def why_not(call):
    """The reason that a call is not run, None if it is."""
    reasons = [why for start, why in NOT_RUN.items() if re.match(start, str(call))]
    return reasons[0] if reasons else None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the repository, with small data where the documents have theirs."""
    root = tmp_path_factory.mktemp("documents")
    for name in ("examples", "scripts", "results", "base_models", "docs"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("cof", "cof_lab", "cof_speed", "setup.py", "requirements.txt", "tests"):
        (root / name).symlink_to(ROOT / name)
    data = root / "runs" / "data" / "mini-fine"
    write_all(data, MiniConfig(size=2, difficulty="fine"))
    shutil.copytree(data, data.with_name("mini-fine-120"))
    (root / "data").mkdir()
    shutil.copytree(data / "MiniPOPE", root / "data" / "pope")
    write_hashes(root / "data" / "pope")
    fork = (root / "examples/configs/forkme.yaml").read_text(encoding="utf-8")
    (root / "my.yaml").write_text(fork.replace("limit: null", "limit: 2"), encoding="utf-8")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def ready(place, monkeypatch):
    """The copy as the current folder, with the runs that documents take for granted."""
    monkeypatch.chdir(place)
    if not (place / "runs" / "my_run").exists():
        pope = ["bench.name=pope", "bench.root=runs/data/mini-fine/MiniPOPE", "bench.limit=1"]
        for name, more in {"a": (), "b": ("refine.weight=2",), "my_run": pope}.items():
            run(Call(("cof", "eval", "examples/configs/mme_tiny.yaml", f"name={name}", *more), {}))
    return place


def run(call):
    """Run one call in the current folder."""
    program, *words = call.words
    if program == "cof":
        more = next(
            (more for start, more in SMALL.items() if " ".join(words).startswith(start)), ()
        )
        done = CliRunner().invoke(main, [*words, *more])
        assert done.exit_code == 0, f"{call}: {done.output}"
        return
    command = [sys.executable if program == "python" else program, *words]
    given = {**os.environ, **call.names, "COF_PYTHON": sys.executable, "SIZE": "2"}
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, f"{call}: {done.stderr}"


def hold(call):
    """Hold one call against what it names, without running it."""
    program, *words = call.words
    if program in ("torchrun", "accelerate"):
        place = words.index("-m")
        program = {"cof.cli": "cof", "lmms_eval": "lmms-eval"}[words[place + 1]]
        words = words[place + 2 :]
    if program == "cof":
        hold_command(words)
    elif program in ("bash", "sbatch"):
        hold_script(words, call.names)
    elif program == "lmms-eval":
        hold_options(words[words.index("--model_args") + 1].split(","))
    elif program == "pip":
        assert all(re.fullmatch(r"--no-deps|[a-z0-9-]+(==[\w.]+)?", word) for word in words), call
    elif program == "python":
        assert (ROOT / words[0]).is_file(), call
        ends = [row for row, word in enumerate(words) if word[:2] == "--"]
        hold_options(words[2 : min(ends, default=2)])
    else:
        pytest.fail(f"{call}: no rule for {program}")


def hold_command(words):
    """Parse the options of a `cof` command, and the settings among its arguments."""
    command, rest = main, list(words)
    if words[0] == "score":  # whose file has to exist
        Path(words[2]).parent.mkdir(parents=True, exist_ok=True)
        Path(words[2]).touch()
    while isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"cof {' '.join(words)}: no command {name}"
        command = found
    given = command.make_context(words[0], rest).params
    if given.get("config"):
        texts = given.get("overrides") or given.get("settings") or ()
        overrides, axes = parse_settings(texts) if words[0] == "sweep" else (texts, [])
        first = [f"{axis.key}={json.dumps(axis.values[0])}" for axis in axes]
        schema.load(given["config"], [*overrides, *first])
    elif words[0] == "score":
        bench = plugins.load("bench", given["benchmark"])
        named = {"root": given["root"] or "", "questions": given["questions"]}
        bench_config(bench, given["benchmark"], named, given["options"])


def hold_options(pairs):
    """Read the options of another tool's model."""
    read_arguments(dict(pair.partition("=")[::2] for pair in pairs))


def hold_script(words, names):
    """A script has to exist, to be bash, and to speak of the variables that are set for it."""
    script = ROOT / words[0]
    subprocess.run(["bash", "-n", script], check=True)
    text = "".join(
        one.read_text(encoding="utf-8") for one in (script, *script.parent.glob("_*.sh"))
    )
    for name in names:
        assert re.search(rf"\b{name}\b", text), f"{words[0]} knows no {name}"
    if "CONFIG" in names:
        assert (ROOT / names["CONFIG"]).is_file()


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands(block, ready, tmp_path):
    found = calls(block, tmp_path)
    assert found
    for call in found:
        if why_not(call):
            hold(call)
        else:
            run(call)


@pytest.mark.parametrize("block", [one for one in SHELL if "data mini" in one.text], ids=str)
def test_what_a_block_draws_is_what_it_asks_about(block, ready, tmp_path):
    drawn = []
    for call in calls(block, tmp_path):
        words = call.words[1:]
        if words[:2] == ("data", "mini"):
            drawn.append(Path(words[2]))
        elif words[0] in ("eval", "sweep", "controls") and Path(words[1]).is_file():
            overrides, _ = parse_settings([word for word in words[2:] if "=" in word])
            root = Path(schema.load(words[1], overrides).bench.root)
            assert drawn
            assert any(root.is_relative_to(folder) for folder in drawn), f"{call}: {root}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python(block, ready):
    """A block that is a file is a plug-in; others are run."""
    named = NAMED.match(block.text)
    if named:
        kind = "refine" if "def refine" in block.text else "locate"
        assert plugins.load(kind, named[1]).Config()
    else:
        names = NAMESPACES.setdefault(block.document, {"__name__": "__main__"})
        exec(compile(block.text, str(block), "exec"), names)


def test_every_reason_is_needed_and_no_block_is_left_out(tmp_path):
    called = [str(call) for block in SHELL for call in calls(block, tmp_path)]
    for start in NOT_RUN:
        assert any(re.match(start, call) for call in called), start
    known = {"bash", "console", "sh", "python", "yaml", "", "bibtex"}
    assert {block.language for block in BLOCKS} <= known


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml(block, ready):
    """A block of YAML is a file, and a config."""
    schema.load(NAMED.match(block.text)[1])


SPANS = [
    (document, span)
    for document in [*DOCUMENTS, "CHANGELOG.md"]
    for span in re.findall(r"`((?:cof|bash) [^`]+)`", (ROOT / document).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("document", "span"), SPANS, ids=lambda value: value.replace("/", "|"))
def test_commands_in_sentences_name_what_exists(document, span):
    """They leave arguments out, but what they say is there: commands, options, scripts."""
    program, *words = shlex.split(span)
    if program == "bash":
        assert (ROOT / words[0]).is_file()
        return
    command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{document}: {span}"
        command = found
    known = {text for parameter in command.params for text in parameter.opts}
    for word in words:
        assert not word.startswith("--") or word in known, f"{document}: {span}"


@pytest.mark.parametrize(
    "line",
    [
        line.rpartition("cof ")[2]
        for path in sorted((ROOT / "examples" / "configs").glob("*.yaml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"#.*\bcof (data|eval) ", line)
    ],
)
def test_commands_in_configs(line, ready):
    hold_command(shlex.split(line, comments=True))


LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target, anchor in LINK.findall(text):
        if target.startswith("http"):
            continue
        path = (ROOT / document).parent / target if target else ROOT / document
        assert path.exists(), f"{document}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            kept = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor[1:] in kept, f"{document}: {target}{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document):
    """Paths in backticks; a NAME in capitals or a pattern stands for many."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:cof|cof_lab|cof_speed|tests|docs|examples|scripts|results)/[\w./-]+)`", text
    )
    gone = [
        path for path in named if not re.search(r"[A-Z]{3}", path) and not (ROOT / path).exists()
    ]
    assert not gone
