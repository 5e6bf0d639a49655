"""Counts of multiplications against a step that is counted while it runs, and the products alone, the floor."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.bench import train
from gpunet.bench.counts import allowed_step, merging_pays, step_products, step_total
from gpunet.spectral.factorise import speed_up


class Counting(NumpyBackend):
    """Adds up the multiplications of the products that it is asked for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def gemm(self, a, b, out, transpose_a=False, transpose_b=False):
        self.count += out.size * a.shape[0 if transpose_a else 1]
        super().gemm(a, b, out, transpose_a, transpose_b)

    def affine(self, x, weight, bias, activation, out):
        self.count += out.size * x.shape[1]
        super().affine(x, weight, bias, activation, out)


def counted(shapes, ranks, batch):
    """Multiplications of one step of such a net, told by running it."""
    backend = Counting()
    layers = [
        gn.Dense(out) if rank is None else gn.LowRankDense(out, rank)
        for (out, _), rank in zip(shapes, ranks, strict=True)
    ]
    trainer = gn.Trainer(gn.Sequential(layers), device=backend)
    x = np.ones((batch, shapes[0][1]), "float32")
    data = trainer.samples(x, np.zeros(batch, int))
    trainer._workspace(batch)
    trainer.step(data, trainer.upload_order(np.arange(batch)), batch)
    return backend.count


@pytest.mark.parametrize("batch", [1, 3, 16, 100, 700])
@pytest.mark.parametrize(
    ("shapes", "ranks"),
    [
        ([(32, 32), (32, 32), (10, 32)], [4, 4, None]),
        ([(32, 32), (32, 32), (10, 32)], [16, 16, None]),
        ([(32, 32), (32, 32), (10, 32)], [32, 32, None]),
        ([(32, 32), (32, 32), (10, 32)], [None, None, None]),
        ([(20, 50), (40, 20), (10, 40)], [11, None, 3]),
        ([(20, 50), (40, 20), (10, 40)], [None, 13, 9]),
        ([(10, 7)], [6]),
    ],
)
def test_the_count_is_that_of_the_step_that_runs(shapes, ranks, batch):
    assert step_total(shapes, ranks, batch) == counted(shapes, ranks, batch)


def test_what_the_counts_allow():
    ranks = train.FACTORED["break-even 1/2"].notes["ranks"]
    assert ranks == (154, 85, None)
    assert train.FACTORED["dimension 1/2"].notes["ranks"] == (256, 128, None)
    assert train.counted(train.FACTORED["dense"]) == {"allowed": 1, "allowed_step": 1}
    found = train.counted(train.FACTORED["break-even 1/2"])
    assert found["allowed"] > found["allowed_step"] > 1
    square = [(1024, 1024)]
    assert step_products((1024, 1024), 8, needs_dx=False) == 8 * 2 * 1024**2
    assert step_products((1024, 1024), 8, 256, needs_dx=False) == 8 * 256 * 5 * 1024
    assert allowed_step(square, [256], 8) == pytest.approx(1.6)  # the document's count says 2
    assert speed_up(square, [256]) == 2
    assert allowed_step([*square, *square], [256, 256], 8) == pytest.approx((2 + 3) / (2 / 1.6 + 3 / 2))
    assert not merging_pays((1024, 1024), 2048, 512)
    assert merging_pays((1024, 1024), 2048, 1024)


@pytest.mark.parametrize("ranks", [(None, None, None), (3, 2, None), (16, 12, None)])
def test_the_products_alone_are_those_of_an_epoch(ranks):
    """110 samples, batches of 32, the last one of 14."""
    widths = (16, 24, 12, 4)
    case = train.Case("small", partial(train.dense, widths, ranks), 32, 1, 110, (4, 4), 4, whole=True)
    backend = Counting()
    work = train.products(case, backend)
    backend.count = 0
    work.run(1)
    shapes = [(out, inner) for inner, out in pairwise(widths)]
    assert backend.count == sum(step_total(shapes, ranks, n) for n in (32, 32, 32, 14))
