"""Packed runs: small, read like any other, never written to."""

import gzip
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import make_mme

from cof import load_run
from cof.analyse.report import ReportOptions, write_report
from cof.cli import main
from cof.config import schema
from cof.errors import RunError
from cof.evaluate.runner import run
from cof.store.pack import pack_archive, pack_runs


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path / "runs", make_mme(tmp_path / "mme", 6), right_with(0.5, 0.7))


@pytest.fixture
def packed(made, tmp_path):
    (folder,) = pack_runs([made.path], tmp_path / "packed")
    return folder


def test_it_is_small_and_says_the_same(made, packed, tmp_path):
    assert {path.name for path in packed.iterdir()} == {
        *("config.yaml", "manifest.json", "records.jsonl.gz")
    }
    loaded = load_run(packed)
    assert (loaded.results, loaded.config, loaded.manifest) == (
        *(made.results, made.config, made.manifest),
    )
    assert sum(path.stat().st_size for path in packed.iterdir()) < 5000
    for one, name in ((made, "a"), (loaded, "b")):
        write_report([one], tmp_path / name, ReportOptions(csv=True, gallery=0))
    for file in (tmp_path / "a").rglob("*.*"):
        assert (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes() == file.read_bytes()


def test_equal_records_are_equal_bytes(made, packed, tmp_path):
    before = (packed / "records.jsonl.gz").read_bytes()
    pack_runs([made.path], tmp_path / "packed")
    assert (packed / "records.jsonl.gz").read_bytes() == before


def test_a_finished_run_of_several_processes_loses_nothing(made, packed, tmp_path):
    merged = (packed / "records.jsonl.gz").read_bytes()
    lines = (made.path / "records.jsonl").read_bytes().splitlines(keepends=True)
    (made.path / "records-1.jsonl").write_bytes(b"".join(lines[1::2]))
    (made.path / "records.jsonl").write_bytes(b"".join(lines[::2]))
    (folder,) = pack_runs([made.path], tmp_path / "again")
    assert (folder / "records.jsonl.gz").read_bytes() == merged
    (made.path / "records.jsonl").rename(made.path / "records-0.jsonl")
    pack_runs([made.path], tmp_path / "again")
    assert (folder / "records.jsonl.gz").read_bytes() == merged


def test_another_run_is_never_overwritten(made, packed, tmp_path):
    other = make_run(tmp_path / "others", tmp_path / "mme", right_with(1, 1), seed=1)
    cases = [(other.path.parent, "a run that is not packed"), (packed.parent, "another run than")]
    fewer = make_run(tmp_path / "fewer", make_mme(tmp_path / "few", 4), right_with(1, 1))
    for place, message in cases:
        before = {file: file.read_bytes() for file in (place / "r").iterdir() if file.is_file()}
        with pytest.raises(RunError, match=f"r: holds {message}"):
            pack_runs([fewer.path], place)
        assert {file: file.read_bytes() for file in before} == before
        assert set(before) == {file for file in (place / "r").iterdir() if file.is_file()}


@pytest.mark.parametrize("here", [".", "answers/.."])
def test_the_name_is_that_of_the_folder(made, tmp_path, monkeypatch, here):
    (made.path / "answers").mkdir(exist_ok=True)
    monkeypatch.chdir(made.path)
    assert pack_runs([Path(here)], tmp_path / "kept") == [tmp_path / "kept" / "r"]


def test_it_is_not_written_to(made, packed):
    again = {**made.config, "out": str(packed.parent), "name": packed.name}
    with pytest.raises(RunError, match=r"a packed run is only read; gzip -d .*records.jsonl.gz"):
        run(schema.resolve(again))


def test_what_cannot_be_packed(made, packed, tmp_path):
    with pytest.raises(RunError, match="is packed already"):
        pack_runs([packed], tmp_path / "more")
    with pytest.raises(RunError, match="two runs are called 'r'"):
        pack_runs([made.path, packed], tmp_path / "more")
    with pytest.raises(RunError, match="into its own folder"):
        pack_runs([made.path], made.path.parent)
    cut = make_run(tmp_path / "runs", tmp_path / "mme", right_with(1, 1), "cut", keep=3)
    with pytest.raises(RunError, match="cut: not finished"):
        pack_runs([cut.path], tmp_path / "more")
    (cut.path / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"cut: records but no manifest.json; nothing else says"):
        pack_runs([cut.path], tmp_path / "more")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"not gzip" + data,
        lambda data: gzip.compress(gzip.decompress(data)[:-9]),
    ],
    ids=["torn", "no gzip", "torn line"],
)
def test_a_damaged_one_is_named(packed, damage):
    file = packed / "records.jsonl.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RunError, match=r"records.jsonl.gz.* damaged"):
        load_run(packed)


def test_records_beside_packed_ones_are_refused(made, packed):
    (packed / "records.jsonl").write_bytes((made.path / "records.jsonl").read_bytes())
    with pytest.raises(RunError, match=r"records in records.jsonl and records.jsonl.gz; delete"):
        load_run(packed)


def test_the_command_names_the_folders(made, tmp_path):
    done = CliRunner().invoke(main, ["pack", str(made.path), "--out", str(tmp_path / "kept")])
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'kept' / 'r'}\n")
    assert load_run(tmp_path / "kept" / "r").results == made.results


class TestArchive:
    @pytest.fixture
    def archive(self, made, tmp_path):
        return pack_archive([made.path], tmp_path / "kept" / "runs.zip")

    @pytest.fixture
    def other(self, made, tmp_path):
        return make_run(tmp_path / "runs", tmp_path / "mme", right_with(0, 1), "other")

    def test_it_holds_what_a_packed_folder_holds(self, made, packed, archive, tmp_path):
        with zipfile.ZipFile(archive) as zipped:
            names = ["r/config.yaml", "r/manifest.json", "r/records.jsonl.gz"]
            assert zipped.namelist() == names
            zipped.extractall(tmp_path / "again")
        for file in packed.iterdir():
            assert (tmp_path / "again" / "r" / file.name).read_bytes() == file.read_bytes()
        assert load_run(tmp_path / "again" / "r").results == made.results

    def test_equal_runs_are_equal_bytes_in_any_order_and_at_any_time(self, made, other, tmp_path):
        one, two = tmp_path / "1.zip", tmp_path / "2.zip"
        pack_archive([made.path, other.path], one)
        pack_archive([other.path], two)
        assert one.read_bytes() != two.read_bytes()
        pack_archive([made.path], two)
        assert one.read_bytes() == two.read_bytes()
        with zipfile.ZipFile(one) as zipped:
            assert {entry.date_time for entry in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}

    def test_another_run_or_another_file_is_never_overwritten(self, archive, tmp_path):
        fewer = make_run(tmp_path / "fewer", make_mme(tmp_path / "few", 4), right_with(1, 1))
        before = archive.read_bytes()
        with pytest.raises(RunError, match=r"kept/runs.zip/r: holds another run than"):
            pack_archive([fewer.path], archive)
        assert archive.read_bytes() == before
        archive.write_bytes(before[:-40])
        with pytest.raises(RunError, match=r"runs.zip: no archive of runs, or damaged"):
            pack_archive([fewer.path], archive)
        assert archive.read_bytes() == before[:-40]

    def test_the_command_writes_one_where_the_name_says_so(self, made, tmp_path):
        out = tmp_path / "kept" / "runs.zip"
        done = CliRunner().invoke(main, ["pack", str(made.path), "--out", str(out)])
        assert (done.exit_code, done.output) == (0, f"{out}\n")
        assert zipfile.is_zipfile(out)
