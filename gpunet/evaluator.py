"""A model on a device, ready to look at data: everything a trainer does that changes no weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet import losses
from gpunet.backend import Backend, get_backend
from gpunet.backend.base import Array
from gpunet.checks import DTYPES, check_finite, check_one_of, check_shape, check_text, check_whole, fixed, setting
from gpunet.errors import DataError, DivergedError, InputError, ShapeError
from gpunet.model import Sequential, check_model
from gpunet.samples import Samples, check_samples
from gpunet.tally import Tally

EVAL_BATCH = 1000  # samples at a time where nothing is trained


class Evaluator:
    """A model, its loss and a device; base of `Trainer`, which says what the arguments are."""

    model: Sequential = fixed("make another one for another model")
    backend: Backend = fixed("make another one for another device")
    dtype: str = fixed("make another one for another dtype")
    seed: int = setting(check_whole, least=0)

    def __init__(
        self, model: Sequential, loss: str | losses.Loss, *, device: str | Backend, dtype: str, seed: int
    ) -> None:
        self.dtype = check_one_of("dtype", dtype, DTYPES)
        self.model = check_model(model)
        self.backend, self.seed = get_backend(device), seed
        self._life: object = None  # the model's, since it was built, that belongs to what is attached
        self._room = 0  # samples that the workspace holds
        self.loss = losses.resolve(loss)

    @property
    def loss(self) -> losses.Loss:
        """A copy of the loss that was given, or set: it learns of this model and device."""
        return self._loss.held()  # of a trainer that was copied, too

    @loss.setter
    def loss(self, loss: str | losses.Loss) -> None:
        own = losses.resolve(loss).given()
        if self._life is not None:
            own.attach(self.backend, self.model.layers[-1].activation)
        self._loss = own

    # -- preparation ------------------------------------------------------------------------------------------------

    def prepare(self, input_shape: tuple[int, ...]) -> None:
        """Draw the weights (unless the model has its own) and attach what belongs to it; later calls only check."""
        input_shape, model = check_shape("input_shape", input_shape), self.model
        if self._life is not model.migrations or not model.built:  # built, or built again, since the last look
            with model.alone():
                self._join(input_shape)
        if input_shape != model.input_shape:
            raise ShapeError(f"samples have shape {input_shape}, the model was built for {model.input_shape}")

    def _join(self, input_shape: tuple[int, ...]) -> None:
        """Build the model where that is to be done, and attach to it."""
        model = self.model
        if not model.built:
            model.build(input_shape, self.backend, dtype=self.dtype, seed=self.seed)
        if (model.dtype, model.backend.name) != (self.dtype, self.backend.name):
            raise InputError(
                f"the model holds {model.dtype} weights on {model.backend.name}, the trainer was asked "
                f"for {self.dtype} on {self.backend.name}: give both the same dtype and device"
            )
        self._attach()
        self._life, self._room = model.migrations, 0

    def _attach(self) -> None:
        """What is to be done once, when the model has its weights."""
        self.loss.attach(self.backend, self.model.layers[-1].activation)
        self._looking = Tally(self.backend)

    def samples(self, x: Any, labels: Any = None, what: str = "data") -> Samples:
        """Check a data set against the model and put it on the device; without labels it is for `predict` alone.

        They are copies, on the CPU too: to change x afterwards changes no samples. `fit`, `evaluate` and `predict` read
        an x on their device where it lies, and do not keep it.
        """
        return self._samples(x, labels, what, keep=True)

    def _samples(self, x: Any, labels: Any, what: str, keep: bool = False, labelled: bool = False) -> Samples:
        check_text("what", what)
        if isinstance(x, Samples):
            if labels is not None:
                raise InputError(f"{what}: Samples hold their own labels, and others were given: leave those out")
            outputs = self._outputs(x.shape)
            self._check_place(x, what)
            if labelled:
                self._check_classes(x, self.loss.classes(outputs), what)
            self.prepare(x.shape)
            return x
        if labelled and labels is None:
            raise InputError(f"{what} has no labels: give x and y, or Samples made of both")
        x = check_samples(x, what)
        shape = tuple(x.shape[1:])
        outputs = self._outputs(shape)
        classes = None if labels is None else self.loss.classes(outputs)
        found = Samples.of(self.backend, x, labels, classes, what, dtype=self.dtype, copy=keep)
        self.prepare(shape)
        return found

    def _check_place(self, data: Samples, what: str) -> None:
        """That this model can take the samples, whoever made them; InputError or DataError otherwise."""
        if data.device != self.backend.name:
            raise InputError(
                f"{what}: these Samples lie on {data.device}, the model on {self.backend.name}: give x and y"
            )
        if self.dtype == "float32" != data.dtype:
            check_finite(data.x, what, self.dtype)

    @staticmethod
    def _check_classes(data: Samples, classes: int, what: str) -> None:
        """That there are labels, and all below `classes`; InputError or DataError otherwise."""
        if data.labels is None:
            raise InputError(f"{what} has no labels: give x and y, or Samples made of both")
        if data.classes > classes:
            raise DataError(f"{what}: label {data.classes - 1} is out of range: expected 0 to {classes - 1}")

    def _outputs(self, shape: tuple[int, ...]) -> int:
        """How many outputs the model has for samples of that shape; what does not fit is refused before it is built."""
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
        return output[0]

    def _labelled(self, x: Any, y: Any, what: str) -> Samples:
        return self._samples(x, y, what, labelled=True)

    def _workspace(self, batch: int) -> None:
        """Room for batches of `batch`; a larger one than before replaces it."""
        self.model.bind(batch)
        if batch <= self._room:
            return
        self._x = self.backend.empty((batch, *self.model.input_shape), self.dtype)
        self._labels = self.backend.empty(batch, "int64")
        self._room = batch  # now that it is there: memory may be full, or Ctrl-C come

    # -- use ----------------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """{"loss", "accuracy"} over a data set: means over its samples."""
        with self.model.alone():
            data = self._labelled(x, y, "evaluation data")
            for z, labels in self._passes(data):
                self.loss(z, labels, self.model.d_scores, self._looking.totals)
            loss, accuracy = self._looking.means()
        return {"loss": loss, "accuracy": accuracy}

    def predict(self, x: Any) -> np.ndarray[Any, Any]:
        """The class of each sample, int64 (samples,): the largest output, or a lone output rounded.

        Raises DivergedError where an output is NaN: it is of no class.
        """
        outputs = self.outputs(x)
        if (missing := np.isnan(outputs).any(axis=1)).any():
            raise DivergedError(
                f"sample {int(missing.argmax())} has outputs that are NaN: the weights have diverged; train again at a "
                "lower learning rate"
            )
        if outputs.shape[1] > 1:
            return np.asarray(outputs.argmax(axis=1))
        return (outputs[:, 0] > 0.5).astype(np.int64)

    def outputs(self, x: Any) -> np.ndarray[Any, Any]:
        """The model's outputs f(z), (samples, outputs) on the host; logits where the last layer has no activation."""
        with self.model.alone():
            data = self._samples(x, None, "data")
            parts = [np.array(self.backend.to_host(self.model.activate_scores(z))) for z, _ in self._passes(data)]
        return np.concatenate(parts)

    def _passes(self, data: Samples) -> Iterator[tuple[Array, Array]]:
        """Scores of the data, and labels where it has any, a batch at a time, in order."""
        batch = min(EVAL_BATCH, len(data))
        self._workspace(batch)
        order = self.backend.asarray(np.arange(len(data)))
        cursor = self._looking.cursor
        self._looking.reset()
        with self.backend.session():
            for start in range(0, len(data), batch):
                n = min(batch, len(data) - start)
                self.model.use(n)
                labels = None if data.labels is None else self._labels[:n]
                self.backend.take_batch(data.x, data.labels, order, cursor, data.scale, self._x[:n], labels, None)
                yield self.model.forward(self._x[:n]), labels
