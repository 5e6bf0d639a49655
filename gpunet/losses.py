"""Losses: each joins the last activation, since logarithm and sigmoid together neither overflow nor lose digits.

All take integer labels: the class, or 0 and 1 where the model has a single output.
"""

from __future__ import annotations

from typing import Literal

from gpunet.backend.base import Array, Backend
from gpunet.errors import InputError, shown

Reduction = Literal["mean", "sum"]


class Loss:
    """Base of all losses.

    `reduction` is what the gradient descends: the mean over the batch's samples, or their sum. The value reported is
    always the mean over samples.
    """

    activation: str | None = None  # what the model's last layer must have; None: anything

    def __init__(self, reduction: Reduction = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise InputError(f"unknown reduction {shown(reduction)}: expected 'mean' or 'sum'")
        self.reduction = reduction

    def attach(self, backend: Backend, activation: str) -> None:
        """Check that the model's last activation fits, and keep the operations."""
        if self.activation not in (None, activation):
            raise InputError(
                f"{type(self).__name__} needs a last layer with activation '{self.activation}', "
                f"this model's has '{activation}'"
            )
        self.ops = backend
        self.last = activation

    def scale(self, n: int) -> float:
        """Factor on ∂L/∂z for a batch of n."""
        return 1.0 if self.reduction == "sum" else 1.0 / n

    def __call__(self, z: Array, labels: Array, dz: Array, totals: Array) -> None:
        """Add the batch's loss and correct answers to `totals`, write ∂L/∂z to dz; z, dz (n, k), labels (n,)."""
        raise NotImplementedError


class SoftmaxCrossEntropy(Loss):
    """−log softmax(z)[label]; the last layer has no activation."""

    activation = "identity"

    def __call__(self, z: Array, labels: Array, dz: Array, totals: Array) -> None:
        self.ops.softmax_cross_entropy(z, labels, self.scale(len(z)), dz, totals)


class BinaryCrossEntropy(Loss):
    """−Σ over outputs of t log y + (1−t) log(1−y), y = σ(z) (document 000, equation 2); last activation sigmoid."""

    activation = "sigmoid"

    def __call__(self, z: Array, labels: Array, dz: Array, totals: Array) -> None:
        self.ops.binary_cross_entropy(z, labels, self.scale(len(z)), dz, totals)


class SquaredError(Loss):
    """½ Σ over outputs of (y − t)² (document 003: "the derivative is simply a subtraction"); any last activation."""

    def __call__(self, z: Array, labels: Array, dz: Array, totals: Array) -> None:
        self.ops.squared_error(self.last, z, labels, self.scale(len(z)), dz, totals)


NAMED: dict[str, type[Loss]] = {
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "squared_error": SquaredError,
}


def resolve(loss: str | Loss) -> Loss:
    """A loss, from itself or from its name."""
    if isinstance(loss, Loss):
        return loss
    if loss not in NAMED:
        raise InputError(f"unknown loss {shown(loss)}: expected one of {', '.join(NAMED)}")
    return NAMED[loss]()
