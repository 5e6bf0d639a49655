"""Who may take part in the groups of benchmarks/test_*.py, and each one's work on a net.

On a CPU: the products alone (the floor), ours with and without numba, PyTorch and JAX. On a GPU: the products, ours
operation by operation ("eager") and recorded ("graph"), PyTorch eager and compiled. `place` is the GPU's name, or
whatever device stands in for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend, get_backend, why_no_gpu, why_no_numba
from gpunet.bench import conv, gpu_train, jax_rival, lowrank, torch_rival, train
from gpunet.errors import RunError
from gpunet.nn.layers import Dense, Flatten
from gpunet.nn.trainer import Trainer

Contestant = tuple[Callable[[], None], Callable[[], float] | None]  # the work; the loss, or mean feature, as it stands
GPU = "cuda"
PACKAGES = {"torch": "torch", "jax": "jax", "sklearn": "scikit-learn"}  # rivals' modules, and where they come from
KERNELS = {"numpy": "numpy", "numba": "cpu"}  # our entrants on a CPU, and their devices


@dataclass(frozen=True)
class Entrant:
    """who: as the figures call it; role: "ours", "rival" or "floor"; device: "cpu", or GPU."""

    who: str
    role: str
    device: str = "cpu"

    def __str__(self) -> str:
        return self.who if self.device == "cpu" else f"{self.who}-{self.device}"

    def why_not(self, place: str = GPU) -> str:
        """Why it cannot take part here; empty where it can."""
        if self.device == GPU and place == GPU and (why := why_no_gpu()):
            return why
        if self.who in ("graph", "torch.compile") and place != GPU:
            return f"{self.who} takes part on a GPU alone"
        if self.who == "numba":
            return why_no_numba() or ""
        package = next((name for name in PACKAGES if self.who.startswith(name)), None)
        if package is None or importlib.util.find_spec(package):
            return ""
        return f"{package} is not installed; pip install {PACKAGES[package]}"


OURS = [Entrant("numpy", "ours"), Entrant("numba", "ours")]
OURS_ON_GPU = [Entrant("eager", "ours", GPU), Entrant("graph", "ours", GPU)]
TRAINING = [
    Entrant("products", "floor"), *OURS, Entrant("torch", "rival"), Entrant("jax", "rival"),
    Entrant("products", "floor", GPU), *OURS_ON_GPU, Entrant("torch", "rival", GPU),
    Entrant("torch.compile", "rival", GPU),
]  # fmt: skip
FACTORED = [
    Entrant("products", "floor"), *OURS, Entrant("torch", "rival"), Entrant("graph", "ours", GPU),
    Entrant("torch", "rival", GPU),
]  # fmt: skip
CONVOLUTION = [
    *OURS, *(Entrant(name, "rival") for name in conv.FORMATS), Entrant("jax", "rival"), *OURS_ON_GPU,
    *(Entrant(name, "rival", GPU) for name in conv.FORMATS),
]  # fmt: skip


def training(entrant: Entrant, case: train.Case, x: Any, y: Any, place: str = GPU) -> Contestant:
    """`case.steps` steps on x uint8 (samples, features), y: nothing but steps."""
    if entrant.device == GPU and entrant.who != "torch":
        return _training_on_gpu(entrant, case, x, y, place)
    if entrant.who == "products":
        return train.products(case, get_backend("numpy")), None
    if entrant.who == "torch":
        return train.torch_eager(case, x, y, place if entrant.device == GPU else "cpu")
    if entrant.who == "jax":
        weights, batch = _weights(gpu_train.layers(case), case.widths[0]), min(case.batch, len(x))
        return jax_rival.training(jax_rival.dense, weights, gpu_train.RATE, _scaled(x), y, batch, case.steps)
    return train.ours(case, KERNELS[entrant.who], x, y)


def _training_on_gpu(entrant: Entrant, case: train.Case, x: Any, y: Any, place: str) -> Contestant:
    case, backend = replace(case, batch=min(case.batch, len(x))), get_backend(place)
    if entrant.who == "products":
        return partial(gpu_train.products(case, backend).run, case.steps), None
    if entrant.who == "torch.compile":
        order, where = np.random.default_rng(1).permutation(len(x)), torch_rival.place(place)
        network = gpu_train.torch_network(case)
        made = gpu_train.in_torch(network, _scaled(x), y, order, case.batch, where, compiled=True)
        return partial(made.run, case.steps), made.loss
    return _on_gpu(entrant, partial(gpu_train.layers, case), backend, x, y, case.batch, case.steps)


def _on_gpu(
    entrant: Entrant, net: Callable[[], list[gn.Layer]], backend: Backend, x: Any, y: Any, batch: int, steps: int
) -> Contestant:
    """Ours, recorded or not; RunError where a "graph" cannot be recorded."""
    order = np.random.default_rng(1).permutation(len(x))
    made = gpu_train.ours(net, backend, x, y, order, batch, "off" if entrant.who == "eager" else "auto")
    return partial(made.run, steps), made.loss


def epoch(entrant: Entrant, case: train.Case, x: Any, y: Any, place: str = GPU) -> Contestant:
    """One pass over the data: of ours all that `fit` does, loss and accuracy measured too; of others the steps."""
    case = replace(case, steps=-(-len(x) // min(case.batch, len(x))), samples=len(x))
    if entrant.role != "ours":
        return training(entrant, case, x, y, place)
    device = place if entrant.device == GPU else KERNELS[entrant.who]
    graphs = "off" if entrant.who == "eager" else "auto"
    model = gn.Sequential(gpu_train.layers(case))
    trainer = Trainer(model, optimizer=gn.Adam(gpu_train.RATE), device=device, graphs=graphs)
    data = trainer.samples(x, y)

    def run() -> None:
        trainer.fit(data, batch_size=case.batch)
        if entrant.who == "graph" and trainer.graphs.reason:
            raise RunError(f"steps were not recorded: {trainer.graphs.reason}")

    return run, lambda: trainer.evaluate(data)["loss"]


def factored(entrant: Entrant, net: str, x: Any, y: Any, place: str = GPU) -> Contestant:
    """One pass over the data with a net of `lowrank.NETS`, in its batches."""
    ranks = lowrank.NETS[net]
    if entrant.who == "products":
        return lowrank.products(ranks, x, y), None
    device = place if entrant.device == GPU else KERNELS.get(entrant.who, "cpu")
    if entrant.who == "torch":
        return lowrank.torch_eager(ranks, x, y, device)
    return lowrank.ours(ranks, get_backend(device), x, y)


def convolution(entrant: Entrant, case: conv.Case, x: Any, y: Any, place: str = GPU) -> Contestant:
    """`case.steps` steps of a ConvNet, or features of as many batches."""
    device = place if entrant.device == GPU else KERNELS.get(entrant.who, "cpu")
    if entrant.who in conv.FORMATS:
        layout = conv.FORMATS[entrant.who]
        if case.trains:
            return conv.torch_eager(case, layout, x, y, device)
        return conv.torch_features(case, layout, x, device)
    if entrant.who == "jax":
        return _convolution_in_jax(case, x, y)
    if not case.trains:
        return conv.our_features(case, device, x)
    if entrant.device == GPU:
        return _on_gpu(entrant, partial(_convnet, case), get_backend(place), x, y, case.batch, case.steps)
    return conv.ours(case, device, x, y)


def _convolution_in_jax(case: conv.Case, x: Any, y: Any) -> Contestant:
    network = jax_rival.convolutional(case.shape, classifies=case.trains)
    if case.trains:
        weights = _weights(_convnet(case), x.shape[1])
        return jax_rival.training(network, weights, 1e-3, _scaled(x), y, case.batch, case.steps)
    weights = _weights([*conv.layers_of(case), Flatten()], x.shape[1])
    return jax_rival.forward(network, weights, _scaled(x[: case.batch]), case.steps)


def _convnet(case: conv.Case) -> list[gn.Layer]:
    return [*conv.layers_of(case), Flatten(), Dense(case.classes)]


def _scaled(x: Any) -> Any:
    return (x / np.float32(255)).astype(np.float32)


def _weights(layers: list[gn.Layer], features: int) -> list[Any]:
    """Our initial weights and biases in turn."""
    model = gn.Sequential(layers)
    model.build((features,), get_backend("numpy"))
    return list(model.parameters.values())
