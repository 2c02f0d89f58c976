"""The shape of the package: one direction of imports, no circles, the method in front."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    *("errors", "types", "files", "prompts", "exif", "images", "given"),  # the words
    *("regions", "attention", "models", "batch", "refine"),  # the method
    *("config", "bench", "store", "locate"),  # what is asked, and where it lies
    *("plot", "stages", "outcome", "pipeline"),  # the two stages read aloud
    *("analyse", "evaluate", "harness", "app", "cli"),  # records to numbers, runs, tools, commands
)
"""Parts of `cof`, lowest first: a part imports from itself and from those before it."""

LABORATORY = ("cof_lab", "cof_speed")
"""Own packages above `cof`, which three commands import."""

MOST_LOOSE = 12


def modules():
    """Dotted name -> file."""
    files = [file for name in ("cof", *LABORATORY) for file in (ROOT / name).rglob("*.py")]
    dotted = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in dotted.items()}


FILES = modules()


def imports(file):
    """Our own modules that a file imports, wherever in it, for types or at run time."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


ARROWS = {
    name: {one for one in imports(file) if one in FILES and one != name}
    for name, file in FILES.items()
}


def layer(name):
    """Place of a module; the public names (`cof` itself) are below everything, being lazy."""
    head, _, rest = name.partition(".")
    if head in LABORATORY:
        return len(LAYERS)
    return LAYERS.index(rest.partition(".")[0]) if rest else -1


def test_every_part_has_its_place():
    parts = {name.split(".")[1] for name in FILES if name.startswith("cof.")}
    assert parts == set(LAYERS)


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_arrow_runs_back_up(name):
    command = name.startswith("cof.cli.")
    wrong = [
        one
        for one in ARROWS[name]
        if layer(one) > layer(name) and not (command and layer(one) == len(LAYERS))
    ]
    assert not wrong


def test_there_is_no_circle():
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"circle: {' -> '.join([*open_[open_.index(name) :], name])}"
        if name in done:
            return
        open_.append(name)
        for one in sorted(ARROWS[name]):
            visit(one)
        open_.pop()
        done.add(name)

    for name in sorted(FILES):
        visit(name)


@pytest.mark.parametrize("name", sorted(FILES))
def test_underscore_modules_are_their_packages_own(name):
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for one in ARROWS[name]:
        owner, _, last = one.rpartition(".")
        if last.startswith("_"):
            assert package == owner or package.startswith(f"{owner}."), f"{name} imports {one}"


def test_the_method_is_the_first_thing_that_a_listing_shows():
    loose = sorted(file.name for file in (ROOT / "cof").glob("*.py"))
    assert len(loose) <= MOST_LOOSE, loose
