"""What is run, from what the experiments declare; and what makes a run another one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gpunet import experiments as package
from gpunet.backend import get_backend
from gpunet.datasets import entry, load
from gpunet.errors import InputError
from gpunet.reproduce import plan as module
from gpunet.reproduce.plan import changed, code, fingerprint, plan, run_spec, select

from ..experiments.made import dataset
from .paper import PAPER, Settings, stack, x
from .small import NAMES


@pytest.fixture
def _all(monkeypatch):
    """Our own experiments instead of the small ones."""
    monkeypatch.setattr(module, "experiments", package.experiments)


@pytest.mark.usefixtures("_all")
@pytest.mark.parametrize("quick", [False, True])
def test_every_experiment_is_run(quick):
    runs = plan(quick)
    assert list(dict.fromkeys(run.experiment.name for run in runs)) == list(package.experiments())
    assert len({run.folder for run in runs}) == len(runs)
    assert all(run.job.seconds > 0 < run.job.pieces for run in runs)
    for run in runs:
        assert run.seeds == list(range(run.job.seeds))
        assert all(entry(name).embedded or not quick for name in run.names)


@pytest.mark.usefixtures("_all")
def test_the_folder_is_that_of_the_run_once_its_data_is_loaded():
    for run in plan(True):
        assert run.load().folder == run.folder


@pytest.mark.usefixtures("_all")
def test_the_documents_data_and_settings():
    made = next(run for run in plan(False) if run.experiment.name == "svd-init")
    assert (made.folder, made.names, len(made.seeds)) == ("svd-init-mnist", ("mnist",), 5)
    assert made.settings == package.experiment("svd-init").Settings()


def test_jobs_that_are_part_of_it_with_what_it_changes():
    quick = plan(True)
    assert [run.folder for run in quick] == NAMES
    assert [run.names for run in quick] == [("xor",), ("xor-easy",), ("linear", "xor-easy")]
    assert [run.settings for run in quick] == [Settings(), Settings("far", epochs=3), Settings()]
    assert [run.folder for run in plan(False)] == NAMES
    assert [len(run.seeds) for run in plan(False)] == [5, 5, 9]


def test_seeds_asked_for_never_lower_those_that_train_together():
    assert [len(run.seeds) for run in plan(False, 2)] == [2, 2, 9]
    assert [len(run.seeds) for run in plan(False, 20)] == [20, 20, 20]


def test_selection():
    runs = plan(True)
    assert select(runs, ()) == runs
    assert [run.folder for run in select(runs, ("stack", "line-far"))] == NAMES[1:]
    assert [run.folder for run in select(runs, ("line",))] == NAMES[:2]
    with pytest.raises(
        InputError, match=r"--only is 'mnist': expected an experiment \(line, stack\) or one run \(line"
    ):
        select(runs, ("stack", "mnist"))


# -- what a run is asked to do ----------------------------------------------------------------------------------------


def test_the_same_data_elsewhere_is_the_same():
    assert fingerprint(dataset()) == fingerprint(replace(dataset(), source="elsewhere.npz"))


def test_any_change_of_the_data_is_seen():
    data = dataset()
    labels, inputs, test = data.y_train.copy(), data.x_train.copy(), data.x_test.copy()
    labels[-1] ^= 1
    inputs[3, 2] = np.nextafter(inputs[3, 2], np.float32(9))
    others = [
        replace(data, y_train=labels), replace(data, x_train=inputs), replace(data, x_test=test[::-1]),
        replace(data, name="b"), replace(data, shape=(7, 1)), replace(data, x_train=data.x_train.astype("f8")), [data],
        [data, data], load("xor"),
    ]  # fmt: skip
    assert len({fingerprint(each) for each in [data, *others]}) == len(others) + 1


def test_a_column_order_array_is_the_array_it_shows():
    data = dataset()
    assert fingerprint(replace(data, x_train=np.asfortranarray(data.x_train))) == fingerprint(data)


def test_what_changed_in_words():
    cpu = get_backend("numpy")
    first = run_spec(x.asked({}, quick=True), cpu) | {"data": "1"}
    assert first == json.loads(json.dumps(first))
    assert changed(first, first) == ""
    other = run_spec(x.asked({"epochs": 3}, quick=True), cpu) | {"data": "1"}
    assert changed(other, first) == "settings epochs is 3 here and 2 there"
    other = run_spec(x.asked({}, quick=True, seeds=2), cpu) | {"data": "1"}
    assert changed(other, first) == "seeds is [0, 1] here and [0] there"
    assert changed(first | {"data": "2"}, first) == "its data changed"
    assert changed(first | {"code": "2"}, first) == "its code changed"
    assert changed(first | {"device": "cuda:0 cupy"}, first).startswith("device is")
    assert changed({"code": code(x.package)}, first) == ""


def test_kernels_are_part_of_the_device():
    pytest.importorskip("numba")
    plain, compiled = (run_spec(stack.asked({}), get_backend(name))["device"] for name in ("numpy", "cpu"))
    assert plain != compiled


def test_the_paper_is_cited():
    assert PAPER.cited == "900: A. Author, Lines (for tests)"
