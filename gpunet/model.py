"""A chain of layers on three arenas: parameters, gradients, activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpunet.arena import Arena, Layout
from gpunet.backend.base import Array, Backend
from gpunet.checks import real_array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.layers.base import Layer, Parameter, Shape, Spec
from gpunet.migration import STATES, Migration, State, migration
from gpunet.parameters import Parameters
from gpunet.rng import WEIGHTS, stream


class Sequential:
    """Layers applied one after the other.

    `build` infers shapes front to back, checks them once, and draws the parameters; `bind` allocates the workspace of
    a batch. After that `forward` and `backward` run operations only. Parameters are named as PyTorch names those of
    the `nn.Sequential` that equals the model: an activation takes a place of its own there, so the layers of
    784-512-ReLU-10 are "0" and "2".

    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        if not self.layers:
            raise InputError("a model needs at least one layer")
        if len({id(layer) for layer in self.layers}) != len(self.layers):
            raise InputError("the same layer object stands twice in the model: make two")
        place = 0
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise InputError(f"expected layers such as Dense(10), got {shown(layer)}")
            layer.name, layer.head = str(place), layer is self.layers[-1]
            place += layer.slots
        self.built = False
        self.capacity = 0
        self.migrations: list[Migration] = []  # one for each `replace`; a trainer follows them

    # -- parameters -------------------------------------------------------------------------------------------------

    def build(self, input_shape: Shape, backend: Backend, *, dtype: str = "float32", seed: int = 0) -> None:
        """Allocate and draw the parameters for samples of `input_shape`.

        Layer i draws from its own stream of `seed`, on the host in float64: the same weights on every device.
        Raises ShapeError where a layer does not fit its input.
        """
        self.backend, self.dtype, self.input_shape = backend, dtype, tuple(input_shape)
        self._seed = seed
        self._declare()
        self._store = Parameters(self.layers, self._declared, backend, dtype)
        for index, layer in enumerate(self.layers):
            own = {name.rpartition(".")[2]: p for name, (owner, p) in self._declared.items() if owner is layer}
            self._write(self._drawn(layer, index, own))
        self.built, self.capacity = True, 0

    def _declare(self) -> None:
        """Infer the shapes front to back, and collect the parameters that the layers declare."""
        shape = self.input_shape
        self._shapes: list[Shape] = []
        self._declared: dict[str, tuple[Layer, Parameter]] = {}
        for layer in self.layers:
            spec = layer.spec(shape)
            shape = spec.output
            self._shapes.append(shape)
            self._declared |= {f"{layer.name}.{name}": (layer, p) for name, p in spec.parameters.items()}

    def _drawn(self, layer: Layer, index: int, declared: Mapping[str, Parameter]) -> dict[str, Any]:
        """A layer's initial parameters by full name, drawn on the host from its own stream, cast to the dtype."""
        generator = stream(self._seed, WEIGHTS, index)
        drawn = {name: real_array(p.draw(p.shape, generator), f"the initial {name}") for name, p in declared.items()}
        return {f"{layer.name}.{name}": value.astype(self.dtype) for name, value in drawn.items()}

    def _write(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.backend.copy(self.backend.asarray(value), self.parameters[name])

    def replace(self, name: str, layer: Layer, *, state: State = "restart") -> None:
        """Put `layer` in the place of the one called `name` ("0", "2", …), also in mid-training.

        All other parameters keep their values and their optimiser's state bit for bit; so does what the new layer took
        over unchanged, such as the bias of `Dense.factorise`. state: what becomes of the optimiser's state where one
        parameter became two: "restart", "carry" or "carry-both", see `gpunet.migration`.
        Raises InputError for a layer that is not there or an unknown state, ShapeError where the new one does not fit;
        the model is then as it was.
        """
        old = self.layer(name)
        if not self.built:
            raise InputError("the model has no weights yet: build or fit it before replacing a layer")
        if state not in STATES:
            raise InputError(f"state is {shown(state)}: expected one of {', '.join(STATES)}")
        index = self.layers.index(old)
        spec = self._spec_in_place(old, layer, index)
        inherits = layer.inherits if layer.made_from is old else {}
        if state != "restart" and not any(transform for _, transform in inherits.values()):
            raise InputError(
                f"state={shown(state)} needs what factorise() made of the layer {shown(name)}, got {shown(layer)}"
            )
        layer.name, layer.head = old.name, old.head
        new = self._drawn(layer, index, spec.parameters)
        kept = {key: p for key, p in self.parameters.items() if self._declared[key][0] is not old}
        self.layers[index] = layer
        before = self._store
        self._declare()
        self._store = Parameters(self.layers, self._declared, self.backend, self.dtype)
        self._write(kept | new)
        self.migrations.append(migration(before, self._store, layer.name, inherits, state))
        layer.made_from, layer.inherits = None, {}  # what it came from may be freed
        if self.capacity:
            capacity, batch, self.capacity = self.capacity, self._batch, 0
            self.bind(capacity)
            self.use(batch)

    def _spec_in_place(self, old: Layer, new: Layer, index: int) -> Spec:
        """What the new layer declares in the old one's place; raises where it does not fit there."""
        if not isinstance(new, Layer):
            raise InputError(f"expected a layer such as Dense(10), got {shown(new)}")
        if any(new is layer for layer in self.layers):
            raise InputError("this layer stands in the model already: make another")
        spec = new.spec(self._shapes[index - 1] if index else self.input_shape)
        if spec.output != self._shapes[index]:
            raise ShapeError(
                f"the layer {old.name!r} gives samples of shape {self._shapes[index]}, its replacement of shape "
                f"{spec.output}: expected the same"
            )
        if new.slots != old.slots or (old.head and new.activation != old.activation):
            raise InputError(
                f"the layer {old.name!r} has activation {old.activation!r}, its replacement {shown(new.activation)}: "
                "expected the same"
            )
        return spec

    def layer(self, name: str) -> Layer:
        """The layer of that name; InputError naming those there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        there = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in self.layers)
        raise InputError(f"the model has no layer {shown(name)}: it has {there}")

    @property
    def parameters(self) -> dict[str, Array]:
        """Views of the parameters by name ("0.weight", …), in the layers' order: writing into one changes the model."""
        return self._store.views

    @property
    def gradients(self) -> dict[str, Array]:
        """Views of the trained parameters' gradients by name."""
        return self._store.gradients

    @property
    def flat(self) -> tuple[Array, Array, int]:
        """The trained parameters and their gradients as flat arrays, and how many stand under the L2 term."""
        return self._store.flat

    # -- workspace --------------------------------------------------------------------------------------------------

    def bind(self, batch: int) -> None:
        """Allocate activations for up to `batch` samples; gradients of inputs share two buffers in turn."""
        if batch <= self.capacity:
            return
        trained = {name.rpartition(".")[0] for name in self._store.trained}
        first_trained = next((i for i, layer in enumerate(self.layers) if layer.name in trained), len(self.layers))
        sizes = [int(np.prod(shape)) for shape in [self.input_shape, *self._shapes]]
        turns = {f"d{turn}": (batch * max(sizes[1:]),) for turn in (0, 1)}
        outputs = {f"y{i}": (batch, *shape) for i, shape in enumerate(self._shapes)}
        views = Arena(self.backend, Layout(outputs | turns), self.dtype).views
        for i, layer in enumerate(self.layers):
            dx = None
            if i > first_trained:
                below = self._shapes[i - 1]
                dx = views[f"d{i % 2}"][: batch * sizes[i]].reshape(batch, *below)
            layer.bind(views[f"y{i}"], dx)
        self._trained_backwards = self.layers[first_trained:][::-1]
        self._d_scores = self.backend.zeros((batch, *self._shapes[-1]), self.dtype)
        self.capacity = batch
        self._batch = batch
        self.d_scores = self._d_scores

    def use(self, n: int) -> None:
        """Work on n ≤ capacity samples from now on: views of the same workspace."""
        if n == self._batch:
            return
        if n > self.capacity:
            raise ShapeError(f"a batch of {n} does not fit a workspace bound for {self.capacity}")
        for layer in self.layers:
            layer.use(n)
        self.d_scores = self._d_scores[:n]
        self._batch = n

    # -- hot ----------------------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Scores z (n, outputs): what the last layer computes before its activation."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dz: Array) -> None:
        """Fill the gradients from ∂L/∂z of the scores; overwrites dz. Stops at the lowest trained layer."""
        d: Array | None = dz
        for layer in self._trained_backwards:
            d = layer.backward(d)

    def activate_scores(self, z: Array) -> Array:
        """The model's outputs y = f(z), in z's memory."""
        self.backend.activate(self.layers[-1].activation, z, z)
        return z

    # -- information --------------------------------------------------------------------------------------------------

    def shapes(self, input_shape: Shape) -> list[Shape]:
        """The shape of one sample's output of each layer, for samples of `input_shape`; nothing is built."""
        found: list[Shape] = []
        for layer in self.layers:
            input_shape = layer.spec(input_shape).output
            found.append(input_shape)
        return found

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self._shapes[-1]

    def config(self) -> list[dict[str, Any]]:
        """The layers as JSON-ready descriptions, for saving."""
        return [{"layer": type(layer).__name__, **layer.config()} for layer in self.layers]

    @classmethod
    def from_config(cls, config: list[dict[str, Any]]) -> Sequential:
        """The model that `config` describes, its weights not drawn yet."""
        layers = []
        for entry in config:
            settings = dict(entry)
            kind = Layer.kinds.get(str(settings.pop("layer", None)))
            if kind is None:
                raise InputError(f"unknown layer in {entry}: expected one of {', '.join(sorted(Layer.kinds))}")
            try:
                layers.append(kind(**settings))
            except TypeError as error:
                raise InputError(f"a saved layer does not fit this version of gpunet: {entry} ({error})") from error
        return cls(layers)
