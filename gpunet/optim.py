"""Optimisers: settings and state; the arithmetic is the backend's, over one flat array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpunet.backend import base
from gpunet.backend.base import Array, Backend
from gpunet.checks import check_range
from gpunet.migration import Migration, Move, places


@dataclass(frozen=True)
class Range:
    """A contiguous part of the flat arrays whose state is of one age."""

    params: Array
    grads: Array
    state: dict[str, Array]
    scalars: Array  # the settings and the counts of steps, on the device; ranges of one age share it
    decayed: int


class Optimizer:
    """Base of all optimisers.

    learning_rate η > 0; l2 is λ ≥ 0 of a term λ‖W‖² on weights, not on biases, added to the gradient (2λW) and not to
    the loss that is reported. What changes from step to step lies in a small device array: one for all parameters, or
    one for each age of state where layers were replaced in mid-training.
    """

    states: tuple[str, ...] = ()  # names of the flat arrays beside the parameters
    linear: tuple[str, ...] = ()  # those of them that are linear in the gradients, not in their squares

    def __init__(self, learning_rate: float, l2: float = 0.0) -> None:
        check_range("learning_rate", learning_rate, above=0)
        check_range("l2", l2, least=0)
        self.settings: dict[str, float] = {"learning_rate": float(learning_rate), "l2": float(l2)}
        self._clocks: list[Array] = []

    def attach(self, backend: Backend, params: Array, grads: Array, decayed: int) -> None:
        """Start afresh on flat `params` and `grads` (p,), of which the first `decayed` carry the L2 term."""
        self.ops = backend
        self.state = {name: backend.zeros(len(params), params.dtype) for name in self.states}
        self._lay_out(params, grads, decayed, [(slice(0, len(params)), self._clock(0, 0))])

    def migrate(self, migrations: Sequence[Migration], params: Array, grads: Array) -> None:
        """Follow replaced layers to new flat arrays; state that starts afresh counts its own steps from there."""
        for each in migrations:
            old, ages = self.state, self._ages
            self.state = {name: self.ops.zeros(each.size, params.dtype) for name in self.states}
            fresh = self._clock(0, 0)
            carried: dict[int, Array] = {}
            aged: list[tuple[slice, Array]] = []
            for move, place in zip(each.moves, places(each.moves), strict=True):
                clock = fresh
                if move.source is not None:
                    clock = next(clock for part, clock in ages if part.start <= move.source.start < part.stop)
                    self._move(move, old)
                    if move.carry and not move.squares:  # each moment counts its own steps
                        steps = float(self.ops.to_host(clock)[base.STEP])
                        clock = carried.setdefault(id(clock), self._clock(steps, 0))
                place = slice(place.start, each.size if place.stop is None else place.stop)
                if aged and aged[-1][1] is clock:
                    place = slice(aged.pop()[0].start, place.stop)
                aged.append((place, clock))
            self._lay_out(params, grads, each.decayed, aged)

    def _move(self, move: Move, old: dict[str, Array]) -> None:
        for name, state in self.state.items():
            source, out = old[name][move.source], state[move.place]
            if move.carry is None:
                self.ops.copy(source, out)
            elif name in self.linear or move.squares:
                squares = name not in self.linear
                move.carry(self.ops, source.reshape(move.source_shape), out.reshape(move.shape), squares)

    def _lay_out(self, params: Array, grads: Array, decayed: int, ages: list[tuple[slice, Array]]) -> None:
        self._ages = ages
        self.ranges = [
            Range(
                params[part], grads[part], {name: state[part] for name, state in self.state.items()}, clock,
                max(0, min(decayed, part.stop) - part.start),
            )
            for part, clock in ages
        ]  # fmt: skip
        self._clocks = list({id(clock): clock for _, clock in ages}.values())

    def _clock(self, steps: float, second_steps: float) -> Array:
        """The scalars of a range whose moments have so many steps behind them."""
        host = [0.0] * base.N_SCALARS
        for name, value in self.settings.items():
            host[self._place(name)] = value
        host[base.STEP], host[base.SECOND_STEP] = steps, second_steps
        return self.ops.asarray(host, "float64")

    @property
    def learning_rate(self) -> float:
        """η; may be set between steps."""
        return self.settings["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        check_range("learning_rate", value, above=0)
        self.settings["learning_rate"] = float(value)
        for clock in self._clocks:
            self.ops.copy(float(value), clock[base.LEARNING_RATE : base.LEARNING_RATE + 1])

    def step(self) -> None:
        """Update the parameters from the gradients."""
        for clock in self._clocks:
            self.ops.tick(clock)
        for part in self.ranges:
            self.update(part)

    def update(self, part: Range) -> None:
        """The arithmetic of one step on one range."""
        raise NotImplementedError

    @staticmethod
    def _place(name: str) -> int:
        return {
            "learning_rate": base.LEARNING_RATE, "momentum": base.BETA1, "beta1": base.BETA1, "beta2": base.BETA2,
            "epsilon": base.EPSILON, "l2": base.L2,
        }[name]  # fmt: skip


class SGD(Optimizer):
    """w −= η g, or with momentum μ in (0, 1): v = μv + g, w −= ηv."""

    linear = ("velocity",)

    def __init__(self, learning_rate: float, momentum: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(learning_rate, l2)
        check_range("momentum", momentum, least=0, below=1)
        self.settings["momentum"] = float(momentum)
        self.states = ("velocity",) if momentum else ()

    def update(self, part: Range) -> None:
        if self.states:
            self.ops.momentum(part.params, part.grads, part.state["velocity"], part.scalars, part.decayed)
        else:
            self.ops.sgd(part.params, part.grads, part.scalars, part.decayed)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with bias correction; 0 ≤ β₁, β₂ < 1, ε > 0. The L2 term enters through the gradient."""

    states = ("first", "second")
    linear = ("first",)

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        l2: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, l2)
        check_range("beta1", beta1, least=0, below=1)
        check_range("beta2", beta2, least=0, below=1)
        check_range("epsilon", epsilon, above=0)
        self.settings |= {"beta1": float(beta1), "beta2": float(beta2), "epsilon": float(epsilon)}

    def update(self, part: Range) -> None:
        first, second = part.state["first"], part.state["second"]
        self.ops.adam(part.params, part.grads, first, second, part.scalars, part.decayed)
