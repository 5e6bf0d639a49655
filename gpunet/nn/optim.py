"""Optimisers: settings and state; the arithmetic is the backend's, over one flat array."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from gpunet import checks
from gpunet.backend import base
from gpunet.backend.base import Array, Backend
from gpunet.checks import check_range, check_whole
from gpunet.errors import InputError, shown
from gpunet.interrupts import undivided
from gpunet.nn.memory import Layout
from gpunet.nn.migration import Migration
from gpunet.reprs import as_call, settings, sizes

PLACES = {
    "learning_rate": base.LEARNING_RATE, "momentum": base.BETA1, "beta1": base.BETA1, "beta2": base.BETA2,
    "epsilon": base.EPSILON, "l2": base.L2, "weight_decay": base.L2,
}  # fmt: skip


class _Setting(checks.Setting):
    """A setting of an optimiser, a number within bounds; one set between steps holds from the next step on."""

    def __init__(self, **bounds: float) -> None:
        super().__init__(check_range, **bounds)

    def __get__(self, optimizer: Optimizer, owner: type | None = None) -> float:
        return optimizer._settings[self.name]

    @undivided()
    def _keep(self, optimizer: Optimizer, value: float) -> None:
        optimizer._set(self.name, value)


@dataclass(frozen=True)
class Range:
    """A contiguous part of the flat arrays whose state is of one age."""

    params: Array
    grads: Array
    state: dict[str, Array]
    scalars: Array  # the settings and the counts of steps, a row of `clocks`; ranges of one age share it
    decayed: int
    rounded: Array = None  # where the new parameters are wanted in bfloat16, too

    def __repr__(self) -> str:
        return f"<Range: {sizes(self.params)}, {self.decayed} under the L2 term>"


class Optimizer:
    """Base of all optimisers.

    learning_rate η > 0; l2 is λ ≥ 0 of a term λ‖W‖² on weights, not on biases, added to the gradient (2λW) and not to
    the loss that is reported. What changes from step to step lies in a small device array: one for all parameters, or
    one for each age of state where layers were replaced in mid-training.
    """

    states: tuple[str, ...] = ()  # names of the flat arrays beside the parameters
    linear: tuple[str, ...] = ()  # those of them that are linear in the gradients, not in their squares
    # Whether `update` writes `Range.rounded`; a subclass with an `update` or `step` of its own says it again. Where it
    # does not, parameters are rounded after it.
    rounds: ClassVar[bool] = False
    counts_steps: bool = False  # whether the arithmetic depends on how many steps there were
    owner: weakref.ref[Any] | None = None  # the trainer whose state it holds
    clocks: Array  # (c, N_SCALARS), one row for each age of state, from `attach` on
    initial: Mapping[str, float]  # the settings that it was attached with

    learning_rate = _Setting(above=0)
    l2 = _Setting(least=0)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parent = next(each for each in cls.__mro__[1:] if issubclass(each, Optimizer))
        inherited = parent.rounds and all(  # not those of another base, in between
            getattr(cls, name) is getattr(parent, name) for name in ("update", "step", "_descend")
        )
        cls.rounds = vars(cls).get("rounds", inherited)

    def __init__(self, learning_rate: float, l2: float = 0.0) -> None:
        self._settings: dict[str, float] = {}  # no attributes: a recording is dropped where one of these is another
        self._clocks: list[Array] = []
        self._rounded: Array = None
        self.learning_rate, self.l2 = learning_rate, l2

    def __repr__(self) -> str:
        return as_call(self, {**settings(self), **self._settings}, always=["learning_rate"])

    @property
    def settings(self) -> Mapping[str, float]:
        """All settings by name, to read; each is an attribute, and set there."""
        return MappingProxyType(self._settings)

    def _set(self, name: str, value: float) -> None:
        self._settings[name] = value
        for clock in self._clocks:
            self.ops.copy(value, clock[PLACES[name] : PLACES[name] + 1])

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: the settings; the state belongs to the trainer's parameters."""
        gone = ("ops", "owner", "state", "ranges", "clocks", "_ages", "_flat", "_clocks")
        kept = {name: value for name, value in vars(self).items() if name not in gone}
        return kept | {"_settings": dict(self._settings), "_clocks": [], "_rounded": None}

    @undivided()
    def attach(self, backend: Backend, params: Array, grads: Array, decayed: int) -> None:
        """Start afresh on flat `params` and `grads` (p,), of which the first `decayed` carry the L2 term."""
        self.ops, self.initial, self._rounded = backend, dict(self._settings), None
        self.state = {name: backend.zeros(len(params), params.dtype) for name in self.states}
        self._lay_out(params, grads, decayed, [(slice(0, len(params)), self._clock())])

    @undivided()
    def migrate(self, migrations: Sequence[Migration], params: Array, grads: Array) -> None:
        """Follow replaced layers to new flat arrays; state that starts afresh counts its own steps from there."""
        for each in migrations:
            self._rounded = None  # which are others now
            old, fresh = self.state, self._fresh_clock()
            self.state = {name: self.ops.zeros(each.new.size, params.dtype) for name in self.states}
            carried: dict[int, Array] = {}
            clocks = dict.fromkeys(each.new.places, fresh)
            for name, (source, carry) in each.sources.items():
                clock = self._clock_at(each.old.places[source].start)
                self._move(each, name, old)
                if carry and not each.squares:  # each moment counts its own steps
                    steps = float(self.ops.to_host(clock)[base.STEP])
                    clock = carried.setdefault(id(clock), self._clock(steps))
                clocks[name] = clock
            self._lay_out(params, grads, each.decayed, _aged(each.new, clocks) or [(slice(0, 0), fresh)])

    def export(self, layout: Layout) -> tuple[dict[str, Any], dict[str, int]]:
        """The state on the host, for a checkpoint; `layout` says where the parameters lie in the flat arrays.

        Arrays "first/0.weight", …, of the parameters' shapes, and "clocks", (c, N_SETTLED); and which of these clocks
        is each parameter's.
        """
        arrays = {
            f"{kind}/{name}": self.ops.to_host(state[place]).reshape(layout.shapes[name])
            for kind, state in self.state.items()
            for name, place in layout.places.items()
        }
        numbers = {id(clock): number for number, clock in enumerate(self._clocks)}
        ages = {name: numbers[id(self._clock_at(place.start))] for name, place in layout.places.items()}
        return arrays | {"clocks": np.array(self.ops.to_host(self.clocks)[:, : base.N_SETTLED])}, ages

    @undivided()
    def restore(
        self,
        settings: Mapping[str, float],
        arrays: Mapping[str, Any],
        ages: Mapping[str, int],
        layout: Layout,
        flat: tuple[Array, Array, int],
    ) -> None:
        """Go on from what `export` returned, with `flat` parameters, gradients and count of decayed ones."""
        initial = self.initial
        self._settings = dict(settings)
        self.attach(self.ops, *flat)
        self.initial = initial
        for kind, state in self.state.items():
            for name, place in layout.places.items():
                self.ops.copy(arrays[f"{kind}/{name}"].reshape(-1), state[place])
        clocks = [self._clock() for _ in arrays["clocks"]]
        for clock, values in zip(clocks, arrays["clocks"], strict=True):
            self.ops.copy(values, clock[: base.N_SETTLED])
        aged = _aged(layout, {name: clocks[ages[name]] for name in layout.places})
        self._lay_out(*flat, aged or [(slice(0, 0), clocks[0])])

    def _fresh_clock(self) -> Array:
        """The clock of state that starts afresh: one that serves already where that makes no difference."""
        for clock in self._clocks:
            if not (self.counts_steps and self.ops.to_host(clock)[base.STEP : base.N_SETTLED].any()):
                return clock
        return self._clock()

    @undivided()
    def age_apart(self, place: int) -> None:
        """Let the parameters from `place` on count their steps apart, as after a replacement: for timing."""
        check_whole("place", place, least=0)
        self._check_attached()
        size = self._ages[-1][0].stop
        if self.counts_steps and 0 < place < size:
            flat = self._flat
            self._lay_out(*flat, [(slice(0, place), self._clock()), (slice(place, size), self._clock())])

    def _clock_at(self, place: int) -> Array:
        return next(clock for part, clock in self._ages if part.start <= place < part.stop)

    def _move(self, by: Migration, name: str, old: dict[str, Array]) -> None:
        """Continue a parameter's state."""
        source, carry = by.sources[name]
        for kind, state in self.state.items():
            before, out = old[kind][by.old.places[source]], state[by.new.places[name]]
            squares = kind not in self.linear
            if carry is None:
                self.ops.copy(before, out)
            elif by.squares or not squares:
                carry(self.ops, before.reshape(by.old.shapes[source]), out.reshape(by.new.shapes[name]), squares)

    def _lay_out(self, params: Array, grads: Array, decayed: int, ages: list[tuple[slice, Array]]) -> None:
        distinct = list({id(clock): clock for _, clock in ages}.values())
        self.clocks = self.ops.empty((len(distinct), base.N_SCALARS), "float64")  # in one piece: they tick in one go
        self._clocks = [self.clocks[row] for row in range(len(distinct))]
        rows = {id(old): row for old, row in zip(distinct, self._clocks, strict=True)}
        for clock in distinct:
            self.ops.copy(clock, rows[id(clock)])
        ages = [(part, rows[id(clock)]) for part, clock in ages]
        self._ages, self._flat = ages, (params, grads, decayed)
        self.ranges = [
            Range(
                params[part], grads[part], {name: state[part] for name, state in self.state.items()}, clock,
                max(0, min(decayed, part.stop) - part.start), None if self._rounded is None else self._rounded[part],
            )
            for part, clock in ages
        ]  # fmt: skip

    def round_into(self, rounded: Array | None) -> None:
        """From now on write the parameters to `rounded` (p,) in bfloat16, too, where that is not None."""
        if rounded is not self._rounded:
            with undivided():
                self._rounded = rounded
                self._lay_out(*self._flat, self._ages)

    def _clock(self, steps: float = 0.0) -> Array:
        """The scalars of a range whose first moments have so many steps behind them, the second none."""
        host = [0.0] * base.N_SCALARS
        for name, value in self._settings.items():
            host[PLACES[name]] = value
        host[base.STEP] = steps
        return self.ops.asarray(host, "float64")

    def step(self) -> None:
        """Count a step, and update the parameters from the gradients."""
        self._check_attached()
        self.ops.tick(self.clocks)
        self._descend()

    def _descend(self) -> None:
        """The update of a step that has been counted: a trainer's clocks tick as its batch is taken."""
        for part in self.ranges:
            self.update(part)

    def _check_attached(self) -> None:
        if not self._clocks:
            raise InputError("the optimizer has nothing to update yet: give it to a gn.Trainer")

    def update(self, part: Range) -> None:
        """The arithmetic of one step on one range."""
        raise NotImplementedError


def _aged(layout: Layout, clocks: Mapping[str, Array]) -> list[tuple[slice, Array]]:
    """The parts of the flat arrays that have one clock each: neighbours are one part, padding is what precedes it's."""
    parts: list[tuple[slice, Array]] = []
    starts = [place.start for place in layout.places.values()]
    for name, start, stop in zip(layout.places, starts, [*starts[1:], layout.size], strict=False):
        clock = clocks[name]
        if parts and parts[-1][1] is clock:
            start = parts.pop()[0].start
        parts.append((slice(start, stop), clock))
    return parts


class SGD(Optimizer):
    """w −= η g, or with momentum μ in (0, 1): v = μv + g, w −= ηv."""

    linear = ("velocity",)
    rounds = True

    momentum = _Setting(least=0, below=1)

    def __init__(self, learning_rate: float, momentum: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(learning_rate, l2)
        self.momentum = momentum

    @undivided()
    def attach(self, backend: Backend, params: Array, grads: Array, decayed: int) -> None:
        self.states = ("velocity",) if self.momentum else ()
        super().attach(backend, params, grads, decayed)

    def _set(self, name: str, value: float) -> None:
        if name == "momentum" and self._clocks and bool(value) != bool(self.states):
            raise InputError(
                f"momentum cannot be set from {self.momentum:g} to {value:g} in mid-training, where a velocity begins "
                "or ends: give the trainer another optimizer"
            )
        super()._set(name, value)

    def update(self, part: Range) -> None:
        if self.states:
            velocity = part.state["velocity"]
            self.ops.momentum(part.params, part.grads, velocity, part.scalars, part.decayed, part.rounded)
        else:
            self.ops.sgd(part.params, part.grads, part.scalars, part.decayed, part.rounded)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with bias correction; 0 ≤ β₁, β₂ < 1, ε > 0. The L2 term enters through the gradient."""

    states = ("first", "second")
    linear = ("first",)
    counts_steps = rounds = True
    decoupled = False  # whether the decay is apart from the gradient

    beta1 = _Setting(least=0, below=1)
    beta2 = _Setting(least=0, below=1)
    epsilon = _Setting(above=0)

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        l2: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, l2)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def _set(self, name: str, value: float) -> None:
        kept = {"beta1": "first", "beta2": "second"}.get(name)
        if kept and self._clocks:  # the state is m/(1 − β): m itself stays what it was
            self.state[kept] *= (1 - self.settings[name]) / (1 - value)
        super()._set(name, value)

    def update(self, part: Range) -> None:
        first, second = part.state["first"], part.state["second"]
        self.ops.adam(part.params, part.grads, first, second, part.scalars, part.decayed, self.decoupled, part.rounded)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW: w −= η λ w before each step.

    weight_decay λ ≥ 0 holds for weights, as `l2` of other optimisers does, not for biases nor a BatchNorm's parameters;
    PyTorch's decays whatever it is given. Raises InputError for a setting out of bounds.
    """

    decoupled = True

    weight_decay = _Setting(least=0)
    l2 = checks.fixed("AdamW's decay is weight_decay")

    def __init__(
        self,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon)
        self.weight_decay = weight_decay


OptimizerName = Literal["adam", "adamw"]
NAMED: dict[str, type[Adam]] = {"adam": Adam, "adamw": AdamW}  # those that have a default rate


def resolve(optimizer: str | Optimizer | None) -> Optimizer:
    """An optimizer, from itself or from the name "adam" or "adamw", with its default rate; of None "adam"."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    name = "adam" if optimizer is None else optimizer.lower() if isinstance(optimizer, str) else ""
    if name in NAMED:
        return NAMED[name]()
    mend = "expected 'adam' or 'adamw', or an object such as gn.Adam(1e-3)"
    if name == "sgd":
        mend = "SGD has no default rate, give gn.SGD(0.1)"
    raise InputError(f"optimizer is {shown(optimizer)}: {mend}")
