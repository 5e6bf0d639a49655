"""Losses: each joins the last activation, since logarithm and sigmoid together neither overflow nor lose digits.

All take integer labels: the class, or 0 and 1 where the model has a single output. The squared error also takes
targets of floats.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, Self

from gpunet.backend.base import Array, Backend
from gpunet.checks import check_one_of, is_one_of, setting
from gpunet.errors import InputError, shown
from gpunet.nn.layers.base import Layer
from gpunet.reprs import as_call, settings

Reduction = Literal["mean", "sum"]
LossName = Literal["softmax_cross_entropy", "binary_cross_entropy", "squared_error"]


class Loss:
    """Base of all losses.

    `reduction` is what the gradient descends: the mean over the batch's samples, or their sum. The value reported is
    always the mean over samples.
    """

    activation: str | None = None  # what the model's last layer must have; None: anything
    reduction: Reduction = setting(check_one_of, known=("mean", "sum"))
    takes_targets = False  # of floats (n, k), in place of labels
    _given = _held = False  # to a trainer, which works on a copy; by a trainer, as its own

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    def __setattr__(self, name: str, value: Any) -> None:
        if self._given:
            raise InputError(
                f"this {type(self).__name__} was given to a trainer, which works on a copy: set {name} on "
                "trainer.loss, or set trainer.loss to another loss"
            )
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return as_call(self, settings(self))

    def given(self) -> Self:
        """A copy for one trainer; setting an attribute of this one, which would do nothing, raises InputError now."""
        own = copy.copy(self)
        vars(own)["_given"] = False
        if not self._held:
            vars(self)["_given"] = True
        return own

    def held(self) -> Self:
        """Itself, as its trainer hands it out: another trainer that is given it leaves it as it is."""
        vars(self)["_held"] = True
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: it is nobody's."""
        return {name: value for name, value in vars(self).items() if name not in ("_given", "_held")}

    def attach(self, backend: Backend, activation: str) -> None:
        """Check that the model's last activation fits, and keep the operations."""
        if self.activation not in (None, activation):
            raise InputError(
                f"{type(self).__name__} needs a last layer with activation '{self.activation}', "
                f"this model's has '{activation}'"
            )
        self.ops = backend
        self.last = activation

    def classes(self, outputs: int) -> int:
        """How many classes a model with so many outputs tells apart: one output tells 0 from 1."""
        return max(2, outputs)

    def scale(self, n: int) -> float:
        """Factor on ∂L/∂z for a batch of n."""
        return 1.0 if self.reduction == "sum" else 1.0 / n

    def __call__(self, z: Array, labels: Array, dz: Array, totals: Array) -> None:
        """Add the batch's loss and correct answers to `totals`, write ∂L/∂z to dz; z, dz (n, k), labels (n,).

        One that `takes_targets` may get those, (n, k) of z's dtype, in place of labels; then no answer is correct.
        """
        raise NotImplementedError

    def of_layer(self, layer: Layer, x: Array, labels: Array, dz: Array, totals: Array) -> None:
        """The last layer's `forward`, this loss of its scores and, where the layer is joined, its `slopes`."""
        self(layer.forward(x), labels, dz, totals)
        if layer.joined:
            layer.slopes(dz)


class _Named(Loss):
    """A loss that is one operation of the backend's, `operation`, with `options`."""

    operation: str
    options: tuple[str, ...] = ()

    def __call__(self, z: Array, labels: Array, dz: Array, totals: Array) -> None:
        getattr(self.ops, self.operation)(*self.options, z, labels, self.scale(len(z)), dz, totals)

    def of_layer(self, layer: Layer, x: Array, labels: Array, dz: Array, totals: Array) -> None:
        if not layer.joined or type(self).__call__ is not _Named.__call__:  # another operation: none fused knows it
            super().of_layer(layer, x, labels, dz, totals)
            return
        self.ops.affine_loss(
            *layer.operands(x), layer.y, self.operation, self.options, labels, self.scale(len(dz)), dz, totals,
            layer.d_bias,  # type: ignore[attr-defined]
        )  # fmt: skip


class SoftmaxCrossEntropy(_Named):
    """−log softmax(z)[label]; the last layer has no activation."""

    activation, operation = "identity", "softmax_cross_entropy"

    def classes(self, outputs: int) -> int:
        if outputs < 2:
            raise InputError(
                f"the softmax of {outputs} output is always 1: expected an output a class, or for two classes "
                "loss='binary_cross_entropy' and a last layer Dense(1, 'sigmoid')"
            )
        return outputs


class BinaryCrossEntropy(_Named):
    """−Σ over outputs of t log y + (1−t) log(1−y), y = σ(z) (document 000, equation 2); last activation sigmoid."""

    activation, operation = "sigmoid", "binary_cross_entropy"


class SquaredError(_Named):
    """½ Σ over outputs of (y − t)² (document 003: "the derivative is simply a subtraction"); any last activation.

    t is the one-hot label, or what is to be learned where y holds floats: (samples, outputs), or (samples,) for one.
    """

    operation, takes_targets = "squared_error", True

    def attach(self, backend: Backend, activation: str) -> None:
        super().attach(backend, activation)
        self.options = (self.last,)


NAMED: dict[LossName, type[Loss]] = {
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "squared_error": SquaredError,
}


def resolve(loss: LossName | Loss) -> Loss:
    """A loss, from itself or from its name."""
    if isinstance(loss, Loss):
        return loss
    if not is_one_of(loss, NAMED):
        mend = ", or an object such as gn.SquaredError()"
        raise InputError(f"unknown loss {shown(loss)}: expected one of {', '.join(NAMED)}{mend}")
    return NAMED[loss]()
