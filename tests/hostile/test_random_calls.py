"""The driver: it knows every public name, it sees what is wrong, and it finds nothing."""

from __future__ import annotations

import inspect
import signal
import time
import types
import warnings

import pytest

import gpunet as gn
from gpunet.errors import GpunetError, InputError
from tests.hostile import random_calls
from tests.hostile.calls import REFUSED, Target, objects, right, targets
from tests.hostile.pool import VALUES
from tests.hostile.random_calls import findings, outcome, planned, wrong


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))


def test_every_public_name_is_a_target():
    known = targets()
    for name in gn.__all__:
        found = getattr(gn, name)
        if callable(found):
            assert name in known, name
    told = {id(target.function) for target in known.values()}
    for name, found in objects():
        error = inspect.isclass(found) and issubclass(found, BaseException)
        if callable(found) and not error and not inspect.isabstract(found):
            assert id(found) in told, name
    for name in (
        "Trainer.fit",
        "Sequential.build",
        "StreamingGram.update",
        "Adam.step",
        "SGD.learning_rate=",
        "Trainer.epoch= in use",
        "EarlyStopping.patience=",
        "Dense.weight= in use",
        "Samples.of",
    ):
        assert name in known


def test_every_target_has_a_call_that_is_right(elsewhere):
    for name, target in targets().items():
        if name in REFUSED:
            with pytest.raises(GpunetError, match=REFUSED[name]):
                right(target)
        else:
            right(target)


def test_a_new_name_is_covered_by_itself(monkeypatch):
    module = types.ModuleType("gpunet.nn.init")
    module.new = lambda shape: shape
    module.new.__module__ = "gpunet.nn.init"
    monkeypatch.setattr(gn, "init", module)
    assert targets()["init.new"].parameters == {"shape": False}


def test_a_seed_makes_the_same_call_again():
    target = targets()["Trainer.fit"]
    assert [wrong(target, 3, i, light=True)[1] for i in range(20)] == [
        wrong(target, 3, i, light=True)[1] for i in range(20)
    ]
    assert len({told for i in range(100) for told in wrong(target, 3, i, light=True)[1]}) > 80


def raising(error):
    def function():
        raise error

    return function


def warning():
    warnings.warn("overflow", RuntimeWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: 1, ""),
        (raising(InputError("a line")), ""),
        (raising(KeyError("x")), "KeyError"),
        (raising(TypeError("x")), "TypeError"),
        (raising(InputError()), "not a line"),
        (raising(RecursionError("deep")), "RecursionError"),
        (warning, "warned: RuntimeWarning"),
    ],
)
def test_what_counts_as_a_finding(function, expected):
    found = outcome(Target("one", function, {}), {})
    assert expected in found
    assert bool(found) == bool(expected)


def test_a_line_that_is_none_is_found(monkeypatch):
    class RudeError(GpunetError):
        def __str__(self):
            return "two\nlines"

    assert "not a line" in outcome(Target("one", raising(RudeError()), {}), {})


def test_what_takes_too_long_is_found(monkeypatch):
    def late(*args):
        raise random_calls.Slow

    monkeypatch.setattr(random_calls, "SECONDS", 0.05)
    before = signal.signal(signal.SIGALRM, late)
    try:
        assert "took more" in outcome(Target("one", lambda: time.sleep(5), {}), {})
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_random_calls_light():
    """A few of each; a process of its own, so that a crash is a finding."""
    assert list(findings(planned(2), seed=5, light=True)) == []


@pytest.mark.slow
def test_a_process_that_dies_is_a_finding_and_the_rest_goes_on():
    (found,) = findings([("Dense", 0), ("no such name", 0), ("Dense", 1)], seed=0, light=True)
    assert found == ("no such name", 0, "the process ended with 1")


@pytest.mark.slow
def test_random_calls():
    found = list(findings(planned(150), seed=7))
    assert found == []
    assert len(VALUES) > 200
