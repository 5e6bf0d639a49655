"""Training speed: one network, batches and optimiser in plain NumPy, with numba, in PyTorch, and its products alone.

PyTorch runs as its users would run it: eager, fused Adam, float32 data resident and scaled beforehand (ours stays
uint8 and is scaled in the gather), gradients set to None. "products" are the eight matrix products of a step with
nothing between them: the floor for any code on the same BLAS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend, get_backend
from gpunet.bench import torch_rival
from gpunet.bench.steps import some_steps
from gpunet.nn.trainer import Trainer
from gpunet.timing import Times, interleave


@dataclass(frozen=True)
class Case:
    """One network and batch size; `steps` are timed at a time."""

    name: str
    widths: tuple[int, ...]
    batch: int
    steps: int
    samples: int


CASES = {
    case.name: case
    for case in [
        Case("mnist-2048", (784, 512, 256, 10), 2048, 30, 60_000),
        Case("mnist-64", (784, 512, 256, 10), 64, 300, 60_000),
        Case("digits-32", (64, 64, 10), 32, 500, 1440),
        Case("digits-32-deep", (64, 64, 64, 10), 32, 500, 1440),
        Case("points-21", (2, 3, 3, 2), 21, 500, 21),
    ]
}


def data_for(case: Case) -> tuple[Any, Any]:
    """x uint8 (samples, features) and labels: MNIST where it is at hand and fits, else images as sparse as MNIST's."""
    from gpunet.datasets import load
    from gpunet.errors import DataError

    if case.samples == 60_000:
        try:
            mnist = load("mnist")
            return mnist.x_train, mnist.y_train
        except DataError:
            pass
    rng = np.random.default_rng(0)
    labels = rng.integers(0, case.widths[-1], case.samples)
    x = rng.integers(0, 256, (case.samples, case.widths[0]), dtype=np.uint8)
    x[rng.random(x.shape) < 0.8] = 0
    x[:, rng.random(case.widths[0]) < 0.2] = 0  # columns that are never lit
    return x, labels


def ours(case: Case, device: str | Backend, x: Any, y: Any) -> tuple[Callable[[], None], Callable[[], float]]:
    """(run `case.steps` steps, loss so far), through the same `Trainer.step` that `fit` runs."""
    layers = [gn.Dense(width, "relu") for width in case.widths[1:-1]] + [gn.Dense(case.widths[-1])]
    trainer = Trainer(gn.Sequential(layers), optimizer=gn.Adam(3e-4), device=device)
    return some_steps(trainer, x, y, case.batch, case.steps)


def torch_eager(case: Case, x: Any, y: Any, device: str = "cpu") -> tuple[Callable[[], None], Callable[[], float]]:
    """The same in PyTorch."""
    import torch

    modules: list[Any] = []
    for wide, narrow in pairwise(case.widths):
        modules += [torch.nn.Linear(wide, narrow), torch.nn.ReLU()]
    torch.manual_seed(0)
    network = torch.nn.Sequential(*modules[:-1])
    for layer in modules[::2]:  # our initial weights' distribution, so that the losses can be compared
        torch.nn.init.xavier_uniform_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    place = torch_rival.place(device)
    network = network.to(place)
    optimiser = torch.optim.Adam(network.parameters(), 3e-4, fused=True)
    xs = torch.tensor(x, device=place).float() / 255
    ys = torch.tensor(y, device=place)
    return torch_rival.training(network, optimiser, xs, ys, min(case.batch, len(x)), case.steps)


def products(case: Case, backend: Backend) -> Callable[[], None]:
    """The matrix products of `case.steps` steps alone, on random numbers; the last batch of a pass is short."""
    n = min(case.batch, case.samples)
    per_epoch = -(-case.samples // n)
    sizes = [min(n, case.samples - step % per_epoch * n) for step in range(case.steps)]
    work = products_of_a_step(case, backend, n)

    def run() -> None:
        for size in sizes:
            work(size)

    return run


def products_of_a_step(case: Case, backend: Backend, batch: int) -> Callable[..., None]:
    """work(size=batch): the matrix products of one step of up to `batch` samples, on random numbers."""
    rng = np.random.default_rng(2)

    def array(*shape: int) -> Any:
        return backend.asarray(rng.standard_normal(shape, dtype=np.float32))

    x = [array(batch, width) for width in case.widths]
    d = [array(batch, width) for width in case.widths]
    w = [array(b, a) for a, b in pairwise(case.widths)]
    g = [array(b, a) for a, b in pairwise(case.widths)]
    out = [backend.empty(a.shape) for a in x]

    def work(size: int = batch) -> None:
        for i in range(len(w)):
            backend.gemm(x[i][:size], w[i], out[i + 1][:size], transpose_b=True)
        for i in reversed(range(len(w))):
            backend.gemm(d[i + 1][:size], x[i][:size], g[i], transpose_a=True)
            if i:
                backend.gemm(d[i + 1][:size], w[i], out[i][:size])

    return work


def compare(
    case: Case, rounds: int = 9, device: str | Backend = "auto", compiled: bool = False
) -> tuple[Times, dict[str, float]]:
    """Times of `case.steps` steps of all contestants, and the loss that each reached: all must have learned the same.

    On a CPU: "products", "numpy", "numba" unless device is "numpy", "torch". On a GPU whole batches only, see
    `gpu_train.contestants`: "products", "eager", "graph", "torch", and if asked for "torch.compile".
    """
    backend = get_backend(device)
    x, y = data_for(case)
    if backend.name.startswith("cuda"):
        from gpunet.bench import gpu_train

        return gpu_train.times_and_losses(case, backend, x, y, rounds, compiled)
    runs: dict[str, Callable[[], None]] = {"products": products(case, get_backend("numpy"))}
    losses: dict[str, Callable[[], float]] = {}
    runs["numpy"], losses["numpy"] = ours(case, "numpy", x, y)
    if backend.kernels == "numba":
        runs["numba"], losses["numba"] = ours(case, backend, x, y)
    if importlib.util.find_spec("torch"):
        runs["torch"], losses["torch"] = torch_eager(case, x, y)
    times = interleave(runs, rounds)
    return times, {name: loss() for name, loss in losses.items()}


def figures(case: Case, times: Times, losses: dict[str, float]) -> dict[str, dict[str, Any]]:
    """For JSON, by contestant: microseconds a step, the medians of its ratios to products and PyTorch, and the loss."""
    there = "torch" in times.seconds
    return {
        name: {
            "microseconds_per_step": 1e6 * times.median(name) / case.steps,
            "over_products": times.ratio(name, "products"),
            "over_torch": times.ratio(name, "torch") if there else None,
            "over_torch_quartiles": times.spread(name, "torch") if there else None,
            "loss": losses.get(name),
        }
        for name in times.seconds
    }
