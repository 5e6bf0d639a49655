"""What a model gives for samples: its outputs, a batch at a time, and the classes or values that these say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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


def check_place(data: Samples, device: str, dtype: str, what: str) -> None:
    """InputError for Samples that lie elsewhere than the model, DataError for numbers that its dtype cannot hold."""
    if data.device != device:
        raise InputError(f"{what}: these Samples lie on {data.device}, the model on {device}: give x and y")
    if dtype == "float32" != data.dtype:
        check_finite(data.x, what, dtype)


def outputs_of(model: Any, data: Samples, batch: int) -> NDArray[Any]:
    """The outputs f(z) of a built `Sequential` in evaluation mode, (samples, outputs) on the host."""
    ops, n = model.backend, len(data)
    batch = min(batch, n)
    model.bind(batch)
    room = ops.empty((batch, *model.input_shape), model.dtype)
    order, cursor, scale = ops.asarray(np.arange(n)), ops.zeros(1, "int64"), model._scale_of(data.x)
    parts = []
    with ops.session():
        for start in range(0, n, batch):
            x = room[: min(batch, n - start)]
            model.set_batch_size(len(x))
            ops.take_batch(data.x, None, order, cursor, scale, x, None, None)
            parts.append(np.array(ops.to_host(model.activate_scores(model.forward(x)))))
    return np.concatenate(parts)


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
