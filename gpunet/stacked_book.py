"""What is written down of stacked nets: losses at some steps, and of each net all there is to say when it stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpunet.errors import DivergedError
from gpunet.stacked_block import Block, FloatArray, Floats

MARKS_PER_DECADE = 12


@dataclass(frozen=True)
class Trained:
    """What became of each net. All losses are ½(y − t)², taken where the net stopped.

    steps: updates made, the limit where the net did not converge; weights: (nets, out, in) a layer; loss: mean over
    samples; largest_loss: the worst sample's; accuracy: share of samples on the right side of ½; course: mean losses
    (marks, nets) after marks[i] steps, from its stop on a net's last one.
    """

    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]
    weights: list[Floats]
    loss: FloatArray
    largest_loss: FloatArray
    accuracy: FloatArray
    marks: NDArray[np.int64]
    course: FloatArray


class Book:
    """Keeps what `Trained` reports."""

    def __init__(self, weights: Sequence[Floats], limit: int) -> None:
        nets, at = len(weights[0]), marks(limit)
        self.at, self.next = at.tolist(), 0
        self.trained = Trained(
            np.zeros(nets, np.int64), np.zeros(nets, np.bool_), [np.empty_like(w) for w in weights],
            np.empty(nets), np.empty(nets), np.empty(nets), at, np.empty((len(at), nets)),
        )  # fmt: skip

    def enter(self, block: Block, ids: NDArray[np.int64], step: int, last: bool) -> list[int]:
        """Write down a block's losses, and all about the nets that stop here; returns these nets' places."""
        kept, ids = self.trained, ids[block.start : block.stop]
        loss = 0.5 * np.mean(block.squares.astype(np.float64), axis=2)[:, 0]
        if step == self.at[self.next]:
            kept.course[self.next, ids] = loss
        stops = np.flatnonzero(block.below | last)
        gone = ids[stops]
        kept.steps[gone], kept.converged[gone] = step, block.below[stops, 0]
        kept.loss[gone], kept.largest_loss[gone] = loss[stops], 0.5 * block.largest[stops, 0]
        kept.accuracy[gone] = np.mean((block.outputs[-1] > 0.5) == (block.targets > 0.5), axis=2)[stops, 0]
        kept.course[self.next :, gone] = loss[stops]
        for into, weight in zip(kept.weights, block.weights, strict=True):
            into[gone] = weight[stops]
        return [block.start + int(place) for place in stops]

    def turn(self, learning_rate: float) -> None:
        """Go on to the next mark; DivergedError where a loss is not finite."""
        check_course(self.trained.course[self.next], self.at[self.next], learning_rate)
        self.next += 1


def check_course(losses: FloatArray, step: int, learning_rate: float) -> None:
    """DivergedError where one of the nets' losses is not finite."""
    if not np.isfinite(losses).all():
        raise DivergedError(
            f"the loss became NaN or infinite by step {step}, at learning rate {learning_rate:g}: "
            "lower the learning rate, or look at the data's scale"
        )


def marks(limit: int) -> NDArray[np.int64]:
    """The steps at which losses are recorded: from 0 to the limit, from about 10 on evenly on a logarithmic scale."""
    count = int(np.log10(limit) * MARKS_PER_DECADE) + 2
    return np.unique(np.concatenate([[0], np.geomspace(1, limit, count).round()])).astype(np.int64)
