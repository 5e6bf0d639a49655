"""A chain of layers on three arenas: parameters, gradients, activations."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Never, Self

import numpy as np

from gpunet.backend.base import BFLOAT16, Array, Backend
from gpunet.checks import (
    DTYPES,
    Dtype,
    as_floats,
    as_list,
    check_flag,
    check_one_of,
    check_range,
    check_shape,
    check_whole,
    fixed,
    has,
    is_whole,
    usual_scale,
)
from gpunet.errors import InputError, ShapeError, shown
from gpunet.interrupts import contextmanager, turns, undivided
from gpunet.nn.init import drawn
from gpunet.nn.layers.base import Inherits, Layer, Parameter, Shape, Spec
from gpunet.nn.layers.dense import Mixing
from gpunet.nn.layers.flatten import Reshape
from gpunet.nn.losses import Loss
from gpunet.nn.memory import Arena, Declared, Layout, Parameters, Views
from gpunet.nn.migration import STATES, Migration, State, migration
from gpunet.nn.predict import EVAL_BATCH, check_place, check_row, outputs_of, passes, predicted
from gpunet.nn.samples import Samples, check_samples, tell_pixels
from gpunet.nn.summary import Summary, counted, summarised
from gpunet.reprs import indented
from gpunet.rng import MASKS, WEIGHTS, check_seed, stream

FIXED_LAYERS = "make another model, or put a layer in one's place with model.replace"


@dataclass(frozen=True)
class Learned:
    """What a model was trained on."""

    x: Literal["uint8", "numbers", ""] = ""  # "numbers" of all other dtypes; "" where it has been said what they are
    y: Literal["classes", "values", ""] = ""

    @classmethod
    def of(cls, data: Samples) -> Learned:
        """What is trained on these, with labels or without."""
        y: Any = "" if data.labels is None else "values" if data.valued else "classes"
        return cls("uint8" if data.x.dtype == np.uint8 else "numbers", y)

    @classmethod
    def read(cls, said: Any) -> Learned:
        """What a file says of it, as a dictionary; ValueError where that is none of these."""
        if not isinstance(said, dict):
            raise ValueError(f"learned {said}")
        found = cls(**{name: said[name] for name in ("x", "y") if name in said})
        if found.x not in ("uint8", "numbers", "") or found.y not in ("classes", "values", ""):
            raise ValueError(f"learned {said}")
        return found


_TRAINER, _LAYERS = "write gn.Trainer(model)", "its layers are given at once, gn.Sequential([layer, ...])"
_DEVICE = "the device is chosen where it is trained or read, gn.Trainer(model, device=...) or gn.load(path, device=...)"
ELSEWHERE = {  # what users of Keras and PyTorch look for on a model
    "fit": f"{_TRAINER}.fit(x, y)",
    "evaluate": f"{_TRAINER}.evaluate(x, y)",
    "compile": "write gn.Trainer(model, loss=..., optimizer=...)",
    "zero_grad": f"{_TRAINER}.fit(x, y), which begins each step with gradients of its own",
    "save": "write gn.save(model, path)",
    "load_weights": "write gn.load_weights(model, path)",
    "load_state_dict": "write gn.load_weights(model, path)",
    "state_dict": "its weights are model.parameters, by name; gn.save(model, path) writes them",
    "get_weights": "its weights are model.parameters, by name",
    "named_parameters": "they are model.parameters.items()",
    "add": _LAYERS,
    "append": _LAYERS,
    "to": _DEVICE,
    "cuda": _DEVICE,
    "cpu": _DEVICE,
}


class Layers(tuple[Layer, ...]):
    """The layers of a model: what would change the tuple raises InputError."""

    def _refuse(self, *args: Any, **kwargs: Any) -> None:
        raise InputError(f"a model's layers are fixed: {FIXED_LAYERS}")

    append = insert = extend = pop = remove = clear = sort = reverse = __setitem__ = __delitem__ = _refuse


class Sequential:
    """Layers applied one after the other.

    `build` infers shapes front to back, checks them once, and draws the parameters; `bind` allocates the workspace of
    a batch. After that `forward` and `backward` run operations only. Parameters are named as PyTorch names those of
    the `nn.Sequential` that equals the model: an activation takes a place of its own there, so the layers of
    784-512-ReLU-10 are "0" and "2".

    scale: what samples are multiplied by as batches of them are gathered, so that the model sees numbers of about 1; it
    is saved with the model, and may be set at any time. None: 1/255 where the samples of its first training are uint8,
    as pixels are, else 1. A model that was trained on uint8 refuses samples of other dtypes then, and the other way
    round, since nobody could tell whether their numbers are the same; to set `scale` says what they are.

    A layer stands in one model: InputError for one of another model, of which a copy can be taken (`copy.deepcopy`).
    A copy of a model has its weights and is independent of it; so has one that was pickled.
    """

    layers: Layers = fixed(FIXED_LAYERS)
    input_shape: Shape = fixed("make another model, or build this one again")
    backend: Backend = fixed("build it on another device")
    dtype: Dtype = fixed("build it with another dtype")
    training: bool = fixed("call model.train() or model.eval()")
    learned: Learned | None = fixed("it is what the model was trained on")  # None before that
    compression: Mapping[str, Any]  # of one that `gpunet.compress` made: what was done
    _fit: tuple[weakref.ref[Any], int] | None  # what lives while it is trained, and in which process

    def __init__(self, layers: Sequence[Layer], *more: Never, scale: float | None = None) -> None:
        if more or isinstance(layers, Layer):
            given = shown([layers, *more])
            raise InputError(f"layers are given one by one: expected a list of them, gn.Sequential({given})")
        self._scale = self._said = _checked_scale(scale)  # of now, and of a model that was trained on nothing yet
        self.layers = Layers(as_list("layers", layers, "layers such as Dense(10)", Layer))
        if not self.layers:
            raise InputError("a model needs at least one layer")
        if len({id(layer) for layer in self.layers}) != len(self.layers):
            raise InputError("the same layer object stands twice in the model: make two")
        for layer in self.layers:
            _check_free(layer)
        place = 0
        for layer in self.layers:
            layer.name, layer.head, layer.training = str(place), layer is self.layers[-1], False
            place += layer.slots
        vars(self).update(input_shape=None, backend=None, dtype=None, training=False, learned=None)
        self.built = False
        self.capacity = 0
        self.migrations: list[Migration] = []  # since it was built, one for each `replace`; a trainer follows them
        self._take()

    def _take(self) -> None:
        """Be the model of its layers."""
        self._store: Parameters | None = None
        self._kind: Any = None  # type of the workspace's arrays, once there is one
        self._batch: Any = None  # samples that it is used for
        self._mixed = False  # whether training steps are to mix precisions
        self._mixing: tuple[Mixing, ...] = ()  # the layers that do
        self._low_room: Array = None  # for a batch in bfloat16, where the first layer takes it
        self._low_input: Array = None  # its part for a batch of the size of now
        self._lock, self._fit = turns(), None
        for layer in self.layers:
            layer.enter(self)

    if not TYPE_CHECKING:  # to a type checker every name would exist

        def __getattr__(self, name: str) -> Any:
            """What a model of Keras or PyTorch has is told where it is done here; else as without this."""
            if name in ELSEWHERE:
                line = f"a {type(self).__name__} has no {name}: {ELSEWHERE[name]}"
                raise AttributeError(line, name=name, obj=None)  # else Python adds a name that is alike
            return super().__getattribute__(name)

    def __repr__(self) -> str:
        layers = "".join(f"  ({layer.name}): {indented(repr(layer))}\n" for layer in self.layers)
        scale = "" if self.scale is None else f"  scale={self.scale:.4g}\n"
        return f"{type(self).__name__}(\n{layers}{scale})"

    def train(self, mode: bool = True) -> Self:
        """Training mode, or evaluation mode with False, for all layers: some, as Dropout, compute otherwise in one.

        A model is in evaluation mode until it is told otherwise, so that what was loaded predicts without noise. `fit`
        and `Trainer.step` put it in training mode by themselves, `evaluate` and `predict` in evaluation mode while they
        look, and after `fit` it is in evaluation mode. Returns the model.
        """
        mode = check_flag("mode", mode)
        with self.alone():
            self._set_modes(mode, [mode] * len(self.layers))
        return self

    def eval(self) -> Self:
        """Evaluation mode: `train(False)`."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """`alone`, in evaluation mode; then each layer has its mode of before."""
        with self.alone():
            before = self.training, [layer.training for layer in self.layers]
            try:
                self.eval()
                yield
            finally:
                try:
                    self._set_modes(*before)
                except BaseException:  # Ctrl-C, in the middle of that
                    self._set_modes(*before)
                    raise

    def _set_modes(self, mode: bool, of_layers: list[bool]) -> None:
        if mode != self.training:
            self._passed = False  # backward belongs to a forward pass of the same mode
        vars(self)["training"] = mode
        for layer, own in zip(self.layers, of_layers, strict=True):
            layer.training = own
        for layer in self._mixing:
            layer.low = mode

    @property
    def fitting(self) -> bool:
        """Whether a fit runs."""
        fit = self._fit  # another thread may take it away
        return fit is not None and fit[1] == os.getpid() and fit[0]() is not None

    @contextmanager
    def alone(self, fit: object | None = None) -> Iterator[None]:
        """For work in the model's memory: threads that look at data wait for each other; InputError while one trains.

        fit: an object that lives while the model is trained. Raises InputError also for a second training inside the
        first, in a callback.
        """
        if self.fitting and not self._lock._is_owned():  # type: ignore[attr-defined]
            raise InputError("the model is being trained in another thread: wait, or take a copy.deepcopy before that")
        with self._lock:
            if fit is None:
                yield
                return
            if self.fitting:
                raise InputError("the model is being trained already: train a copy.deepcopy of it")
            ours = weakref.ref(fit), os.getpid()
            try:
                self._fit = ours
                yield
            finally:
                if self._fit is ours:
                    self._fit = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along; its layers bring the weights."""
        gone = {
            "_lock", "_fit", "migrations", "capacity", "_store", "_declared", "_shapes", "_draws", "_drawing",
            "_trained_backwards", "_d_scores", "d_scores", "_batch", "_kind", "_dtype", "_takes", "_gives", "_mixed",
            "_mixing", "_low_room", "_low_input",
        }  # fmt: skip
        with self.alone():
            return {name: value for name, value in vars(self).items() if name not in gone}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.capacity, self.migrations = 0, []
        self._take()
        if self.built:
            place = ("start", "_model", "_views", "_fixed")  # what belongs to a layer's
            kept = [{n: value for n, value in vars(layer).items() if n not in place} for layer in self.layers]
            self._allocate(self.input_shape, self.backend, self.dtype, self._seed)
            for layer, own in zip(self.layers, kept, strict=True):  # what a layer of your own keeps beside parameters
                vars(layer).update(own)
                layer.start = {}

    def __copy__(self) -> Self:
        return copy.deepcopy(self)

    # -- what samples mean ------------------------------------------------------------------------------------------

    @property
    def scale(self) -> float | None:
        """What samples are multiplied by; None until the model is trained, where it was not set."""
        return self._scale

    @scale.setter
    def scale(self, scale: float | None) -> None:
        found = _checked_scale(scale)
        if found is None and self.learned is not None:
            raise InputError(
                f"the model was trained on samples times {self.scale:.4g}: set its scale to a number, or build it again"
            )
        with self.alone():
            if self.fitting:
                raise InputError("the model is being trained: set its scale before or afterwards")
            self._scale = self._said = found
            if self.learned is not None:
                vars(self)["learned"] = replace(self.learned, x="")

    @property
    def _gives_values(self) -> bool:
        """Whether its outputs are what it predicts, since it was trained on values, not on classes."""
        return self.learned is not None and self.learned.y == "values"

    def _check_input(self, shape: Shape) -> None:
        if shape != self.input_shape:
            raise ShapeError(f"samples have shape {shape}, the model was built for {self.input_shape}")

    def _scale_of(self, x: Any) -> float:
        """What samples x of this dtype are multiplied by."""
        return usual_scale(x) if self._scale is None else self._scale

    def _check_alike(self, data: Samples, what: str, like: Samples | None = None, trains: bool = False) -> None:
        """InputError where data is not of the kind that the model was trained on, or that `like` is of.

        trains: the model is to be trained on it, with a y of any kind.
        """
        x, now = data.x, Learned.of(data)
        learned = self.learned if like is None else Learned.of(like)
        if learned is None or (like is not None and self.learned is not None and not self.learned.x):
            return
        if learned.x and now.x != learned.x:
            give = f"x.astype('{self.dtype}')" if learned.x != "uint8" else "them as uint8"
            raise InputError(
                f"{what}: x is {x.dtype}, and the model was trained on {learned.x}: give {give}, or set "
                "model.scale to what x is to be multiplied by, whatever its dtype"
            )
        if now.y and learned.y and now.y != learned.y and not trains:
            raise InputError(
                f"{what}: y holds {now.y}, and the model was trained on {learned.y}: give y of the same dtype"
            )

    def _learn_from(self, data: Samples) -> None:
        """From now on the model is one that was trained on such samples; where it was said what x is, that stays."""
        now, said = Learned.of(data), self.learned is not None and not self.learned.x
        vars(self)["learned"] = replace(now, x="") if said else now
        self._scale = self._scale_of(data.x)

    def _sees_as(self, other: Sequential) -> None:
        """Samples mean what they mean to the other model, which this one was made from."""
        self._scale, self._said = other._scale, other._said
        vars(self)["learned"] = other.learned

    # -- parameters -------------------------------------------------------------------------------------------------

    def build(self, input_shape: Shape, backend: Backend, *, dtype: Dtype = "float32", seed: int = 0) -> None:
        """Allocate and draw the parameters for samples of `input_shape`.

        Layer i draws from its own stream of `seed`, on the host in float64: the same weights on every device. A model
        that is built again starts afresh; so does a trainer's optimiser then.
        Raises ShapeError where a layer does not fit its input.
        """
        input_shape, seed = check_shape("input_shape", input_shape), check_seed(seed)
        if not isinstance(backend, Backend):
            raise InputError(f"backend is {shown(backend)}: expected one of gn.get_backend(...)")
        dtype = check_one_of("dtype", dtype, DTYPES)
        with self.alone(), undivided():
            if self.fitting and self.built:
                raise InputError("the model is being trained: build it again afterwards")
            self._allocate(input_shape, backend, dtype, seed)
            self._seed, self.migrations, self.built = seed, [], True
            vars(self)["learned"], self._scale = None, self._said

    def _allocate(self, input_shape: Shape, backend: Backend, dtype: Dtype, seed: int) -> None:
        """Make the arenas and draw the parameters; where either fails, the model is as it was."""
        shapes, declared = self._declarations(input_shape)
        store = Parameters(self.layers, declared, backend, dtype)
        values: dict[str, Any] = {}
        for index, layer in enumerate(self.layers):
            own = {name.rpartition(".")[2]: p for name, (owner, p) in declared.items() if owner is layer}
            values |= _drawn(layer, layer.name, own, stream(seed, WEIGHTS, index), dtype)
        self._draws = backend.empty((len(self.layers), 2), "int64")  # a row (key, pass) for each layer
        self._move_to(store, shapes, declared)
        vars(self).update(backend=backend, dtype=dtype, input_shape=input_shape)
        self._write(values)
        self.capacity, self._kind, self._batch = 0, None, None
        self._begin_draws(seed)

    def _begin_draws(self, seed: int, epoch: int = 0, passes: int = 0) -> None:
        """From now on layers draw as in that epoch of the seed's, after so many passes."""
        keys = stream(seed, MASKS, epoch).integers(2**63, size=len(self.layers))
        self.backend.copy(np.stack([keys, np.full_like(keys, passes)], axis=1), self._draws)

    def _declarations(self, input_shape: Shape) -> tuple[list[Shape], Declared]:
        """The shapes front to back, and the parameters that the layers declare."""
        shapes: list[Shape] = []
        declared: dict[str, tuple[Layer, Parameter]] = {}
        for layer in self.layers:
            spec = layer.spec(input_shape)
            input_shape = spec.output
            shapes.append(input_shape)
            declared |= {f"{layer.name}.{name}": (layer, p) for name, p in spec.parameters.items()}
        return shapes, declared

    def _move_to(self, store: Parameters, shapes: list[Shape], declared: Declared) -> None:
        """Have the parameters there; views of where they were say from now on that they are not the model's."""
        if self._store is not None:
            self._store.outdated = True
        self._store, self._shapes, self._declared = store, shapes, declared
        store.attach()

    def _write(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.backend.copy(self.backend.asarray(value), self.parameters[name])

    def replace(self, name: str, layer: Layer, *, state: State = "restart") -> None:
        """Put `layer` in the place of the one called `name` ("0", "2", …), also in mid-training.

        All other parameters keep their values and their optimiser's state bit for bit; so does what the new layer took
        over unchanged, such as the bias of `Dense.factorise`. state: what becomes of the optimiser's state where one
        parameter became two: "restart", "carry" or "carry-both", see `gpunet.nn.migration`.
        Raises InputError for a layer that is not there or an unknown state, ShapeError where the new one does not fit;
        the model is then as it was.
        """
        old = self.layer(name)
        if not self.built:
            raise InputError("the model has no weights yet: build or fit it before replacing a layer")
        check_one_of("state", state, STATES)
        index = self.layers.index(old)
        spec = self._spec_in_place(old, layer, index)
        inherits = layer.inherits if layer.made_from is old else {}
        if state != "restart" and not any(transform for _, transform in inherits.values()):
            raise InputError(
                f"state={shown(state)} needs what factorise() made of the layer {shown(name)}, got {shown(layer)}"
            )
        new = _drawn(layer, old.name, spec.parameters, stream(self._seed, WEIGHTS, index), self.dtype)
        with self.alone(), undivided():
            layer.name, layer.head, layer.training = old.name, old.head, old.training
            kept = {key: p for key, p in self.parameters.items() if self._declared[key][0] is not old}
            vars(self)["layers"] = Layers((*self.layers[:index], layer, *self.layers[index + 1 :]))
            old.leave()
            layer.enter(self)
            self._move(kept | new, layer.name, inherits, state)
            layer.made_from, layer.inherits = None, {}  # what it came from may be freed

    def rearrange(self) -> None:
        """After layers were frozen or freed: lay their parameters where the optimiser goes, or does not."""
        if self.built:
            self._move(dict(self.parameters), "", {}, "restart")

    def _move(self, values: Mapping[str, Any], replaced: str, inherits: Inherits, state: State) -> None:
        """To new arenas, with these values; the optimiser's state follows."""
        before = self._arenas
        shapes, declared = self._declarations(self.input_shape)
        self._move_to(Parameters(self.layers, declared, self.backend, self.dtype), shapes, declared)
        self._write(values)
        self.migrations.append(migration(before, self._arenas, replaced, inherits, state))
        self._bind_again()

    def _mix(self, mixed: bool) -> None:
        """Training steps from now on mix precisions, or do not."""
        if mixed != self._mixed:
            with self.alone(), undivided():
                self._mixed = mixed
                self._bind_again()

    def _too_small(self, batch: int, input_shape: Shape, backend: Backend) -> str:
        """Why steps on so many samples gain nothing there by mixed precision, in a line; "" where they do."""
        _, declared = self._declarations(input_shape)
        shapes = [each.shape for layer, each in declared.values() if layer.mixes and len(each.shape) == 2]
        most = max((batch * rows * columns for rows, columns in shapes), default=0)
        if most >= backend.least_bfloat16:
            return ""
        return (
            f"the largest product of the net's dense layers takes {most:,} multiplications with batches of {batch}, "
            f"and bfloat16 gains from {backend.least_bfloat16:,} on"
        )

    def _bind_again(self) -> None:
        if self.capacity:
            capacity, batch, self.capacity = self.capacity, self._batch, 0
            self.bind(capacity)
            if batch is not None:  # as it is after an interruption
                self.set_batch_size(batch)

    def _spec_in_place(self, old: Layer, new: Layer, index: int) -> Spec:
        """What the new layer declares in the old one's place; raises where it does not fit there."""
        if any(new is layer for layer in self.layers):
            raise InputError("this layer stands in the model already: make another")
        _check_free(new)
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
            if isinstance(name, str) and layer.name == str.__str__(name):
                return layer
        there = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in self.layers)
        raise InputError(f"the model has no layer {shown(name)}: it has {there}")

    @property
    def parameters(self) -> Views:
        """Views of the parameters by name ("0.weight", …), in the layers' order, to write into or to set.

        Ask for them again once layers were replaced, frozen or freed: that moves the parameters.
        """
        return self._arenas.views

    @property
    def gradients(self) -> Views:
        """Views of the trained parameters' gradients by name."""
        return self._arenas.gradients

    @property
    def flat(self) -> tuple[Array, Array, int]:
        """The trained parameters and their gradients as flat arrays, and how many stand under the L2 term."""
        return self._arenas.flat

    @property
    def _arenas(self) -> Parameters:
        if self._store is None:
            raise InputError(
                "the model has no weights yet: train it with gn.Trainer(model).fit(x, y), or build it first"
            )
        return self._store

    @property
    def trained_layout(self) -> Layout:
        """Where the trained parameters lie in the flat arrays."""
        return self._arenas.trained_layout

    # -- use --------------------------------------------------------------------------------------------------------

    def predict(self, x: Any, *, batch_size: int = EVAL_BATCH) -> np.ndarray[Any, Any]:
        """The class of each sample, int64 (samples,): the largest output, or a lone output rounded.

        Of a model that was trained on values the outputs, (samples, outputs). x: (samples, …) of the model's
        `input_shape` and of the kind that it was trained on, or Samples on its device, `batch_size` of them at a time,
        on the model's device and in its dtype: what `Trainer.predict` gives. Raises InputError where the model has no
        weights yet, ShapeError and DataError for what does not fit it, DivergedError where an output is NaN.

        >>> import gpunet as gn
        >>> data = gn.datasets.load("digits")
        >>> model = gn.Sequential([gn.Dense(10)], scale=1 / 255)
        >>> trainer = gn.Trainer(model, device="cpu")
        >>> _ = trainer.fit(data.x_train, data.y_train)
        >>> bool((model.predict(data.x_test) == trainer.predict(data.x_test)).all())
        True
        """
        return predicted(self.outputs(x, batch_size=batch_size), self._gives_values)

    def outputs(self, x: Any, *, batch_size: int = EVAL_BATCH) -> np.ndarray[Any, Any]:
        """The outputs f(z), (samples, outputs) on the host; logits where the last layer has no activation.

        x, batch_size and what it raises: see `predict`.
        """
        batch_size = check_whole("batch_size", batch_size, of=" of samples")
        _ = self._arenas  # built, or it says so
        with self.evaluating():
            check_row(self.output_shape)
            if isinstance(x, Samples):
                self._check_input(x.shape)
                check_place(x, self.backend, self.dtype, "data")
            else:
                x = check_samples(x, "data")
                tell_pixels(self._scale, x)
                self._check_input(tuple(x.shape[1:]))
                x = Samples.of(self.backend, x, None, None, dtype=self.dtype, copy=False)
            self._check_alike(x, "data")
            batch = min(batch_size, len(x))
            self.bind(batch)
            room, cursor = self.backend.empty((batch, *self.input_shape), self.dtype), self.backend.zeros(1, "int64")
            return outputs_of(self, passes(self, x, batch, room, cursor))

    # -- workspace --------------------------------------------------------------------------------------------------

    def bind(self, batch: int) -> None:
        """Allocate activations for up to `batch` samples; gradients of inputs share two buffers in turn."""
        batch = check_whole("batch", batch, of=" of samples")
        if not self.built:
            raise InputError("the model has no weights yet: build it before it gets a workspace")
        if batch > self.capacity:
            with self.alone():
                self._bind(batch)

    def _bind(self, batch: int) -> None:
        self.capacity = 0  # until all is done: what is interrupted is to be done again
        trained = {name.rpartition(".")[0] for name in self._arenas.trained}
        first_trained = next((i for i, layer in enumerate(self.layers) if layer.name in trained), len(self.layers))
        sizes = [int(np.prod(shape)) for shape in [self.input_shape, *self._shapes]]
        # A gradient that a fork reads is not written over until it is joined.
        buffers = len(sizes) if self.backend.forks else 2
        turns = {f"d{turn}": (batch * max(sizes[1:]),) for turn in range(buffers)}
        outputs = {f"y{i}": (batch, *shape) for i, shape in enumerate(self._shapes)}
        views = Arena(self.backend, Layout(outputs | turns), self.dtype).views
        for i, layer in enumerate(self.layers):
            dx = None
            if i > first_trained:
                below = self._shapes[i - 1]
                dx = views[f"d{i % buffers}"][: batch * sizes[i]].reshape(batch, *below)
            if layer.draws:
                layer.draw = self._draws[i]
            layer.bind(views[f"y{i}"], dx)
        for layer in self.layers:
            layer.joined, layer.below = layer.head and layer.joins, Layer.below
        for lower, upper in pairwise(self.layers[first_trained:]):
            if lower.joins and upper.joins:
                lower.joined, upper.below = True, (lower.applied, lower.d_bias)  # type: ignore[attr-defined]
        self._bind_mixing(batch)
        self._drawing = tuple(layer for layer in self.layers if layer.draws)
        self._trained_backwards = self.layers[first_trained:][::-1]
        self._d_scores = self.backend.zeros((batch, *self._shapes[-1]), self.dtype)
        self.d_scores = self._d_scores
        self._settle(batch)
        self.capacity = batch

    def _bind_mixing(self, batch: int) -> None:
        """Hand layers that mix precisions what they need for it; the others do as ever."""
        self._mixing = tuple(
            layer for layer in self.layers if self._mixed and isinstance(layer, Mixing) and layer.mixes
        )
        self._low_room = None
        below: list[Layer | None] = [None, *self.layers[:-1]]
        above: list[Layer | None] = [*self.layers[1:], None]
        for layer, lower, upper, shape in zip(
            self.layers, below, above, [self.input_shape, *self._shapes[:-1]], strict=True
        ):
            mixes = layer in self._mixing
            if isinstance(layer, Mixing):
                layer.low, layer.rounded, layer._low = mixes and self.training, {}, {}
            if not mixes:
                continue
            room = None
            if lower not in self._mixing:
                room = self.backend.empty((batch, *shape), BFLOAT16)
                if all(type(each).forward is Reshape.forward for each in self.layers[: self.layers.index(layer)]):
                    self._low_room = room.reshape(batch, *self.input_shape)
            layer.mix(  # type: ignore[attr-defined]
                self._arenas.rounded_of(layer), room, gives=upper in self._mixing,
                hands_down=lower in self._mixing and lower.joined and layer.joins,
                is_handed=upper in self._mixing and upper.joins and layer.joined,
            )  # fmt: skip

    def set_batch_size(self, n: int) -> None:
        """Work on n ≤ capacity samples from now on: views of the same workspace."""
        if type(n) is int and n == self._batch:
            return
        if not is_whole(n, 1, self.capacity):
            raise ShapeError(f"a batch of {shown(n)} does not fit a workspace bound for {self.capacity}")
        with self.alone():
            self._batch = None  # until all is done
            for layer in self.layers:
                layer.set_batch_size(n)
            self.d_scores = self._d_scores[:n]
            self._settle(n)

    def _settle(self, n: int) -> None:
        """Batches have n samples from now on."""
        self._batch = int(n)
        self._passed = False
        self._low_input = None if self._low_room is None else self._low_room[:n]
        self._kind, self._dtype = type(self.d_scores), self.d_scores.dtype
        self._takes, self._gives = (self._batch, *self.input_shape), (self._batch, *self.output_shape)

    # -- hot ----------------------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Scores z (n, outputs): what the last layer computes before its activation. To be called inside a session."""
        self._check_fits("x", x)
        with self.alone():
            self._passed = True
            if self._drawing:
                self._redraw()
            if self._mixing and self.training:
                self._arenas.round()  # the parameters of now, whoever has written them
            for layer in self.layers:
                x = layer.forward(x)
            return x

    def _redraw(self) -> None:
        """A forward pass begins: layers that draw in it draw anew."""
        if any(layer.training for layer in self._drawing):
            self.backend.redraw(self._draws)

    def backward(self, dz: Array) -> None:
        """Fill the gradients from ∂L/∂z of the scores; overwrites dz. Stops at the lowest trained layer."""
        self._check_fits("dz", dz)
        if not self._passed:
            raise InputError("backward needs what a forward pass leaves behind: call forward first")
        with self.alone():
            if self.layers[-1].joined:
                self.layers[-1].slopes(dz)
            self._backward(dz)

    def _backward(self, dz: Array) -> None:
        """`backward` where the last layer has had its `slopes`, if it is joined."""
        d: Array | None = dz
        forks = self.backend.forks
        for layer in self._trained_backwards:
            if forks and not layer.joins:  # and may write where a fork reads: into its own outputs, say
                self.backend.join()
            d = layer.backward(d)
        if forks:
            self.backend.join()

    def _learn(self, x: Array, labels: Array, loss: Loss, totals: Array, weights: Array = None) -> None:
        """Forward, the loss and backward, of what a trainer knows to fit, in a step that has no time to look."""
        if self._drawing:
            self._redraw()
        *below, head = self.layers
        for layer in below:
            x = layer.forward(x)
        if weights is None:
            loss.of_layer(head, x, labels, self.d_scores, totals)
        else:  # between the loss and the slopes, which a fused operation joins
            loss(head.forward(x), labels, self.d_scores, totals)
            self.backend.weigh(self.d_scores, weights)
            if head.joined:
                head.slopes(self.d_scores)
        self._backward(self.d_scores)

    def activate_scores(self, z: Array) -> Array:
        """The model's outputs y = f(z), in z's memory."""
        self._check_fits("z", z)
        self.backend.activate(self.layers[-1].activation, z, z)
        return z

    def _check_fits(self, name: str, given: Any) -> None:
        if self._kind is None:
            raise InputError("the model has no workspace yet: build and bind it, or leave both to a gn.Trainer")
        shape = self._takes if name == "x" else self._gives
        if type(given) is not self._kind or given.shape != shape or given.dtype != self._dtype:
            kind = self._kind.__name__
            raise ShapeError(f"{name} is {shown(given)}: expected {kind} of shape {shape}, {self._dtype}")

    # -- information --------------------------------------------------------------------------------------------------

    def shapes(self, input_shape: Shape) -> list[Shape]:
        """The shape of one sample's output of each layer, for samples of `input_shape`; nothing is built."""
        return self._declarations(check_shape("input_shape", input_shape))[0]

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """The parameters' shapes by name for samples of `input_shape`; nothing is built."""
        _, declared = self._declarations(check_shape("input_shape", input_shape))
        return {name: parameter.shape for name, (_, parameter) in declared.items()}

    def parameter_count(self, *, trained: bool = False) -> int:
        """How many numbers the parameters hold; trained: only of those that training changes.

        Raises InputError before the model is built: `summary` counts without, for a shape of samples.
        """
        check_flag("trained", trained)
        _ = self._arenas  # built, or it says so
        changed, frozen = counted(self._declared)
        return changed if trained else changed + frozen

    def summary(self, input_shape: Shape | None = None) -> Summary:
        """A table with a line a layer: what it gives for a sample, its parameters, of a low-rank layer its share.

        input_shape: of one sample; nothing is built, so a model of any size can be looked at. A model that is built
        knows its own. Raises InputError where neither does, ShapeError where a layer does not fit its input.

        >>> import gpunet as gn
        >>> gn.Sequential([gn.Dense(512, "relu"), gn.LowRankDense(10, 2)]).summary((784,))
        name  layer                output  parameters  of dense
        0     Dense(512, 'relu')   (512,)     401,920
        2     LowRankDense(10, 2)   (10,)       1,054     20.5%
        402,974 parameters, 1.54 MiB in float32, for samples of shape (784,)
        """
        if input_shape is None and not self.built:
            raise InputError("the model is not built yet: give the shape of a sample, say model.summary((784,))")
        input_shape = self.input_shape if input_shape is None else check_shape("input_shape", input_shape)
        shapes, declared = self._declarations(input_shape)
        return summarised(self.layers, shapes, declared, input_shape, self.dtype if self.built else DTYPES[0])

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        _ = self._arenas  # built, or it says so
        return self._shapes[-1]

    def config(self) -> list[dict[str, Any]]:
        """The layers as JSON-ready descriptions, for saving."""
        return [{"layer": type(layer).__name__, **layer.config()} for layer in self.layers]

    @classmethod
    def from_config(cls, config: list[dict[str, Any]]) -> Sequential:
        """The model that `config` describes, its weights not drawn yet."""
        layers = []
        for entry in as_list("config", config, "descriptions such as {'layer': 'Dense', 'units': 10}", dict):
            settings = dict(entry)
            kind = Layer.kinds.get(str(settings.pop("layer", None)))
            if kind is None:
                raise InputError(f"unknown layer in {shown(entry)}: expected one of {', '.join(sorted(Layer.kinds))}")
            try:
                layers.append(kind(**settings))
            except TypeError as error:
                raise InputError(
                    f"a saved layer does not fit this version of gpunet: {shown(entry)} ({error})"
                ) from error
        return cls(layers)


def _drawn(
    layer: Layer, called: str, declared: Mapping[str, Parameter], generator: np.random.Generator, dtype: str
) -> dict[str, Any]:
    """A layer's initial parameters by full name, given or drawn on the host from its own stream, cast to the dtype."""
    given = layer.given(declared)
    return {
        f"{called}.{name}": as_floats(
            given[name] if name in given else drawn(p.draw, p.shape, generator), f"the initial {name}", p.shape, dtype
        )
        for name, p in declared.items()
    }


def _checked_scale(scale: float | None) -> float | None:
    return None if scale is None else check_range("scale", scale, above=0)


def _check_free(layer: Any) -> None:
    """InputError for what is no layer, or stands in another model."""
    if not isinstance(layer, Layer):
        raise InputError(f"expected a layer such as Dense(10), got {shown(layer)}")
    if layer.owner is not None:
        raise InputError(
            f"the layer {layer.name!r} ({type(layer).__name__}) stands in another model: make a layer for each, or "
            "take a copy.deepcopy of it"
        )


def check_model(model: Any) -> Sequential:
    """The model; InputError where it is none."""
    if not isinstance(model, Sequential):
        advice = ""
        if has(type(model), "model_"):  # an estimator, fitted or not
            advice = "; once it is fitted, pass its .model_"
        elif has(model, "model"):  # a trainer
            advice = "; pass its .model"
        raise InputError(f"model is {shown(model)}: expected gn.Sequential([...]){advice}")
    return model
