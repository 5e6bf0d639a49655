"""A training step on a GPU: eager, as one CUDA graph, PyTorch eager and compiled, and the floor under all of them.

All get the same initial weights, the same uint8 or (PyTorch) float32 data on the device and the same order of samples,
drawn beforehand, whole batches only: the loss after the first steps must be the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend, get_backend
from gpunet.bench import torch_rival
from gpunet.bench.gpu_race import Contestant, race
from gpunet.bench.train import Case, products_of_a_step
from gpunet.errors import RunError
from gpunet.nn.trainer import Trainer
from gpunet.timing import Times

RATE = 3e-4
FIRST = 100  # steps before anything is timed, after which all losses are compared
RIVALS = ("torch", "torch.compile", "torch.compile, capturable Adam")


def order_of(x: Any) -> Any:
    """The order of the samples that all contestants take, int (samples,)."""
    return np.random.default_rng(1).permutation(len(x))


def layers(case: Case) -> list[gn.Layer]:
    """Dense layers with ReLU between them."""
    return [gn.Dense(width, "relu") for width in case.widths[1:-1]] + [gn.Dense(case.widths[-1])]


def ours(
    made: Callable[[], Sequence[gn.Layer]], backend: Backend, x: Any, y: Any, order: Any, batch: int, graphs: str
) -> Contestant:
    """The trainer's own steps on whole batches of `order`, over and over."""
    trainer = Trainer(gn.Sequential(made()), optimizer=gn.Adam(RATE), device=backend, graphs=graphs)
    data = trainer.samples(x, y)
    trainer._workspace(batch)
    whole = len(order) // batch

    def run(steps: int) -> None:
        rows, step = trainer.upload_order(order), trainer.stepper()
        with backend.session():
            turn = 0
            while turn < steps:
                if turn % whole == 0:
                    trainer.tally.reset()
                turn += step(data, rows, batch, min(whole - turn % whole, steps - turn))
            backend.synchronize()
        if graphs == "auto" and trainer.graphs.reason:
            raise RunError(f"steps were not recorded: {trainer.graphs.reason}")

    return Contestant(run, lambda: trainer.evaluate(data)["loss"], keeps=trainer)


def forking(backend: Backend) -> Backend:
    """A backend for the same GPU whose recordings have a branch, whatever GPUNET_FORK says."""
    own = get_backend(backend.name)
    own.forks = True
    return own


def in_torch(
    network: Any, x: Any, y: Any, order: Any, batch: int, device: Any, compiled: bool = False, capturable: bool = False
) -> Contestant:
    """PyTorch's steps on the same batches; x float32. Adam is fused, or else capturable, which can be compiled, too."""
    import torch

    network = network.to(device)
    kind: dict[str, Any] = {"capturable": device.type == "cuda"} if capturable else {"fused": True}
    optimiser = torch.optim.Adam(network.parameters(), RATE, **kind)
    xs, ys = torch.as_tensor(x, device=device), torch.as_tensor(y, device=device)
    step = torch_rival.step_of(network, optimiser, compiled, outside=capturable)
    return Contestant(
        torch_rival.fixed_order(step, xs, ys, order, batch), lambda: torch_rival.mean_loss(network, xs, ys)
    )


def torch_network(case: Case) -> Any:
    """The same net in PyTorch, with our initial weights."""
    import torch

    model = gn.Sequential(layers(case))
    model.build((case.widths[0],), get_backend("numpy"))
    modules: list[Any] = []
    for wide, narrow in pairwise(case.widths):
        modules += [torch.nn.Linear(wide, narrow), torch.nn.ReLU()]
    network: Any = torch.nn.Sequential(*modules[:-1])
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), model.parameters.values(), strict=True):
            parameter.copy_(torch.tensor(weight))
    return network


def contestants(
    case: Case, backend: Backend, x: Any, y: Any, compiled: bool = True, capturable: bool = False
) -> dict[str, Callable[[], Contestant]]:
    """Makers of everybody on x uint8 (samples, features), y: names as in the figures, PyTorch's compiled ones last.

    "products" are the step's alone. capturable: torch.compile also with the Adam that PyTorch makes for graphs.
    """
    order = order_of(x)
    net = partial(layers, case)
    makers: dict[str, Callable[[], Contestant]] = {
        "products": lambda: products(case, backend),
        "eager": lambda: ours(net, backend, x, y, order, case.batch, "off"),
    }
    if backend.records:
        makers["graph"] = lambda: ours(net, backend, x, y, order, case.batch, "auto")
    if importlib.util.find_spec("torch"):
        device, scaled = torch_rival.place(backend.name), (x / np.float32(255)).astype(np.float32)
        rival = partial(in_torch, x=scaled, y=y, order=order, batch=case.batch, device=device)
        makers["torch"] = lambda: rival(torch_network(case))
        if compiled:
            makers["torch.compile"] = lambda: rival(torch_network(case), compiled=True)
            if capturable:
                makers[RIVALS[2]] = lambda: rival(torch_network(case), compiled=True, capturable=True)
    return makers


def times_and_losses(
    case: Case, backend: Backend, x: Any, y: Any, rounds: int, compiled: bool
) -> tuple[Times, dict[str, float]]:
    """Of everybody's race: times of `case.steps` steps, and the losses; RunError where a contestant failed."""
    case = replace(case, batch=min(case.batch, len(x)))
    found = race(contestants(case, backend, x, y, compiled), rounds, FIRST)
    for name, why in found.failed.items():
        raise RunError(f"{case.name}, {name}: {why}")
    times = {name: [case.steps * s for s in each] for name, each in found.times.seconds.items()}
    return Times(times), {name: loss for name, loss in found.loss.items() if name != "products"}


def products(case: Case, backend: Backend) -> Contestant:
    """The matrix products of a step alone, in a graph where the device records."""
    work = products_of_a_step(case, backend, case.batch)
    with backend.session():
        work()
        step = backend.record(work) if backend.records else work

    def run(steps: int) -> None:
        with backend.session():
            for _ in range(steps):
                step()
            backend.synchronize()

    return Contestant(run, lambda: 0.0, keeps=work)
