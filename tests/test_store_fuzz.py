"""Whatever a config, a record or a manifest holds: it is read, or refused on one line, at once."""

import copy
import json
import math

import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import make_mme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cof import load_run
from cof.cli import main
from cof.config import identity, schema
from cof.config.yaml import parse_value, parse_yaml
from cof.errors import CofError, ConfigError, RunError
from cof.evaluate.sweep import parse_settings
from cof.store.replies import ReplyCache

BASE = {"bench": {"name": "mme", "root": "data"}}
KEYS = [
    *("name", "out", "plain", "batch_size", "seed", "cache", "workers", "model", "bench", "locate"),
    *("refine", "boxes", "limits", "model.path", "model.dtype", "bench.root", "bench.limit"),
    *("locate.name", "refine.name", "refine.weight", "refine.layers", "refine.perturb"),
    *("boxes.expand", "boxes.rules", "limits.temperature", "limits.max_new_tokens", "limits.seed"),
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["..", ".", "a/b", "", "\0", "prompt", "oracle", "auto", "x" * 999])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(BASE))
    return path


def checked(read, *arguments):
    """The value, or None where a CofError of one line was raised."""
    try:
        return read(*arguments)
    except CofError as error:
        assert len(str(error)) < 2000  # noqa: PT017
        return None


class TestConfigs:
    @given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), values, max_size=4))
    @settings(deadline=None)
    def test_any_plain_data(self, parts):
        data = copy.deepcopy(BASE)
        for key, value in parts.items():
            section, dot, name = key.partition(".")
            if dot and isinstance(data.get(section, {}), dict):
                data.setdefault(section, {})[name] = value
            else:
                data[key] = value
        got = checked(schema.resolve, data)
        if got is not None:
            again = schema.resolve(got.as_dict())
            assert identity.content_hash(again.as_dict(), {}) == identity.content_hash(
                got.as_dict(), {}
            )
            assert all(
                math.isfinite(value)
                for value in identity.flatten(got.as_dict()).values()
                if isinstance(value, float)
            )

    @given(st.text(max_size=60) | st.text("[]{}&*!:,-'\"|>%@ \n0a", max_size=60))
    def test_any_text_as_a_value(self, text):
        checked(parse_value, text, "key")

    @given(st.text(max_size=60) | st.text("[]{}&*!:,-'\"|>%@ \n0a", max_size=60))
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_text_as_a_file(self, tmp_path, text):
        path = tmp_path / "c.yaml"
        path.write_bytes(text.encode(errors="surrogatepass"))
        checked(parse_yaml, path)
        path.write_text(json.dumps(BASE))
        checked(schema.load, path, [text])
        checked(parse_settings, [text])

    @given(
        st.sampled_from(KEYS), st.text(max_size=12) | st.sampled_from([".nan", "-.inf", "1e999"])
    )
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_override(self, file, key, text):
        file.write_text(json.dumps(BASE))
        checked(schema.load, file, [f"{key}={text}"])


BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


class TestExplosions:
    """Each would take for ever, or all memory, where it was built."""

    @pytest.mark.parametrize(
        "text",
        [
            BOMB,
            "name: &x [*x]\n",
            "name: &x {a: *x}\n",
            "&x name: [*x]\n",
            "name: " + "[" * 5000,
            "name: " + "[" * 200 + "]" * 200,
            "{a: " * 3000,
            "- " * 20_000,
            "name: " + "a" * (1 << 17),
            "bench: {" + ", ".join(f"k{i}: 1" for i in range(5_100)) + "}\n",
            "name: !!int ''\n",
            "name: !!bool x\n",
            "name: !!python/object:os.system x\n",
            "name: 2001-99-99\n",
            "name: !!timestamp x\n",
            "name: " + "9" * 5000 + "\n",
            "? [a, b]\n: c\n",
            "name: \ud800\n",
            "<<: 5\n",
        ],
        ids=lambda text: text[:20],
    )
    def test_a_file_is_refused_on_one_line(self, tmp_path, text):
        path = tmp_path / "c.yaml"
        path.write_bytes(text.encode(errors="surrogatepass"))
        done = CliRunner().invoke(main, ["eval", str(path)])
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
        assert len(done.stderr) < 1000

    @pytest.mark.parametrize(
        "override",
        [
            *("limits.temperature=.nan", "limits.temperature=.inf", "refine.weight=.nan"),
            *("boxes.expand=-.inf", "name=..", "name=.", "name=a/b", "name=a\\b", "name=''"),
            *("name=.hidden", 'name="a\\0b"', "batch_size=" + "9" * 4000, "seed=" + "9" * 30),
            *("batch_size=100000000", "workers=1000000", ".".join("a" * 5000) + "=1"),
            *(f"name={'x' * 300}", "refine.layers=" + "[" * 40 + "]" * 40, "limits.seed=1e400"),
            *('out="a\\0"', "bench.limit=" + "9" * 40, "a\nb=2", 'model.path="\\ud800"'),
        ],
        ids=lambda text: text[:24],
    )
    def test_an_override_is_refused_on_one_line(self, file, override):
        done = CliRunner().invoke(main, ["eval", str(file), override])
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
        assert len(done.stderr) < 1000
        with pytest.raises(ConfigError):
            schema.load(file, [override])

    @pytest.mark.parametrize(
        "grid",
        [
            ["layers=0-99999999"],
            ["layers=0-3,0-99999999"],
            ["layers=5-2"],
            [f"{name}={','.join(map(str, range(1, 60)))}" for name in ("weight", "expand")],
            ["weight=" + ",".join(map(str, range(6000)))],
            ["weight=[" + "[" * 900],
            ["name=..", "weight=1,2"],
            ["limits.temperature=0,.nan"],
        ],
        ids=lambda grid: grid[0][:24],
    )
    def test_a_grid_is_refused_on_one_line(self, file, grid):
        done = CliRunner().invoke(main, ["sweep", str(file), *grid])
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
        assert len(done.stderr) < 1000

    def test_an_alias_that_stays_small_is_read(self, tmp_path):
        path = tmp_path / "c.yaml"
        path.write_text("bench: &b {name: mme, root: x}\nrefine: {layers: &l [1], heads: *l}\n")
        assert schema.load(path).refine.heads == (1,)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    return make_run(root, make_mme(root / "mme", 3), right_with(0.5, 0.7)).path


def places(value, path=()):
    """The way to every value in nested data."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else inner:
        yield from places(one, (*path, key))


def changed(data, path, value, drop):
    """A copy of nested data in which one value is another, or gone."""
    if not path:
        return value
    copied = copy.deepcopy(data)
    place = copied
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


odd = values | st.sampled_from(
    [math.nan, -1, True, 2**70, [[0.5, 0.5, 0.2, 0.2]], [[0, 0, 1]], [99], "\ud800", {}, []]
)


def read_everything(folder, out):
    """Every command that reads a run, quietly; a bug is raised."""
    for command in (
        ["score", "mme", folder, "--allow-missing"],
        ["compare", folder, "--allow-missing"],
        ["report", folder, "--out", out, "--csv", "--latex", "--gallery", "0", "--brief"],
    ):
        done = CliRunner().invoke(main, [str(one) for one in command])
        if done.exit_code and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code in (0, 2), done.output
        if done.exit_code:
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert len(done.stderr) < 2100


SLOW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class TestRunFolders:
    @pytest.mark.slow
    @given(data=st.data())
    @SLOW
    def test_a_record_in_which_one_value_is_another(self, made, tmp_path, monkeypatch, data):
        self.mutate(made, tmp_path, monkeypatch, data, "records.jsonl")

    @pytest.mark.slow
    @given(data=st.data())
    @SLOW
    def test_a_manifest_in_which_one_value_is_another(self, made, tmp_path, monkeypatch, data):
        self.mutate(made, tmp_path, monkeypatch, data, "manifest.json")

    @pytest.mark.slow
    @given(data=st.data())
    @SLOW
    def test_a_config_in_which_one_value_is_another(self, made, tmp_path, monkeypatch, data):
        self.mutate(made, tmp_path, monkeypatch, data, "config.yaml")

    def mutate(self, made, tmp_path, monkeypatch, data, name):
        monkeypatch.setattr("cof.analyse.report.save", lambda figure, path: path)
        file = made / name
        kept = file.read_bytes()
        content, *rest = kept.splitlines(keepends=True) if name == "records.jsonl" else [kept]
        content = parse_yaml(file) if name == "config.yaml" else json.loads(content)
        path = data.draw(st.sampled_from(sorted(places(content), key=str)))
        other = changed(content, path, data.draw(odd), path and data.draw(st.booleans()))
        try:
            file.write_bytes(json.dumps(other).encode() + b"\n" + b"".join(rest))
            read_everything(made, tmp_path / "report")
        finally:
            file.write_bytes(kept)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (("id",), 5, "id: input should be a valid string, not 5"),
            (("truth",), [[0.5, 0.5, 0.2, 0.2]], "box .* needs 0 <= x0 < x1"),
            (("truth",), [[0, 0, 1]], "truth.0: list should have at least 4 items"),
            (("focus", "status"), "lit", "focus.status: .*'boxes'"),
            (("focus", "cells"), [99], "focus.cells: 99 of 16 tokens"),
            (("focus", "cells"), [-1], "focus.cells.0: .*greater than or equal to 0"),
            (("focus", "tokens"), 10**12, "focus.tokens: .*less than"),
            (("seconds",), {"cof": math.nan}, "seconds.cof: .*finite number"),
            (("cof",), None, "neither an answer"),
            (
                ("options",),
                "x" * 9999,
                r"options: .*not 'x+' \.\.\. \(10001 characters\)|options: ",
            ),
            (("question",), "\ud800", "question: "),
        ],
    )
    def test_a_damaged_record_is_named_by_file_line_and_key(self, made, key, value, message):
        file = made / "records.jsonl"
        kept = file.read_bytes()
        rows = [json.loads(line) for line in kept.splitlines()]
        rows[2] = changed(rows[2], key, value, False)
        try:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            with pytest.raises(
                RunError, match=rf"records.jsonl: line 3: damaged \({message}"
            ) as error:
                load_run(made)
            assert len(str(error.value)) < 500
        finally:
            file.write_bytes(kept)

    @pytest.mark.parametrize(
        "line", ["[" * 9999, "[]", "5", '{"index": -1}', '{"index": true}', '{"index": 1e3}', "{}"]
    )
    def test_a_line_that_is_no_record(self, made, line):
        file = made / "records.jsonl"
        kept = file.read_bytes()
        try:
            file.write_bytes(line.encode() + b"\n" + kept)
            with pytest.raises(RunError, match=r"records.jsonl: line 1 is damaged"):
                load_run(made)
        finally:
            file.write_bytes(kept)


class TestReplies:
    def test_rows_that_are_no_text_are_named(self, tmp_path):
        import sqlite3

        cache = ReplyCache(tmp_path / "replies.sqlite")
        with cache._open() as base:
            for key, reply in (("a", b"\xff"), ("b", None)):
                base.execute("INSERT INTO replies VALUES (?, 'm', 's', 'q', ?)", (key, reply))
        for key in "ab":
            with pytest.raises(RunError, match=r"replies.sqlite: .*no text"):
                cache._read([key])
        (tmp_path / "none.sqlite").write_text("no database at all, but long enough to be one" * 9)
        with pytest.raises(RunError, match="cannot be used as a cache"):
            ReplyCache(tmp_path / "none.sqlite").rows()
        with sqlite3.connect(tmp_path / "other.sqlite") as other:
            other.execute("CREATE TABLE replies (x TEXT)")
        with pytest.raises(RunError, match="cannot be used as a cache"):
            ReplyCache(tmp_path / "other.sqlite").rows()
