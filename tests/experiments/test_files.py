"""Files are there whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from gpunet.errors import OutputError
from gpunet.files import writable_folder, write_atomically


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes(tmp_path):
    write_atomically(tmp_path / "a", "σ₁ = ½\n")
    assert (tmp_path / "a").read_bytes() == "σ₁ = ½\n".encode()
    write_atomically(tmp_path / "a", b"\0\r\n")
    assert (tmp_path / "a").read_bytes() == b"\0\r\n"
    assert there(tmp_path) == ["a"]


def test_others_may_read_it(tmp_path):
    """A temporary file is its owner's alone; a result is not."""
    write_atomically(tmp_path / "a", "new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("step", ["chmod", "replace", "fdopen"])
def test_an_interruption_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, step, error):
    (tmp_path / "a").write_text("old")

    def broken(*args, **kwargs):
        if step == "fdopen":
            os.close(args[0])
        raise error

    monkeypatch.setattr(os, step, broken)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "a", "new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text() == "old"
    assert there(tmp_path) == ["a"]


def test_an_interruption_just_after_the_rename(tmp_path, monkeypatch):
    original = os.replace

    def late(*args):
        original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert there(tmp_path) == ["a"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "a").read_text() == "new"


def test_a_folder_is_made_and_left_empty(tmp_path):
    assert writable_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert there(tmp_path / "a" / "b") == []
    assert writable_folder(tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot write to .*file.*--out"):
            writable_folder(path)
    assert there(tmp_path) == ["file"]
