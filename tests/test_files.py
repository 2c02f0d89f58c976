"""Files are written whole or not at all; what is no file is not opened."""

import errno
import os

import pytest

from cof.files import DiskError, regular, write_whole


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
