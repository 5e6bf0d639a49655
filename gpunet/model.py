"""A chain of layers on three arenas: parameters, gradients, activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.arena import Arena, Layout
from gpunet.backend.base import Array, Backend
from gpunet.errors import InputError, ShapeError
from gpunet.layers.base import Layer, Parameter, Shape
from gpunet.rng import WEIGHTS, stream


class Sequential:
    """Layers applied one after the other.

    `build` infers shapes front to back, checks them once, and draws the parameters; `bind` allocates the workspace of
    a batch. After that `forward` and `backward` run operations only. Parameters are named as PyTorch names those of
    the `nn.Sequential` that equals the model: an activation takes a place of its own there, so the layers of
    784-512-ReLU-10 are "0" and "2".

    The parameter arena lies in three parts: under the L2 term, not under it, frozen. So the optimiser, and the L2
    term, each see one contiguous range.
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
                raise InputError(f"expected layers such as Dense(10), got {layer!r}")
            layer.name, layer.head = str(place), layer is self.layers[-1]
            place += layer.slots
        self.built = False
        self.capacity = 0

    # -- parameters -------------------------------------------------------------------------------------------------

    def build(self, input_shape: Shape, backend: Backend, *, dtype: str = "float32", seed: int = 0) -> None:
        """Allocate and draw the parameters for samples of `input_shape`.

        Layer i draws from its own stream of `seed`, on the host in float64: the same weights on every device.
        Raises ShapeError where a layer does not fit its input.
        """
        self.backend, self.dtype, self.input_shape = backend, dtype, tuple(input_shape)
        shape, declared = self.input_shape, {}
        self._shapes: list[Shape] = []
        for index, layer in enumerate(self.layers):
            spec = layer.spec(shape)
            shape = spec.output
            self._shapes.append(shape)
            for name, parameter in spec.parameters.items():
                declared[f"{layer.name}.{name}"] = (layer, index, parameter)
        self._allocate({name: (layer, p) for name, (layer, _, p) in declared.items()})
        generators = {index: stream(seed, WEIGHTS, index) for index in range(len(self.layers))}
        for name, (_, index, parameter) in declared.items():
            drawn = np.asarray(parameter.draw(parameter.shape, generators[index]))
            backend.copy(backend.asarray(drawn.astype(dtype)), self.parameters[name])
        self.built, self.capacity = True, 0

    def _allocate(self, declared: dict[str, tuple[Layer, Parameter]]) -> None:
        def part(name: str) -> int:
            layer, parameter = declared[name]
            return 2 if not layer.trainable else int(not parameter.decay)

        names = sorted(declared, key=part)  # stable: the layers' order inside each part
        shapes = {name: declared[name][1].shape for name in names}
        trained = {name for name in names if part(name) < 2}
        self._params = Arena(self.backend, Layout(shapes), self.dtype)
        self._grads = Arena(self.backend, Layout({n: s for n, s in shapes.items() if n in trained}), self.dtype)
        self.n_trained = self._params.layout.end(trained)
        self.n_decayed = self._params.layout.end({name for name in names if part(name) == 0})
        for layer in self.layers:
            own = {n.rpartition(".")[2]: n for n in names if declared[n][0] is layer}
            layer.attach(
                self.backend,
                {short: self._params.views[n] for short, n in own.items()},
                {short: self._grads.views[n] for short, n in own.items() if n in trained},
            )
        self._order = list(declared)  # as the layers declare them: PyTorch's order

    @property
    def parameters(self) -> dict[str, Array]:
        """Views of the parameters by name ("0.weight", …), in the layers' order."""
        return {name: self._params.views[name] for name in self._order}

    @property
    def gradients(self) -> dict[str, Array]:
        """Views of the trained parameters' gradients by name."""
        return dict(self._grads.views)

    @property
    def flat(self) -> tuple[Array, Array, int]:
        """The trained parameters and their gradients as flat arrays, and how many stand under the L2 term."""
        return self._params.flat[: self.n_trained], self._grads.flat, self.n_decayed

    # -- workspace --------------------------------------------------------------------------------------------------

    def bind(self, batch: int) -> None:
        """Allocate activations for up to `batch` samples; gradients of inputs share two buffers in turn."""
        if batch <= self.capacity:
            return
        trained = {name.rpartition(".")[0] for name in self._grads.views}
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
