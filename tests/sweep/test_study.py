"""Workers that die between any two writes, and workers that come between any two writes of another.

A storage in memory stands in for the database: it counts writes, and at a chosen one lets the worker die (no later
write of that worker arrives), or lets another worker in first.
"""

from __future__ import annotations

import json
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from gpunet.errors import InputError
from gpunet.sweep import study as module
from gpunet.sweep.plan import Spec
from gpunet.sweep.search import run as run_sweep
from gpunet.sweep.study import BEATS, NUMBER, WORKER, SweepStudy, void
from gpunet.sweep.workers import Curve, move

from .functions import BOWL, SPACE, bowl
from .tables import undisturbed, without_seconds

TRIALS = 2  # in each of two stages
SPEC = Spec(BOWL, {}, tuple(SPACE), TRIALS, 2, 5, "maximize")
WRITES = (
    "create_new_study", "set_study_user_attr", "create_new_trial", "set_trial_state_values", "set_trial_user_attr",
    "set_trial_intermediate_value",
)  # fmt: skip


class KilledError(BaseException):
    """SIGKILL."""


class Watched(InMemoryStorage):
    """`before(n)` is called before the n-th write."""

    def __init__(self):
        super().__init__()
        self.writes, self.before = 0, lambda n: None


def _counted(name):
    def write(self, *args, **kwargs):
        self.before(self.writes)
        self.writes += 1
        return getattr(super(Watched, self), name)(*args, **kwargs)

    return write


for _name in WRITES:
    setattr(Watched, _name, _counted(_name))


class World:
    """Who is who: `now` is the process that acts, `dead` those that have ended; `runs` the seeds of the trials run."""

    def __init__(self, monkeypatch):
        self.now, self.dead, self.runs = "1", set(), []
        monkeypatch.setattr(SweepStudy, "_silent", lambda study, trial: trial.user_attrs[WORKER] in self.dead)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def function(world):
    def counted(parameters, settings, report):
        world.runs.append(settings["trial_seed"])
        return bowl(parameters, settings, report)

    return counted


def run(storage, world):
    """A whole process: begins the sweep or goes on with it."""
    study = SweepStudy.start(storage, SPEC, "here")
    study.worker = world.now
    return run_sweep(study, function(world), None)


def check(storage, table):
    assert without_seconds(table) == undisturbed(TRIALS, 2, 5)
    finished = [
        trial.user_attrs[NUMBER]
        for trial in storage.get_all_trials(storage.get_study_id_from_name(module.STUDY))
        if trial.state.is_finished() and not void(trial)
    ]
    assert sorted(finished) == list(range(2 * TRIALS)), "a trial has finished twice"


def total_writes(world) -> int:
    storage = Watched()
    check(storage, run(storage, world))
    assert len(world.runs) == 2 * TRIALS
    return storage.writes


def die_at(storage, world, last):
    """The process that acts now dies before that write."""
    mortal = world.now

    def before(n):
        if mortal in world.dead or (world.now == mortal and n >= last):
            world.dead.add(mortal)
            raise KilledError

    storage.before = before


def finished_seeds(storage) -> set[int]:
    return {SPEC.trial_seed(row["number"]) for row in SweepStudy(storage, SPEC).look()}


def killed_then_again(storage, world, last):
    die_at(storage, world, storage.writes + last)
    try:
        run(storage, world)
    except KilledError:
        pass
    else:
        return False
    finally:
        storage.before = lambda n: None
    world.now = str(int(world.now) + 1)
    world.runs.clear()
    return True


def test_killed_before_every_write(world):
    for last in range(total_writes(world)):
        storage = Watched()
        assert killed_then_again(storage, world, last)
        done = finished_seeds(storage) if storage.get_all_studies() else set()
        table = run(storage, world)
        check(storage, table)
        assert done.isdisjoint(world.runs), f"a finished trial was run again after write {last}"
        assert len(world.runs) == 2 * TRIALS - len(done)


@pytest.mark.slow
@given(lasts=st.lists(st.integers(0, 60), min_size=2, max_size=8))
@settings(derandomize=True, max_examples=40, deadline=None)
def test_killed_again_and_again(lasts):
    with pytest.MonkeyPatch.context() as monkeypatch:
        world, storage = World(monkeypatch), Watched()
        for last in lasts:
            if not killed_then_again(storage, world, last):
                break
        check(storage, run(storage, world))


def visit(storage, world, steps):
    """Another worker does so many things, as long as there is something to do; it is alive, and so are the others."""
    host, world.now = world.now, f"guest of {world.now}"
    storage.before, kept = (lambda n: None), storage.before
    guest = SweepStudy.join(storage, "here")
    guest.worker = world.now
    while steps and (look := guest.look()).stage and move(guest, look, function(world)):
        steps -= 1
    world.now, storage.before = host, kept


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_another_worker_between_every_two_writes(world, steps):
    total = total_writes(world)
    for place in range(2, total):  # before, there is no sweep to join
        storage = Watched()
        world.runs.clear()

        def before(n, storage=storage, place=place):
            if n == place:
                visit(storage, world, steps)

        storage.before = before
        check(storage, run(storage, world))
        assert len(world.runs) == len(set(world.runs)) == 2 * TRIALS, f"run twice, guest before write {place}"


@pytest.mark.parametrize("steps", [2, 100])
def test_a_worker_that_was_taken_for_dead_does_no_harm(world, steps):
    """It sleeps for longer than SILENCE in mid-trial; its trial is run by another; it wakes up and goes on."""
    total = total_writes(world)
    repeated = 0
    for place in range(2, total):
        storage = Watched()
        world.now, world.dead = "sleeper", set()
        world.runs.clear()

        def before(n, storage=storage, place=place):
            if n == place:
                world.dead.add("sleeper")
                visit(storage, world, steps)
                world.dead.clear()

        storage.before = before
        check(storage, run(storage, world))
        repeated += len(world.runs) > 2 * TRIALS
    assert repeated, "the sleeper was never in mid-trial"


def test_of_two_that_begin_the_same_trial_one_runs_it(world):
    storage = Watched()
    first, second = (SweepStudy.start(storage, SPEC, "here") for _ in range(2))
    look = second.look()
    assert first.ask(first.look()).user_attrs == {NUMBER: 0, "stage": 1, WORKER: first.worker}
    assert second.ask(look) is None
    assert first.look().running[0].user_attrs[WORKER] == first.worker
    assert [trial.state for trial in first.study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    world.dead = {first.worker}
    check(storage, run(storage, world))


def test_what_waits_in_a_queue_counts_for_nothing(world):
    storage = Watched()
    study = SweepStudy.start(storage, SPEC, "here")
    study.study.enqueue_trial({"x": 0.0}, user_attrs={NUMBER: 0, "stage": 1})
    check(storage, run(storage, world))


# -- who is alive -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_heartbeat_that_stops(clock):
    storage = InMemoryStorage()
    dead, study = (SweepStudy.start(storage, SPEC, "here") for _ in range(2))
    trial = dead.ask(dead.look())

    def freed(seconds):
        clock[0] += seconds
        return study.free(study.look())

    assert not freed(0)
    assert not freed(module.SILENCE - 1)
    storage.set_trial_user_attr(trial._trial_id, BEATS, 1)
    assert not freed(2)
    assert not freed(module.SILENCE - 1)
    dead.ask(dead.look())
    assert freed(2)
    assert [trial.user_attrs[NUMBER] for trial in study.look().running] == [1], "the other was seen for the first time"
    assert module.SILENCE > 3 * module.BEAT, "a beat or two may be late"


def until(true):
    limit = time.monotonic() + 10
    while not true() and time.monotonic() < limit:
        time.sleep(0.005)
    assert true()


def test_a_heart_beats_on_when_the_storage_is_away_for_a_moment(monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    tries = []

    class Flaky(InMemoryStorage):
        def set_trial_user_attr(self, trial_id, key, value):
            tries.append(value)
            if len(tries) < 3:
                raise ConnectionError("gone")
            super().set_trial_user_attr(trial_id, key, value)

    study = SweepStudy.start(Flaky(), SPEC, "here")
    before = threading.active_count()
    trial = study.ask(study.look())
    with study.beating(trial):
        until(lambda: study.study.trials[0].user_attrs.get(BEATS, 0) >= 3)
        study.give_back(trial)
        count = len(tries)
        until(lambda: len(tries) > count + 1)  # which does no harm
    assert threading.active_count() == before


def test_a_trial_that_was_taken_away_is_told_to_stop(world):
    study = SweepStudy.start(InMemoryStorage(), SPEC, "here")
    trial = study.ask(study.look())
    curve = Curve(study, trial)
    assert not curve.report(0, 1.0)
    study.give_back(trial)
    assert curve.report(1, 1.0)
    assert not curve.pruned
    study.tell(trial, TrialState.COMPLETE, 1.0, outcome={"metrics": {}})
    assert study.look() == []


# -- which sweep ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 6}, "seed is 6 here and 5 there"),
        ({"trials": 5}, "trials is 5 here and 2 there"),
        ({"stages": 1}, "stages is 1 here and 2 there"),
        ({"direction": "minimize"}, 'direction is "minimize" here and "maximize" there'),
        ({"function": "a:b"}, 'function is "a:b" here'),
        ({"settings": {"lr": 1}}, "settings lr is given here and not there"),
        ({"space": tuple(SPACE[:3])}, 'space is ["x=-1..2"'),
    ],
)
def test_another_sweep_is_named(change, words):
    storage = InMemoryStorage()
    SweepStudy.start(storage, SPEC, "here")
    with pytest.raises(InputError, match="here holds another sweep") as caught:
        SweepStudy.start(storage, Spec(**{**SPEC.__dict__, **change}), "here")
    assert words in str(caught.value)
    assert SweepStudy.join(storage, "here").spec == SPEC


def test_nothing_to_join():
    storage = InMemoryStorage()
    with pytest.raises(InputError, match="here holds no sweep: start one"):
        SweepStudy.join(storage, "here")
    SweepStudy.start(storage, SPEC, "here")
    storage.set_study_user_attr(0, module.SPEC, json.loads(json.dumps(SPEC.to_json() | {"format": 2})))
    with pytest.raises(InputError, match="format 2, this gpunet reads 1"):
        SweepStudy.join(storage, "here")
