"""PyTorch as its users would run it: data resident and scaled beforehand, gradients set to None, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CHUNK = 2000  # samples at a time where nothing is trained


def place(device: str) -> Any:
    """PyTorch's device of the same name ("cuda:1", or "cpu"); its CPU where PyTorch has no such GPU."""
    import torch

    return torch.device(device if device.startswith("cuda") and torch.cuda.is_available() else "cpu")


def wait(device: Any) -> None:
    """Until all work on that device is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def tf32(wanted: bool) -> None:
    """Products and convolutions of float32 in TF32 or not, on GPUs; PyTorch's own default is one of each."""
    import torch

    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted


def step_of(network: Any, optimiser: Any, compiled: bool = False, outside: bool = False) -> Callable[[Any, Any], Any]:
    """step(x, labels), the whole step in one function, as PyTorch's tutorials write it.

    compiled: by torch.compile(mode="reduce-overhead"); outside: gradients set to None before what is compiled.
    """
    import torch

    def step(x: Any, labels: Any) -> Any:
        if not outside:
            optimiser.zero_grad(set_to_none=True)
        loss: Any = torch.nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        optimiser.step()
        return loss

    if not compiled:
        return step
    fast: Callable[[Any, Any], Any] = torch.compile(step, mode="reduce-overhead", dynamic=False)
    if not outside:
        return fast

    def cleared(x: Any, labels: Any) -> Any:
        optimiser.zero_grad(set_to_none=True)
        return fast(x, labels)

    return cleared


def fixed_order(step: Callable[[Any, Any], Any], xs: Any, ys: Any, order: Any, batch: int) -> Callable[[int], None]:
    """run(steps): so many steps on whole batches of `order`, over and over; waits for the device."""
    import torch

    rows = torch.as_tensor(order, device=xs.device)
    whole = len(order) // batch

    def run(steps: int) -> None:
        for turn in range(steps):
            first = turn % whole * batch
            chosen = rows[first : first + batch]
            step(xs[chosen], ys[chosen])
        wait(xs.device)

    return run


def mean_loss(network: Any, xs: Any, ys: Any) -> float:
    """Mean cross-entropy over the data."""
    import torch

    with torch.no_grad():
        parts = [slice(start, start + CHUNK) for start in range(0, len(xs), CHUNK)]
        losses = [torch.nn.functional.cross_entropy(network(xs[p]), ys[p], reduction="sum") for p in parts]
        return sum(float(loss) for loss in losses) / len(xs)


def training(
    network: Any, optimiser: Any, xs: Any, ys: Any, batch: int, steps: int
) -> tuple[Callable[[], None], Callable[[], float]]:
    """(train `steps` steps, shuffled anew at the start of each pass over the data; mean cross-entropy so far)."""
    import torch

    step, per_epoch = step_of(network, optimiser), -(-len(xs) // batch)

    def run() -> None:
        for turn in range(steps):
            part = turn % per_epoch
            if part == 0:
                order = torch.randperm(len(xs), device=xs.device)
            rows = order[part * batch : (part + 1) * batch]
            step(xs[rows], ys[rows])
        wait(xs.device)

    return run, lambda: mean_loss(network, xs, ys)
