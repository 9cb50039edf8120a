import os
import stat

import pytest

from switchsafe.files import atomic_folder, write_atomic


def test_mode_and_content(tmp_path):
    path = write_atomic(tmp_path / "a" / "b.txt", "hello", mode=0o600)
    assert path.read_text() == "hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "b.txt", "old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_old_one(tmp_path, error):
    folder = tmp_path / "run"
    with atomic_folder(folder) as fresh:
        (fresh / "x").write_text("1")
    with pytest.raises(error), atomic_folder(folder) as fresh:
        (fresh / "x").write_text("2")
        raise error
    assert (folder / "x").read_text() == "1"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "run"
    for name in ("first", "second"):
        with atomic_folder(folder) as fresh:
            (fresh / name).write_text(name)
    assert [file.name for file in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]
