"""svd-init: five kinds of W¹ (Table 1), each also frozen and with ‖W‖ held, and a sweep of the initial dependency.

784-100-10, sigmoid twice, binary cross-entropy summed over the outputs. The dependency between W¹ and the data is
measured while training (Figure 2, equation 7), and E‖x¹‖² by the linearised sigmoid beside the measured one.

`chosen.py` looks at the settings that the document leaves open, on a validation split.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.callbacks import Callback
from gpunet.experiments.framework import Measured, Run
from gpunet.experiments.svd_init import Settings, x
from gpunet.experiments.svd_init.callbacks import Course, HoldNorm, on_host
from gpunet.experiments.svd_init.data import Problem, prepare
from gpunet.progress import Progress
from gpunet.rng import WEIGHTS, stream
from gpunet.samples import Samples
from gpunet.spectral.svd_weights import KINDS, FloatArray, svd_weights
from gpunet.train import Trainer

ALL_KINDS = ("random", *KINDS)


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
    return gn.Sequential(
        [
            gn.Dense(len(w1), "sigmoid", weight=w1, trainable=not frozen),
            gn.Dense(problem.classes, "sigmoid", weight=w2, bias=-0.5 * w2.sum(axis=1)),
        ]
    )


def train_once(
    problem: Problem, settings: Settings, kind: str, seed: int, backend: Backend, bar: Progress, variant: str = ""
) -> Measured:
    """Train one kind with one seed; variant "", "frozen" or "norm held"."""
    w1 = first_weights(problem, settings, kind, seed)
    model = network(w1, problem, settings, seed, frozen=variant == "frozen")
    loss = gn.BinaryCrossEntropy()
    trainer = Trainer(model, loss, gn.SGD(settings.learning_rate), device=backend, seed=seed)
    course = Course(problem, problem.train.batches(settings.batch_size))
    callbacks: list[Callback] = [course] if variant != "norm held" else [HoldNorm(), course]
    trainer.prepare(problem.train.shape)
    metrics = _at_start(course, trainer, problem)
    history = trainer.fit(
        problem.train, epochs=settings.epochs or 1, batch_size=settings.batch_size, callbacks=callbacks,
        validation_data=problem.test, progress=bar,
    )  # fmt: skip
    train = trainer.evaluate(problem.train)
    metrics |= {
        "train_loss": train["loss"],
        "train_accuracy": train["accuracy"],
        "test_loss": history["validation_loss"][-1],
        "test_accuracy": history["validation_accuracy"][-1],
        "dependency_initial": course.ratios[0],
        "dependency_final": course.ratios[-1],
        "weight_mean_over_std": _mean_over_std(trainer),
    }
    curves = {
        "train_loss": history["train_loss"], "test_accuracy": history["validation_accuracy"],
        "dependency_epoch": course.epochs, "dependency": course.ratios,
    }  # fmt: skip
    return Measured(metrics, curves, {"epoch": float(np.median(history["seconds"]))})


def _at_start(course: Course, trainer: Trainer, problem: Problem) -> dict[str, float]:
    """E‖x¹‖² before training: by x ≈ ¼z + ½ (further study 1) from equation 5 alone, from the measured z, and measured.

    E‖x¹‖² ≈ s₁/4 + ¼ Σ E z + E‖z‖²/16, and E z = 0 as far as W¹ has mean 0.
    """
    _, z_square = course.measure(trainer)
    weight = on_host(trainer, "0.weight")
    units = len(weight)
    independent = float(np.vdot(weight, weight)) / weight.shape[1] * problem.x_square
    return {
        "hidden_square_independent": units / 4 + independent / 16,
        "hidden_square_linear": units / 4 + 0.25 * float((weight @ problem.mean).sum()) + z_square / 16,
        "hidden_square_measured": _hidden_square(trainer, problem.train),
    }


def _mean_over_std(trainer: Trainer) -> float:
    weight = on_host(trainer, "0.weight")
    return float(weight.mean() / weight.std())


def _hidden_square(trainer: Trainer, data: Samples, samples: int = 10_000) -> float:
    """Mean of ‖x¹‖² over the first samples of the data."""
    xp, parameters = trainer.backend.xp, trainer.model.parameters
    total, count = 0.0, min(samples, len(data))
    for start in range(0, count, 1000):
        z = data.x[start : min(start + 1000, count)] @ parameters["0.weight"].T + parameters["0.bias"]
        hidden = 0.5 * xp.tanh(0.5 * z) + 0.5
        total += float((hidden * hidden).sum())
    return total / count


@x.run
def body(run: Run) -> None:
    """Every kind of weights in every variant, and the sweep."""
    problem, settings = prepare(run.data, run.settings.hidden, run.backend), run.settings
    epochs = settings.epochs or default_epochs(len(problem.train), settings.batch_size)
    run.settings = settings = replace(settings, hidden=problem.units, epochs=epochs)
    run.note(svd=problem.found)
    for which, seconds in problem.seconds.items():
        run.result.time(which, svd=seconds)
    for kind in ALL_KINDS:  # weights that cannot be made are named before an hour's training, not after
        first_weights(problem, settings, kind, 0)
    plan = [(kind, variant, settings) for variant in ("", "frozen", "norm held") for kind in ALL_KINDS]
    plan += [("orth-each", f"dep={d:g}", replace(settings, dependency=d)) for d in settings.dependencies]
    steps = problem.train.batches(settings.batch_size) * epochs
    for index, (kind, variant, own) in enumerate(plan):

        def measure(seed: int, kind: str = kind, variant: str = variant, own: Settings = own) -> Measured:
            return train_once(problem, own, kind, seed, run.backend, run.bar, variant)

        run.each_seed(f"{kind} {variant}".strip(), steps, measure, f"{index + 1}/{len(plan)}")
