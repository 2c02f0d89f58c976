import json
from dataclasses import asdict
from pathlib import Path

import pytest
from committed import unpacked

from cof.config import identity, schema
from cof.config.yaml import parse_yaml
from cof.errors import ConfigError

OLD = sorted(unpacked().rglob("config.yaml"))
EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "configs"


HALF = {"dtype": "float16", "device": "cuda"}
FULL = {"dtype": "float32", "device": "cpu"}


def hash_of(settings, model=HALF):
    return identity.content_hash(settings.as_dict(), model)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("bench: {name: mme, root: data}\nrefine: {name: highlight, weight: 2}\n")
    return path


def test_what_is_left_out_has_its_default(file):
    got = schema.load(file)
    assert got.names == {
        "model": "llava",
        "bench": "mme",
        "locate": "prompt",
        "refine": "highlight",
    }
    assert (got.refine.weight, got.refine.scope, got.boxes.rules) == (2.0, "all", "clean")
    assert (got.model.path, got.bench.root, got.subset.limit) == ("cof-tiny", "data", None)
    assert (got.general.plain, got.general.batch_size, got.limits.max_new_tokens) == (True, 1, 128)


def test_the_resolved_config_reads_back_unchanged(file):
    got = schema.load(file, ["refine.layers=[0, 3]", "model.device_map=auto", "bench.limit=3"])
    again = schema.resolve(json.loads(json.dumps(got.as_dict())))
    assert again == got
    assert hash_of(again) == hash_of(got)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("refine.weight=1e-3", lambda c: c.refine.weight == 0.001),
        ("refine.weight=3", lambda c: c.refine.weight == 3.0),
        ("refine.layers=[1, 2]", lambda c: c.refine.layers == (1, 2)),
        ("model.path=a=b", lambda c: c.model.path == "a=b"),
        ("boxes.expand=1.5", lambda c: c.boxes.expand == 1.5),
        ("plain=false", lambda c: c.general.plain is False),
        ("name=x", lambda c: c.general.name == "x"),
        ("limits.seed=7", lambda c: c.limits.seed == 7),
        ("bench.limit=null", lambda c: c.subset.limit is None),
    ],
)
def test_an_override_changes_its_key_alone(file, override, read):
    before, after = schema.load(file), schema.load(file, [override])
    assert read(after)
    key = override.partition("=")[0]
    one, two = identity.flatten(before.as_dict()), identity.flatten(after.as_dict())
    assert [name for name in one if one[name] != two[name]] in ([key], [])


def test_the_last_of_two_overrides_wins(file):
    assert schema.load(file, ["refine.weight=3", "refine.weight=4"]).refine.weight == 4


def test_another_plugin_keeps_only_the_keys_that_it_has(file):
    assert asdict(schema.load(file, ["refine.name=plain"]).refine) == {}
    with pytest.raises(ConfigError, match=r"^refine\.weight: unknown key"):
        schema.load(file, ["refine.name=plain", "refine.weight=3"])


class TestChanges:
    def test_are_what_overrides_of_the_file_are(self, file):
        changes = {"refine.weight": 3.0, "locate": "random", "boxes.expand": 2.0, "name": "x"}
        overrides = ["refine.weight=3", "locate.name=random", "boxes.expand=2", "name=x"]
        assert schema.load(file).with_(changes) == schema.load(file, overrides)

    def test_name_the_plugin_before_its_keys_in_any_order(self, file):
        found = schema.load(file).with_({"locate.area": 0.5, "locate.name": "centre"})
        assert (found.names["locate"], found.locate.area) == ("centre", 0.5)

    def test_leave_another_plugin_its_own_defaults_and_what_was_chosen(self, file):
        base = schema.load(file, ["locate.name=shuffled", "locate.of=a", "locate.seed=3"])
        assert base.with_({"locate": "random"}).locate.of == "a"
        found = schema.load(file, ["locate.name=random"])
        with pytest.raises(ConfigError, match=r"^locate\.of: has no default"):
            found.with_({"locate": "shuffled"})

    def test_of_nothing_are_the_same_config(self, file):
        base = schema.load(file, ["refine.layers=[0, 3]", "bench.limit=3"])
        assert base.with_({}) == base

    def test_are_checked(self, file):
        with pytest.raises(ConfigError, match=r"^refine\.wieght: unknown key"):
            schema.load(file).with_({"refine.wieght": 2})
        with pytest.raises(ConfigError, match=r"there is: .*oracle"):
            schema.load(file).with_({"locate": "nowhere"})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("refine.wieght=2", r"^refine\.wieght: unknown key \(value 2\); there is: .*weight"),
        ("colour=2", r"^colour: unknown key \(value 2\); there is: batch_size, bench, boxes"),
        (
            "bench.limits=2",
            r"^bench\.limits: unknown key .*; there is: limit, limit_first, .*root",
        ),
        ("refine.weight=two", r"^refine\.weight: .*valid number, not 'two'"),
        ("refine.weight='2'", r"^refine\.weight: .*valid number, not '2'"),
        ("refine.weight=true", r"^refine\.weight: .*valid number, not True"),
        ("refine.layers=[a]", r"^refine\.layers\.0: .*integer, not 'a'"),
        ("refine.scope=most", r"^refine\.scope: .*'all' or 'text', not 'most'"),
        ("refine.weight=-1", r"^refine: .*-1"),
        ("refine.name=nothing", r"'nothing'; there is: .*highlight.*plain"),
        ("bench.name=nothing", r"'nothing'; there is: .*mme"),
        ("bench.name=null", r"^bench\.name: needs a name, not None; there is: .*mme"),
        ("batch_size=1.5", r"^batch_size: .*integer, not 1\.5"),
        ("batch_size=0", r"^config: batch_size=0 must be at least 1"),
        ("bench.limit=0", r"^bench: limit=0 must be at least 1"),
        ("limits.temperature=-1", r"^limits: .*temperature=-1"),
        ("boxes.expand=0", r"^boxes: expand is 0"),
        ("boxes=5", r"^boxes: needs keys of its own"),
        ("batch_size.x=5", r"^batch_size: .*integer, not \{'x': 5\}"),
        ("refine.weight.x=5", r"^refine\.weight\.x: 'weight' has no keys of its own, it is 2"),
        ("name=a/b", r"^config: name='a/b' must be a plain folder name"),
        ("refine.weight", r"^'refine\.weight' is no override; write key=value"),
        ("=2", r"is no override"),
        ("refine.weight=[", r"^refine\.weight: '\[' is not YAML"),
    ],
)
def test_what_is_wrong_is_named(file, override, message):
    with pytest.raises(ConfigError, match=message) as error:
        schema.load(file, [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "needs `key: value` lines, not list"),
        ("plain: true\nplain: false\n", "key 'plain' is given twice"),
        ("plain: [\n", "not YAML"),
        ("1: 2\n", "needs `key: value` lines"),
        ("", "bench.name: needs a name"),
        ("bench: {name: mme}\n", "bench.root: has no default"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        schema.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read"):
        schema.load(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    "override",
    [
        *("out=elsewhere", "name=x", "cache=y", "bench.root=elsewhere", "workers=3"),
        *("model.path=elsewhere", "bench.questions=elsewhere"),
    ],
)
def test_where_things_are_is_not_in_the_hash(file, override):
    assert hash_of(schema.load(file, [override])) == hash_of(schema.load(file))


@pytest.mark.parametrize(("stage", "key"), [("file", "path"), ("random", "of"), ("shuffled", "of")])
def test_where_regions_are_is_not_in_the_hash(file, stage, key):
    one, two = (
        schema.load(file, [f"locate.name={stage}", f"locate.{key}={place}"]) for place in "ab"
    )
    assert hash_of(one) == hash_of(two)


def test_the_batch_size_counts_in_half_precision_alone(file):
    one, two = (schema.load(file, [f"batch_size={size}"]) for size in (1, "auto"))
    assert hash_of(one) != hash_of(two)
    assert hash_of(one, FULL) == hash_of(two, FULL)
    assert hash_of(one, FULL) != hash_of(one)


def test_names_that_mean_one_device_and_dtype_are_one_setting(file):
    named = schema.load(file, ["model.device=cuda:1", "model.dtype=float16"])
    assert hash_of(named) == hash_of(schema.load(file))
    assert hash_of(named, {**HALF, "device": "cpu"}) != hash_of(named)
    eager = schema.load(file, ["model.decode=eager"])
    assert hash_of(eager) != hash_of(schema.load(file))


def test_a_key_that_is_gone_is_dropped_at_the_value_that_is_left(file):
    now = schema.load(file)
    old = schema.load(file, ["model.compile=false"])
    assert old == now
    assert "compile" not in now.as_dict()["model"]
    saved = now.as_dict()
    saved["model"]["compile"] = False
    assert identity.content_hash(saved, HALF) == hash_of(now)
    saved["model"]["compile"] = True
    assert identity.content_hash(saved, HALF) != hash_of(now)
    with pytest.raises(ConfigError, match=r"model\.compile: True is no more; model\.decode: graph"):
        schema.resolve(saved)


def test_the_hash_of_an_old_run_is_what_it_was():
    """Of results/vstar, as the version that still had `model.compile` computed it."""
    (path,) = (unpacked() / "vstar").glob("*prompt/config.yaml")
    assert identity.content_hash(parse_yaml(path), FULL).startswith("34971268d84b")


@pytest.mark.parametrize("path", OLD, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_every_key_that_committed_configs_lack_has_its_old_value_listed(path):
    """Else a new key would change the identity of every run; the fix is a line in `LATER`."""
    old = parse_yaml(path)
    now = identity.flatten(schema.resolve(old).as_dict())
    added = now.keys() - identity.flatten(old).keys()
    assert added <= schema.LATER.keys()
    made = schema.resolve(old).as_dict()
    for key in added:
        section, dot, name = key.rpartition(".")
        (made[section] if dot else made)[name] = schema.LATER[key]
    made["bench"] |= {"limit": None, "limit_first": old["bench"]["limit"]}  # what it was called
    assert identity.content_hash(old, FULL) == identity.content_hash(made, FULL)


def test_a_key_that_older_configs_lack_counts_only_off_its_old_value(file):
    old = schema.load(file).as_dict()
    del old["images"]
    for key, value in schema.LATER.items():
        assert hash_with(old, key, value) == identity.content_hash(old, HALF)
        assert hash_with(old, key, "another") != identity.content_hash(old, HALF)


def hash_with(old, key, value):
    """The hash of a config with one more key."""
    section, dot, name = key.rpartition(".")
    new = {**old.get(section, {}), name: value}
    return identity.content_hash({**old, section: new} if dot else {**old, name: value}, HALF)


@pytest.mark.parametrize("override", ["refine.weight=2.5", "plain=false", "batch_size=2", "seed=1"])
def test_what_changes_results_is_in_the_hash(file, override):
    one, two = schema.load(file), schema.load(file, [override])
    assert hash_of(one) != hash_of(two)
    (line,) = identity.differences(one.as_dict(), two.as_dict())
    assert line.startswith(override.partition("=")[0] + ": ")


def test_the_hash_does_not_depend_on_the_order_of_keys(file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("refine: {weight: 2.0, name: highlight}\nbench: {root: data, name: mme}\n")
    assert hash_of(schema.load(other)) == hash_of(schema.load(file))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads(path):
    schema.load(path)


def test_forkme_spells_out_every_key():
    path = EXAMPLES / "forkme.yaml"
    assert identity.flatten(parse_yaml(path)) == identity.flatten(schema.load(path).as_dict())


def test_the_published_settings():
    got = schema.load(EXAMPLES / "mme_llava13b_published.yaml")
    assert (got.refine.weight, got.refine.perturb, got.refine.scope) == (4.5, 1.0, "all")
    assert (got.boxes.rules, got.boxes.expand, got.boxes.square) == ("reference", 1.0, True)
    assert (got.limits.max_new_tokens, got.limits.num_beams, got.limits.temperature) == (128, 1, 0)
    assert got.general.batch_size == 1


@pytest.mark.parametrize("rules", ["reference", "clean"])
@pytest.mark.parametrize("stop", ["boxes", "first", "never", None])
def test_published_rules_read_replies_that_no_early_stop_has_cut(file, rules, stop):
    """A reply that ends at its boxes may end before the one that the published pattern finds."""
    given = [f"boxes.rules={rules}", *([f"locate.stop={stop}"] if stop else [])]
    if rules == "reference" and stop in ("boxes", None):
        with pytest.raises(ConfigError, match=r"locate.stop: 'boxes' .* to first or never"):
            schema.load(file, given)
    else:
        found = schema.load(file, given)
        assert (found.boxes.rules, found.locate.stop) == (rules, stop or "boxes")


def test_published_rules_need_no_stop_where_no_reply_is_read(file):
    found = schema.load(file, ["locate.name=oracle", "boxes.rules=reference"])
    assert found.boxes.rules == "reference"
