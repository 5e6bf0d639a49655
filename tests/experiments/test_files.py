"""Files are there whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpunet.errors import OutputError
from gpunet.files import alone, attempted, remove, writable_folder, write_atomically, write_once, write_or_keep

from ..hostile.disk import filled


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes(tmp_path):
    write_atomically(tmp_path / "a", "σ₁ = ½\n")
    assert (tmp_path / "a").read_bytes() == "σ₁ = ½\n".encode()
    write_atomically(tmp_path / "a", b"\0\r\n")
    assert (tmp_path / "a").read_bytes() == b"\0\r\n"
    assert there(tmp_path) == ["a"]


def test_the_first_one_writes_and_nobody_after_it(tmp_path):
    assert write_once(tmp_path / "a", "first")
    assert not write_once(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_text() == "first"
    assert (tmp_path / "a").stat().st_nlink == 1
    assert there(tmp_path) == ["a"]
    (tmp_path / "b").symlink_to(tmp_path / "c")
    for path, words in (("b", "symbolic link"), ("d/e", "there is no folder")):
        with pytest.raises(OutputError, match=words):
            write_once(tmp_path / path, "new")
    assert there(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_the_umask_says_who_may_read_it(tmp_path, umask):
    before = os.umask(umask)
    try:
        writable_folder(tmp_path / "b" / "c")
        write_atomically(tmp_path / "b" / "c" / "a", "new")
    finally:
        os.umask(before)
    for path, mode in (("b", 0o777), ("b/c", 0o777), ("b/c/a", 0o666)):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == mode & ~umask, path


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen"])
def test_an_interruption_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, step, error):
    (tmp_path / "a").write_text("old")

    def broken(*args, **kwargs):
        if step == "fdopen":
            os.close(args[0])
        raise error

    monkeypatch.setattr(os, step, broken)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
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


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "device"])
def test_what_is_no_file_is_neither_followed_nor_replaced(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "device":
        path = Path("/dev/full")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "target")
        if kind == "link":
            (tmp_path / "target").write_text("precious")
    before, mode = there(tmp_path), path.lstat().st_mode
    with pytest.raises(OutputError, match="neither followed nor replaced") as error:
        write_atomically(path, "new")
    assert str(path) in str(error.value)
    assert (there(tmp_path), path.lstat().st_mode) == (before, mode)
    if kind == "link":
        assert (tmp_path / "target").read_text() == "precious"


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


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "device"])
def test_a_folder_with_something_else_in_its_place(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/full")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"cannot write to '.*it is a .*, no folder; choose another"):
        writable_folder(path)


def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write_atomically(writable_folder(tmp_path / "out", "a") / "a", "new")
    assert there(tmp_path / "real") == ["a"]


def test_a_name_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "result.json").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match=r"result\.json': a symbolic link to '.*precious' stands there"):
        writable_folder(tmp_path, "result.json")


def test_a_missing_folder_and_a_bad_name_are_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write '.*a': there is no folder '.*b'$"):
        write_atomically(tmp_path / "b" / "a", "new")
    with pytest.raises(OutputError, match="null"):
        write_atomically(tmp_path / "a\0b", "new")
    with pytest.raises(OutputError, match="too long"):
        write_atomically(tmp_path / ("a" * 300), "new")
    write_atomically(tmp_path / ("ü" * 127), "new")  # the longest that there can be
    assert there(tmp_path) == ["ü" * 127]


# -- what killed processes leave ------------------------------------------------------------------------------------

LIVING = """
import sys
from pathlib import Path
from gpunet.files import temporary
with temporary(Path(sys.argv[1])) as (name, file):
    print(name, flush=True)
    sys.stdin.read()
"""


def test_only_what_the_dead_left_is_removed(tmp_path):
    abandoned = [".a.k3x_9z0q.part", ".a.0123abcd.part", ".a.part"]
    others = [".b.0123abcd.part", "a.part", ".a.0123abcd.part.bak", ".a.mine.part", ".ab.0123abcd.part"]
    for name in abandoned + others:
        (tmp_path / name).write_text("half")
    (tmp_path / ".a.0123link.part").symlink_to(tmp_path / "a.part")
    (tmp_path / ".a.0123fold.part").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", LIVING, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    living = Path(process.stdout.readline().strip()).name
    write_atomically(tmp_path / "a", "new")
    kept = [*others, ".a.0123link.part", ".a.0123fold.part", "a"]
    assert there(tmp_path) == sorted([*kept, living])
    process.kill()
    process.communicate()
    remove(tmp_path / "a")
    assert there(tmp_path) == sorted(set(kept) - {"a"})
    remove(tmp_path / "a")


def test_without_locks_age_tells(tmp_path, monkeypatch):
    import fcntl

    def none(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    for name, age in ((".a.0123abcd.part", 60), (".a.0123abce.part", 7200)):
        (tmp_path / name).write_text("half")
        times = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (times, times))
    write_atomically(tmp_path / "a", "new")
    with alone(tmp_path):
        pass
    assert there(tmp_path) == [".a.0123abcd.part", "a"]


def test_a_folder_is_one_processs_alone(tmp_path):
    with alone(tmp_path, "`gpunet run`"):
        with pytest.raises(OutputError, match=r"another `gpunet run` is writing to .*: wait for it to end"):
            alone(tmp_path, "`gpunet run`").__enter__()
        assert there(tmp_path) == []
    with alone(tmp_path):
        pass


# -- what took long to make -------------------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """Folders on a full disk."""
    return filled(monkeypatch)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_result_is_kept_beside_a_folder_that_is_full(tmp_path, full, temporary):
    out = writable_folder(tmp_path / "runs" / "mine")
    (out / "a").write_text("old")
    full.append(out)
    for name in ("mine-kept", "mine-kept-2"):
        kept = tmp_path / "runs" / name / "a"
        with pytest.raises(OutputError) as error:
            write_or_keep(out / "a", "new")
        assert str(error.value) == f"cannot write '{out / 'a'}': No space left on device; it is kept as '{kept}'"
        assert (error.value.kept, kept.read_text()) == (kept, "new")
    assert (there(out), (out / "a").read_text(), there(temporary)) == (["a"], "old", [])


def test_a_result_is_kept_in_the_temporary_folder_where_all_is_full(tmp_path, full, temporary):
    out = writable_folder(tmp_path / "runs" / "mine")
    full.append(tmp_path / "runs")
    with pytest.raises(OutputError, match=r"kept as '.*temporary/mine-kept/a'") as error:
        write_or_keep(out / "a", "new")
    assert error.value.kept == temporary / "mine-kept" / "a"
    assert there(tmp_path / "runs") == ["mine"]
    full.append(tmp_path)
    with pytest.raises(OutputError, match="nor could it be kept") as error:
        write_or_keep(out / "a", "new")
    assert error.value.kept is None
    assert there(temporary) == ["mine-kept"]


def test_a_folder_that_vanished_is_made_again(tmp_path):
    out = writable_folder(tmp_path / "runs" / "mine")
    out.rmdir()
    out.parent.rmdir()
    write_or_keep(out / "a", "new")
    assert (out / "a").read_text() == "new"


def test_the_current_folder_is_gone(tmp_path, monkeypatch, temporary):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(OutputError, match="kept as"):
        write_or_keep(Path("out") / "a", "new")
    assert (temporary / "out-kept" / "a").read_text() == "new"


def test_where_what_was_attempted_lies(tmp_path, full, temporary):
    def write():
        write_or_keep(tmp_path / "out" / "a", "new")
        return tmp_path / "out" / "a"

    assert attempted(write) == (tmp_path / "out" / "a", "")
    full.append(tmp_path / "out")
    path, problem = attempted(write)
    assert path == tmp_path / "out-kept" / "a"
    assert problem.endswith(f"kept as '{path}'")
