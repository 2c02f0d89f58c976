"""Plug-ins from outside the package, one of each kind, as modules and as files."""

import json
import textwrap

import pytest
import yaml
from click.testing import CliRunner
from fakes import StubModel
from PIL import Image

from cof import load_run
from cof.cli import main
from cof.config import plugins, schema
from cof.config.identity import content_hash
from cof.errors import ConfigError
from cof.pipeline import CoF, Settings

LOCATE = """
    from dataclasses import dataclass
    from cof.types import Box, Region

    @dataclass(frozen=True)
    class Config:
        \"\"\"How far from the border.\"\"\"
        margin: float = 0.25

    def locate(batch, config):
        low, high = config.margin, 1 - config.margin
        notes = {"looked": [view.size[0] for view in batch.views]}
        return [Region((Box(low, low, high, high),), "zoom", notes=notes) for _ in batch.questions]
"""

REFINE = """
    from dataclasses import dataclass, replace

    @dataclass(frozen=True)
    class Config:
        \"\"\"What to say behind the answer.\"\"\"
        mark: str = "!"

    def refine(batch, focuses, config):
        crops = [
            image.crop((0, 0, image.width // 2, image.height))
            for image in batch.images
        ]
        said = batch.reply(batch.encode(views=batch.look(crops)))
        return [
            replace(answer, text=answer.text + config.mark, notes={"plain": plain.text})
            for answer, plain in zip(said, batch.plain)
        ]
"""

BENCH = """
    import json
    from dataclasses import dataclass
    from pathlib import Path
    from cof.types import Question

    VERSION, SOURCE = "1", "my desk"

    @dataclass(frozen=True)
    class Config:
        root: str

    def read(config):
        rows = json.loads((Path(config.root) / "rows.json").read_text())
        pairs = enumerate(rows)
        return [Question(str(i), row["image"], row["text"], reference="Yes") for i, row in pairs]

    def expected(config):
        return {"": (2,)}

    def credit(question, answer, config=None):
        return float((answer or "").startswith(question.reference))

    def score(questions, answers, config=None):
        right = sum(map(credit, questions, answers))
        return {"benchmark": "mine", "version": VERSION, "right": right, "n": len(questions)}

    def table(scores):
        return [("right", 100 * scores["right"] / scores["n"], scores["n"])]

    def export(questions, answers, folder, config=None):
        return []

    def read_answers(path, config, allow_missing=False):
        raise NotImplementedError
"""

MODEL = """
    from dataclasses import dataclass
    from cof.models import llava

    @dataclass(frozen=True)
    class Config(llava.Config):
        device: str = "cpu"

    identify, load = llava.identify, llava.load
"""

SOURCES = {"locate": LOCATE, "refine": REFINE, "bench": BENCH, "model": MODEL}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package `my_lab`, the same as loose files, and a small benchmark."""
    package = tmp_path / "path" / "my_lab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, source in SOURCES.items():
        (package / f"{name}.py").write_text(textwrap.dedent(source))
        (tmp_path / f"{name} of mine.py").write_text(textwrap.dedent(source))
    rows = [{"image": f"{i}.png", "text": f"Is there a thing {i}?"} for i in range(2)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for i in range(2):
        Image.new("RGB", (40 + i, 30), (i, 90, 200)).save(tmp_path / f"{i}.png")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, names, **changes):
    """A config that names a plug-in of each kind."""
    data = {key: {"name": name} for key, name in names.items()}
    data["bench"]["root"] = "."
    data |= {"limits": {"max_new_tokens": 3}, "name": "r", "batch_size": 2, **changes}
    (folder / "mine.yaml").write_text(yaml.safe_dump(data))
    return folder / "mine.yaml"


NAMES = {
    "module": {key: f"my_lab.{key}" for key in SOURCES},
    "file": {key: f"./{key} of mine.py" for key in SOURCES},
}


@pytest.mark.parametrize("kind", NAMES)
def test_one_of_each_kind_from_outside(lab, kind):
    done = CliRunner().invoke(main, ["eval", str(write(lab, NAMES[kind]))])
    assert done.exit_code == 0, done.output
    run = load_run(lab / "runs" / "r")
    assert [result.region.notes for result in run.results] == [{"looked": [40, 41]}] * 2
    assert all(result.cof.text.endswith("!") for result in run.results)
    assert [r.cof.notes["plain"] for r in run.results] == [r.plain.text for r in run.results]
    assert all(result.cof.logprobs for result in run.results)
    saved = run.config["locate"]
    assert saved["name"] == NAMES[kind]["locate"]
    assert len(saved["sha256"]) == 64
    report = CliRunner().invoke(main, ["report", str(run.path), "--out", str(lab / "report")])
    assert report.exit_code == 0, report.output
    if kind == "file":
        assert [row["cof_credit"] for row in run.to_rows()] == [
            float(result.cof.text.startswith("Yes")) for result in run.results
        ]


def test_a_plugin_counts_by_its_content_and_not_by_its_place(lab):
    hashes = set()
    for kind in NAMES:
        names = {key: NAMES[kind][key] for key in ("bench", "locate")}
        hashes.add(content_hash(schema.load(write(lab, names)).as_dict(), {}))
    assert len(hashes) == 2, "their names differ"
    moved = lab / "elsewhere"
    moved.mkdir()
    (moved / "locate of mine.py").write_bytes((lab / "locate of mine.py").read_bytes())
    names = {"bench": NAMES["file"]["bench"], "locate": str(moved / "locate of mine.py")}
    hashes.add(content_hash(schema.load(write(lab, names)).as_dict(), {}))
    assert len(hashes) == 2
    with (moved / "locate of mine.py").open("a") as file:
        file.write("\n# another one\n")
    hashes.add(content_hash(schema.load(write(lab, names)).as_dict(), {}))
    assert len(hashes) == 3


def test_a_run_does_not_go_on_with_another_plugin(lab):
    file = write(lab, NAMES["file"])
    assert CliRunner().invoke(main, ["eval", str(file)]).exit_code == 0
    with (lab / "refine of mine.py").open("a") as source:
        source.write("\n# another one\n")
    again = CliRunner().invoke(main, ["eval", str(file)])
    assert again.exit_code == 2
    assert "refine.sha256" in again.output
    saved = CliRunner().invoke(main, ["eval", str(lab / "runs" / "r" / "config.yaml"), "name=s"])
    assert saved.exit_code == 2
    assert "has changed" in saved.output
    assert "take refine.sha256 out" in saved.output


STUB = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Config: ...\n"
GOOD = "def locate(batch, config): ...\n"


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("gone.py", None, "gone.py"),
        ("my_lab.gone", None, "'my_lab.gone' cannot be imported .*PYTHONPATH"),
        ("zoom", None, "unknown name 'zoom'; there is: attention, centre, .*my_lab.zoom.*zoom.py"),
        ("bad.py", "x = (", "bad.py cannot be imported .SyntaxError"),
        ("bad.py", "1 / 0", "cannot be imported .ZeroDivisionError: division by zero"),
        ("bad.py", STUB, "bad .*lacks locate; cof/locate/__init__.py says"),
        (
            "bad.py",
            STUB + "def locate(model, questions, views, config): ...",
            r"has locate\(model, questions, views, config\) \(needs \(batch, config\)\)",
        ),
        ("bad.py", STUB + "locate = 3", r"has locate, no function \(needs \(batch, config"),
        (
            "bad.py",
            STUB + GOOD + "def check_dataset(x): ...",
            r"has check_dataset\(x\) \(needs \(bench, questions, config\)\)",
        ),
        ("bad.py", STUB.replace("(frozen=True)", "") + GOOD, "Config is no frozen dataclass"),
        ("bad.py", "Config = int\n" + GOOD, "Config is no frozen dataclass"),
        ("bad.py", STUB.replace(": ...", ":\n    sha256: str = ''") + GOOD, "Config has sha256"),
        ("bad.py", STUB + GOOD + "CACHEABLE = True", "lacks read_reply"),
        (
            "bad.py",
            "from cof.locate.centre import Config\n" + GOOD,
            "Config is that of cof.locate.centre, which would be run in its place",
        ),
    ],
)
def test_what_is_no_plugin_is_said_in_one_line(lab, name, source, says):
    if source is not None:
        (lab / name).write_text(source)
    with pytest.raises(ConfigError, match=says) as error:
        plugins.load("locate", name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "returned", "said"),
    [
        ("locate", "[Region((), 'x')]", "returned 1 Region for 2 questions; it has to return a"),
        ("locate", "[(0.1, 0.1, 0.2, 0.2)] * 2", "returned 2 tuple for 2 questions"),
        ("locate", "None", "returned 1 NoneType for 2 questions"),
        ("refine", "[]", "returned 0 for 2 questions; it has to return a list with one Answer a"),
        ("refine", "[*batch.plain[:1], None]", "returned 2 Answer and NoneType for 2 questions"),
    ],
)
def test_what_a_stage_returns_is_held(lab, kind, returned, said):
    source = textwrap.dedent(SOURCES[kind]).rpartition("    return ")[0]
    (lab / "odd.py").write_text(f"{source}    return {returned}\n")
    file = write(lab, NAMES["file"], **{kind: {"name": "./odd.py"}})
    done = CliRunner().invoke(main, ["eval", str(file)])
    assert done.exit_code == 2
    assert f"{kind}: odd {said}" in done.output


def test_a_config_that_belongs_to_no_plugin_is_refused():
    with pytest.raises(ConfigError, match="no Config of a plug-in"):
        CoF(StubModel(), Settings(refine={"weight": 2}))


def test_a_plugin_of_python_alone(lab):
    from my_lab import locate, refine

    model = plugins.load("models", "my_lab.model").load(
        plugins.load("models", "my_lab.model").Config()
    )
    cof = CoF(model, Settings(locate=locate.Config(margin=0.1), refine=refine.Config("?")))
    outcome = cof(Image.new("RGB", (30, 30)), "Is it red?")
    assert outcome.text.endswith("?")
    assert outcome.region.source == "zoom"


def hash_of(names):
    data = {key: {"name": name} for key, name in names.items()}
    data["bench"] = {"name": "mme", "root": "."}
    return content_hash(schema.resolve(data).as_dict(), {})


def fresh(lab, name, text):
    """A module that nobody has imported yet, in a package of its own."""
    folder = lab / "path" / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text(text)
    (folder / "unrelated.py").write_text("x = 1\n")
    source = textwrap.dedent(LOCATE)
    (folder / "zoom.py").write_text("from . import helper\n" + source)
    (folder / "other.py").write_text(f"from {name} import helper\n" + source)
    return folder


def test_what_a_plugin_imports_of_its_own_package_counts(lab):
    hashes = {}
    for name, text in (("one", "x = 1\n"), ("two", "x = 2\n"), ("six", "x = 1\n")):
        folder = fresh(lab, name, text)
        (folder / "unrelated.py").write_text(f"x = '{name}'\n")
        hashes[name] = hash_of({"locate": f"{name}.zoom"})
        assert hash_of({"locate": f"{name}.other"}) != hashes[name]
    assert hashes["one"] == hashes["six"], "what it does not import does not count"
    assert hashes["one"] != hashes["two"]


def test_a_file_counts_with_what_lies_beside_it(lab):
    (lab / "stage.py").write_text("import aside\n" + textwrap.dedent(LOCATE))
    hashes = set()
    for text in ("x = 1\n", "x = 2\n"):
        (lab / "aside.py").write_text(text)
        with (lab / "stage.py").open("a") as file:
            file.write("\n")  # a fresh module
        plugins._hashes.cache_clear()
        hashes.add(hash_of({"locate": "stage.py"}))
    assert len(hashes) == 2


def test_the_hash_is_of_what_was_loaded(lab):
    folder = fresh(lab, "four", "x = 1\n")
    before = hash_of({"locate": "four.zoom"})
    (folder / "zoom.py").write_text("changed = True\n")
    assert hash_of({"locate": "four.zoom"}) == before


def test_a_file_of_the_same_size_in_the_same_second_is_read_anew(lab):
    said = []
    for value in ("0.1", "0.2"):
        (lab / "now.py").write_text(textwrap.dedent(LOCATE).replace("0.25", value))
        said.append(plugins.load("locate", "now.py").Config().margin)
    assert said == [0.1, 0.2]
    assert not (lab / "__pycache__").exists()


def test_a_path_of_an_outside_stage_counts_as_it_is(lab):
    source = textwrap.dedent(LOCATE).replace("margin: float = 0.25", "path: str = 'a'")
    (lab / "kept.py").write_text(source)
    base = {"bench": {"name": "mme", "root": "."}}
    one, two = (
        content_hash(schema.resolve({**base, "locate": part}).as_dict(), {})
        for part in ({"name": "kept.py"}, {"name": "kept.py", "path": "b"})
    )
    assert one != two


def test_a_plugin_may_be_a_package(lab):
    folder = lab / "path" / "wide"
    folder.mkdir()
    head, _, body = textwrap.dedent(LOCATE).partition("def locate")
    (folder / "config.py").write_text(head)
    (folder / "__init__.py").write_text(
        "from cof.types import Box, Region\nfrom wide.config import Config\ndef locate" + body
    )
    import wide

    assert plugins.owner("locate", wide.Config()) is wide
    with pytest.raises(ConfigError, match="'wide'"):
        plugins.load("locate", "wide")  # no dot: the name of one of ours
