"""Figures 1 and 2 of document 002: which layers converge first, and how the density matrix fluctuates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.experiments.framework import Measured, Run, trained_in
from gpunet.linalg import svd
from gpunet.linalg.solvers import leading as leading_eigenpairs
from gpunet.nn.callbacks import Callback, Training
from gpunet.nn.trainer import Trainer

BATCH = 64  # δN, the document's; less where a class has not fifty times as many samples
STEPS = 1500
LEARNING_RATE = 0.1  # of plain SGD: our choice
EARLY = 0.2  # of the steps: the document's "early stages"
LAYERS = 4
WIDTHS = {"mnist": 81}  # units; 100 on everything else, as on CIFAR
LEADING = 10  # eigenvalues whose fluctuations are looked at


class Rates(Callback):
    """λ = ‖Δw‖/‖w‖ of the first LAYERS weights, step by step."""

    def on_fit_begin(self, trainer: Training) -> None:
        self.weights = [p for name, p in trainer.model.parameters.items() if name.endswith("weight")][:LAYERS]
        self.before = [w.copy() for w in self.weights]
        self.rates: list[list[float]] = []

    def steps(self, total: int) -> range:
        return range(1, total)

    def on_step(self, trainer: Training, step: int) -> None:
        norm, pairs = trainer.backend.xp.linalg.norm, list(zip(self.weights, self.before, strict=True))
        self.rates.append([float(norm(w - old) / norm(old)) for w, old in pairs])
        for w, old in pairs:
            old[...] = w

    def on_fit_end(self, trainer: Training) -> None:
        self.on_step(trainer, 0)


def convergence(run: Run) -> None:
    """Figure 1: the rates of four dense layers of equal width, less their mean over the layers, relative to it.

    Adds the row "convergence" with each layer's mean de-trended rate over the early steps, and curves.
    """
    images, units = run.data, WIDTHS.get(run.dataset, 100)
    batches = math.ceil(len(images.x_train) / BATCH)
    epochs = max(1, round(STEPS / batches))

    def rates_of(seed: int) -> Measured:
        layers = [*(gn.Dense(units, "relu") for _ in range(LAYERS)), gn.Dense(images.classes)]
        trainer = Trainer(
            gn.Sequential(layers, scale=images.scale), optimizer=gn.SGD(LEARNING_RATE), device=run.backend, seed=seed,
            precision=run.settings.precision,
        )  # fmt: skip
        watch, data = Rates(), (images.x_train, images.y_train)
        trainer.fit(*data, epochs=epochs, batch_size=BATCH, callbacks=watch, progress=run.bar)
        rates = np.array(watch.rates)
        detrended = rates / rates.mean(axis=1, keepdims=True) - 1
        early = detrended[: max(1, round(EARLY * len(detrended)))].mean(axis=0)
        metrics = {f"early_rate_{i + 1}": float(rate) for i, rate in enumerate(early)}
        return Measured(metrics, {"detrended_rate": _moving_average(detrended).tolist()}, notes=trained_in(trainer))

    run.each_seed("convergence", batches * epochs, rates_of, "Figure 1, four dense layers:")
    run.result.curves["convergence"]["units"] = units


def _moving_average(rates: Any, window: int = 25) -> Any:
    """(steps, layers) averaged over `window` steps, every fifth of them."""
    window = min(window, len(rates))
    kernel = np.ones(window) / window
    return np.stack([np.convolve(column, kernel, "valid") for column in rates.T], axis=1)[::5]


def fluctuations(run: Run) -> None:
    """Figure 2: steps δλ of the leading eigenvalues' estimates, as samples of the largest class arrive in batches.

    λ_μ(N) = mean of (v_μ·x)² over the first N samples, v_μ the eigenvectors of ρ of all of them. Adds the row
    "fluctuations": the slope of log|δλ|/λ against log N (the document: −1), and the deviation of δλ·N/λ early and late,
    which has to stay the same.
    """
    images = run.data
    label = int(np.bincount(images.y_train).argmax())
    own = images.x_train[images.y_train == label].reshape(-1, math.prod(images.shape)).astype(np.float64) * images.scale
    batch = max(1, min(BATCH, len(own) // 50))
    if len(own) < own.shape[1]:  # by the smaller side: of a photo ρ is larger than all of them
        leading = svd(own, min(LEADING, len(own)), compute="right").vt.T
    else:
        leading = leading_eigenpairs(own.T @ own / len(own), min(LEADING, own.shape[1]))[1]
    for seed in run.seeds:
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(own))
        squares = (own[order] @ leading) ** 2
        counts = np.arange(batch, len(own) + 1, batch)
        estimates = np.cumsum(squares, axis=0)[counts - 1] / counts[:, None]
        steps, n = np.diff(estimates, axis=0), counts[1:, None]
        scaled = steps * n / estimates[1:]
        third = max(1, len(n) // 3)
        relative = np.sqrt(((steps / estimates[1:]) ** 2).mean(axis=1))
        slope = np.polyfit(np.log(n[:, 0]), np.log(relative), 1)[0] if len(n) > 2 else 0.0
        run.result.row("fluctuations").add(
            slope=slope, deviation_early=scaled[:third].std(), deviation_late=scaled[-third:].std(),
            outside_two_deviations=(np.abs(scaled) > 2 * scaled.std()).mean(),
        )  # fmt: skip
        if seed == run.seeds[0]:
            run.result.curves["fluctuations"] = {
                "samples": n[:, 0].tolist(), "relative": relative.tolist(), "scaled": scaled.ravel().tolist(),
                "label": label,
            }  # fmt: skip
