"""Factored training of document 001's MNIST net, 784-512-256-10: ours, PyTorch's, and the products alone.

Dense, and with the ranks of both meanings of α = ½; batch 2048, Adam 3e-4, an epoch at a time, metrics off. PyTorch
runs eager, two `nn.Linear` for a factored layer (the first without bias), fused Adam, float32 data resident and scaled
beforehand (ours stays uint8 and is scaled in the gather). "products" are the matrix products of our own steps, taken
down while one runs and run alone on the same arrays: the floor for any code on the same BLAS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpunet as gn
from gpunet.backend import Backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.bench import torch_rival
from gpunet.bench.counts import allowed_step
from gpunet.bench.steps import training
from gpunet.bench.train import CASES, data_for
from gpunet.errors import RunError
from gpunet.linalg import BreakEven, DimensionFraction
from gpunet.nn.samples import Samples
from gpunet.nn.trainer import Trainer
from gpunet.spectral.factorise import speed_up
from gpunet.timing import Times, interleave

CASE = CASES["mnist-2048"]
SHAPES = [(out, inner) for inner, out in zip(CASE.widths, CASE.widths[1:], strict=False)]
RATE = 3e-4
Ranks = Sequence[int | None]
NETS: dict[str, Ranks] = {"dense": (None, None, None)} | {
    name: (*map(rule, SHAPES[:-1]), None)
    for name, rule in (("dimension 1/2", DimensionFraction(0.5)), ("break-even 1/2", BreakEven(0.5)))
}
SAME = 0.2  # how far apart, relatively, two losses may be that learned the same task


@dataclass(frozen=True)
class Comparison:
    """Times of an epoch of `steps` steps by "who, net"; the losses reached; what the counts allow each net."""

    steps: int
    times: Times
    losses: dict[str, float]
    allowed: dict[str, float]
    allowed_step: dict[str, float]


def compare(backend: Backend, rounds: int = 9) -> Comparison:
    """All contestants in turn; raises RunError where a net's losses in the two libraries differ by more than SAME."""
    x, y = data_for(CASE)
    runs: dict[str, Callable[[], object]] = {}
    losses: dict[str, Callable[[], float]] = {}
    for net, ranks in NETS.items():
        runs[f"products, {net}"] = products(ranks, x, y)
        runs[f"gpunet, {net}"], losses[f"gpunet, {net}"] = ours(ranks, backend, x, y)
        if importlib.util.find_spec("torch"):
            runs[f"torch, {net}"], losses[f"torch, {net}"] = torch_eager(ranks, x, y)
    times = interleave(runs, rounds)
    reached = {name: loss() for name, loss in losses.items()}
    check_losses(reached)
    return Comparison(
        -(-len(x) // CASE.batch), times, reached,
        {net: speed_up(SHAPES, ranks) for net, ranks in NETS.items()},
        {net: allowed_step(SHAPES, ranks, CASE.batch) for net, ranks in NETS.items()},
    )  # fmt: skip


def check_losses(losses: dict[str, float]) -> None:
    """RunError where a net did not learn in one library what it learned in the other."""
    for net in NETS:
        ours, theirs = (losses.get(f"{who}, {net}") for who in ("gpunet", "torch"))
        if ours is not None and theirs is not None and not abs(ours - theirs) <= SAME * max(ours, theirs):
            raise RunError(f"the {net} net learned different things: loss {ours:.4g} in gpunet, {theirs:.4g} in torch")


# -- contestants -------------------------------------------------------------------------------------------------------


def _trainer(ranks: Ranks, backend: Backend) -> Trainer:
    activations = ["relu"] * (len(SHAPES) - 1) + [None]
    layers = [
        gn.Dense(out, activation) if rank is None else gn.LowRankDense(out, rank, activation)
        for (out, _), rank, activation in zip(SHAPES, ranks, activations, strict=True)
    ]
    return Trainer(gn.Sequential(layers), optimizer=gn.Adam(RATE), device=backend)


def ours(
    ranks: Ranks, backend: Backend, x: NDArray[Any], y: NDArray[Any]
) -> tuple[Callable[[], None], Callable[[], float]]:
    """(train an epoch, loss so far), through the same `Trainer.step` that `fit` runs."""
    trainer, rng = _trainer(ranks, backend), np.random.default_rng(1)
    data = trainer.samples(x, y)
    run = training(trainer, data, CASE.batch, lambda: rng.permutation(len(x)))
    return run, lambda: trainer.evaluate(data)["loss"]


def torch_eager(
    ranks: Ranks, x: NDArray[Any], y: NDArray[Any], device: str = "cpu"
) -> tuple[Callable[[], None], Callable[[], float]]:
    """The same in PyTorch."""
    import torch

    torch.manual_seed(0)
    modules: list[Any] = []
    for (out, inner), rank in zip(SHAPES, ranks, strict=True):
        if rank is not None:
            modules.append(torch.nn.Linear(inner, rank, bias=False))
        modules += [torch.nn.Linear(rank or inner, out), torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules[:-1])
    for name, parameter in network.named_parameters():  # our initial weights' distribution, for the losses' sake
        (torch.nn.init.zeros_ if name.endswith("bias") else torch.nn.init.xavier_uniform_)(parameter)
    place = torch_rival.place(device)
    network = network.to(place)
    optimiser = torch.optim.Adam(network.parameters(), RATE, fused=True)
    xs, ys = torch.tensor(x, device=place).float() / 255, torch.tensor(y, device=place)
    return torch_rival.training(network, optimiser, xs, ys, CASE.batch, -(-len(x) // CASE.batch))


class Recorder(NumpyBackend):
    """Takes down the operands (a, b, out) of each product that it runs, transposed as they are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Any, Any, Any]] = []

    def gemm(self, a: Any, b: Any, out: Any, transpose_a: bool = False, transpose_b: bool = False) -> None:
        """See `Backend`."""
        self.products.append((a.T if transpose_a else a, b.T if transpose_b else b, out))
        super().gemm(a, b, out, transpose_a, transpose_b)

    def affine(self, x: Any, weight: Any, bias: Any, activation: str, out: Any) -> None:
        """See `Backend`."""
        self.products.append((x, weight.T, out))
        super().affine(x, weight, bias, activation, out)


def products(ranks: Ranks, x: NDArray[Any], y: NDArray[Any]) -> Callable[[], None]:
    """The matrix products of an epoch alone, the last batch as short as it is."""
    recorder = Recorder()
    trainer = _trainer(ranks, recorder)
    full, rest = divmod(len(x), CASE.batch)
    first = Samples.of(recorder, x[: CASE.batch], y[: CASE.batch], CASE.widths[-1])

    def recorded(n: int) -> list[tuple[Any, Any, Any]]:
        recorder.products.clear()
        training(trainer, first, CASE.batch, lambda: np.arange(n))()
        return list(recorder.products)

    whole = recorded(min(CASE.batch, len(x)))
    last = recorded(rest) if rest else []

    def run() -> None:
        for a, b, out in whole * full + last:
            np.matmul(a, b, out=out)

    return run
