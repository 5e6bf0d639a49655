"""Training: batches in, history out. The inner loop only runs operations of the backend."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunet import losses
from gpunet.backend import Backend, get_backend
from gpunet.backend.base import Array
from gpunet.callbacks import Callback
from gpunet.errors import DivergedError, InputError, ShapeError
from gpunet.model import Sequential
from gpunet.optim import Adam, Optimizer
from gpunet.progress import Progress, progress
from gpunet.rng import BATCHES, stream
from gpunet.samples import Samples, sample_shape
from gpunet.tally import Tally

EVAL_BATCH = 1000  # samples at a time where nothing is trained
CHECK_EVERY = 64  # steps between looks at the loss on the CPU; a GPU is asked once an epoch


@dataclass
class History:
    """One entry an epoch: `history["train_loss"]` is a list; `seconds` is training time, validation not counted."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, metric: str) -> list[float]:
        return [epoch[metric] for epoch in self.epochs]


class Trainer:
    """Trains a model on one device.

    loss, optimizer: objects, or the loss's name; device: see `get_backend`; dtype "float32" or "float64"; seed ≥ 0
    decides initial weights and batches, the same on every device.

    x is (samples, …) of floats, or uint8, which stays uint8 in memory and is divided by 255 as batches are gathered;
    labels are integer classes (samples,). Raises InputError and its kin for data that does not fit the model.
    """

    def __init__(
        self,
        model: Sequential,
        loss: str | losses.Loss = "softmax_cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        device: str | Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype is 'float32' or 'float64', got {dtype!r}")
        self.model, self.loss, self.optimizer = model, losses.resolve(loss), optimizer or Adam()
        self.backend, self.dtype, self.seed = get_backend(device), dtype, seed
        self.epoch = 0  # epochs trained so far, over all calls of fit
        self._ready: tuple[int, ...] | None = None
        self._room = 0  # samples that the workspace holds
        self.batch_size = 0  # samples a step of the fit that runs, or ran last

    # -- preparation ------------------------------------------------------------------------------------------------

    def prepare(self, input_shape: tuple[int, ...]) -> None:
        """Draw the weights (unless the model has its own) and attach loss and optimiser; later calls only check."""
        if self._ready is None:
            if not self.model.built:
                self.model.build(input_shape, self.backend, dtype=self.dtype, seed=self.seed)
            if (self.model.dtype, self.model.backend.name) != (self.dtype, self.backend.name):
                raise InputError(
                    f"the model holds {self.model.dtype} weights on {self.model.backend.name}, the trainer was asked "
                    f"for {self.dtype} on {self.backend.name}: give both the same dtype and device"
                )
            self.loss.attach(self.backend, self.model.layers[-1].activation)
            self.optimizer.attach(self.backend, *self.model.flat)
            self._followed = len(self.model.migrations)
            # Two: callbacks may evaluate in the middle of an epoch.
            self.tally, self._looking = Tally(self.backend), Tally(self.backend)
            self._ready = self.model.input_shape
        if tuple(input_shape) != self._ready:
            raise ShapeError(f"samples have shape {tuple(input_shape)}, the model was built for {self._ready}")

    def samples(self, x: Any, labels: Any = None, what: str = "data") -> Samples:
        """Check a data set against the model and put it on the device; without labels all are taken to be 0."""
        if isinstance(x, Samples):
            self.prepare(x.shape)
            return x
        self.prepare(sample_shape(x, what))
        (outputs,) = self.model.output_shape
        labels = np.zeros(len(x), np.int64) if labels is None else labels
        return Samples.of(self.backend, x, labels, max(2, outputs), what)

    def _workspace(self, batch: int) -> None:
        """Room for batches of `batch`; a larger one than before replaces it."""
        if batch <= self._room:
            return
        self.model.bind(batch)
        self._room = batch
        self._x = self.backend.empty((batch, *self.model.input_shape), self.dtype)
        self._labels = self.backend.empty(batch, "int64")

    # -- training ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 64,
        validation_data: tuple[Any, Any] | Samples | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | Progress = False,
    ) -> History:
        """Train for `epochs` passes over the data, reshuffled each time; a last short batch is used as it is.

        Returns the history with `train_loss` and `train_accuracy` (over the epoch, while it was learning), `seconds`,
        and `validation_loss`, `validation_accuracy` where validation data is given.
        Raises DivergedError when the loss becomes NaN or infinite.
        """
        if epochs < 0 or batch_size < 1:
            raise InputError(f"expected epochs ≥ 0 and batch_size ≥ 1, got {epochs} and {batch_size}")
        train = self.samples(x, y, "training data")
        held_out = validation_data
        if isinstance(held_out, tuple):
            held_out = self.samples(*held_out, "validation data")
        self.batch_size = batch_size = min(batch_size, len(train))
        self._workspace(max(batch_size, min(EVAL_BATCH, len(held_out)) if held_out is not None else 0))
        per_epoch = train.batches(batch_size)
        events = _events(callbacks, epochs * per_epoch)
        history = History()
        for callback in callbacks:
            callback.on_fit_begin(self)
        own = not isinstance(progress, Progress)
        bar = _progress(progress)
        try:
            bar.start("training", epochs * per_epoch) if own else None
            for done in range(epochs):
                logs = self._epoch(train, batch_size, events, done * per_epoch, bar)
                if held_out is not None:
                    logs |= {f"validation_{name}": value for name, value in self.evaluate(held_out).items()}
                history.epochs.append(logs)
                for callback in callbacks:
                    callback.on_epoch_end(self, self.epoch - 1, logs)
        finally:
            bar.close() if own else None
        for callback in callbacks:
            callback.on_fit_end(self)
        return history

    def _epoch(
        self, train: Samples, batch: int, events: dict[int, list[Callback]], first: int, bar: Progress
    ) -> dict[str, float]:
        """One pass over the data; returns its entry of the history."""
        order = self.backend.asarray(stream(self.seed, BATCHES, self.epoch).permutation(len(train)))
        self.tally.reset()
        paused, steps = 0.0, train.batches(batch)
        look = CHECK_EVERY if self.backend.name == "cpu" else steps
        with self.backend.session():
            self.backend.synchronize()
            began = time.perf_counter()
            for step in range(steps):
                if first + step in events:
                    pause = time.perf_counter()
                    for callback in events[first + step]:
                        callback.on_step(self, first + step)
                    paused += time.perf_counter() - pause
                self.step(train, order, min(batch, len(train) - step * batch))
                if (step + 1) % look == 0:
                    bar.advance(look, self._note(batch))
            self.backend.synchronize()
        seconds = time.perf_counter() - began - paused
        bar.advance(steps % look, self._note(batch))
        self.epoch += 1
        loss, accuracy = self.tally.means()
        return {"train_loss": loss, "train_accuracy": accuracy, "seconds": seconds}

    def step(self, train: Samples, order: Array, n: int) -> None:
        """One optimiser step on the next n samples of `order`: nothing here allocates, or waits for the device."""
        if self._followed != len(self.model.migrations):
            self._follow()
        self.model.use(n)
        x, labels, ops = self._x[:n], self._labels[:n], self.backend
        ops.gather(train.x, order, self.tally.cursor, train.scale, x)
        ops.gather(train.labels, order, self.tally.cursor, 1, labels)
        z = self.model.forward(x)
        self.loss(z, labels, self.model.d_scores, self.tally.totals)
        self.model.backward(self.model.d_scores)
        self.optimizer.step()
        ops.advance(self.tally.cursor, n)

    def _follow(self) -> None:
        """Take the optimiser's state to where the model's replaced layers left their parameters."""
        params, grads, _ = self.model.flat
        self.optimizer.migrate(self.model.migrations[self._followed :], params, grads)
        self._followed = len(self.model.migrations)

    def _note(self, batch: int) -> str:
        """How training goes; raises DivergedError when it does not."""
        bad = self.tally.first_bad()
        if bad >= 0:
            raise DivergedError(
                f"the loss became NaN or infinite in epoch {self.epoch + 1}, step {bad // batch + 1}, at learning "
                f"rate {self.optimizer.learning_rate:g}: lower the learning rate, or look at the data's scale"
            )
        return f"epoch {self.epoch + 1}  loss {self.tally.means()[0]:.4g}"

    # -- use ----------------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """{"loss", "accuracy"} over a data set: means over its samples."""
        data = self.samples(x, y, "evaluation data")
        for z, labels in self._passes(data):
            self.loss(z, labels, self.model.d_scores, self._looking.totals)
        loss, accuracy = self._looking.means()
        return {"loss": loss, "accuracy": accuracy}

    def predict(self, x: Any) -> np.ndarray[Any, Any]:
        """The class of each sample, int64 (samples,): the largest output, or a lone output rounded."""
        outputs = self.outputs(x)
        if outputs.shape[1] > 1:
            return np.asarray(outputs.argmax(axis=1))
        return (outputs[:, 0] > 0.5).astype(np.int64)

    def outputs(self, x: Any) -> np.ndarray[Any, Any]:
        """The model's outputs f(z), (samples, outputs) on the host; logits where the last layer has no activation."""
        data = self.samples(x)
        parts = [np.array(self.backend.to_host(self.model.activate_scores(z))) for z, _ in self._passes(data)]
        return np.concatenate(parts)

    def _passes(self, data: Samples) -> Any:
        """Scores and labels of the data, a batch at a time, in order."""
        batch = min(EVAL_BATCH, len(data))
        self._workspace(batch)
        order = self.backend.asarray(np.arange(len(data)))
        cursor = self._looking.cursor
        self._looking.reset()
        with self.backend.session():
            for start in range(0, len(data), batch):
                n = min(batch, len(data) - start)
                self.model.use(n)
                self.backend.gather(data.x, order, cursor, data.scale, self._x[:n])
                self.backend.gather(data.labels, order, cursor, 1, self._labels[:n])
                yield self.model.forward(self._x[:n]), self._labels[:n]
                self.backend.advance(cursor, n)


_progress = progress  # `fit` has a parameter of that name


def _events(callbacks: Sequence[Callback], total: int) -> dict[int, list[Callback]]:
    """For each step, the callbacks that asked for it."""
    events: dict[int, list[Callback]] = {}
    for callback in callbacks:
        for step in callback.steps(total):
            events.setdefault(int(step), []).append(callback)
    return events
