"""A model on a device, ready to look at data: everything a trainer does that changes no weight."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet import losses
from gpunet.backend import Backend, get_backend
from gpunet.backend.base import Array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.model import Sequential
from gpunet.samples import Samples, check_samples
from gpunet.tally import Tally

EVAL_BATCH = 1000  # samples at a time where nothing is trained


class Evaluator:
    """A model, its loss and a device; base of `Trainer`, which says what the arguments are."""

    def __init__(
        self, model: Sequential, loss: str | losses.Loss, *, device: str | Backend, dtype: str, seed: int
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype is 'float32' or 'float64', got {shown(dtype)}")
        self.model, self.loss = model, copy.copy(losses.resolve(loss))  # it learns of this model and device
        self.backend, self.dtype, self.seed = get_backend(device), dtype, seed
        self._ready: tuple[int, ...] | None = None
        self._room = 0  # samples that the workspace holds

    # -- preparation ------------------------------------------------------------------------------------------------

    def prepare(self, input_shape: tuple[int, ...]) -> None:
        """Draw the weights (unless the model has its own) and attach what belongs to it; later calls only check."""
        if self._ready is None:
            if not self.model.built:
                self.model.build(input_shape, self.backend, dtype=self.dtype, seed=self.seed)
            if (self.model.dtype, self.model.backend.name) != (self.dtype, self.backend.name):
                raise InputError(
                    f"the model holds {self.model.dtype} weights on {self.model.backend.name}, the trainer was asked "
                    f"for {self.dtype} on {self.backend.name}: give both the same dtype and device"
                )
            self._attach()
            self._ready = self.model.input_shape
        if tuple(input_shape) != self._ready:
            raise ShapeError(f"samples have shape {tuple(input_shape)}, the model was built for {self._ready}")

    def _attach(self) -> None:
        """What is to be done once, when the model has its weights."""
        self.loss.attach(self.backend, self.model.layers[-1].activation)
        self._looking = Tally(self.backend)

    def samples(self, x: Any, labels: Any = None, what: str = "data") -> Samples:
        """Check a data set against the model and put it on the device; without labels all are taken to be 0.

        They are copies, on the CPU too: to change x afterwards changes no samples. `fit`, `evaluate` and `predict` read
        an x on their device where it lies, and do not keep it.
        """
        return self._samples(x, labels, what, keep=True)

    def _samples(self, x: Any, labels: Any, what: str, keep: bool = False) -> Samples:
        if isinstance(x, Samples):
            if labels is not None:
                raise InputError(f"{what}: Samples hold their own labels, and others were given: leave those out")
            self.prepare(x.shape)
            return x
        x = check_samples(x, what)
        shape = tuple(x.shape[1:])
        if self.model.built:
            self.prepare(shape)
            output = self.model.output_shape
        else:  # asked, not built: data that is refused leaves the model open to others
            output = self.model.shapes(shape)[-1]
        if len(output) != 1:
            raise ShapeError(
                f"the model gives samples of shape {output}, expected a row of outputs: end it in Flatten() and "
                "Dense(classes)"
            )
        labels = np.zeros(len(x), np.int64) if labels is None else labels
        found = Samples.of(self.backend, x, labels, max(2, output[0]), what, dtype=self.dtype, copy=keep)
        self.prepare(shape)
        return found

    def _labelled(self, x: Any, y: Any, what: str) -> Samples:
        if y is None and not isinstance(x, Samples):
            raise InputError(f"{what} has no labels: give x and y, or Samples")
        return self._samples(x, y, what)

    def _workspace(self, batch: int) -> None:
        """Room for batches of `batch`; a larger one than before replaces it."""
        if batch <= self._room:
            return
        self.model.bind(batch)
        self._room = batch
        self._x = self.backend.empty((batch, *self.model.input_shape), self.dtype)
        self._labels = self.backend.empty(batch, "int64")

    # -- use ----------------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """{"loss", "accuracy"} over a data set: means over its samples."""
        data = self._labelled(x, y, "evaluation data")
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
        data = self._samples(x, None, "data")
        parts = [np.array(self.backend.to_host(self.model.activate_scores(z))) for z, _ in self._passes(data)]
        return np.concatenate(parts)

    def _passes(self, data: Samples) -> Iterator[tuple[Array, Array]]:
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
