"""Workers in real processes: they join, die, are interrupted, and the table is the same."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy.engine.default import DefaultDialect
from threadpoolctl import threadpool_limits

from gpunet.errors import InputError, RunError
from gpunet.sweep import join, parse_parameter, search
from gpunet.sweep import workers as module
from gpunet.sweep.plan import Spec
from gpunet.sweep.storage import opened
from gpunet.sweep.study import SILENCE, SweepStudy

from ..cli.runner import run
from ..experiments.schema import parse
from .functions import BOWL, SPACE
from .processes import PARAMS, ROOT, alive, begun, children, ended, gpunet, said, sweep, wait_until
from .tables import undisturbed, without_seconds

THREADS, SCRIPTED = "tests.sweep.functions:threads", "tests.sweep.functions:scripted"
ONE = [parse_parameter("x=0..1")]


def two_processes(storage, tmp_path):
    """We start, `gpunet sweep join` takes part; both run trials."""
    log, second = tmp_path / "log", []

    def come_later():
        assert wait_until(lambda: begun(log))
        second.append(gpunet("sweep", "join", storage, "--function", BOWL, "--json"))

    threading.Thread(target=come_later).start()
    table = search(BOWL, {"log": str(log), "together": 2}, SPACE, trials=6, stages=2, storage=storage)
    code, out, err = ended(second[0])
    assert code == 0, err
    assert without_seconds(table) == undisturbed(6, 2)
    assert {pid for _, _, pid in begun(log)} == {os.getpid(), second[0].pid}
    assert join(storage) == table
    result = parse(out)
    assert [row["metrics"]["value"]["mean"] for row in result["rows"] if "value" in row["metrics"]] == [
        row["value"] for row in table if row["value"] is not None
    ]
    return result


@pytest.mark.slow
@pytest.mark.usefixtures("poison")
def test_a_second_process_joins_on_sqlite(tmp_path):
    two_processes(f"sqlite:///{tmp_path}/shared.db", tmp_path)


@pytest.mark.slow
def test_a_second_process_joins_on_postgresql(tmp_path, database):
    result = two_processes(database, tmp_path)
    assert "***@127.0.0.1" in result["settings"]["storage"]
    assert database.split(":")[2].split("@")[0] not in json.dumps(result)


@pytest.mark.slow
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("storage", [pytest.param("shared.db", marks=pytest.mark.slow), "shared.log"])
def test_several_workers(tmp_path, storage, capfd, monkeypatch):
    """Each has one thread, and may print what it likes."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    log = str(tmp_path / "log")
    given = {"log": log, "together": 2}
    table = search(THREADS, given, ONE, trials=4, stages=2, storage=storage, workers=2)
    assert [row["state"] for row in table] == ["complete"] * 8
    assert {tuple(row["metrics"]["threads"]) for row in table} == {(1,) * len(table[0]["metrics"]["threads"])}
    assert {row["metrics"]["asked_for"] for row in table} == {"1"}
    workers = {pid for _, _, pid in begun(tmp_path / "log")}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert not any(map(alive, workers))
    captured = capfd.readouterr()
    assert (captured.out, captured.err.count("x" * 99)) == ("", 8 * 700)
    again = search(THREADS, given, ONE, trials=4, stages=2, storage=storage, workers=2)
    assert again == table
    assert len(begun(tmp_path / "log")) == 8


def test_the_current_folder_is_looked_into_last_but_where_our_own_package_lies_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/usr/lib/one", str(ROOT)])
    assert module._path() == ["/usr/lib/one", str(ROOT), str(tmp_path), str(tmp_path)]
    monkeypatch.chdir(ROOT)
    assert module._path() == [str(ROOT), str(tmp_path), "/usr/lib/one", str(ROOT)]
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert module._path() == [str(tmp_path), "/usr/lib/one", str(ROOT)]


@pytest.mark.slow
def test_one_worker_with_a_storage_has_one_thread(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with threadpool_limits(2):
        (row,) = search(THREADS, {}, ONE, trials=1, stages=1, storage="a.db")
    assert set(row["metrics"]["threads"]) == {1}


linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells at once that a worker is gone"
)


@pytest.mark.slow
@linux
def test_a_worker_is_killed_and_then_all_of_them(tmp_path):
    log, told, storage = tmp_path / "log", tmp_path / "told", f"sqlite:///{tmp_path}/shared.db"
    options = ("--workers", 2, "--set", f"log={log}", "--set", "sleep=0.2")
    with told.open("w") as err:
        process = sweep(storage, *options, trials=6, stderr=err)
    assert wait_until(lambda: len({pid for _, _, pid in begun(log)}) == 2)
    first, second = children(process)
    os.kill(first, signal.SIGKILL)
    seen = len(begun(log))
    assert wait_until(lambda: "1 of 2 workers ended by signal 9; the others go on" in told.read_text())
    assert wait_until(lambda: len(begun(log)) > seen + 2), "the other goes on"
    process.kill()
    assert wait_until(lambda: not alive(second)), "a worker does not outlive who started it"
    ended(process)
    with opened(storage) as held:
        study = SweepStudy.join(held, storage)
        look = study.look()
        assert look.stage, "it was given time to finish"
        done = {str(study.spec.trial_seed(row["number"])) for row in look}
    before = len(begun(log))
    assert without_seconds(join(storage)) == undisturbed(6, 2)
    assert done.isdisjoint(seed for word, seed, _ in begun(log)[before:] if word == "began")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_says_how_to_go_on(tmp_path, workers):
    log, storage = tmp_path / "log", f"sqlite:///{tmp_path}/shared.db"
    options = ("--workers", workers, "--set", f"log={log}", "--set", "sleep=0.4")
    process = sweep(storage, *options, trials=2)
    assert wait_until(lambda: begun(log))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, out, err = ended(process)
    assert (code, out) == (130, "")
    assert said(err) == [
        "gpunet: interrupted; the finished trials are kept, and the same command goes on where it stopped",
    ]
    assert list((tmp_path / "out").iterdir()) == []
    assert not any(alive(pid) for _, _, pid in begun(log))
    with opened(storage) as held:
        assert SweepStudy.join(held, storage).look().running == [], "what ran was given back"
    assert without_seconds(join(storage)) == undisturbed(2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("taker", "name"), [(subprocess.Popen, "poll"), (DefaultDialect, "do_execute")])
def test_two_interruptions_while_something_is_locked_wait_for_its_end(taker, name, monkeypatch):
    """A process that is being looked at could not be waited for any more, a database not be opened again."""
    take, nap, watched, whole = getattr(taker, name), time.sleep, [], []

    def taken(*given):
        found = take(*given)
        if watched and not whole:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            whole.append(found)
        return found

    monkeypatch.setattr(taker, name, taken)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: (watched.append(seconds), nap(seconds)))
    with pytest.raises(KeyboardInterrupt):
        search(BOWL, {"sleep": 30}, SPACE, trials=2, stages=1, storage="a.db", workers=2)
    assert len(whole) == 1


@pytest.mark.slow
@pytest.mark.parametrize("nth", range(3))
def test_what_a_library_logs_of_an_interruption_is_not_told(nth, capsys, monkeypatch):
    """SQLAlchemy reports a connection whose closing Ctrl-C broke into as its own failure."""
    close, count = DefaultDialect.do_close, itertools.count()

    def broken_into(dialect, connection):
        if next(count) == nth:
            raise KeyboardInterrupt
        close(dialect, connection)

    monkeypatch.setattr(DefaultDialect, "do_close", broken_into)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, of which a user has none
    done = run(capsys, "sweep", "function", BOWL, *PARAMS, "--storage", "a.db", "--trials", 2, "--out", "out")
    assert next(count) > nth, "it was closed so often"
    (line,) = said(done.err)
    assert (done.code, done.out) == (130, "")
    assert line.startswith("gpunet: interrupted")


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_at_once_says_nothing(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    spec = Spec(BOWL, {"sleep": 30}, tuple(SPACE), 1, 1, 0, "maximize")
    with opened(url) as held:
        SweepStudy.start(held, spec, url)
    orders = {"path": sys.path, "storage": url, "worker": "it", "keep_going": True}
    done = subprocess.run(
        [sys.executable, "-P", module.PROCESS],
        input=json.dumps(orders) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def one_of_two(does, **options):
    """Of two trials by two workers the first does what is written."""
    script = {"script": {"1": does, "2": 1}}
    space = [parse_parameter("n=1,2")]
    return search(SCRIPTED, script, space, trials=2, stages=1, storage=f"{does}.db", workers=2, **options)


@pytest.mark.slow
def test_what_a_worker_ends_with_ends_the_sweep():
    with pytest.raises(InputError, match=r"^nothing of this works here$"):
        one_of_two("unusable")


@pytest.mark.slow
def test_what_a_worker_runs_that_does_not_hear_is_given_back(tmp_path):
    script = {"script": {"1": "deaf", "2": "unusable"}, "log": str(tmp_path / "log"), "together": 2}
    with pytest.raises(InputError, match=r"^nothing of this works here$"):
        search(SCRIPTED, script, [parse_parameter("n=1,2")], trials=2, stages=1, storage="a.db", workers=2)
    with opened("a.db") as held:
        assert SweepStudy.join(held, "a.db").look().missing == [0, 1]


@pytest.mark.slow
def test_what_ends_the_sweep_is_not_written_down():
    with pytest.raises(RunError, match=r"trial \d \{\"n\": 1\} failed: KeyError: 'hidden'"):
        one_of_two("raises", keep_going=False)
    assert sorted(row["state"] for row in one_of_two("raises")) == ["complete", "failed"]


@pytest.mark.slow
def test_what_a_killed_worker_ran_is_run_again_at_once(tmp_path):
    """Who started it has seen it die: SILENCE need not pass."""
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="1 of 2 workers ended by signal 9; the others go on"):
        table = search(
            "tests.sweep.functions:suicide_once", {"mark": str(tmp_path / "mark")}, ONE, trials=4, stages=1,
            storage="a.log", workers=2,
        )  # fmt: skip
    assert [row["state"] for row in table] == ["complete"] * 4
    assert time.monotonic() - began < SILENCE / 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 of 2 workers ended by signal 9")
def test_a_trial_that_kills_every_worker():
    with pytest.raises(RunError, match=r"no worker is left, the last ended by signal 9 while running trial 0 \{\"x\""):
        search("tests.sweep.functions:suicide", {}, ONE, trials=1, stages=1, storage="a.db", workers=2)
