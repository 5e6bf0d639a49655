"""What is run, and that the commands run the same."""

from __future__ import annotations

import pytest

from gpunet.datasets import entry
from gpunet.errors import InputError
from gpunet.experiments import cifar_mlp, dmn, svd_dnn, svd_init, toy
from gpunet.experiments.registry import EXPERIMENTS
from gpunet.experiments.work import order, usual
from gpunet.reproduce.plan import EVERY_PART, FULL, QUICK, select

RUNS = [*FULL, *QUICK]


@pytest.mark.parametrize("runs", [FULL, QUICK], ids=["full", "quick"])
def test_every_experiment_is_run(runs):
    assert {run.experiment for run in runs} == set(EXPERIMENTS)
    assert len({run.name for run in runs}) == len(runs)
    assert all(run.seconds > 0 < run.pieces for run in runs)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.name}{'-quick' * run.quick}")
def test_each_can_be_ordered_and_its_data_is_known(run):
    made = run.order(None)
    assert made.seeds == list(range(run.usual_seeds))
    assert all(entry(name).embedded or not run.quick for name in made.names)


def test_the_papers_data_and_settings():
    made = {run.name: run.order(None) for run in FULL}
    assert {name: (each.names, len(each.seeds)) for name, each in made.items()} == {
        "svd-init-mnist": (("mnist",), 5),
        "svd-dnn-xor": (("xor",), 10),
        "svd-dnn-cats": (("cats",), 3),
        "svd-dnn-mnist": (("mnist",), 3),
        "dmn-mnist": (("mnist",), 3),
        "dmn-cifar10": (("cifar10",), 3),
        "toy": (("linear", "xor-easy"), 100),
        "cifar-mlp-cifar10": (("cifar10",), 3),
    }
    assert {name: each.settings for name, each in made.items()} == {
        "svd-init-mnist": svd_init.Settings(),
        "svd-dnn-xor": svd_dnn.Settings("xor"),
        "svd-dnn-cats": svd_dnn.Settings("cats"),
        "svd-dnn-mnist": svd_dnn.Settings("mnist"),
        "dmn-mnist": dmn.Settings(),
        "dmn-cifar10": dmn.Settings(),
        "toy": toy.Settings(),
        "cifar-mlp-cifar10": cifar_mlp.Settings(parts=cifar_mlp.PARTS),
    }
    assert EVERY_PART == cifar_mlp.PARTS


def test_seeds_asked_for_and_toys_stack():
    assert {len(run.order(2).seeds) for run in FULL if run.experiment != "toy"} == {2}
    stack = next(run for run in FULL if run.experiment == "toy")
    assert (len(stack.order(2).seeds), len(stack.order(1000).seeds)) == (100, 1000)


def test_a_change_that_is_none_leaves_the_usual():
    assert usual("toy", quick=True).settings == {"limit": 2000}
    assert order("toy", {"limit": None, "threshold": 0.1}, quick=True).settings == toy.Settings(
        limit=2000, threshold=0.1
    )
    made = order("svd-dnn", {"task": "xor", "alphas": None}, dataset="my.npz", first=4)
    assert (made.names, made.seeds, made.settings) == (("my.npz",), list(range(4, 14)), svd_dnn.Settings("xor"))


def test_selection():
    assert select(FULL, ()) == FULL
    assert [run.name for run in select(FULL, ("toy", "svd-dnn-cats"))] == ["svd-dnn-cats", "toy"]
    assert [run.name for run in select(FULL, ("dmn",))] == ["dmn-mnist", "dmn-cifar10"]
    with pytest.raises(InputError, match=r"--only is 'mnist': expected an experiment \(svd-init, .*dmn-cifar10"):
        select(FULL, ("toy", "mnist"))
