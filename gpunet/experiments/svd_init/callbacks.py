"""What svd-init looks at, and holds, between the steps of training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.callbacks import Callback
from gpunet.errors import DivergedError
from gpunet.experiments.svd_init.data import Problem
from gpunet.spectral.svd_weights import FloatArray, dependency_ratio, mean_square
from gpunet.train import Trainer

MARKS = 10  # looks at the dependency in an epoch


def on_host(trainer: Trainer, name: str) -> FloatArray:
    """A parameter as float64 on the host."""
    parameter: FloatArray = trainer.backend.to_host(trainer.model.parameters[name]).astype(np.float64)
    return parameter


class Course(Callback):
    """Records the dependency ratio (equation 7) over all training data, MARKS times an epoch and at the end."""

    def __init__(self, problem: Problem, per_epoch: int) -> None:
        self.problem, self.per_epoch = problem, per_epoch
        self.epochs: list[float] = []
        self.ratios: list[float] = []

    def steps(self, total: int) -> Iterator[int]:
        return iter(range(0, total, max(1, self.per_epoch // MARKS)))

    def on_step(self, trainer: Trainer, step: int) -> None:
        self.epochs.append(step / self.per_epoch)
        try:
            self.ratios.append(self.measure(trainer)[0])
        except ZeroDivisionError:  # the norm that HoldNorm divides by overflowed
            epoch, place = divmod(max(step - 1, 0), self.per_epoch)
            raise DivergedError(
                f"W¹ overflowed by epoch {epoch + 1}, step {place + 1}, at learning rate "
                f"{trainer.optimizer.learning_rate:g}: lower the learning rate"
            ) from None

    def on_fit_end(self, trainer: Trainer) -> None:
        self.on_step(trainer, trainer.epoch * self.per_epoch)

    def measure(self, trainer: Trainer) -> tuple[float, float]:
        """(dep, mean‖z¹‖²), z¹ with its bias."""
        w, b = on_host(trainer, "0.weight"), on_host(trainer, "0.bias")
        square = mean_square(w, self.problem.second_moment) + float(2 * b @ (w @ self.problem.mean) + b @ b)
        return dependency_ratio(square, w, self.problem.x_square), square


class HoldNorm(Callback):
    """Scales every weight back to its initial Frobenius norm before each step: the document's condition (*)."""

    def steps(self, total: int) -> Iterator[int]:
        return iter(range(total))

    def on_fit_begin(self, trainer: Trainer) -> None:
        self.norm = trainer.backend.xp.linalg.norm
        weights = [p for name, p in trainer.model.parameters.items() if name.endswith("weight")]
        self.held = [(weight, self.norm(weight)) for weight in weights]

    def on_step(self, trainer: Trainer, step: int) -> None:
        for weight, norm in self.held:
            weight *= norm / self.norm(weight)

    def on_fit_end(self, trainer: Trainer) -> None:
        self.on_step(trainer, 0)
