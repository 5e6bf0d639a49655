"""The nets of toy: data sets, variants, training them as one stack, and a check of their gradients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunet.experiments.framework import Run
from gpunet.experiments.toy.stack import FloatArray, Trained, draw_weights, gradients, sigmoid_outputs, train
from gpunet.nn.init import InitName
from gpunet.rng import WEIGHTS, stream

TIMED_NETS, TIMED_STEPS = 3, 300  # from which the seconds of a step of one net alone are told


@dataclass(frozen=True)
class Variant:
    """One way to train: what its rows' names add to the data set's, and all settings."""

    word: str
    learning_rate: float
    threshold: float
    initial: InitName = "uniform_sigmoid"
    mean: bool = False


def variants(learning_rates: Sequence[float], threshold: float) -> list[Variant]:
    """The document's setting; zero weights; Glorot's without the factor 4; mean gradient; (y − t)²; other rates."""
    first, *others = dict.fromkeys(learning_rates)
    main = Variant("", first, threshold)
    return [
        main,
        replace(main, word="zeros", initial="zeros"),
        replace(main, word="glorot", initial="glorot_uniform"),
        replace(main, word="mean", mean=True),
        replace(main, word="unhalved", threshold=threshold / 2),
        *(replace(main, word=f"rate={rate:g}", learning_rate=rate) for rate in others),
    ]


@dataclass(frozen=True)
class Nets:
    """The nets of a run on one of its data sets, one a seed.

    x (samples, features) and labels (samples,), or each net's own; test: None where it is the same data.
    """

    run: Run
    name: str
    x: FloatArray
    labels: Any
    test: tuple[FloatArray, Any] | None

    @property
    def features(self) -> int:
        """Numbers a sample."""
        return int(self.x.shape[-1])

    def of(self, net: int) -> tuple[FloatArray, Any]:
        """The samples and labels of one net."""
        return (self.x, self.labels) if self.x.ndim == 2 else (self.x[net], self.labels[net])

    def start(self, variant: Variant, seeds: Sequence[int] | None = None) -> list[FloatArray]:
        """Stacked initial weights."""
        sizes = (self.features, *self.run.settings.hidden, 1)
        return draw_weights(sizes, seeds or self.run.seeds, variant.initial)

    def train(self, variant: Variant) -> tuple[Trained, float]:
        """All nets as one stack, and the seconds it took. Where they would all be the same, one is trained."""
        settings, seeds, bar, done = self.run.settings, self.run.seeds, self.run.bar, 0
        alike = variant.initial == "zeros" and self.x.ndim == 2
        rate = variant.learning_rate / (self.x.shape[-2] if variant.mean else 1)

        def on_mark(step: int, live: int) -> None:
            nonlocal done
            bar.advance(step - done, f"step {step}, {live} nets on their way")
            done = step

        began = time.perf_counter()
        trained = train(
            self.start(variant, seeds[:1] if alike else None), self.x, self.labels,
            learning_rate=rate, threshold=variant.threshold, limit=settings.limit, dtype=settings.dtype,
            on_mark=on_mark, device=self.run.backend,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        trained = _repeated(trained, len(seeds)) if alike else trained
        bar.advance(settings.limit - done, f"{np.count_nonzero(trained.converged)} of {len(seeds)} nets stopped")
        return trained, seconds

    def seconds_per_step_alone(self, variant: Variant) -> float:
        """Of one net that trains by itself, by the first few of them."""
        seconds, steps, settings = 0.0, 0, self.run.settings
        for net, seed in enumerate(self.run.seeds[:TIMED_NETS]):
            began, weights = time.perf_counter(), self.start(variant, [seed])
            alone = train(
                weights, *self.of(net), learning_rate=variant.learning_rate, threshold=variant.threshold,
                limit=min(settings.limit, TIMED_STEPS), dtype=settings.dtype, device=self.run.backend,
            )  # fmt: skip
            seconds += time.perf_counter() - began
            steps += 1 + int(alone.steps[0])  # the last one is only looked at
        return seconds / steps

    def held_out_accuracy(self, trained: Trained) -> FloatArray:
        """Of each net; that on the training samples where these are the test samples, too."""
        if self.test is None:
            return trained.accuracy
        x, labels = self.test
        each = zip(*trained.weights, strict=True)
        return np.array([np.mean((sigmoid_outputs([w[None] for w in net], x)[0] > 0.5) == labels) for net in each])

    def gradient_errors(self, weights: Sequence[FloatArray]) -> FloatArray:
        """Of each net, |∂L/∂W · v − its central difference| / (‖∂L/∂W‖ ‖v‖), v a random direction of the seed's own."""
        step, draws = 1e-5, [stream(seed, WEIGHTS, 100) for seed in self.run.seeds]
        along = [np.stack([draw.normal(size=w.shape[1:]) for draw in draws]) for w in weights]
        found = gradients(weights, self.x, self.labels)
        slope, norm, width = _dots(found, along), np.sqrt(_dots(found, found)), np.sqrt(_dots(along, along))
        moved = ([w + sign * v for w, v in zip(weights, along, strict=True)] for sign in (step, -step))
        misses = (sigmoid_outputs(each, self.x) - self.labels for each in moved)
        high, low = (0.5 * np.sum(miss**2, axis=1) for miss in misses)
        errors: FloatArray = np.abs(slope - (high - low) / (2 * step)) / np.maximum(norm * width, 1e-300)
        return errors


def prepare(run: Run, data: Any) -> Nets:
    """On a data set as float64; `linear` with each seed's own points."""
    from gpunet.datasets import linear

    if data.name == "linear":
        drawn = [linear(seed=seed) for seed in run.seeds]
        x, labels = (np.stack([getattr(each, part) for each in drawn]) for part in ("x_train", "y_train"))
        return Nets(run, data.name, x.astype(np.float64), labels, None)
    scale = 255 if data.x_train.dtype == np.uint8 else 1
    x, x_test = (np.asarray(given, np.float64) / scale for given in (data.x_train, data.x_test))
    same = np.array_equal(x, x_test) and np.array_equal(data.y_train, data.y_test)
    return Nets(run, data.name, x, data.y_train, None if same else (x_test, data.y_test))


def _dots(a: Sequence[FloatArray], b: Sequence[FloatArray]) -> FloatArray:
    """Of each net, the inner product over all layers."""
    return np.asarray(sum(np.einsum("noi,noi->n", x, y) for x, y in zip(a, b, strict=True)))


def _repeated(trained: Trained, nets: int) -> Trained:
    names = ("steps", "converged", "loss", "largest_loss", "accuracy", "course")
    each = {name: np.repeat(getattr(trained, name), nets, axis=-1) for name in names}
    return replace(trained, **each, weights=[np.repeat(w, nets, axis=0) for w in trained.weights])
