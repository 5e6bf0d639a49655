"""Which running trial has lost its worker: told at once on one machine, by a heartbeat that stops between machines.

Optuna has a heartbeat of its own, for databases only. It cannot be used here: a worker killed between taking a trial
and its first beat, or between failing a stale trial and queuing it again, would lose that trial for good.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

BEAT = 10.0  # seconds between heartbeats
LEASE = 60.0  # a heartbeat that has not been seen to move for so many seconds has stopped
WORKER, BEATS = "worker", "beat"  # attributes of a trial


def me() -> str:
    """Our process: machine/process/start, where the system tells (Linux); else a name that nobody can look up."""
    with contextlib.suppress(OSError):
        return f"{_machine()}/{os.getpid()}/{_started(os.getpid())}"
    return f"?/{os.getpid()}/{time.time_ns()}"


def gone(worker: str) -> bool:
    """Whether that process ran on this machine and has ended; False where nobody can tell."""
    machine, _, rest = worker.partition("/")
    process, _, started = rest.partition("/")
    try:
        if machine != _machine():
            return False
    except OSError:
        return False
    try:
        return _started(int(process)) != started
    except OSError:
        return not _hidden(int(process))


def _machine() -> str:
    """Since when this machine runs, and in which container: process numbers mean something within these."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"


def _started(process: int) -> str:
    """When a process started, in ticks; OSError where there is none, or what was killed and waits for its parent."""
    state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    if state in "ZX":
        raise ProcessLookupError(process)
    return fields[18]


def _hidden(process: int) -> bool:
    """Whether it is somebody else's, on a system that shows nobody another's processes."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        pass
    return False


class Watch:
    """Looks at running trials again and again, by this process' own clock: machines need not agree on the time."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, float]] = {}

    def lost(self, trial: FrozenTrial) -> bool:
        """Whether a running trial's worker is gone."""
        worker, beat = trial.user_attrs.get(WORKER, ""), trial.user_attrs.get(BEATS)
        state, since = self._seen.get(trial.number, (None, 0.0))
        if state != (worker, beat):
            state, since = (worker, beat), time.monotonic()
            self._seen[trial.number] = state, since
        return gone(worker) or time.monotonic() - since > LEASE


class Heartbeat:
    """Beats while a trial runs: `with Heartbeat(storage, trial_id) as heart`; `heart.lost` when it was taken away."""

    def __init__(self, storage: BaseStorage, trial_id: int) -> None:
        self._storage, self._trial_id = storage, trial_id
        self._stop, self.lost = threading.Event(), False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        count = 0
        try:
            while not self._stop.wait(BEAT):
                count += 1
                try:
                    self._storage.set_trial_user_attr(self._trial_id, BEATS, count)
                except UpdateFinishedTrialError:
                    self.lost = True
                    return
                except Exception:  # a storage that is away for a moment: the next beat may arrive
                    continue
        finally:
            self._storage.remove_session()
