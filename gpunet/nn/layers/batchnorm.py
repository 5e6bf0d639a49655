"""Batch normalisation."""

from __future__ import annotations

import math
from typing import Any

from gpunet.backend.base import Array
from gpunet.checks import check_range, setting
from gpunet.errors import InputError
from gpunet.nn.init import ones, zeros
from gpunet.nn.layers.base import Layer, Parameter, Shape, Spec


class BatchNorm(Layer):
    """y = γ (x − μ)/√(σ² + ε) + β by channel, PyTorch's BatchNorm1d and BatchNorm2d; after Ioffe & Szegedy 2015.

    weight γ, bias β, running_mean, running_var: (channels,); x and y (batch, features) or (batch, channels, …).

    In training mode μ and σ² are the batch's (biased), and the running ones follow: r += momentum · (now − r), of the
    unbiased variance. In evaluation mode they are the running ones, which are saved with the model and which no
    optimiser touches. Neither γ nor β is under the L2 term. A layer that is not `trainable` keeps all four: it is in
    evaluation mode always.

    Sums are of float64, so that a mean far from 0 costs no digits. In training mode a channel needs two numbers: rows
    of features come in batches of at least two, which `fit` looks at before it starts.
    Raises InputError for momentum outside 0 < momentum ≤ 1, ε ≤ 0, and for a batch of one row in training mode.
    """

    momentum: float = setting(check_range, above=0, most=1)
    epsilon: float = setting(check_range, above=0)
    weight: Array
    bias: Array
    running_mean: Array
    running_var: Array
    d_weight: Array
    d_bias: Array

    def __init__(self, momentum: float = 0.1, epsilon: float = 1e-5, *, trainable: bool = True) -> None:
        self.momentum, self.epsilon, self.trainable = momentum, epsilon, trainable

    def spec(self, input_shape: Shape) -> Spec:
        shape = input_shape[:1]
        return Spec(
            output=input_shape,
            parameters={
                "weight": Parameter(shape, ones, decay=False),
                "bias": Parameter(shape, zeros, decay=False),
                "running_mean": Parameter(shape, zeros, trained=False),
                "running_var": Parameter(shape, ones, trained=False),
            },
        )

    def config(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "epsilon": self.epsilon, "trainable": self.trainable}

    def reserve(self, y: Array, dx: Array | None) -> None:
        self._statistics = self.ops.empty((2, y.shape[1]), "float64")
        self.least = 2 if self.trainable and math.prod(y.shape[2:]) == 1 else 1

    def forward(self, x: Array) -> Array:
        self.x, self._of_batch = x, self.training and self.trainable
        if self._of_batch and len(x) < self.least:
            raise InputError(f"{self.called} normalises a batch of 1 row in training mode: give it 2 or more")
        running = self.running_mean, self.running_var
        self.ops.batch_statistics(x, self._of_batch, self.momentum, self.epsilon, *running, self._statistics)
        self.ops.normalise(x, self._statistics, self.weight, self.bias, self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        # dγ = Σ dy x̂, dβ = Σ dy; dx = γ/√(σ² + ε) (dy − dβ/m − x̂ dγ/m), for μ and σ² follow x; else dx = γ/√(σ² + ε) dy
        self.ops.normalise_backward(
            self.x, self._statistics, self.weight, dy, self._of_batch, self.d_weight, self.d_bias, self.dx
        )
        return self.dx
