"""What a layer is: it declares sizes, is handed memory, and then only runs operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from gpunet.backend.base import ACTIVATIONS, Array, Backend
from gpunet.checks import is_one_of
from gpunet.errors import InputError, shown

Shape = tuple[int, ...]
# (ops, source, out, squares): writes to out what an optimiser's state becomes that is linear in the gradients, or in
# their squares.
Transform = Callable[[Backend, Array, Array, bool], None]


@dataclass(frozen=True)
class Parameter:
    """Declaration of one parameter: its shape, how to draw it, and whether the L2 term applies to it."""

    shape: Shape
    draw: Callable[[Shape, np.random.Generator], Any]
    decay: bool = True


@dataclass(frozen=True)
class Spec:
    """Declaration of a layer for one input shape (without the batch axis)."""

    output: Shape
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


class Layer:
    """Base of all layers.

    Life: `spec(input_shape)` declares; `attach` hands over views of the parameter and gradient arenas; `bind` hands
    over the workspace; `use(n)` points at its first n samples; then `forward` and `backward` run operations only.

    `head` is set on a model's last layer: it leaves its activation to the loss, which joins the two, so its `forward`
    returns z and its `backward` takes ∂L/∂z. `dx` is None where nothing below needs a gradient.
    """

    kinds: ClassVar[dict[str, type[Layer]]] = {}  # by class name, for loading saved models

    activation: str = "identity"
    trainable: bool = True
    head: bool = False
    name: str = ""
    # Of a layer made from another, by parameter: which of that one's it continues, and the function that carries an
    # optimiser's state over; None where the parameter is the same one. Read by `Sequential.replace`.
    made_from: Layer | None = None
    inherits: Mapping[str, tuple[str, Transform | None]] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Layer.kinds[cls.__name__] = cls

    def spec(self, input_shape: Shape) -> Spec:
        """Output shape and parameters for an input shape; raises ShapeError where they do not fit."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Keyword arguments that make this layer again, JSON-ready, without its weights."""
        raise NotImplementedError

    @property
    def slots(self) -> int:
        """How many places this layer takes in the `torch.nn.Sequential` that equals the model."""
        return 1 if self.activation == "identity" else 2

    def attach(self, backend: Backend, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Receive views of the arenas, by this layer's own parameter names; no gradient when frozen."""
        self.ops = backend
        for parameter, view in parameters.items():
            setattr(self, parameter, view)
            setattr(self, "d_" + parameter, gradients.get(parameter))

    def bind(self, y: Array, dx: Array | None) -> None:
        """Receive the workspace: y (batch, …) to write outputs to, dx (batch, …) for the input's gradient."""
        self._y, self._dx = y, dx
        self.use(len(y))

    def use(self, n: int) -> None:
        """Work on the first n samples of the workspace from now on."""
        self.y = self._y[:n]
        self.dx = None if self._dx is None else self._dx[:n]

    def forward(self, x: Array) -> Array:
        """Outputs for x, in this layer's workspace."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array | None:
        """Write parameter gradients; return ∂L/∂x or None. Overwrites dy."""
        raise NotImplementedError

    def factorise(self, rank: Any, split: str = "left") -> Layer:
        """The same layer with its weight cut to `rank` by SVD; only a Dense layer has one to cut."""
        raise InputError(f"{self._called()} cannot be factorised: only a Dense layer can")

    def merge(self) -> Layer:
        """The same layer with its factors multiplied; only a LowRankDense layer has any."""
        raise InputError(f"{self._called()} has no factors to merge: only a LowRankDense layer has")

    def _called(self) -> str:
        return f"the layer {self.name!r} ({type(self).__name__})" if self.name else f"a {type(self).__name__} layer"

    @property
    def applied(self) -> str:
        """The activation that this layer itself applies."""
        return "identity" if self.head else self.activation


def check_activation(activation: str | None) -> str:
    """The activation's name, "identity" for None; InputError for an unknown one."""
    if activation is not None and not is_one_of(activation, ACTIVATIONS):
        raise InputError(f"unknown activation {shown(activation)}: expected one of {', '.join(ACTIVATIONS)}")
    return activation or "identity"
