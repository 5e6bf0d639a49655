"""Optimisers: settings and state; the arithmetic is the backend's, over one flat array."""

from __future__ import annotations

from gpunet.backend import base
from gpunet.backend.base import Array, Backend
from gpunet.checks import check_range


class Optimizer:
    """Base of all optimisers.

    learning_rate η > 0; l2 is λ ≥ 0 of a term λ‖W‖² on weights, not on biases, added to the gradient (2λW) and not to
    the loss that is reported. Everything that changes while training lies in one small device array, `scalars`.
    """

    states: tuple[str, ...] = ()  # names of the flat arrays beside the parameters

    def __init__(self, learning_rate: float, l2: float = 0.0) -> None:
        check_range("learning_rate", learning_rate, above=0)
        check_range("l2", l2, least=0)
        self.settings: dict[str, float] = {"learning_rate": float(learning_rate), "l2": float(l2)}

    def attach(self, backend: Backend, params: Array, grads: Array, decayed: int) -> None:
        """Start afresh on flat `params` and `grads` (p,), of which the first `decayed` carry the L2 term."""
        self.ops, self.params, self.grads, self.decayed = backend, params, grads, decayed
        self.state = {name: backend.zeros(len(params), params.dtype) for name in self.states}
        self._host = [0.0] * base.N_SCALARS
        for name, value in self.settings.items():
            self._host[self._place(name)] = value
        self.scalars = backend.asarray(self._host, "float64")

    @property
    def learning_rate(self) -> float:
        """η; may be set between steps."""
        return self.settings["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        check_range("learning_rate", value, above=0)
        self.settings["learning_rate"] = float(value)
        if hasattr(self, "scalars"):
            place = base.LEARNING_RATE
            self.ops.copy(float(value), self.scalars[place : place + 1])

    def step(self) -> None:
        """Update the parameters from the gradients."""
        self.ops.tick(self.scalars)
        self.update()

    def update(self) -> None:
        """The arithmetic of one step."""
        raise NotImplementedError

    @staticmethod
    def _place(name: str) -> int:
        return {
            "learning_rate": base.LEARNING_RATE, "momentum": base.BETA1, "beta1": base.BETA1, "beta2": base.BETA2,
            "epsilon": base.EPSILON, "l2": base.L2,
        }[name]  # fmt: skip


class SGD(Optimizer):
    """w −= η g, or with momentum μ in (0, 1): v = μv + g, w −= ηv."""

    def __init__(self, learning_rate: float, momentum: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(learning_rate, l2)
        check_range("momentum", momentum, least=0, below=1)
        self.settings["momentum"] = float(momentum)
        self.states = ("velocity",) if momentum else ()

    def update(self) -> None:
        if self.states:
            self.ops.momentum(self.params, self.grads, self.state["velocity"], self.scalars, self.decayed)
        else:
            self.ops.sgd(self.params, self.grads, self.scalars, self.decayed)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with bias correction; 0 ≤ β₁, β₂ < 1, ε > 0. The L2 term enters through the gradient."""

    states = ("first", "second")

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

    def update(self) -> None:
        state = self.state
        self.ops.adam(self.params, self.grads, state["first"], state["second"], self.scalars, self.decayed)
