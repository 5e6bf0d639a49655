"""What a layer is: it declares sizes, is handed memory, and then only runs operations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from gpunet.backend.base import ACTIVATIONS, Activation, Array, Backend
from gpunet.checks import Setting, as_floats, check_flag, check_one_of, is_one_of, is_whole
from gpunet.errors import InputError, shown
from gpunet.interrupts import undivided
from gpunet.reprs import as_call, settings

Shape = tuple[int, ...]
ABSENT = object()
# (ops, source, out, squares): writes to out what an optimiser's state becomes that is linear in the gradients, or in
# their squares.
Transform = Callable[[Backend, Array, Array, bool], None]
Inherits = Mapping[str, tuple[str, Transform | None]]  # see `Layer.inherits`


class Owner(Protocol):
    """What a layer asks of the model that it stands in."""

    def alone(self) -> AbstractContextManager[None]: ...
    def rearrange(self) -> None: ...


@dataclass(frozen=True)
class Parameter:
    """Declaration of one parameter: its shape, how to draw it, and whether the L2 term applies to it.

    One that is not `trained` has no gradient and no optimiser: what a layer keeps beside its weights, with the model.
    """

    shape: Shape
    draw: Callable[[Shape, np.random.Generator], Any] = field(repr=False)
    decay: bool = True
    trained: bool = True


@dataclass(frozen=True)
class Spec:
    """Declaration of a layer for one input shape (without the batch axis).

    Raises InputError for parameters whose names are none of attributes.
    """

    output: Shape
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, Mapping):
            raise InputError(f"a layer's parameters are {shown(self.parameters)}: expected a dictionary by name")
        for name in self.parameters:
            if not (isinstance(name, str) and name.isidentifier()):
                raise InputError(f"a layer's parameter is called {shown(name)}: expected a name such as 'weight'")


def write(ops: Backend, view: Array, value: Any, what: str) -> None:
    """Copy a parameter's new value into the model's memory, where it has the right shape and is finite."""
    ops.copy(ops.asarray(as_floats(value, what, view.shape, str(view.dtype))), view)


class Layer:
    """Base of all layers.

    Life: `spec(input_shape)` declares; `attach` hands over views of the parameter and gradient arenas; `bind` hands
    over the workspace, to which `reserve` adds what the layer needs beside it; `set_batch_size(n)` points at its first
    n samples; then `forward` and `backward` run operations only.

    `head` is set on a model's last layer: it leaves its activation to the loss, which joins the two, so its `forward`
    returns z and its `backward` takes ∂L/∂z. `dx` is None where nothing below needs a gradient.

    `training` is whether the model is in training mode, see `Sequential.train`. A layer that `draws` random numbers is
    handed `draw`, (key, pass) on the device, for `Backend.dropout`; each forward pass in training mode is the next.

    Settings are checked whenever they are set. Setting a parameter (`layer.weight = w`) says how it starts, or once the
    model is built writes into its memory; `layer.trainable = False` moves it to where the optimiser does not go. A
    layer stands in one model, and keeps its other settings there: InputError. A copy (`copy.copy`, `copy.deepcopy`,
    pickle) stands in no model and starts with the values of now.
    """

    kinds: ClassVar[dict[str, type[Layer]]] = {}  # by class name, for loading saved models

    activation: Activation = "identity"
    applied: Activation = "identity"  # the activation that the layer itself applies, from `attach` on
    trainable: bool = True
    training: bool = False
    head: bool = False
    draws: ClassVar[bool] = False
    draw: Array
    least: int = 1  # samples of a batch in training mode, at least
    # Whether this layer's `backward` begins with `slopes`, and ends with those of the layer below where that is alike:
    # its f' and its bias's gradient are then computed together with dx. A subclass that is so says it again.
    joins: ClassVar[bool] = False
    joined: bool = False  # to what comes after it, from which `backward` gets ∂L/∂z, and which has called `slopes`
    below: tuple[str, Array | None] = ("identity", None)  # activation and bias gradient of the layer joined to this one
    # Whether this layer is a `Mixing` one, whose products take bfloat16 in mixed precision. As with `joins`, a subclass
    # that is so says it again.
    mixes: ClassVar[bool] = False
    name: str = ""
    start: Mapping[str, Any] = MappingProxyType({})  # its parameters' first values, where they are not to be drawn
    _model: weakref.ref[Owner] | None = None  # the one it stands in
    _views: Mapping[str, Array] = MappingProxyType({})  # its parameters in the model's memory, by name
    _settings: ClassVar[Mapping[str, Setting]] = MappingProxyType({})
    _fixed: frozenset[str] = frozenset({"trainable"})  # attributes that are not just set
    # Of a layer made from another, by parameter: which of that one's it continues, and the function that carries an
    # optimiser's state over; None where the parameter is the same one. Read by `Sequential.replace`.
    made_from: Layer | None = None
    inherits: Inherits = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.spec is not Layer.spec:  # else it is a base of others
            Layer.kinds[cls.__name__] = cls
        cls.joins, cls.mixes = vars(cls).get("joins", False), vars(cls).get("mixes", False)
        own = {name: each for name, each in vars(cls).items() if isinstance(each, Setting)}
        for name in own:  # `__setattr__` asks them; a descriptor would make every attribute of a step slower
            delattr(cls, name)
        cls._settings = {**cls._settings, **own}
        cls._fixed = frozenset({"trainable", *cls._settings})

    def spec(self, input_shape: Shape) -> Spec:
        """Output shape and parameters for an input shape; raises ShapeError where they do not fit."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Keyword arguments that make this layer again, JSON-ready, without its weights: for saving and loading."""
        raise InputError(f"{self.called} has no config(), which saving needs")

    @property
    def slots(self) -> int:
        """How many places this layer takes in the `torch.nn.Sequential` that equals the model."""
        return 1 if self.activation == "identity" else 2

    def enter(self, model: Owner) -> None:
        """Stand in this model from now on; values that another one left are what the parameters start with."""
        self._model, self._views = weakref.ref(model), {}
        settings = self.config() if type(self).config is not Layer.config else {}
        self._fixed = frozenset([*settings, "trainable", "name", "head"])

    def attach(self, backend: Backend, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Receive views of the arenas, by this layer's own parameter names; no gradient when frozen."""
        self.start = self.given(parameters)
        fixed, self._fixed = self._fixed, frozenset()
        self.ops, self.applied = backend, "identity" if self.head else self.activation
        for parameter, view in parameters.items():
            setattr(self, parameter, view)
            setattr(self, "d_" + parameter, gradients.get(parameter))
        self._views = dict(parameters)
        self._fixed = fixed.union(parameters, ("d_" + name for name in parameters))

    def given(self, names: Iterable[str]) -> dict[str, Any]:
        """What parameters start with where that is not to be drawn: values that were set, or that a model has left."""
        views = {} if self.owner is None else self._views
        own = {name: getattr(self, name, None) for name in names if name not in views}
        return {**self.start, **{n: value for n, value in own.items() if value is not getattr(type(self), n, None)}}

    @property
    def owner(self) -> Owner | None:
        """The model that this layer stands in."""
        return None if self._model is None else self._model()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed:
            self._change(name, value)
        else:
            object.__setattr__(self, name, value)

    def _change(self, name: str, value: Any) -> None:
        """Set what a built model depends on: it follows, or InputError says that it cannot."""
        now = getattr(self, name, ABSENT)
        if value is now:  # after `layer.weight *= 2`, which has written into the memory already
            return
        if name in self._views:
            write(self.ops, self._views[name], value, f"{self.called}: {name}")
        elif name == "trainable":
            value = check_flag(f"{type(self).__name__}'s trainable", value)
            if value != now and self.owner is not None:
                with self.owner.alone(), undivided():
                    object.__setattr__(self, name, value)
                    self.owner.rearrange()
            else:
                object.__setattr__(self, name, value)
        elif self.owner is None:
            if name in self._settings:
                value = self._settings[name].checked(self, value)
            object.__setattr__(self, name, value)
        elif name.startswith("d_") or not _equal(value, now):
            raise InputError(
                f"{self.called} stands in a model: its {name} cannot be set any more; make another layer and put it "
                "there with model.replace, or make another model"
            )

    def leave(self) -> None:
        """Stand in no model any more: another layer has taken the place. The values of now are kept."""
        self._model, self._views, self._fixed = None, {}, type(self)._fixed
        self.joined, self.below = False, Layer.below

    def __repr__(self) -> str:
        values = settings(self) if type(self).config is Layer.config else self.config()
        values = {name: vars(self).get(name, value) for name, value in values.items()}  # not as JSON has them
        plain = {name: value for name, value in values.items() if not hasattr(value, "dtype")}  # no parameters
        if plain.get("activation") == "identity":
            plain["activation"] = None  # as it is usually given
        return as_call(self, plain, bare=True)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the model's memory, but the values there."""
        gone = {
            "_model", "_views", "_fixed", "made_from", "inherits", "ops", "_y", "_dx", "x", "y", "dx", "draw", "joined",
            "below", "_maps",
        }  # fmt: skip
        with nullcontext() if self.owner is None else self.owner.alone():
            gone |= {*self._views, *("d_" + name for name in self._views)}
            state = {name: value for name, value in vars(self).items() if name not in gone}
            if self._views:
                state["start"] = {name: np.array(self.ops.to_host(view)) for name, view in self._views.items()}
            return state

    def bind(self, y: Array, dx: Array | None) -> None:
        """Receive the workspace: y (batch, …) to write outputs to, dx (batch, …) for the input's gradient."""
        self._y, self._dx = y, dx
        self.reserve(y, dx)
        self.set_batch_size(len(y))

    def reserve(self, y: Array, dx: Array | None) -> None:
        """Allocate what passes over up to len(y) samples need beside y and dx."""

    def set_batch_size(self, n: int) -> None:
        """Work on the first n samples of the workspace from now on."""
        self.y = self._y[:n]
        self.dx = None if self._dx is None else self._dx[:n]

    def forward(self, x: Array) -> Array:
        """Outputs for x, in this layer's workspace."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array | None:
        """Write parameter gradients; return ∂L/∂x or None. Overwrites dy."""
        raise NotImplementedError

    def operands(self, x: Array) -> tuple[Array, Array, Array]:
        """(x', W, b) of the affine map x' Wᵀ + b that `forward` of a layer that joins ends with, ready to run."""
        raise NotImplementedError

    def slopes(self, dy: Array) -> None:
        """dy becomes ∂L/∂z = dy ∘ f'(z), and its sum over the batch the gradient of the bias."""
        self.ops.activation_backward(self.applied, self.y, dy, dy, self.d_bias)  # type: ignore[attr-defined]

    @property
    def called(self) -> str:
        """The layer in a message."""
        return f"the layer {self.name!r} ({type(self).__name__})" if self.name else f"a {type(self).__name__} layer"


def check_activation(name: str, activation: Any) -> Activation:
    """The activation's name, "identity" for None; InputError for an unknown one."""
    if is_one_of(activation, ("gelu",)):
        raise InputError(
            f"{name} is 'gelu', whose slope its output does not tell: leave it out and put gn.GELU() after it"
        )
    if is_whole(activation):  # as of PyTorch's Linear(8, 16)
        raise InputError(
            f"{name} is {shown(activation)}: expected one of {', '.join(ACTIVATIONS)}; the number of inputs "
            "is inferred, say that of outputs alone, as in gn.Dense(16)"
        )
    return "identity" if activation is None else check_one_of(name, activation, ACTIVATIONS)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # of an array, say
        return False
