"""The fully connected layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import check_one_of, check_whole, setting
from gpunet.errors import InputError, ShapeError
from gpunet.linalg import SVD, FixedRank
from gpunet.linalg.rank import RankRule, truncated_svd
from gpunet.nn.init import Drawing, resolve
from gpunet.nn.layers.base import Layer, Parameter, Shape, Spec, check_activation
from gpunet.spectral.fitted import FittedLayer, Floats

if TYPE_CHECKING:
    from gpunet.nn.layers.lowrank import LowRankDense

SPLITS = ("left", "balanced")


class Dense(FittedLayer):
    """Affine layer with activation, y = f(x Wᵀ + b).

    weight: (out, in), bias: (out,); x: (batch, in) -> y: (batch, out).

    `weight` and `bias` say how they start: a name of `gpunet.nn.init`, a function of (shape, generator), or an array.
    A layer that is not `trainable` keeps its parameters and costs no gradient.
    Raises InputError for a bad argument, ShapeError where the input is not a row of features.
    """

    joins = True
    units: int = setting(check_whole, of=" of units")
    activation: str = setting(check_activation)
    weight: Array
    bias: Array
    d_weight: Array
    d_bias: Array

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        weight: Drawing = "glorot_uniform",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.units, self.trainable = units, trainable
        self.activation = activation  # type: ignore[assignment]  # the setting knows None
        self._draw = {"weight": resolve(weight), "bias": resolve(bias)}

    def spec(self, input_shape: Shape) -> Spec:
        if len(input_shape) != 1:
            raise ShapeError(
                f"Dense takes rows of features, got samples of shape {input_shape}: put Flatten() before it"
            )
        return Spec(
            output=(self.units,),
            parameters={
                "weight": Parameter((self.units, input_shape[0]), self._draw["weight"]),
                "bias": Parameter((self.units,), self._draw["bias"], decay=False),
            },
        )

    def config(self) -> dict[str, Any]:
        return {"units": self.units, "activation": self.activation, "trainable": self.trainable}

    def forward(self, x: Array) -> Array:
        self.x = x
        self.ops.affine(x, self.weight, self.bias, self.applied, self.y)
        return self.y

    def operands(self, x: Array) -> tuple[Array, Array, Array]:
        self.x = x
        return x, self.weight, self.bias

    def backward(self, dy: Array) -> Array | None:  # dz = dy ∘ f'(z), dW = dzᵀ x, db = Σ dz, dx = dz W
        if not self.joined:
            self.slopes(dy)
        self.ops.affine_backward(dy, self.x, self.weight, self.d_weight, self.dx, *self.below)
        if not self.joins:  # a subclass may go on with the gradients
            self.ops.join()
        return self.dx

    def shaped(self, vectors: Floats) -> Floats:
        object.__setattr__(self, "units", len(vectors))  # in a model, too, which is not built yet
        return vectors

    def factorise(self, rank: int | RankRule, split: str = "left") -> LowRankDense:
        """The layer with its weight cut to W ≈ U_l S_l V_lᵀ (document 001, section 3.3.1), to train on as two factors.

        rank: l from 1 to min(out, in), or a rule of `gpunet.linalg`. split: "left" is the document's, left = U_l and
        right = S_l V_lᵀ; "balanced" gives each factor √S_l, so that both have gradients of one size.
        `model.replace(layer.name, layer.factorise(l))` puts it in this layer's place.
        Raises InputError for such a rank or split, and where the layer has no weights yet.
        """
        check_one_of("split", split, SPLITS)
        on_host(self, "bias")  # or it has no weights yet
        rule = rank if isinstance(rank, RankRule) else FixedRank(rank)
        return self.factors(truncated_svd(self.weight, rule, self.ops), split)

    def factors(self, found: SVD, split: str = "left") -> LowRankDense:
        """As `factorise`, from a truncated decomposition of this layer's weight."""
        from gpunet.nn.layers.lowrank import LowRankDense

        u, s, vt = (self.ops.to_host(part) for part in (found.u, found.s, found.vt))
        left, right = (u, s[:, None] * vt) if split == "left" else (u * np.sqrt(s), np.sqrt(s)[:, None] * vt)
        layer = LowRankDense(
            self.units, len(s), self.activation, left=left, right=right, bias=on_host(self, "bias"),
            trainable=self.trainable,
        )  # fmt: skip

        # ∂/∂L of f(L R) = G Rᵀ, ∂/∂R = Lᵀ G; of squares the mean, if the gradients of W's elements were independent
        def to_left(ops: Backend, moment: Array, out: Array, squares: bool) -> None:
            ops.gemm(moment, ops.asarray(right**2 if squares else right, moment.dtype), out, transpose_b=True)

        def to_right(ops: Backend, moment: Array, out: Array, squares: bool) -> None:
            ops.gemm(ops.asarray(left**2 if squares else left, moment.dtype), moment, out, transpose_a=True)

        layer.made_from = self
        layer.inherits = {"bias": ("bias", None), "left": ("weight", to_left), "right": ("weight", to_right)}
        return layer


def on_host(layer: Layer, name: str) -> Any:
    """A copy of a layer's parameter as numpy.ndarray; InputError where it has none yet."""
    if not (hasattr(layer, name) and hasattr(layer, "ops")):
        raise InputError(f"a {type(layer).__name__} layer has no weights before its model is built: build or fit it")
    return np.array(layer.ops.to_host(getattr(layer, name)))
