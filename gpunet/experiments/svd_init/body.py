"""svd-init: five kinds of W¹ (Table 1), each also frozen and with ‖W‖ held, and a sweep of the initial dependency.

784-100-10, sigmoid twice, binary cross-entropy summed over the outputs. The dependency between W¹ and the data is
measured while training (Figure 2, equation 7), and E‖x¹‖² by the linearised sigmoid beside the measured one.

`chosen.py` looks at the settings that the document leaves open, on a validation split.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.errors import DivergedError
from gpunet.experiments.framework import Measured, Run, trained_in
from gpunet.experiments.svd_init import Settings, x
from gpunet.experiments.svd_init.data import Problem, prepare
from gpunet.nn.callbacks import Callback, Training
from gpunet.nn.trainer import Trainer
from gpunet.progress import Progress
from gpunet.rng import WEIGHTS, stream
from gpunet.spectral.svd_weights import KINDS, FloatArray, dependency_ratio, mean_square, svd_weights

ALL_KINDS = ("random", *KINDS)
MARKS = 10  # looks at the dependency in an epoch


def default_epochs(samples: int, batch_size: int) -> int:
    """The document's 5 epochs; on fewer samples as many as make its 3,000 steps, at most 60."""
    return max(5, min(60, 3000 // -(-samples // batch_size)))


def first_weights(problem: Problem, settings: Settings, kind: str, seed: int) -> FloatArray:
    """W¹ (hidden, features) of one kind."""
    if kind == "random":
        shape = (problem.units, len(problem.mean))
        return stream(seed, WEIGHTS, 100).normal(0.0, math.sqrt(settings.variance), shape)
    return svd_weights(
        problem.rows[kind.partition("-")[2]], kind, problem.second_moment,  # type: ignore[arg-type]
        variance=settings.variance, dependency=settings.dependency,
    )  # fmt: skip


def network(w1: FloatArray, problem: Problem, settings: Settings, seed: int, frozen: bool) -> gn.Sequential:
    """s₀-s₁-classes with sigmoid twice; W² ~ N(0, Var), b¹ = 0, b² = −½ Σⱼ W²_kj."""
    w2 = stream(seed, WEIGHTS, 101).normal(0.0, math.sqrt(settings.variance), (problem.classes, len(w1)))
    hidden = gn.Dense(len(w1), "sigmoid", weight=w1, trainable=not frozen)
    return gn.Sequential([hidden, gn.Dense(problem.classes, "sigmoid", weight=w2, bias=-0.5 * w2.sum(axis=1))])


def on_host(trainer: Training, name: str) -> FloatArray:
    """A parameter as float64 on the host."""
    return np.asarray(trainer.backend.to_host(trainer.model.parameters[name]), np.float64)


class Course(Callback):
    """Records the dependency ratio (equation 7) over all training data, MARKS times an epoch and at the end."""

    def __init__(self, problem: Problem, per_epoch: int) -> None:
        self.problem, self.per_epoch = problem, per_epoch
        self.epochs: list[float] = []
        self.ratios: list[float] = []

    def steps(self, total: int) -> range:
        return range(0, total, max(1, self.per_epoch // MARKS))

    def on_step(self, trainer: Training, step: int) -> None:
        w, b = on_host(trainer, "0.weight"), on_host(trainer, "0.bias")
        z_square = mean_square(w, self.problem.second_moment) + float(2 * b @ (w @ self.problem.mean) + b @ b)
        try:
            self.ratios.append(dependency_ratio(z_square, w, self.problem.x_square))
        except ZeroDivisionError:  # the norm that HoldNorm divides by overflowed
            epoch, place = divmod(max(step - 1, 0), self.per_epoch)
            raise DivergedError(
                f"W¹ overflowed by epoch {epoch + 1}, step {place + 1}, at learning rate "
                f"{trainer.optimizer.learning_rate:g}: lower the learning rate"
            ) from None
        self.epochs.append(step / self.per_epoch)

    def on_fit_end(self, trainer: Training) -> None:
        self.on_step(trainer, trainer.epoch * self.per_epoch)


class HoldNorm(Callback):
    """Scales every weight back to its initial Frobenius norm before each step: the document's condition (*)."""

    def steps(self, total: int) -> range:
        return range(total)

    def on_fit_begin(self, trainer: Training) -> None:
        self.norm = trainer.backend.xp.linalg.norm
        weights = [p for name, p in trainer.model.parameters.items() if name.endswith("weight")]
        self.held = [(weight, self.norm(weight)) for weight in weights]

    def on_step(self, trainer: Training, step: int) -> None:
        for weight, norm in self.held:
            weight *= norm / self.norm(weight)

    def on_fit_end(self, trainer: Training) -> None:
        self.on_step(trainer, 0)


def train_once(
    problem: Problem, settings: Settings, kind: str, seed: int, backend: Backend, bar: Progress, variant: str = ""
) -> Measured:
    """Train one kind with one seed; variant "", "frozen" or "norm held"."""
    w1 = first_weights(problem, settings, kind, seed)
    model = network(w1, problem, settings, seed, frozen=variant == "frozen")
    optimizer = gn.SGD(settings.learning_rate)
    trainer = Trainer(
        model, gn.BinaryCrossEntropy(), optimizer, device=backend, seed=seed, precision=settings.precision
    )  # fmt: skip
    trainer.prepare(problem.train.shape)
    metrics = _at_start(trainer, problem)
    course = Course(problem, problem.train.batches(settings.batch_size))
    history = trainer.fit(
        problem.train, epochs=settings.epochs or 1, batch_size=settings.batch_size, validation_data=problem.test,
        callbacks=[HoldNorm(), course] if variant == "norm held" else [course], progress=bar,
    )  # fmt: skip
    metrics |= {f"train_{name}": value for name, value in trainer.evaluate(problem.train).items()}
    metrics |= {f"test_{name}": history[f"validation_{name}"][-1] for name in ("loss", "accuracy")}
    metrics |= {"dependency_initial": course.ratios[0], "dependency_final": course.ratios[-1]}
    weight = on_host(trainer, "0.weight")
    metrics["weight_mean_over_std"] = float(weight.mean() / weight.std())
    curves = {
        "train_loss": history["train_loss"], "test_accuracy": history["validation_accuracy"],
        "dependency_epoch": course.epochs, "dependency": course.ratios,
    }  # fmt: skip
    return Measured(metrics, curves, {"epoch": float(np.median(history["seconds"]))}, trained_in(trainer))


def _at_start(trainer: Trainer, problem: Problem) -> dict[str, float]:
    """E‖x¹‖² before training: by x ≈ ¼z + ½ (further study 1) from equation 5 alone, from the measured z, and measured.

    E‖x¹‖² ≈ s₁/4 + ¼ Σ E z + E‖z‖²/16, and E z = 0 as far as W¹ has mean 0. Measured over 10,000 samples at most.
    """
    weight, some, measured = on_host(trainer, "0.weight"), problem.train.x[:10_000], 0.0
    units, features = weight.shape
    independent = float(np.vdot(weight, weight)) / features * problem.x_square
    z_square = mean_square(weight, problem.second_moment)  # b¹ is 0 before training
    with trainer.backend.session():
        for start in range(0, len(some), 1000):
            z = some[start : start + 1000] @ trainer.model.parameters["0.weight"].T
            measured += float(((0.5 * trainer.backend.xp.tanh(0.5 * z) + 0.5) ** 2).sum())
    return {
        "hidden_square_independent": units / 4 + independent / 16,
        "hidden_square_linear": units / 4 + 0.25 * float((weight @ problem.mean).sum()) + z_square / 16,
        "hidden_square_measured": measured / len(some),
    }


@x.run
def body(run: Run) -> None:
    """Every kind of weights in every variant, and the sweep."""
    problem, settings = prepare(run.data, run.settings.hidden, run.backend), run.settings
    epochs = settings.epochs or default_epochs(len(problem.train), settings.batch_size)
    run.settings = settings = replace(settings, hidden=problem.units, epochs=epochs)
    for which, rows in problem.rows.items():
        run.note(svd={which: rows.found})
        run.result.time(which, svd=problem.times.median(which))
    for kind in ALL_KINDS:  # weights that cannot be made are named before an hour's training, not after
        first_weights(problem, settings, kind, 0)
    plan = [(kind, variant, settings) for variant in ("", "frozen", "norm held") for kind in ALL_KINDS]
    plan += [("orth-each", f"dep={d:g}", replace(settings, dependency=d)) for d in settings.dependencies]
    steps = problem.train.batches(settings.batch_size) * epochs
    for index, (kind, variant, own) in enumerate(plan):
        measure = partial(train_once, problem, own, kind, backend=run.backend, bar=run.bar, variant=variant)
        run.each_seed(f"{kind} {variant}".strip(), steps, measure, f"{index + 1}/{len(plan)}")
