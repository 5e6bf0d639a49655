"""A network that can be run and rebuilt, whoever's it is: what compressing needs to know of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpunet.checks import check_labels
from gpunet.compression.told import Told
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import DataError, GpunetError, InputError, first_line, shown
from gpunet.linalg import StreamingGram
from gpunet.linalg.matrix import WHOLE_ELEMENTS
from gpunet.nn.predict import EVAL_BATCH
from gpunet.progress import Progress
from gpunet.rng import DATA, stream

MOST_ROWS = 1 << 14  # positions of a batch's maps, or tokens, that a layer's inputs are summed over


class Network(ABC):
    """A network whose weights may be cut. Its own is never changed.

    model: as it came; it is only run. weights: by the layers' names, in their order. kept: which of these layers cannot
    be cut, and why.
    """

    model: Any
    weights: dict[str, Weight]
    kept: dict[str, str]

    def batches(self, data: Any, size: int = EVAL_BATCH) -> Iterator[Any]:
        """Data, a batch at a time, of `size` where the data does not say it; `run` takes each."""
        x = check_data(data)
        for start in range(0, len(x), size):
            yield x[start : start + size]

    @abstractmethod
    def run(self, model: Any, batch: Any) -> Any:
        """What the model gives for a batch, in evaluation mode, and when it is there."""

    @abstractmethod
    def watching(self, names: Iterable[str], see: Callable[[str, Any], None], batch: Any) -> int:
        """Run a batch, say what each of these layers is given (images or rows, on the host); samples in it."""

    @abstractmethod
    def rows(self, name: str, given: Any) -> Iterator[Any]:
        """What a layer's weight is multiplied with, (rows, in) at a time, of what the layer was given."""

    @abstractmethod
    def rebuilt(self, factors: Mapping[str, Factors]) -> Any:
        """A network of the same kind with those layers cut, on its device, in its dtype."""

    @abstractmethod
    def size(self, model: Any) -> int:
        """Numbers in the model's parameters, shared ones once."""

    @abstractmethod
    def layer(self, name: str, factors: Factors | None, batch: Any) -> Callable[[], object]:
        """One layer alone, as it is or cut, on inputs as `batch` gave them: to be timed."""

    def scores(self, found: Any) -> Any:
        """What `run` gave as an array (n, classes) on the host."""
        return found

    def accuracy(self, model: Any, x: Any, y: Any) -> np.ndarray[Any, Any]:
        """1 where the largest output is the label, 0 where not, a number a sample."""
        return hits(np.concatenate([self.scores(self.run(model, batch)) for batch in self.batches((x, y))]), y)

    def evaluating(self, model: Any) -> AbstractContextManager[Any]:
        """The model in evaluation mode, and afterwards in its own."""
        return nullcontext()

    def untouched(self) -> AbstractContextManager[Any]:
        """What compressing must leave as it was, whatever it runs: random numbers of a library's own."""
        return nullcontext()

    def watching_weights(self, batch: Any) -> None:  # noqa: B027  # most cannot be looked into
        """Run a batch, and keep layers that cannot be cut since something else looks into them."""

    def check(self, model: Any, names: Iterable[str], batch: Any) -> None:
        """InputError where the new network cannot be run, or does not run the layers that were cut."""
        self.run(model, batch)

    def keep(self, model: Any, said: dict[str, Any], batch: Any) -> Any:
        """The model with what was done, `said`, in its attribute `compression`."""
        model.compression = Told(said)
        return model

    @property
    def open(self) -> dict[str, Weight]:
        """The weights that may be cut."""
        return {name: weight for name, weight in self.weights.items() if name not in self.kept}

    def calibrate(self, data: Any, size: int = EVAL_BATCH, bar: Progress | None = None) -> tuple[int, Any]:
        """Sum up the inputs of all layers; the samples seen, and the first batch of them.

        Layers that were never run are kept as they are.
        """
        sums = {name: StreamingGram() for name in self.open}
        seen, summed = dict.fromkeys(sums, 0), dict.fromkeys(sums, 0)
        samples = 0
        first: Any = None

        def see(name: str, given: Any) -> None:
            try:
                for rows in self.rows(name, given):
                    some = _some(rows)
                    sums[name].update(some)
                    seen[name] += len(rows)
                    summed[name] += len(some)
            except InputError as error:
                raise DataError(f"what the calibration data gives the layer {name!r} cannot be used: {error}") from None

        bar = bar or Progress()
        x = data[0] if isinstance(data, tuple) and data else data
        bar.start("samples", len(x) if getattr(x, "shape", ()) else 0)  # how many batches bring is not known
        for batch in self.batches(data, size):
            try:
                if first is None:
                    first = batch
                    self.watching_weights(batch)
                samples += (seen_now := self.watching(sums, see, batch))
                bar.advance(seen_now)
            except GpunetError:
                raise
            except Exception as error:  # of the model's own code
                raise InputError(f"the model cannot be run on the data: {first_line(error)}") from error
        if samples < 2:
            raise InputError(f"data has {samples} samples: expected some hundred, as the network is to see them")
        for name, gram in sums.items():
            if name in self.kept:
                continue
            if seen[name]:
                self.weights[name].look(gram, seen[name] / samples, summed[name] / seen[name])
            else:
                self.kept[name] = "no calibration data came to it"
        return samples, first


def hits(scores: Any, y: Any) -> np.ndarray[Any, Any]:
    """1 where the largest of a sample's scores (n, classes) is that of its label, 0 where not."""
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(
            f"the network's outputs have shape {scores.shape}: evaluate=(x, y) takes the largest of several outputs of "
            "a sample for its class; give evaluate a function of the model"
        )
    if getattr(y, "ndim", 1) == 2 and not bool(((y == 0) | (y == 1)).all()):  # nor one-hot
        raise InputError(
            "evaluate=(x, y) counts right classes, and y holds values: give evaluate a function of the model, of which "
            "more is better"
        )
    return np.asarray(scores.argmax(axis=1) == check_labels(y, scores.shape[1], "evaluate"), np.float64)


def check_data(data: Any) -> Any:
    """The samples of x, or of (x, y); InputError where they are none."""
    x = data[0] if isinstance(data, tuple) and data else data
    if len(getattr(x, "shape", ())) < 2 or not len(x):
        raise InputError(f"data is {shown(data)}: expected samples (n, …), or (x, y) of them")
    return x


def given_of(batch: Any) -> Any:
    """What a network is given of a batch, which may have labels beside it."""
    return batch[0] if isinstance(batch, list | tuple) else batch


def length(batch: Any) -> int:
    """Samples of a batch."""
    given = given_of(batch)
    return len(next(iter(given.values())) if isinstance(given, Mapping) else given)


def _some(rows: Any) -> Any:
    """MOST_ROWS of the rows, drawn evenly, in their order: the same ones each time."""
    if len(rows) <= MOST_ROWS:
        return rows
    chosen = stream(0, DATA, 20).choice(len(rows), MOST_ROWS, replace=False)
    return rows[np.sort(chosen)]


def patch_rows(
    images: Any, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> Iterator[Any]:
    """Patches that a convolution multiplies its kernels with, of images (n, c, h, w): (positions, c · kh · kw)."""
    (kh, kw), (dh, dw) = kernel, dilation
    one = images.shape[1] * kh * kw * images.shape[2] * images.shape[3] // (stride[0] * stride[1])
    step = max(1, WHOLE_ELEMENTS // max(1, one))
    for start in range(0, len(images), step):
        part = np.pad(images[start : start + step], ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(part, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
        windows = windows[:, :, :: stride[0], :: stride[1], ::dh, ::dw].transpose(0, 2, 3, 1, 4, 5)
        yield windows.reshape(-1, images.shape[1] * kh * kw)
