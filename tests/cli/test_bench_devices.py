"""`gpunet bench devices`: whole experiments on two devices, and what is said where there is no GPU."""

from __future__ import annotations

import json
import types

import pytest

from gpunet.backend import why_no_gpu
from gpunet.bench import devices
from gpunet.errors import DivergedError, InputError
from gpunet.experiments import experiment, experiments
from gpunet.experiments.framework import Experiment
from gpunet.experiments.result import Metric, Result, Row

from .runner import run


@pytest.fixture
def _small(monkeypatch):
    """The toy experiment on one data set with few steps."""
    asked, settings = Experiment.asked, {"limit": 30, "learning_rates": (0.8,)}

    def small(self, changes, *, quick, seeds):
        return asked(self, settings, dataset="xor-easy", quick=quick, seeds=seeds or 2)

    monkeypatch.setattr(Experiment, "asked", small)


def bench(capsys, *arguments, code=0):
    done = run(capsys, "bench", "devices", "--devices", "numpy,cpu", *arguments)
    assert done.code == code
    assert all(line.startswith("bench devices: ") for line in done.err.splitlines())
    return done


@pytest.mark.usefixtures("_small")
def test_as_json(capsys):
    document = json.loads(bench(capsys, "--experiment", "toy", "--json").out)
    assert document["benchmark"] == "devices"
    assert list(document["notes"]["devices"]) == ["numpy", "cpu"]
    assert document["notes"]["devices"]["numpy"] == "cpu (numpy)"
    assert document["notes"]["quick"] is True
    assert document["provenance"]["numpy"]
    ((name, case),) = document["cases"].items()
    assert (name, case["notes"]["dataset"]) == ("toy", "xor-easy")
    assert [len(entry["seconds"]) for entry in case["entries"].values()] == [1, 1]
    assert list(case["entries"]) == ["numpy", "cpu"]
    assert case["notes"]["apart"] <= 0.5


@pytest.mark.usefixtures("_small")
def test_as_a_table(capsys):
    done = bench(capsys, "--experiment", "toy", "--seeds", 1)
    for words in ("numpy is cpu (numpy)", "xor-easy", "speed-up", "apart"):
        assert words in done.out, words
    assert done.err.splitlines()[-1] == "bench devices: 2/2 toy on cpu"


@pytest.mark.usefixtures("_small")
def test_an_experiment_that_fails_is_said_and_the_others_go_on(capsys, monkeypatch):
    x, calls = experiment("toy"), []
    body = x.body

    def failing(toy):
        calls.append(toy.backend)
        if len(calls) == 2:
            raise DivergedError("the loss became\nNaN")
        body(toy)

    monkeypatch.setattr(x, "_body", failing)
    done = bench(capsys, "--experiment", "toy", code=1)
    assert r"toy on cpu failed: the loss became\nNaN" in done.out
    assert "failed" in done.out


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_can_be_asked_for(name):
    for quick in (True, False):
        asked = experiment(name).asked({}, quick=quick)
        assert isinstance(asked.settings, experiment(name).Settings)
        assert asked.names == experiment(name).job({}, quick).data


def test_how_far_two_results_are_apart():
    def result(**accuracies):
        rows = [Row(name, {"test_accuracy": Metric(list(values))}) for name, values in accuracies.items()]
        return Result("toy", "xor", "cpu", {}, [0], rows)

    here, there = result(a=[0.5, 0.7], b=[0.9], only_here=[1.0]), result(a=[0.6, 0.6], b=[0.8])
    apart, where = devices.apart([here, there])
    assert apart == pytest.approx(0.1)
    assert where == "test_accuracy of b"
    assert devices.apart([here]) == (None, "")
    assert devices.apart([]) == (None, "")


@pytest.mark.skipif(why_no_gpu() is None, reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_why_and_what_to_install(capsys):
    done = run(capsys, "bench", "devices")
    done.one_line(
        2, "device 'cuda' cannot be used", "pip install 'gpunet[cuda", "without a GPU compare --devices numpy,cpu"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--devices", "cpu"), ("devices are cpu: expected two or more different ones",)),
        (("--devices", "cpu,cpu"), ("two or more different ones",)),
        (("--devices", ""), ("two or more different ones",)),
        (("--devices", "cpu,tpu"), ("unknown device 'tpu'",)),
        (("--devices", "numpy,cpu", "--experiment", "imagenet"), ("unknown experiment 'imagenet'", "cifar-mlp")),
        (("--devices", "numpy,cpu", "--seeds", 0), ("Invalid value", "--seeds")),
    ],
)
def test_mistakes(capsys, arguments, words):
    run(capsys, "bench", "devices", *arguments).one_line(2, *words)


def test_missing_data_is_said_before_anything_runs(capsys, monkeypatch):
    monkeypatch.setattr(devices, "_case", pytest.fail)
    run(capsys, "bench", "devices", "--devices", "numpy,cpu", "--full").one_line(2, "mnist", "gpunet data fetch")


def test_devices_are_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(devices, "get_backend", lambda name: made.append(name) or types.SimpleNamespace())
    with pytest.raises(InputError, match="unknown experiment"):
        devices.compare(["cpu", "numpy"], ["nothing"])
    assert made == []


def test_help(capsys):
    done = run(capsys, "bench", "devices", "--help")
    assert (done.code, done.err) == (0, "")
    for word in ("--devices", "--experiment", "--full", "speed-up", "apart", "numpy,cpu", "gpunet bench devices"):
        assert word in done.out, word
