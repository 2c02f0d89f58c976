"""Files are written whole or not at all; what is no file is not opened."""

import errno
import os
import re
from pathlib import Path

import pytest

from cof.files import DiskError, blamed, regular, sweep, whole, whole_folder, write_whole

PACKAGE = Path(__file__).resolve().parents[1] / "cof"


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    assert write_whole(tmp_path / "new" / "a.txt", "λ\r\n\n").read_bytes() == "λ\r\n\n".encode()
    assert write_whole(tmp_path / "new" / "b", b"\0").read_bytes() == b"\0"
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["a.txt", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, step):
    file = write_whole(tmp_path / "a", "old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full) if step == "fsync" else monkeypatch.setattr(
        type(file), "replace", full
    )
    with pytest.raises(DiskError, match=r"a: cannot be written \(No space left on device\)"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_link_is_written_through(tmp_path):
    file = write_whole(tmp_path / "a", "old")
    (tmp_path / "link").symlink_to(file)
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert file.read_text() == "new"


def test_what_cannot_be_written_is_said(tmp_path):
    file = write_whole(tmp_path / "a", "")
    with pytest.raises(DiskError, match=r"a/b: cannot be written \(Not a directory\)|File exists"):
        write_whole(file / "b", "")
    with pytest.raises(DiskError, match="cannot be written"):
        write_whole(tmp_path, "")


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    file = write_whole(tmp_path / "a", "")
    (tmp_path / "link").symlink_to(file)
    assert regular(file) == file
    assert regular(tmp_path / "link") == tmp_path / "link"
    for path, kind in {tmp_path: "a folder", tmp_path / "pipe": "a pipe"}.items():
        with pytest.raises(DiskError, match=f"is {kind}, expected a file"):
            regular(path)
    for path in (tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(DiskError, match="cannot be read"):
            regular(path)


def test_a_library_writes_into_the_place_or_not_at_all(tmp_path):
    with whole(tmp_path / "a.png") as fresh:
        assert fresh.suffix == ".png"
        fresh.write_bytes(b"new")
        assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "a.png").read_bytes() == b"new"
    with pytest.raises(KeyError), whole(tmp_path / "a.png") as fresh:  # noqa: PT012
        fresh.write_bytes(b"half")
        raise KeyError
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_of_files_is_filled_or_left_as_it_was(tmp_path):
    write_whole(tmp_path / "out" / "kept", "old")
    with whole_folder(tmp_path / "out") as fresh:
        (fresh / "inner").mkdir()
        (fresh / "inner" / "a").write_text("a")
        assert [one.name for one in (tmp_path / "out").iterdir() if one.name[0] != "."] == ["kept"]
    with pytest.raises(KeyError), whole_folder(tmp_path / "out") as fresh:  # noqa: PT012
        (fresh / "b").write_text("b")
        raise KeyError
    found = sorted(one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*"))
    assert found == ["out", "out/inner", "out/inner/a", "out/kept"]


def test_what_killed_writers_left_can_be_swept(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a.png") as fresh:  # noqa: PT012
        os.link(write_whole(tmp_path / "b", ""), fresh.with_name(fresh.name + "9"))
        raise KeyboardInterrupt
    sweep(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


def test_an_error_that_is_not_the_systems_stays_what_it_is():
    with pytest.raises(ValueError, match="a bug"), blamed("x", "written"):
        raise ValueError("a bug")


WRITES = re.compile(
    r"\.write_(text|bytes)\(|\bopen\([^)\n]*[\"'][wax]b?\+?[\"']|savefig\(|\bsave_file\("
    r"|save_pretrained\(|torch\.save\(|np\.save\w*\(|json\.dump\(|\.save\("
)
INSIDE = re.compile(r"fresh|folder / \"model\.safetensors\"|clone\.save|buffer|picture\.save")
"""Into what `whole` and `whole_folder` gave, or into memory; `Picture.save` goes through them."""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_writer_goes_through_one_helper(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [line.strip() for line in lines if WRITES.search(line) and not INSIDE.search(line)]
    appending = [line for line in found if '"ab"' in line or '"a"' in line]  # records and logs
    told = [line for line in found if "def " in line or "`" in line]
    assert [line for line in found if line not in (*appending, *told)] == []
    assert all("blamed(" in line for line in appending)
