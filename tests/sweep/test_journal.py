"""Journals that kills and full disks have left: what was written whole is kept, a file of something else untouched."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from gpunet.errors import InputError, RunError
from gpunet.sweep import search
from gpunet.sweep.journal import Journal
from gpunet.sweep.storage import opened
from gpunet.sweep.study import SweepStudy

from .functions import BOWL, SPACE
from .tables import undisturbed, without_seconds

fcntl = pytest.importorskip("fcntl", reason="on Windows Optuna's own lock is used")

TRIALS = 4


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a sweep that was killed half-way left."""
    path, patch = tmp_path_factory.mktemp("killed") / "a.log", pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        search(BOWL, {}, SPACE, trials=TRIALS, stages=2, storage=str(path))
    lines = path.read_bytes().splitlines(keepends=True)
    return b"".join(lines[: len(lines) * 2 // 3])


@pytest.fixture
def half(tmp_path, killed):
    """It, as a file."""
    (tmp_path / "a.log").write_bytes(killed)
    return tmp_path / "a.log"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def hasty(monkeypatch):
    """What this process left running is lost at once: it is alive, and its heartbeats would be waited for."""
    monkeypatch.setattr("gpunet.sweep.study.SILENCE", 0.1)


def go():
    return without_seconds(search(BOWL, {}, SPACE, trials=TRIALS, stages=2, storage="a.log"))


def rows(more=False):
    """The finished trials; `more` writes one line."""
    with opened("a.log") as storage:
        study = SweepStudy.join(storage, "a.log")
        found = study.look()
        if more:
            study.study.set_user_attr("more", 1)
        return found


TAILS = {
    "one byte": b"{", "half a line": b'{"op_code":8,"worker_id":"x-1","trial_', "a line without its end": None,
    "no JSON": b'{"op_code":8,"worker\n', "zeros": bytes(500), "garbage": b"\xff\xfe\x00 \n", "nothing": b"\n",
    "other JSON": b"[1, 2]\n", "long": b'{"op_code":8,"worker_id":"' + b"x" * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", TAILS)
def test_a_last_line_that_is_cut_short_is_dropped(half, kind):
    whole = half.read_bytes()
    if kind == "a line without its end":
        whole, last = whole[: whole[:-1].rindex(b"\n") + 1], whole[whole[:-1].rindex(b"\n") + 1 : -1]
    else:
        last = TAILS[kind]
    half.write_bytes(whole + last)
    with pytest.warns(RuntimeWarning, match=rf"was cut short in its last line, .*: these {len(last):,} bytes are") as w:
        before = rows(more=True)
    assert len(w) == 1
    *lines, more = half.read_bytes().splitlines(keepends=True)
    assert b"".join(lines) == whole
    assert json.loads(more)["user_attr"] == {"more": 1}
    assert rows() == before != []
    assert [path.name for path in half.parent.iterdir()] == ["a.log"]


@pytest.mark.parametrize("size", [0, 9, 40])
def test_a_first_line_that_is_cut_short(half, size):
    half.write_bytes(half.read_bytes()[:size])
    if size:
        with pytest.warns(RuntimeWarning, match=f"these {size} bytes"):
            assert go() == undisturbed(TRIALS, 2)
    else:
        assert go() == undisturbed(TRIALS, 2)


@pytest.mark.parametrize("line", [b"", b'{"op_code":8,"wor', b"\xff", b"null", b'{"op_code":"8","worker_id":"x"}'])
@pytest.mark.parametrize("place", [0, 5])
def test_a_damaged_line_in_the_middle_is_one_error(half, line, place):
    lines = half.read_bytes().splitlines(keepends=True)
    half.write_bytes(b"".join([*lines[:place], line + b"\n", *lines[place + 1 :]]))
    before = half.read_bytes()
    words = rf"line {place + 1} of it is damaged" if place or line[:3] in (b"", b'{"o') else "not a journal"
    with pytest.raises(InputError, match=rf"a\.log' cannot be used: .*({words})") as error:
        go()
    assert "\n" not in str(error.value)
    assert half.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"mine", b"mine\n", b"mine\nand more\nhalf a", b'{"op_code":0,"worker_id":"x"}\n', b"[1]\n"],
)
def test_a_file_of_something_else_is_not_touched(tmp_path, content):
    (tmp_path / "a.log").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be used: .*(not a journal|line 1 of it is damaged)"):
        go()
    assert (tmp_path / "a.log").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_no_plain_file(tmp_path, kind):
    path = "/dev/full" if kind == "device" else tmp_path / "a.log"
    if kind != "device":
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    with pytest.raises(InputError, match=r"cannot be used: (it is no plain file|Is a directory)"):
        search(BOWL, {}, SPACE, trials=2, stages=1, storage=f"journal:///{path}")


def test_a_disk_that_fills_up_leaves_whole_lines(half, hasty, monkeypatch):
    """And the same command goes on when there is room again."""
    calls = []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == 7:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match=r"a\.log' was lost: No space left on device; the same command goes on"):
        go()
    assert all(json.loads(line) for line in half.read_bytes().splitlines(keepends=True))
    assert half.read_bytes().endswith(b"\n")
    assert go() == undisturbed(TRIALS, 2)


def test_a_write_that_the_disk_takes_only_in_part(half, hasty):
    """As the system does it: of what is written some is taken, the rest is refused."""
    import resource

    before, limits = half.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 700, limits[1]))
    try:
        with pytest.raises(RunError, match=r"was lost: File too large; the same command goes on"):
            go()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before < half.stat().st_size <= before + 700
    assert half.read_bytes().endswith(b"\n")
    assert go() == undisturbed(TRIALS, 2)


@pytest.mark.parametrize("lost", ["deleted", "damaged"])
def test_a_journal_that_is_lost_meanwhile(half, lost):
    last = half.read_bytes().splitlines(keepends=True)[-1]

    def lose():
        with opened("a.log") as storage:
            study = SweepStudy.join(storage, "a.log")
            half.unlink() if lost == "deleted" else half.write_bytes(half.read_bytes() + b"x\n" + last)
            study.study.set_user_attr("a", 1)

    with pytest.raises(RunError, match=r"was lost: (No such file|line \d+ of it is damaged).*the same command goes on"):
        lose()
    assert half.exists() == (lost == "damaged")  # not begun anew, without what was in it


# -- its lock ---------------------------------------------------------------------------------------------------------


def hold(path):
    with Journal(path)._locked():
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_dead_process_locks_nothing(half, hasty):
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(str(half),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    began = time.monotonic()
    assert go() == undisturbed(TRIALS, 2)
    assert time.monotonic() - began < 5
    assert [path.name for path in half.parent.iterdir()] == ["a.log"]


def test_a_living_process_is_waited_for(half):
    taken = []

    def take():
        with Journal(str(half))._locked():
            taken.append(True)

    other = threading.Thread(target=take)
    with Journal(str(half))._locked():
        other.start()
        time.sleep(0.2)
        assert taken == []
    other.join(5)
    assert taken == [True]


def test_where_the_system_has_no_locks_optunas_own_is_used(half, hasty, monkeypatch):
    def no(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no)
    with Journal(str(half))._locked():
        assert os.path.isfile(f"{half}.lock")
    assert go() == undisturbed(TRIALS, 2)
    assert [path.name for path in half.parent.iterdir()] == ["a.log"]


def appended(path, count):
    journal = Journal(path)
    for i in range(count):
        journal.append_logs([{"op_code": 2, "worker_id": str(os.getpid()), "i": i}] * 2)


@pytest.mark.slow
def test_several_processes_lose_no_line(tmp_path):
    path, context = str(tmp_path / "b.log"), multiprocessing.get_context("fork")
    processes = [context.Process(target=appended, args=(path, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = list(Journal(path).read_logs(0))
    assert len(found) == 150
    for process in processes:
        own = [record["i"] for record in found if record["worker_id"] == str(process.pid)]
        assert own == sorted(list(range(25)) * 2)
    assert os.listdir(tmp_path) == ["b.log"]
