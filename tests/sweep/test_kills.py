"""Killed with SIGKILL at random moments, 20 times: nothing is lost, nothing finished is run again."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest

from gpunet.sweep import join
from gpunet.sweep.storage import opened
from gpunet.sweep.study import SweepStudy

from .processes import alive, begun, children, ended, sweep, wait_until
from .tables import undisturbed, without_seconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells at once that a worker is gone"),
]
KILLS, TRIALS = 20, 20


def finished(storage: str) -> set[str]:
    """Seeds of the trials that are finished."""
    from gpunet.errors import InputError

    try:
        with opened(storage) as held:
            study = SweepStudy.join(held, storage)
            return {str(study.spec.trial_seed(row["number"])) for row in study.look()}
    except InputError:  # killed before there was a sweep
        return set()


def kill_somebody(process, rng) -> bool:
    """The one who started it or one of its workers, at a random moment; whether there was somebody to kill."""
    time.sleep(rng.uniform(0.0, 3.0))
    if process.poll() is not None:
        return False
    os.kill(rng.choice([process.pid, *children(process)]), signal.SIGKILL)
    time.sleep(0.05)
    return True


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "journal"])
def test_killed_at_random_moments(tmp_path, kind, request):
    storage = {
        "sqlite": lambda: f"sqlite:///{tmp_path}/shared.db",
        "journal": lambda: f"journal:///{tmp_path}/shared.log",
        "postgresql": lambda: request.getfixturevalue("database"),
    }[kind]()
    rng, kills, seed = random.Random(kind), 0, 0
    while kills < KILLS:
        kills += killed_until_finished(storage, tmp_path / f"log{seed}", seed, rng, KILLS - kills)
        storage, seed = storage.replace("shared", "shared_"), seed + 1
        if kind == "postgresql":
            request.getfixturevalue("empty")()


def killed_until_finished(storage, log, seed, rng, most) -> int:
    """One sweep, killed up to `most` times and then left alone; how often it was."""
    kills = 0
    while True:
        done, mark = finished(storage), len(begun(log))
        process = sweep(
            storage, "--workers", 2, "--set", f"log={log}", "--set", "sleep=0.25", trials=TRIALS, seed=seed
        )  # fmt: skip
        while kills < most and kill_somebody(process, rng):
            kills += 1
        code, _, err = ended(process, 120)
        workers = {pid for _, _, pid in begun(log)}
        assert wait_until(lambda: not any(map(alive, workers))), "a worker outlived who started it"  # noqa: B023
        again = {seed for word, seed, _ in begun(log)[mark:] if word == "began"}
        assert done.isdisjoint(again), "a finished trial was run again"
        if code == 0:
            break
        assert code == -signal.SIGKILL or "no worker is left, the last ended by signal 9" in err, err
    assert without_seconds(join(storage)) == undisturbed(TRIALS, 2, seed)
    return kills
