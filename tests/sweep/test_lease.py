"""Who is alive, and how long a silent worker keeps its trial."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from optuna import create_study, create_trial
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from gpunet.sweep import lease

LINUX = sys.platform.startswith("linux")


def test_we_are_alive():
    assert not lease.gone(lease.me())


@pytest.mark.skipif(not LINUX, reason="only Linux tells")
def test_a_process_that_was_killed_is_gone_even_while_its_parent_does_not_look():
    code = "from gpunet.sweep.lease import me; print(me(), flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        worker = process.stdout.readline().strip()
        assert worker.split("/")[1] == str(process.pid)
        assert not lease.gone(worker)
        process.kill()
        limit = time.monotonic() + 10
        while not lease.gone(worker) and time.monotonic() < limit:
            time.sleep(0.01)
        assert lease.gone(worker), "a zombie runs no trial"
    assert lease.gone(worker)


@pytest.mark.skipif(not LINUX, reason="only Linux tells")
def test_another_process_with_the_same_number_is_not_the_worker():
    machine, process, started = lease.me().split("/")
    assert lease.gone(f"{machine}/{process}/{int(started) - 1}")


@pytest.mark.parametrize("worker", ["", "?/1/2", f"another-machine/{os.getpid()}/3"], ids=["", "?", "another"])
def test_nobody_can_tell_about_other_machines(worker):
    assert not lease.gone(worker)


def test_somebody_elses_process_that_is_hidden_is_not_gone(monkeypatch):
    def refuse(process, signal):
        raise PermissionError

    monkeypatch.setattr(lease, "_machine", lambda: "here")
    monkeypatch.setattr(lease, "_started", lambda process: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(lease.os, "kill", refuse)
    assert not lease.gone("here/1/2")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    return now


def running(beat=None, worker="another-machine/1/1", number=0):
    attributes = {"worker": worker} | ({} if beat is None else {"beat": beat})
    trial = create_trial(state=TrialState.WAITING, user_attrs=attributes)
    trial.number = number
    return trial


def test_a_heartbeat_that_stops(clock):
    watch = lease.Watch()
    assert not watch.lost(running())
    clock[0] += lease.LEASE - 1
    assert not watch.lost(running())
    assert not watch.lost(running(beat=1))
    clock[0] += lease.LEASE - 1
    assert not watch.lost(running(beat=1))
    assert not watch.lost(running(beat=1, number=1)), "another trial, seen for the first time"
    clock[0] += 2
    assert watch.lost(running(beat=1))
    assert not watch.lost(running(beat=1, worker="yet-another/1/1"))
    assert lease.LEASE > 3 * lease.BEAT, "a beat or two may be late"


def test_a_heart_beats(monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    storage = InMemoryStorage()
    study = create_study(storage=storage)
    trial = study.ask()

    def beats():
        return study.trials[0].user_attrs.get("beat", 0)

    before = threading.active_count()
    with lease.Heartbeat(storage, trial._trial_id) as heart:
        limit = time.monotonic() + 10
        while beats() < 3 and time.monotonic() < limit:
            time.sleep(0.005)
        assert not heart.lost
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        while not heart.lost and time.monotonic() < limit:
            time.sleep(0.005)
        assert heart.lost
    assert beats() >= 3
    assert threading.active_count() == before


def test_a_heart_beats_on_when_the_storage_is_away_for_a_moment(monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    seen = []

    class Flaky(InMemoryStorage):
        def set_trial_user_attr(self, trial_id, key, value):
            seen.append(value)
            if len(seen) < 3:
                raise ConnectionError("gone")
            super().set_trial_user_attr(trial_id, key, value)

    storage = Flaky()
    trial = create_study(storage=storage).ask()
    with lease.Heartbeat(storage, trial._trial_id):
        limit = time.monotonic() + 10
        while not storage.get_trial(trial._trial_id).user_attrs and time.monotonic() < limit:
            time.sleep(0.005)
    assert storage.get_trial(trial._trial_id).user_attrs["beat"] >= 3
