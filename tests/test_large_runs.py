"""Large runs: read from disk when asked for, the same numbers to the digit, bytes a question."""

import gzip
import json
import random
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import make_mme

from cof import load_run
from cof.analyse import significance, statistics
from cof.analyse.gather import Kept, answer_of
from cof.analyse.metrics import published
from cof.analyse.statistics import Clusters, Names, mean, numbered
from cof.cli import main
from cof.config import plugins
from cof.errors import RunError
from cof.store import record_files
from cof.store import run as reading
from cof.store.places import Indexes, Places
from cof.store.record_view import RecordView

ROOT = Path(__file__).resolve().parents[1]
LARGE = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "large_runs.py")))
BENCHES = sorted(LARGE.BENCHES)


@pytest.fixture
def from_disk(monkeypatch):
    """Runs of more than ten records are large."""
    monkeypatch.setattr(reading, "HELD", 10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    return make_run(root, make_mme(root / "mme", 40), right_with(0.5, 0.7))


def lines(run):
    return (run.path / "records.jsonl").read_bytes().splitlines(keepends=True)


def copied(run, place, **files):
    """The run in another place, with other record files."""
    place.mkdir()
    for name in ("config.yaml", "manifest.json"):
        (place / name).write_bytes((run.path / name).read_bytes())
    for name, content in files.items():
        (place / name.replace("_", "-").replace("-jsonl", ".jsonl")).write_bytes(content)
    return place


class TestView:
    def test_it_is_the_tuple_of_a_small_run(self, run, from_disk):
        got = load_run(run.path)
        assert isinstance(got.results, RecordView)
        assert not isinstance(run.results, RecordView)
        assert got == run
        assert run == got
        assert got.results == got.results
        assert got.results != run.results[:-1]
        assert len(got.results) == 80
        assert (got.results[3], got.results[-1]) == (run.results[3], run.results[-1])
        assert got.results[5:60:7] == run.results[5:60:7]
        assert list(got.results) == list(run.results) == list(got.results)
        assert got.failed == run.failed
        with pytest.raises(IndexError):
            got.results[80]

    def test_shards_in_any_order_are_in_dataset_order(self, run, from_disk, tmp_path):
        rows = lines(run)
        random.Random(0).shuffle(rows)
        parts = {f"records_{rank}_jsonl": b"".join(rows[rank::3]) for rank in range(3)}
        place = copied(run, tmp_path / "r", **parts)
        assert load_run(place).results == run.results
        record_files.merge(place, 80)
        assert [file.name for file in place.glob("records*")] == ["records.jsonl"]
        assert lines(load_run(place)) == lines(run)

    @pytest.mark.parametrize("turned", [False, True])
    def test_a_packed_run(self, run, from_disk, tmp_path, turned):
        place = copied(run, tmp_path / "r")
        data = b"".join(lines(run)[:: -1 if turned else 1])
        (place / "records.jsonl.gz").write_bytes(gzip.compress(data))
        got = load_run(place)
        assert got.results == run.results
        assert got.results[7] == run.results[7]

    @pytest.mark.parametrize("change", [lambda rows: rows[:4], lambda rows: rows[1:], reversed])
    def test_a_file_that_changed_since_is_named(self, run, from_disk, tmp_path, change):
        place = copied(run, tmp_path / "r", records_jsonl=b"".join(lines(run)))
        got = load_run(place)
        (place / "records.jsonl").write_bytes(b"".join(change(lines(run))))
        with pytest.raises(RunError, match=r"records.jsonl: was changed while it was read"):
            list(got.results)

    def test_a_damaged_record_is_named_when_the_run_is_loaded(self, run, from_disk, tmp_path):
        rows = lines(run)
        rows[40] = json.dumps({**json.loads(rows[40]), "id": 5}).encode() + b"\n"
        place = copied(run, tmp_path / "r", records_jsonl=b"".join(rows))
        with pytest.raises(RunError, match=r"records.jsonl: line 41: damaged \(id: "):
            load_run(place)


class TestPlaces:
    @pytest.mark.parametrize("seed", range(20))
    def test_they_are_a_dictionary(self, seed):
        rng = random.Random(seed)
        high = rng.choice([50, 3000, 10**6, 10**30])
        indexes = [*rng.sample(range(min(high, 10**9)), 40), high + 1]
        places, known, seen = Places(), {}, Indexes()
        for number, index in enumerate(indexes):
            if number % 15 == 0:
                places.files.append(Path(f"{number}"))
            assert places.get(index) is None
            assert index not in seen
            places.put(index, 7 * number)
            seen.add(index)
            known[index] = (len(places.files) - 1, 7 * number)
        assert {index: places.get(index) for index in known} == known
        assert list(places.order()) == sorted(known)
        assert len(places) == len(known)
        others = [index + 1 for index in known if index + 1 not in known]
        assert all(places.get(index) is None and index not in seen for index in others)
        assert all(index in seen for index in known)

    def test_one_odd_index_takes_no_room(self):
        places, seen = Places(), Indexes()
        places.files.append(Path("f"))
        places.put(10**12, 0)
        seen.add(10**12)
        assert sys.getsizeof(places._file) + sys.getsizeof(seen._bits) < 20_000


def answered(bench, total=240):
    """Made-up questions and answers, groups torn apart, a few failed."""
    module, rng = plugins.load("bench", bench), random.Random(bench)
    results = list(LARGE.results(bench, total, 3))
    rng.shuffle(results)
    said = answer_of(module, "cof")
    answers = [None if rng.random() < 0.05 else said(result) for result in results]
    return module, [result.question for result in results], answers


@pytest.mark.parametrize("bench", BENCHES)
class TestTally:
    def test_it_scores_any_part_as_the_lists_are_scored(self, bench):
        module, questions, answers = answered(bench)
        tally, kept = module.tally(None), Kept(module, None)
        for row in zip(questions, answers, strict=True):
            tally.add(*row)
            kept.add(*row)
        assert tally.score() == module.score(questions, answers) == kept.score()
        assert json.dumps(tally.score())
        rng = np.random.default_rng(0)
        for size in (1, 2, 3, 50, 239):
            places = np.sort(rng.choice(240, size, replace=False))
            assert tally.score(places) == kept.score(places)
        assert tally.credits() == kept.credits()
        assert tally.failed() == kept.failed()

    def test_it_can_go_on_after_it_was_asked(self, bench):
        module, questions, answers = answered(bench)
        tally = module.tally(None)
        for count, row in enumerate(zip(questions, answers, strict=True), start=1):
            tally.add(*row)
            if count % 97 == 0:
                assert tally.score() == module.score(questions[:count], answers[:count])

    def test_parts_that_are_alike_have_one_score(self, bench):
        module, questions, answers = answered(bench)
        tally = module.tally(None)
        for row in zip(questions, answers, strict=True):
            tally.add(*row)
        known, rng = {}, np.random.default_rng(1)
        for _ in range(300):
            places = np.sort(rng.choice(240, rng.integers(1, 3), replace=False))
            key, score = tally.alike(places), tally.score(places)
            assert known.setdefault(key, score) == score
        assert len(known) < 300 or bench == "refcoco"


class TestNames:
    @pytest.mark.parametrize("spare", [0, 1 << 24])
    def test_they_are_numbered_in_order_of_their_names(self, monkeypatch, spare):
        monkeypatch.setattr(statistics, "SPARE", spare)
        rng = random.Random(0)
        some = ["a", "", "b/é", "ß", "Z", "\U0001f600", "\uffff", "x" * 300, "a\0b", "a"]
        names = [rng.choice(some) for _ in range(400)]
        taken = Names()
        for name in names:
            taken.append(name)
        got = taken.clusters()
        assert got.numbers.tolist() == numbered(names).tolist()
        assert got.count == len(set(names))
        places = np.array([5, 3, 300, 17])
        part = got.take(places)
        assert part.numbers.tolist() == numbered([names[k] for k in places]).tolist()
        values = [rng.random() for _ in names]
        assert mean(values, got) == mean(values, names)

    def test_none_at_all(self):
        assert Names().clusters().count == 0
        assert len(Clusters(np.zeros(3, np.int32), 1)) == 3


def test_the_same_signs_are_drawn_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 333) / 2
    expected = significance._flipped(sizes, 12.0, 5)
    for block in (1, 40_000, 150_000):
        monkeypatch.setattr(significance, "BLOCK", block)
        assert significance._flipped(sizes, 12.0, 5) == expected


def test_many_images_are_counted_by_what_they_hold(run):
    """More images than groups: each is scored alone, those that are alike once."""
    got = published(run, "cof", 0)
    counts = Counter(result.question.category for result in run.results)
    assert got["color"].n == counts["color"]
    assert got["color"].clusters == counts["color"] // 2


def outputs(path, out):
    """What the commands say of a run and of two, and the files of a report."""
    one, two = path / "0", path / "1"
    bench = load_run(one).config["bench"]["name"]
    calls = [["score", bench, one], ["score", bench, one, "--json"]]
    calls += [["compare", one, two, "--json"], ["compare", one, two]]
    calls += [] if bench == "refcoco" else [["compare", one, "--json"]]
    calls += [["report", one, two, "--out", out, "--csv", "--gallery", "0"]]
    found = [CliRunner().invoke(main, list(map(str, call))) for call in calls]
    assert all(done.exit_code == 0 for done in found), [done.output for done in found]
    files = sorted(file for file in out.rglob("*") if file.suffix in (".md", ".csv"))
    return [done.output for done in found[:-1]], [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    "bench",
    [name if name == "mme" else pytest.param(name, marks=pytest.mark.slow) for name in BENCHES],
)
def test_a_large_run_has_the_numbers_of_a_small_one(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("cof.analyse.report.save", lambda figure, path: path)
    for seed in (0, 1):
        LARGE.write_run(tmp_path / str(seed), bench, 260, seed)
    held = outputs(tmp_path, tmp_path / "held")
    monkeypatch.setattr(reading, "HELD", 10)
    assert outputs(tmp_path, tmp_path / "read") == held
    assert held[1]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "compare passes", "compare runs", "report"])
def test_memory_grows_by_bytes_a_record(command, tmp_path_factory):
    """120 a record and run leave room for what is sorted; a result in memory takes 8000."""
    root = Path(tmp_path_factory.getbasetemp()) / "sizes"
    root.mkdir(exist_ok=True)
    peaks = []
    for size in (10_000, 70_000):
        pair = [root / f"{size}-{seed}" for seed in (0, 1)]
        for seed, place in enumerate(pair):
            if not place.exists():
                LARGE.write_run(place, "mme", size, seed)
        code, arguments = LARGE.commands("mme", *pair, root)[command]
        peak, _, exit_code = LARGE.measure(code, arguments, root)
        assert exit_code == 0
        peaks.append(peak)
    assert (peaks[1] - peaks[0]) * 2**20 < 60_000 * 600, peaks


def test_the_script_measures(tmp_path):
    arguments = ["--sizes", "40", "--benches", "pope", "--only", "score"]
    script = [sys.executable, str(ROOT / "scripts" / "large_runs.py"), str(tmp_path), *arguments]
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    assert "| pope | 40 | score |" in done.stdout
    assert not list(tmp_path.glob("pope*"))


def environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}
