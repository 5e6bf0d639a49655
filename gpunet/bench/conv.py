"""Speed of convolution: training the ConvNet of document 002, and its layers as fixed features, beside PyTorch.

PyTorch runs eager, with fused Adam, float32 images resident and scaled beforehand (ours stay uint8 until the gather
scales them), gradients set to None, in both of its memory formats: its time is the better one's. Features are made of
float32 images by everybody.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import get_backend, why_no_numba
from gpunet.bench import torch_rival
from gpunet.bench.steps import some_steps
from gpunet.nn.layers import Conv2D, Dense, Flatten, Reshape
from gpunet.nn.trainer import Trainer
from gpunet.timing import Times, interleave

Contestant = tuple[Callable[[], None], Callable[[], float]]
FORMATS = {"torch": "contiguous_format", "torch channels_last": "channels_last"}


@dataclass(frozen=True)
class Case:
    """Convolutional layers, each 3×3, ReLU, 2×2 max-pooling; `steps` batches are timed at a time."""

    name: str
    filters: tuple[int, ...]
    batch: int
    steps: int
    trains: bool = True
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10


CASES = {
    case.name: case
    for case in [
        Case("convnet-8", (8,), 64, 80),
        Case("convnet-8-30", (8, 30), 64, 50),
        Case("features-8", (8,), 500, 10, trains=False),
        Case("features-13-82", (13, 82), 500, 2, trains=False),
    ]
}


def data_for(case: Case, samples: int) -> tuple[Any, Any]:
    """x uint8 (samples, features) and labels: CIFAR-10 where it is at hand, else noisy pictures of ten kinds."""
    from gpunet.datasets import load
    from gpunet.errors import DataError

    try:
        cifar = load("cifar10")
        return cifar.x_train[:samples], cifar.y_train[:samples]
    except DataError:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, case.classes, samples)
        kinds = rng.integers(0, 64, (case.classes, math.prod(case.shape)), dtype=np.uint8)
        return kinds[labels] + rng.integers(0, 192, (samples, kinds.shape[1]), dtype=np.uint8), labels


def layers_of(case: Case) -> list[gn.Layer]:
    """Our layers, without the classifier."""
    convolutions = [Conv2D(filters, 3, "relu", pool=2, trainable=case.trains) for filters in case.filters]
    return [Reshape(case.shape), *convolutions]


def ours(case: Case, device: str, x: Any, y: Any) -> Contestant:
    """(run `case.steps` steps, loss so far), through the same `Trainer.step` that `fit` runs."""
    model = gn.Sequential([*layers_of(case), Flatten(), Dense(case.classes)])
    trainer = Trainer(model, optimizer=gn.Adam(1e-3), device=device)
    return some_steps(trainer, x, y, case.batch, case.steps)


def our_features(case: Case, device: str, x: Any) -> Contestant:
    """(features of `case.steps` batches, their mean)."""
    backend = get_backend(device)
    model = gn.Sequential([*layers_of(case), Flatten()])
    model.build((x.shape[1],), backend)
    model.bind(case.batch)
    images = backend.asarray(x[: case.batch].astype(np.float32) / 255)

    def run() -> None:
        with backend.session():
            for _ in range(case.steps):
                model.forward(images)
            backend.synchronize()

    return run, lambda: float(backend.to_host(model.forward(images)).mean())


def torch_network(case: Case, memory_format: Any) -> Any:
    """The same layers in PyTorch, with our initial weights, so that losses and features can be compared."""
    import torch

    model = gn.Sequential([*layers_of(case), Flatten(), Dense(case.classes)])
    model.build((math.prod(case.shape),), get_backend("numpy"))
    weights = list(model.parameters.values())
    modules: list[Any] = []
    for weight in weights[:-2:2]:
        modules += [torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    modules += [torch.nn.Flatten(), torch.nn.Linear(weights[-2].shape[1], case.classes)]
    network: Any = torch.nn.Sequential(*modules)
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(weight))
    return (network if case.trains else network[:-1]).to(memory_format=memory_format)


def torch_eager(case: Case, memory_format: str, x: Any, y: Any, device: str = "cpu") -> Contestant:
    """Training in PyTorch."""
    import torch

    layout, place = getattr(torch, memory_format), torch_rival.place(device)
    network = torch_network(case, layout).to(place)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
    xs = (torch.tensor(x, device=place).float() / 255).reshape(-1, *case.shape).to(memory_format=layout)
    return torch_rival.training(network, optimiser, xs, torch.tensor(y, device=place), case.batch, case.steps)


def torch_features(case: Case, memory_format: str, x: Any, device: str = "cpu") -> Contestant:
    """Features in PyTorch."""
    import torch

    layout, place = getattr(torch, memory_format), torch_rival.place(device)
    network = torch_network(case, layout).to(place)
    batch = torch.tensor(x[: case.batch], device=place)
    images = (batch.float() / 255).reshape(-1, *case.shape).to(memory_format=layout)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(case.steps):
                network(images)
            torch_rival.wait(place)

    def mean() -> float:
        with torch.inference_mode():
            return float(network(images).mean())

    return run, mean


def compare(case: Case, rounds: int = 9, samples: int = 10_000) -> tuple[Times, dict[str, float]]:
    """Times of all contestants, and the loss that each reached, or the mean feature: all must have done the same."""
    x, y = data_for(case, samples)
    entries: dict[str, Contestant] = {}
    devices = {"numpy": "numpy"} | ({"numba": "cpu"} if why_no_numba() is None else {})
    for name, device in devices.items():
        entries[name] = ours(case, device, x, y) if case.trains else our_features(case, device, x)
    if importlib.util.find_spec("torch"):
        for name, layout in FORMATS.items():
            entries[name] = torch_eager(case, layout, x, y) if case.trains else torch_features(case, layout, x)
    times = interleave({name: run for name, (run, _) in entries.items()}, rounds)
    return times, {name: result() for name, (_, result) in entries.items()}
