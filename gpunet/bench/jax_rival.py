"""JAX as its users would run it: a whole step under jit, parameters and Adam's state donated, data resident.

On a CPU, JAX takes all the cores that the process may use, whatever others are told; give it fewer with `taskset`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

Network = Callable[[Any, Any], Any]  # (weights and biases in turn, x) -> logits
BETAS, EPSILON = (0.9, 0.999), 1e-8
CHUNK = 2000  # samples at a time where nothing is trained


def why_not() -> str:
    """Why JAX is no rival here; empty where it is."""
    return "" if importlib.util.find_spec("jax") else "jax is not installed; pip install jax"


def device() -> str:
    """What JAX computes on: "cpu", or "cuda" on a GPU."""
    platform: str = importlib.import_module("jax").default_backend()
    return "cuda" if platform == "gpu" else platform


def dense(parameters: Sequence[Any], x: Any) -> Any:
    """Dense layers, weight (out, in), ReLU between them."""
    jax = importlib.import_module("jax")
    *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
    for weight, bias in hidden:
        x = jax.nn.relu(x @ weight.T + bias)
    return x @ last[0].T + last[1]


def convolutional(shape: tuple[int, int, int], classifies: bool = True) -> Network:
    """Convolutions, weight (filters, channels, 3, 3), ReLU and 2×2 max-pooling each; then a dense layer, or not."""
    jax = importlib.import_module("jax")

    def pool(x: Any) -> Any:
        return jax.lax.reduce_window(x, -float("inf"), jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def network(parameters: Sequence[Any], x: Any) -> Any:
        x = x.reshape(-1, *shape)
        layers = parameters[:-2] if classifies else parameters
        for weight, bias in zip(layers[::2], layers[1::2], strict=True):
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID") + bias[:, None, None]
            x = pool(jax.nn.relu(x))
        x = x.reshape(len(x), -1)
        return x @ parameters[-2].T + parameters[-1] if classifies else x

    return network


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean over the batch."""
    jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def training(
    network: Network, weights: Sequence[Any], rate: float, xs: Any, ys: Any, batch: int, steps: int
) -> tuple[Callable[[], None], Callable[[], float]]:
    """(train `steps` steps of Adam, shuffled anew at the start of each pass; mean cross-entropy so far), as PyTorch's.

    weights: initial, in the order in which `network` takes them; xs float32 (samples, features), ys int (samples,).
    """
    jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    xs, ys, per_epoch = jnp.asarray(xs), jnp.asarray(ys), -(-len(xs) // batch)
    parameters = [jnp.array(weight) for weight in weights]
    state: list[Any] = [parameters, *([jnp.zeros_like(p) for p in parameters] for _ in BETAS), jnp.zeros(())]
    key = [jax.random.key(0)]

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        return cross_entropy(network(parameters, x), labels)

    measured = jax.jit(loss)

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

    def run() -> None:
        for turn in range(steps):
            place = turn % per_epoch
            if place == 0:
                key[0], drawn = jax.random.split(key[0])
                order = jax.random.permutation(drawn, len(xs))
            state[:] = step(*state, xs, ys, order[place * batch : (place + 1) * batch])
        jax.block_until_ready(state)

    def mean_loss() -> float:
        starts = range(0, len(xs), CHUNK)
        parts = [slice(start, start + CHUNK) for start in starts]
        return sum(float(measured(state[0], xs[p], ys[p])) * len(ys[p]) for p in parts) / len(xs)

    return run, mean_loss


def forward(
    network: Network, weights: Sequence[Any], x: Any, times: int
) -> tuple[Callable[[], None], Callable[[], float]]:
    """(outputs of a batch, `times` times, waited for; their mean)."""
    jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    jitted, parameters, images = jax.jit(network), [jnp.asarray(weight) for weight in weights], jnp.asarray(x)

    def run() -> None:
        for _ in range(times):
            out = jitted(parameters, images)
        jax.block_until_ready(out)

    return run, lambda: float(jitted(parameters, images).mean())
