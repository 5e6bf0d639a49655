"""Experiments that train networks hand `precision` to their trainers, and their result says what it came to."""

from __future__ import annotations

import warnings
from typing import Any, get_args

import numpy as np
import pytest

from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.datasets.arrays import from_arrays
from gpunet.errors import InputError
from gpunet.experiments import experiment
from gpunet.experiments.dmn import dynamics
from gpunet.experiments.framework import Precision
from gpunet.nn.trainer import PRECISIONS

from .made import compute, dataset
from .schema import check_document

TRAINING: dict[str, dict[str, Any]] = {  # settings of a small run
    "svd-dnn": {"task": "xor", "epochs": 1, "batch_size": 20, "speed": False},
    "cifar-mlp": {"parts": ("search", "final"), "epochs": 2, "trials": 2, "hidden": 5, "batch_size": 20},
    "dmn": {"epochs": 1, "widths": ((0.5,),), "sweeps": False, "dynamics": True, "batch_size": 20},
    "svd-init": {"epochs": 1, "dependencies": (), "hidden": 3, "batch_size": 20},
}
every = pytest.mark.parametrize("name", TRAINING)


def images():
    rng = np.random.default_rng(0)
    sets = {"train": np.arange(60) % 3, "test": np.arange(30) % 3}
    made = {f"y_{part}": y for part, y in sets.items()}
    made |= {f"x_{part}": rng.integers(0, 256, (len(y), 1, 6, 6), dtype=np.uint8) for part, y in sets.items()}
    return from_arrays("own", **made, source="own.npz")


def run(name, precision, **changes):
    data, settings = images() if name == "dmn" else dataset(classes=2), TRAINING[name] | changes
    found = compute(name, data, [0], precision=precision, **settings).to_json()
    check_document(found)
    return found


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(dynamics, "STEPS", 30)


@pytest.fixture
def gains(monkeypatch):
    """Products of bfloat16 pay here, of any size: by oneDNN where it is, else by the reference."""
    monkeypatch.setattr(NumpyBackend, "slow_bfloat16", "")
    monkeypatch.setattr(NumpyBackend, "least_bfloat16", 0)


def test_the_words_are_the_trainers():
    assert get_args(Precision) == PRECISIONS


@every
def test_every_net_is_trained_in_the_precision_that_is_asked_for(name, gains):
    plain, mixed = run(name, "float32"), run(name, "mixed")
    assert (plain["settings"]["precision"], mixed["settings"]["precision"]) == ("float32", "mixed")
    assert "precision" not in plain["notes"]
    noted = mixed["notes"]["precision"]
    trained = {row for row, curves in mixed["curves"].items() if row not in ("search", "fluctuations")}
    assert set(noted) == trained
    mixing = {row for row in noted if name != "dmn" or not row.startswith("convnet")}
    assert {row: noted[row] for row in mixing} == {row: ["mixed"] for row in mixing}
    same = [row for row in mixing if plain["curves"][row] == mixed["curves"][row]]
    assert same == []
    if name == "cifar-mlp":
        assert {recipe["precision"] for recipe in mixed["notes"]["recipes"].values()} == {"mixed"}


@every
def test_where_nothing_is_gained_it_says_so_and_is_float32_to_the_bit(name, monkeypatch):
    plain = run(name, "float32")
    monkeypatch.setattr(NumpyBackend, "slow_bfloat16", "no units")
    with pytest.warns(UserWarning, match="training in float32, not mixed: no units"):
        found = run(name, "mixed")
    assert found["settings"]["precision"] == "mixed"
    assert {word for words in found["notes"]["precision"].values() for word in words} == {"float32"}
    assert found["rows"] == plain["rows"]


def test_a_net_too_small_to_gain_is_noted_as_float32(gains, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "least_bfloat16", 20 * 256 * 512)  # its net of 50 units has smaller ones
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        noted = run("svd-dnn", "mixed", task="mnist", meanings=("dimension",), alphas=(0.5,))["notes"]["precision"]
    assert {row: words for row, words in noted.items() if words != ["mixed"]} == {
        row: ["float32"] for row in noted if row.endswith("50 units")
    }
    assert any("7,000 multiplications with batches of 20" in str(each.message) for each in said)


@every
def test_a_word_that_there_is_not(name):
    with pytest.raises(InputError, match="precision is 'half': expected one of float32, mixed, tf32"):
        experiment(name).Settings(precision="half")
