"""The losses in NumPy: value, gradient and count of correct answers in one operation each.

A loss starts from z, the outputs before the last activation: softmax and sigmoid can then be joined with their
logarithms, which neither overflow nor lose the small probabilities.
"""

from __future__ import annotations

import math

import numpy as np

from gpunet.backend.base import CORRECT, FIRST_BAD, LOSS_SUM, SAMPLES, Array, In, Out
from gpunet.backend.cpu_memory import CpuMemory
from gpunet.errors import DataError

INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


class NumpyLosses(CpuMemory):
    """The part of NumpyBackend that computes losses."""

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        # Classes as rows: over a handful of classes NumPy's loops along the last axis are too short to be fast.
        n, k = z.shape
        self._check_classes(labels, k)
        work, row = self.scratch("classes as rows", (k, n), z.dtype), self.scratch("per sample", n, z.dtype)
        np.copyto(work, z.T)
        np.maximum.reduce(work, axis=0, out=row)
        np.subtract(work, row, out=work)
        places = self.scratch("places", n, np.int64)
        np.multiply(labels, n, out=places)
        np.add(places, self.constant("range", (n,), lambda: np.arange(n)), out=places)
        picked, flat = self.scratch("picked", n, z.dtype), work.reshape(-1)
        np.take(flat, places, out=picked, mode="clip")
        loss, correct = -float(np.add.reduce(picked)), self._count_largest(work, picked, z, labels)
        np.exp(work, out=work)
        np.add.reduce(work, axis=0, out=row)
        np.log(row, out=picked)
        loss += float(np.add.reduce(picked))
        np.divide(scale, row, out=row)
        np.multiply(work, row, out=work)
        np.take(flat, places, out=picked, mode="clip")
        np.subtract(picked, scale, out=picked)
        np.put(flat, places, picked, mode="clip")  # ∂L/∂z = softmax(z) − onehot(label)
        np.copyto(dz, work.T)
        self._add(totals, n, loss, correct)

    def _count_largest(self, below_top: Array, at_label: Array, z: Array, labels: Array) -> int:
        """How many labels have the largest output, the first of several equal ones; both relative to it, so ≤ 0.

        A sample with a NaN among its outputs has none: they are all NaN relative to it.
        """
        mask = self.scratch("is largest", below_top.shape, np.bool_)
        np.equal(below_top, 0, out=mask)
        if np.count_nonzero(mask) == len(at_label):  # no ties: `argmax` would be slower
            return len(at_label) - int(np.count_nonzero(at_label))
        answers = np.argmax(z, axis=1, out=self.scratch("answers", len(z), np.int64))
        right = np.equal(answers, labels, out=self.scratch("right", len(z), np.bool_))
        numbers = np.equal(at_label, at_label, out=self.scratch("numbers", len(z), np.bool_))
        return int(np.count_nonzero(np.logical_and(right, numbers, out=right)))

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._check_classes(labels, max(2, z.shape[1]))
        # −t log σ(z) − (1−t) log(1−σ(z)) = max(z, 0) + log(1 + e^−|z|) − t z
        np.abs(z, out=dz)
        np.negative(dz, out=dz)
        np.exp(dz, out=dz)
        np.add(dz, 1, out=dz)
        np.log(dz, out=dz)
        loss = float(np.add.reduce(dz, axis=None))
        np.maximum(z, 0, out=dz)
        loss += float(np.add.reduce(dz, axis=None)) - self._target_dot(z, labels)
        self.activate("sigmoid", z, dz)
        self._subtract_targets(dz, labels)  # equation (4) of document 000: ∂L/∂z = x² − y
        if scale != 1:
            np.multiply(dz, scale, out=dz)
        self._count(totals, loss, z, labels, threshold=0.0)

    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._check_classes(labels, max(2, z.shape[1]))
        y = self.scratch("outputs", z.shape, z.dtype)
        self.activate(activation, z, y)
        difference = self.scratch("difference", z.shape, z.dtype)
        np.copyto(difference, y)
        self._subtract_targets(difference, labels)
        flat = difference.reshape(-1)
        loss = 0.5 * float(np.dot(flat, flat))
        self.activation_backward(activation, y, difference, dz, None)
        if scale != 1:
            np.multiply(dz, scale, out=dz)
        self._count(totals, loss, y, labels, threshold=0.5)

    @staticmethod
    def _check_classes(labels: Array, classes: int) -> None:
        """DataError for a label that is none of the classes, which as a place would lie anywhere."""
        unsigned = labels.view(UINT64) if labels.dtype is INT64 else labels.astype(UINT64)  # −1 is huge
        if len(labels) and unsigned[row := unsigned.argmax()] >= classes:  # argmax: half the time of max
            raise DataError(f"label {labels[row]} of sample {row} of a batch: expected 0 to {classes - 1}")

    # -- targets: one-hot labels, or the label itself when there is one output ---------------------------------------

    def _label_places(self, a: Array, labels: Array) -> Array:
        """Places of a[i, labels[i]] in a.ravel()."""
        n, k = a.shape
        starts = self.constant("row starts", (n, k), lambda: np.arange(0, n * k, k, dtype=np.int64))
        return np.add(starts, labels, out=self.scratch("places", n, np.int64))

    def _subtract_targets(self, a: Array, labels: Array) -> None:
        """a −= t."""
        if a.shape[1] == 1:
            np.subtract(a[:, 0], labels, out=a[:, 0], casting="same_kind")
            return
        places = self._label_places(a, labels)
        picked = np.take(a.reshape(-1), places, out=self.scratch("picked", len(a), a.dtype), mode="clip")
        np.subtract(picked, 1, out=picked)
        np.put(a, places, picked, mode="clip")

    def _target_dot(self, z: Array, labels: Array) -> float:
        """Σ t z."""
        picked = self.scratch("picked", len(z), z.dtype)
        if z.shape[1] > 1:
            np.take(z.reshape(-1), self._label_places(z, labels), out=picked, mode="clip")
        else:
            np.multiply(z[:, 0], labels, out=picked, casting="same_kind")
        return float(np.add.reduce(picked))

    def _count(self, totals: Array, loss: float, scores: Array, labels: Array, threshold: float) -> None:
        """Add one batch to the totals; a lone output answers 1 above `threshold`, and NaN is no answer."""
        n, k = scores.shape
        answers = self.scratch("answers", n, np.int64)
        if k > 1:
            np.argmax(scores, axis=1, out=answers)
        else:
            np.greater(scores[:, 0], threshold, out=answers, casting="unsafe")
        right = np.equal(answers, labels, out=self.scratch("right", n, np.bool_))
        if not math.isfinite(loss):
            right &= ~np.isnan(scores).any(axis=1)
        self._add(totals, n, loss, int(np.count_nonzero(right)))

    @staticmethod
    def _add(totals: Array, n: int, loss: float, correct: int) -> None:
        """Add a batch of n to the totals, and mark it if it is the first whose loss is not finite."""
        if not math.isfinite(loss) and totals[FIRST_BAD] < 0:
            totals[FIRST_BAD] = totals[SAMPLES]
        totals[LOSS_SUM] += loss
        totals[CORRECT] += correct
        totals[SAMPLES] += n
