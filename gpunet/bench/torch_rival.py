"""PyTorch as its users would run it: eager, data resident and scaled beforehand, gradients set to None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CHUNK = 2000  # samples at a time where nothing is trained


def training(
    network: Any, optimiser: Any, xs: Any, ys: Any, batch: int, steps: int
) -> tuple[Callable[[], None], Callable[[], float]]:
    """(train `steps` steps, shuffled anew at the start of each pass over the data; mean cross-entropy so far)."""
    import torch

    entropy, per_epoch = torch.nn.functional.cross_entropy, -(-len(xs) // batch)

    def run() -> None:
        for step in range(steps):
            place = step % per_epoch
            if place == 0:
                order = torch.randperm(len(xs))
            rows = order[place * batch : (place + 1) * batch]
            optimiser.zero_grad(set_to_none=True)
            loss: Any = entropy(network(xs[rows]), ys[rows])
            loss.backward()
            optimiser.step()

    def mean_loss() -> float:
        with torch.no_grad():
            parts = [slice(start, start + CHUNK) for start in range(0, len(xs), CHUNK)]
            return sum(float(entropy(network(xs[p]), ys[p], reduction="sum")) for p in parts) / len(xs)

    return run, mean_loss
