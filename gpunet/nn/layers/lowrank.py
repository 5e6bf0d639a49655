"""The fully connected layer in factored form (document 001, section 3.3.3)."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import Activation, Array
from gpunet.checks import check_whole, setting
from gpunet.errors import ShapeError
from gpunet.nn.init import Drawing, resolve
from gpunet.nn.layers.base import Parameter, Shape, Spec, check_activation
from gpunet.nn.layers.dense import Mixing, halved


class LowRankDense(Mixing):
    """Affine layer of rank l with activation, y = f((x Rᵀ) Lᵀ + b), W = L R.

    left: (out, l), right: (l, in), bias: (out,); x: (batch, in) -> y: (batch, out). Usually made by
    `gn.factorise`, and turned back by `gn.merge`.

    A step takes l (in + out) multiplications a sample where `Dense` takes in · out: fewer for l < in·out/(in + out).
    Above that, and for large batches, the products are associated the other way round: x (L R)ᵀ.
    Raises InputError for a bad argument, ShapeError where the input is not a row of features or smaller than the rank.
    """

    joins = mixes = True
    units: int = setting(check_whole, of=" of units")
    rank: int = setting(check_whole, most=lambda layer: layer.units)
    activation: Activation = setting(check_activation)
    left: Array
    right: Array
    bias: Array
    d_left: Array
    d_right: Array
    d_bias: Array
    low_weight: Array = None
    low_d_weight: Array = None

    def __init__(
        self,
        units: int,
        rank: int,
        activation: Activation | None = None,
        *,
        left: Drawing = "glorot_uniform",
        right: Drawing = "glorot_uniform",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.activation = activation  # type: ignore[assignment]  # the setting knows None
        self.units, self.rank, self.trainable = units, rank, trainable
        self._draw = {"left": resolve(left), "right": resolve(right), "bias": resolve(bias)}

    def spec(self, input_shape: Shape) -> Spec:
        if len(input_shape) != 1 or min(input_shape[0], self.units) < self.rank:
            raise ShapeError(
                f"LowRankDense of rank {self.rank} takes rows of at least {self.rank} features and has as many units, "
                f"got samples of shape {input_shape} and {self.units} units"
            )
        return Spec(
            output=(self.units,),
            parameters={
                "left": Parameter((self.units, self.rank), self._draw["left"]),
                "right": Parameter((self.rank, input_shape[0]), self._draw["right"]),
                "bias": Parameter((self.units,), self._draw["bias"], decay=False),
            },
        )

    def config(self) -> dict[str, Any]:
        return {"units": self.units, "rank": self.rank, "activation": self.activation, "trainable": self.trainable}

    def reserve(self, y: Array, dx: Array | None) -> None:
        batch, (out, inner) = len(y), (self.units, self.right.shape[1])
        self._h, self._dh = (self.ops.empty((batch, self.rank), y.dtype) for _ in range(2))
        self.weight = self.d_weight = None
        if self._merging_pays(batch, dx is not None):
            self.weight, self.d_weight = (self.ops.empty((out, inner), y.dtype) for _ in range(2))

    def set_batch_size(self, n: int) -> None:
        super().set_batch_size(n)
        self.h, self.dh = self._h[:n], self._dh[:n]
        self.merged = self.weight is not None and self._merging_pays(n, self.dx is not None)
        if self.rounded:
            self.low_h, self.low_dh = halved(self.h), halved(self.dh)
            if self.weight is not None:
                self.low_weight, self.low_d_weight = halved(self.weight), halved(self.d_weight)

    def _forms(self) -> tuple[Array, ...]:
        """L, R, h, ∂L/∂h, W and ∂L/∂W, as products take them: in float32, or all in bfloat16."""
        if self.low:
            left, right = self.rounded["left"], self.rounded["right"]
            return left, right, self.low_h, self.low_dh, self.low_weight, self.low_d_weight
        return self.left, self.right, self.h, self.dh, self.weight, self.d_weight

    def _merging_pays(self, n: int, needs_dx: bool) -> bool:
        """Whether a step on n samples takes fewer multiplications as x (L R)ᵀ than as (x Rᵀ) Lᵀ."""
        rank, out, inner = self.rank, self.units, self.right.shape[1]
        forms = 3 if self.trainable else 1  # W itself, and from dW its two factors' gradients
        dense = (1 + self.trainable + needs_dx) * n * out * inner + forms * rank * out * inner
        factored = n * rank * ((1 + self.trainable) * (out + inner) + (out if self.trainable or needs_dx else 0))
        return bool(dense < factored + (n * rank * inner if needs_dx else 0))

    def forward(self, x: Array) -> Array:
        out = self.low_y if self.low else self.y
        self.ops.affine(*self.operands(x), self.applied, out)
        return out

    def operands(self, x: Array) -> tuple[Array, Array, Array]:
        self.x = self.taken(x) if self.low else x
        left, right, h, _, weight, _ = self._forms()
        if self.merged:
            self.ops.gemm(left, right, weight)
            return self.x, weight, self.bias
        self.ops.gemm(self.x, right, h, transpose_b=True)
        return h, left, self.bias

    def backward(self, dy: Array) -> Array | None:
        # dz = dy ∘ f'(z), dh = dz L; dL = dzᵀ h, dR = dhᵀ x, dx = dh R; merged: dW = dzᵀ x, dL = dW Rᵀ, dR = Lᵀ dW
        ops, dz, dx = self.ops, dy, self.dx
        if self.low:
            dz, dx = self.handed(dy), self.low_dx
        elif not self.joined:
            self.slopes(dy)
        left, right, h, dh, weight, d_weight = self._forms()
        if self.merged:
            trained = self.d_left is not None
            ops.affine_backward(dz, self.x, weight, d_weight if trained else None, dx, *self.below)
            if trained:
                ops.join()
                ops.gemm(d_weight, right, self.d_left, transpose_b=True)
                ops.gemm(left, d_weight, self.d_right, transpose_a=True)
        elif self.d_left is not None or dx is not None:
            ops.affine_backward(dz, h, left, self.d_left, dh, "identity", None)
            ops.affine_backward(dh, self.x, right, self.d_right, dx, *self.below)
        if not self.joins:  # as in Dense
            ops.join()
        return dx
