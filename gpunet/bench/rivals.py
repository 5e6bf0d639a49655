"""PyTorch and JAX as their users would run them: data resident and scaled beforehand, the step in one function.

PyTorch sets gradients to None and has fused Adam. JAX runs a whole step under jit, parameters and Adam's state
donated; on a CPU it takes all the cores that the process may use, whatever others are told: give it fewer with
`taskset`.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.bench.harness import Work, lacking
from gpunet.nn.layers import Conv2D, Dense, Flatten, LowRankDense, Reshape

CHUNK = 2000  # samples at a time where nothing is trained
Draw = Callable[[], Any]  # an order of samples, int (N,), for a pass over the data


@dataclass(frozen=True)
class Way:
    """How PyTorch is asked to train.

    flush: with denormal numbers as 0, which it does when it is told to; alone: the same on one thread, which is faster
    with small nets; bf16: under autocast; layout: of images; compiled: by torch.compile(mode="reduce-overhead"), or
    with the Adam that PyTorch makes for graphs, `capturable`.
    """

    flush: bool = False
    alone: bool = False
    bf16: bool = False
    layout: str = "contiguous_format"
    compiled: bool = False
    capturable: bool = False


def place(device: str) -> Any:
    """PyTorch's device of the same name ("cuda:1", or "cpu"); its CPU where PyTorch has no such GPU."""
    import torch

    return torch.device(device if device.startswith("cuda") and torch.cuda.is_available() else "cpu")


def wait(device: Any) -> None:
    """Until all work on that device is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


_jax_precision = ["float32"]  # of JAX's products, whose own default on a GPU is TF32


def tf32(wanted: bool) -> None:
    """Products and convolutions of float32 in TF32 or not, on GPUs; PyTorch's own default is one of each.

    Without a call JAX's are of float32; what was made before a call keeps its own.
    """
    _jax_precision[0] = "tensorfloat32" if wanted else "float32"
    if lacking("torch"):
        return
    import torch

    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted
    torch.backends.cudnn.benchmark = True


def placed(draw: Draw, put: Callable[[Any], Any]) -> Draw:
    """The drawn orders, put on a device; one that is the same object as before lies there already."""
    last: list[Any] = [None, None]

    def order() -> Any:
        rows = draw()
        if rows is not last[0]:
            last[:] = rows, put(rows)
        return last[1]

    return order


def torch_network(layers: Sequence[gn.Layer], weights: Sequence[Any]) -> Any:
    """Our layers as PyTorch's, with our initial weights, in the order in which a model holds them; Reshape aside.

    A factored layer is two `Linear`, the first without bias.
    """
    from torch import nn, tensor

    modules: list[Any] = []
    left = list(map(tensor, weights))
    for layer in layers:
        if isinstance(layer, Flatten):
            modules.append(nn.Flatten())
        elif isinstance(layer, Conv2D):
            modules.append(nn.Conv2d(left[0].shape[1], left[0].shape[0], layer.kernel))
        elif isinstance(layer, LowRankDense):
            right = left.pop(1)  # behind the left factor, which is the second one's weight
            modules += [nn.Linear(right.shape[1], layer.rank, bias=False), nn.Linear(layer.rank, layer.units)]
            modules[-2].weight = nn.Parameter(right)
        elif isinstance(layer, Dense):
            modules.append(nn.Linear(left[0].shape[1], layer.units))
        if isinstance(layer, (Conv2D, Dense, LowRankDense)):
            modules[-1].weight, modules[-1].bias = (nn.Parameter(left.pop(0)) for _ in range(2))
            modules += [nn.ReLU()] if layer.activation == "relu" else []
            if isinstance(layer, Conv2D) and layer.pools:
                average = layer.pooling == "average"
                modules.append(nn.AvgPool2d(layer.pool, layer.step) if average else nn.MaxPool2d(layer.pool))
    return nn.Sequential(*modules)


def _step(network: Any, optimiser: Any, way: Way) -> Callable[[Any, Any], Any]:
    """step(x, labels), as PyTorch's tutorials write it; without an optimiser the outputs for x alone."""
    import torch

    def precision(x: Any) -> Any:
        return torch.autocast(x.device.type, torch.bfloat16) if way.bf16 else contextlib.nullcontext()

    def features(x: Any, _: Any) -> Any:
        with torch.inference_mode(), precision(x):
            return network(x)

    def step(x: Any, labels: Any) -> Any:
        if not way.capturable:
            optimiser.zero_grad(set_to_none=True)
        with precision(x):
            loss: Any = torch.nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        optimiser.step()
        return loss

    if optimiser is None:
        return features
    if not way.compiled:
        return step
    fast: Callable[[Any, Any], Any] = torch.compile(step, mode="reduce-overhead", dynamic=False)
    if not way.capturable:
        return fast

    def cleared(x: Any, labels: Any) -> Any:  # gradients set to None before what is compiled
        optimiser.zero_grad(set_to_none=True)
        return fast(x, labels)

    return cleared


def in_torch(
    layers: Sequence[gn.Layer], weights: Sequence[Any], x: Any, y: Any, *,
    batch: int, rate: float, draw: Draw, device: str, way: Way, trains: bool = True,
) -> Work:  # fmt: skip
    """Training in PyTorch, or features of the first batch; x uint8 (samples, features)."""
    import torch

    where, layout = place(device), getattr(torch, way.layout)
    network = torch_network(layers, weights).to(where).to(memory_format=layout)
    xs = torch.tensor(x, device=where).float() / 255
    if isinstance(layers[0], Reshape):
        xs = xs.reshape(-1, *layers[0].shape).to(memory_format=layout)
    ys = torch.tensor(y, device=where)
    kind: dict[str, Any] = {"capturable": where.type == "cuda"} if way.capturable else {"fused": True}
    optimiser = torch.optim.Adam(network.parameters(), rate, **kind) if trains else None
    step = _step(network, optimiser, way)

    order_of = placed(draw, partial(torch.as_tensor, device=where))

    def run(steps: int) -> None:
        while steps > 0:
            order = order_of()
            for start in range(0, len(order), batch)[:steps]:
                rows = order[start : start + batch]
                step(xs[rows], ys[rows])
                steps -= 1
        wait(where)

    def features(times: int) -> None:
        for _ in range(times):
            step(xs[:batch], None)
        wait(where)

    def reached() -> dict[str, float]:
        if not trains:
            return {"mean_feature": float(step(xs[:batch], None).mean(dtype=torch.float64))}
        parts = [slice(start, start + CHUNK) for start in range(0, len(xs), CHUNK)]
        with torch.no_grad():
            losses = [torch.nn.functional.cross_entropy(network(xs[p]), ys[p], reduction="sum") for p in parts]
        return {"loss": sum(float(loss) for loss in losses) / len(xs)}

    work = Work(run if trains else features, reached)
    return flushed(work, way.alone) if way.flush or way.alone else work


def flushed(work: Work, alone: bool = False) -> Work:
    """The work in a thread that has PyTorch's denormals flushed, and whose operations take one thread or as many.

    Both are a thread's own, and OpenMP's workers inherit the flag from the thread that starts them: no other contender
    has either.
    """
    import torch

    count = torch.get_num_threads()

    def begin() -> None:
        torch.set_flush_denormal(True)
        torch.set_num_threads(1 if alone else count)

    thread = ThreadPoolExecutor(1, initializer=begin)
    return Work(lambda pieces: thread.submit(work.run, pieces).result(), work.reached, keeps=thread)


# -- JAX --------------------------------------------------------------------------------------------------------------

BETAS, EPSILON = (0.9, 0.999), 1e-8


def jax_network(layers: Sequence[gn.Layer]) -> Callable[[Any, Any], Any]:
    """network(weights in a model's order, x) -> logits, or features, of our layers."""
    jax, precision = importlib.import_module("jax"), _jax_precision[0]

    def network(weights: Sequence[Any], x: Any) -> Any:
        with jax.default_matmul_precision(precision):  # of the gradients' products, too, which are traced from these
            return outputs(list(weights), x)

    def outputs(left: list[Any], x: Any) -> Any:
        for layer in layers:
            if isinstance(layer, Flatten):  # a Reshape, too
                x = x.reshape(len(x), -1)
            elif isinstance(layer, Reshape):
                x = x.reshape(-1, *layer.shape)
            elif isinstance(layer, Conv2D):
                x = jax.lax.conv_general_dilated(x, left.pop(0), (1, 1), "VALID") + left.pop(0)[:, None, None]
            elif isinstance(layer, LowRankDense):
                x = x @ left.pop(1).T @ left.pop(0).T + left.pop(0)
            elif isinstance(layer, Dense):
                x = x @ left.pop(0).T + left.pop(0)
            if getattr(layer, "activation", None) == "relu":
                x = jax.nn.relu(x)
            if isinstance(layer, Conv2D) and layer.pools:
                window, step = (1, 1, layer.pool, layer.pool), (1, 1, layer.step, layer.step)
                if layer.pooling == "average":
                    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, step, "VALID") / layer.pool**2
                else:
                    x = jax.lax.reduce_window(x, -float("inf"), jax.lax.max, window, step, "VALID")
        return x

    return network


def in_jax(
    layers: Sequence[gn.Layer], weights: Sequence[Any], x: Any, y: Any, *,
    batch: int, rate: float, draw: Draw, trains: bool = True,
) -> Work:  # fmt: skip
    """As `in_torch`, on JAX's own device."""
    jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    network = jax_network(layers)
    xs, ys = jnp.asarray((x / np.float32(255)).astype(np.float32)), jnp.asarray(y)
    parameters = [jnp.array(weight) for weight in weights]
    state: list[Any] = [parameters, *([jnp.zeros_like(p) for p in parameters] for _ in BETAS), jnp.zeros(())]

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        logits = jax.nn.log_softmax(network(parameters, x))
        return -jnp.take_along_axis(logits, labels[:, None], axis=1).mean()

    @partial(jax.jit, donate_argnums=(0, 1, 2, 3))
    def step(parameters: Any, mean: Any, square: Any, turn: Any, xs: Any, ys: Any, rows: Any) -> Any:
        gradients, turn = jax.grad(loss)(parameters, xs[rows], ys[rows]), turn + 1
        mean = [BETAS[0] * m + (1 - BETAS[0]) * g for m, g in zip(mean, gradients, strict=True)]
        square = [BETAS[1] * v + (1 - BETAS[1]) * g * g for v, g in zip(square, gradients, strict=True)]
        corrected = [1 - beta**turn for beta in BETAS]
        moved = [
            p - rate * (m / corrected[0]) / (jnp.sqrt(v / corrected[1]) + EPSILON)
            for p, m, v in zip(parameters, mean, square, strict=True)
        ]
        return moved, mean, square, turn

    measured, forward, order_of = jax.jit(loss), jax.jit(network), placed(draw, jnp.asarray)

    def run(steps: int) -> None:
        while steps > 0:
            order = order_of()
            for start in range(0, len(order), batch)[:steps]:
                state[:] = step(*state, xs, ys, order[start : start + batch])
                steps -= 1
        jax.block_until_ready(state)

    def features(times: int) -> None:
        for _ in range(times):
            out = forward(parameters, xs[:batch])
        jax.block_until_ready(out)

    def reached() -> dict[str, float]:
        if not trains:
            return {"mean_feature": float(forward(parameters, xs[:batch]).mean())}
        parts = [slice(start, start + CHUNK) for start in range(0, len(xs), CHUNK)]
        return {"loss": sum(float(measured(state[0], xs[p], ys[p])) * len(ys[p]) for p in parts) / len(xs)}

    return Work(run if trains else features, reached)
