"""Whole training steps of every experiment, recorded and replayed where allocating, reading back and drawing raise.

Each training run of an experiment goes through its own code twice: with recorded steps on a device that refuses what a
CUDA graph refuses, in every replay too, and operation by operation. Both give the same numbers, bit for bit. Devices
are the strict backend and the pretend GPU with the CUDA kernels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.datasets.arrays import from_arrays
from gpunet.experiments.cifar_mlp import data as cifar_mlp_data
from gpunet.experiments.cifar_mlp import nets as cifar_mlp_nets
from gpunet.experiments.dmn import dynamics as dmn_dynamics
from gpunet.experiments.dmn import nets as dmn_nets
from gpunet.experiments.svd_dnn import Settings as FactoredSettings
from gpunet.experiments.svd_dnn.body import train_once as train_factored
from gpunet.experiments.svd_dnn.tasks import Variant
from gpunet.experiments.svd_dnn.tasks import prepare as prepare_factored
from gpunet.experiments.svd_init import body as svd_init
from gpunet.experiments.svd_init.data import prepare
from gpunet.nn.replay import SWITCH
from gpunet.progress import Progress
from gpunet.spectral.fitted import Thresholds
from gpunet.testing import StrictBackend

from ..cuda.host_module import why_not
from ..cuda.pretend import pretend
from ..experiments.made import begun, dataset


class Watched(StrictBackend):
    """Refuses in each replay, too, what a captured step may not do; counts the replays."""

    def __init__(self):
        super().__init__()
        self.replayed = 0

    def record(self, work):
        replay = super().record(work)

        def watched():
            self.replayed += 1
            with self.capture():
                replay()

        return watched


class PretendGpu(CupyBackend):
    """The pretend GPU, counting the replays."""

    replayed = 0

    def record(self, work):
        replay = super().record(work)

        def counted():
            self.replayed += 1
            replay()

        return counted


@pytest.fixture(
    params=[
        "strict",
        pytest.param("pretend GPU", marks=pytest.mark.skipif(why_not() is not None, reason=f"{why_not()}")),
    ]
)
def alike(request, monkeypatch):
    """alike(run): `run(backend)` gives the same with recordings and without; steps were replayed."""
    device = Watched if request.param == "strict" else lambda: PretendGpu(module=pretend())

    def check(run):
        monkeypatch.setenv(SWITCH, "auto")
        backend = device()
        replaying = run(backend)
        assert backend.replayed > 3
        monkeypatch.setenv(SWITCH, "off")
        plain = device()
        assert untimed(run(plain)) == untimed(replaying)
        assert plain.replayed == 0

    return check


def untimed(found):
    """What training gave, without seconds: nested dictionaries, lists and numbers."""
    if dataclasses.is_dataclass(found):
        found = vars(found)
    if isinstance(found, dict):
        return {key: untimed(value) for key, value in found.items() if "seconds" not in key and key != "before"}
    if isinstance(found, (list, tuple)):
        return [untimed(value) for value in found]
    return found.tolist() if isinstance(found, (np.ndarray, np.generic)) else found


# -- svd-init --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["", "frozen", "norm held"])
@pytest.mark.parametrize("kind", ["random", "orth-each", "scale-whole"])
def test_svd_init(alike, kind, variant):
    settings = svd_init.Settings(epochs=3, batch_size=16)

    def run(backend):
        problem = prepare(dataset(), 6, backend)
        return svd_init.train_once(problem, settings, kind, 0, backend, Progress(), variant)

    alike(run)


# -- svd-dnn ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meaning", ["dimension", "break-even"])
@pytest.mark.parametrize("state", ["restart", "carry", "carry-both"])
def test_svd_dnn_dense_then_factored_then_merged(alike, state, meaning):
    settings = FactoredSettings(task="mnist", epochs=6, batch_size=16)
    variant = Variant(0.4, 0.5, meaning, (12, 8), state)

    def run(backend):
        return train_factored(prepare_factored(dataset(), settings, backend), variant, 0, backend, Progress())

    alike(run)


@pytest.mark.parametrize("variant", [Variant(), Variant(0.0, 0.5), Variant(0.1, 0.5, "break-even")])
@pytest.mark.parametrize("task", ["xor", "cats"])
def test_svd_dnn_one_sample_a_step(alike, task, variant):
    settings = FactoredSettings(task=task, epochs=8 if task == "xor" else 1)
    data = gn.datasets.load("xor") if task == "xor" else dataset(classes=2)

    def run(backend):
        return train_factored(prepare_factored(data, settings, backend), variant, 0, backend, Progress())

    alike(run)


# -- dmn -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def images():
    rng = np.random.default_rng(2)
    made = {}
    for part, n in (("train", 60), ("test", 30)):
        y = np.arange(n) % 3
        x = rng.integers(0, 60, (n, 3, 8, 8))
        x[np.arange(n), y, 2:6, 2:6] += 150
        made |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y}
    return from_arrays("own", **made, source="made")


@pytest.mark.parametrize("depth", [1, 2])
def test_dmn_heads(alike, images, depth):
    thresholds = [Thresholds(0.6, 0.9, most=4)] * depth

    def run(backend):
        made = begun("dmn", images, backend, epochs=3, batch_size=16, head_decay=0.125)
        found = dmn_nets.train_dmn(made, thresholds, 0)
        return found.curves, found.metrics

    alike(run)


@pytest.mark.slow
@pytest.mark.parametrize("filters", [[], [4], [4, 3]])
def test_dmn_convnets(alike, images, filters):
    def run(backend):
        return dmn_nets.train_convnet(begun("dmn", images, backend, epochs=3, batch_size=16, long=1), filters, 0)

    alike(run)


@pytest.mark.slow
def test_dmn_rates_of_four_layers(alike, images, monkeypatch):
    monkeypatch.setattr(dmn_dynamics, "STEPS", 8)

    def train(backend):
        run = begun("dmn", images, backend)
        dmn_dynamics.convergence(run)
        return run.result.rows, run.result.curves

    alike(train)


# -- cifar-mlp -------------------------------------------------------------------------------------------------------

RECIPES = {
    "final": {},
    "no momentum": {"momentum": 0.0},
    "one layer": {"hidden": 0},
    "fixed order": {"shuffle": False},
    "he, decay": {"init": "he", "decay": 0.8},
    "cyclical": {"cycle": True},
    "early stopping": {"decay": 0.8, "patience": 2, "learning_rate": 0.3},
    "diverging": {"learning_rate": 1e4},
}


@pytest.mark.parametrize("name", RECIPES)
def test_cifar_mlp(alike, name):
    recipe = cifar_mlp_nets.Recipe(**{"batch_size": 9, "epochs": 4, "l2": 1e-3} | RECIPES[name])

    def run(backend):
        problem = cifar_mlp_data.Problem.of(cifar_mlp_data.Split.of(dataset(dtype="uint8")), backend)
        return cifar_mlp_nets.train(problem, recipe, 0, backend, Progress())

    alike(run)


# -- toy, as a Sequential --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "xor-easy"])
def test_toy(alike, name):
    data = gn.datasets.load(name)

    def run(backend):
        layers = [gn.Dense(units, "sigmoid", weight="uniform_sigmoid") for units in (3, 3, 1)]
        trainer = gn.Trainer(gn.Sequential(layers), gn.SquaredError("sum"), gn.SGD(0.8), device=backend)
        history = trainer.fit(data.x_train, data.y_train, epochs=30, batch_size=len(data.x_train))
        return history["train_loss"], trainer.outputs(data.x_train)

    alike(run)


# -- and what a captured step may not do is noticed -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda layer, x: layer.ops.to_host(x), "read back to the host"),
        (lambda layer, x: layer.ops.empty(3), "allocation"),
        (lambda layer, x: np.random.default_rng(0), "numpy.random.default_rng"),
        (lambda layer, x: np.linalg.svd(np.eye(2)), "numpy.linalg.svd"),
    ],
)
def test_a_layer_that_does_otherwise_is_found(work, message):
    class Careless(gn.Activation):
        def forward(self, x):
            work(self, x)
            return super().forward(x)

    trainer = gn.Trainer(gn.Sequential([gn.Dense(5), Careless("relu"), gn.Dense(3)]), device=Watched())
    with pytest.warns(UserWarning, match=f"{message} inside a captured step"):
        trainer.fit(dataset().x_train, dataset().y_train, epochs=2, batch_size=16)
