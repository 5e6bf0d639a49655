"""What a model gives for samples: its outputs, a batch at a time, and the classes or values that these say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import check_finite
from gpunet.errors import DivergedError, InputError, ShapeError
from gpunet.nn.layers.base import Shape
from gpunet.nn.samples import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVAL_BATCH = 1000  # samples at a time where nothing is trained, unless another number is asked for


def check_row(output: Shape) -> int:
    """How many outputs a model has whose samples end as this shape; ShapeError where that is no row."""
    if len(output) != 1:
        raise ShapeError(
            f"the model gives samples of shape {output}, expected a row of outputs: end it in Flatten() and "
            "Dense(classes)"
        )
    return output[0]


def check_place(data: Samples, backend: Backend, dtype: str, what: str) -> None:
    """InputError for Samples that lie elsewhere than the model, DataError for numbers that its dtype cannot hold."""
    if data.device != backend.name:
        raise InputError(f"{what}: these Samples lie on {data.device}, the model on {backend.name}: give x and y")
    if dtype == "float32" != data.dtype:
        with backend.session():
            check_finite(data.x, what, dtype)


def passes(
    model: Any, data: Samples, batch: int, room: Array, cursor: Array, labels: Array = None
) -> Iterator[tuple[Array, Array]]:
    """Scores of a built `Sequential` for the data, and labels where there is room for them, by batches, in order.

    room (≥ batch, …) of the model's dtype, for x; labels (≥ batch, …): for those of the data; cursor: zero.
    """
    ops, n = model.backend, len(data)
    order, scale = ops.asarray(np.arange(n)), model._scale_of(data.x)
    with ops.session():
        for start in range(0, n, batch):
            x = room[: min(batch, n - start)]
            own = None if labels is None else labels[: len(x)]
            model.set_batch_size(len(x))
            ops.take_batch(data.x, data.labels, order, cursor, scale, x, own, None)
            yield model.forward(x), own


def outputs_of(model: Any, scores: Iterator[tuple[Array, Array]]) -> NDArray[Any]:
    """The outputs f(z), (samples, outputs) on the host, of what `passes` gives."""
    return np.concatenate([np.array(model.backend.to_host(model.activate_scores(z))) for z, _ in scores])


def predicted(outputs: NDArray[Any], values: bool) -> NDArray[Any]:
    """The class of each sample, int64 (samples,): the largest output, or a lone output rounded; or the values.

    Raises DivergedError where an output is NaN: it is of no class.
    """
    if (missing := np.isnan(outputs).any(axis=1)).any():
        raise DivergedError(
            f"sample {int(missing.argmax())} has outputs that are NaN: the weights have diverged; train again at a "
            "lower learning rate"
        )
    if values:
        return outputs
    return outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0.5).astype(np.int64)
