"""Counts of multiplications against a step that is counted while it runs; the contestants of benchmarks/lowrank.py."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.bench import lowrank
from gpunet.bench.counts import allowed_step, merging_pays, step_products, step_total
from gpunet.errors import RunError
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
    ranks = lowrank.NETS["break-even 1/2"]
    assert ranks == (154, 85, None)
    assert lowrank.NETS["dimension 1/2"] == (256, 128, None)
    square = [(1024, 1024)]
    assert step_products((1024, 1024), 8, needs_dx=False) == 8 * 2 * 1024**2
    assert step_products((1024, 1024), 8, 256, needs_dx=False) == 8 * 256 * 5 * 1024
    assert allowed_step(square, [256], 8) == pytest.approx(1.6)  # the document's count says 2
    assert speed_up(square, [256]) == 2
    assert allowed_step([*square, *square], [256, 256], 8) == pytest.approx((2 + 3) / (2 / 1.6 + 3 / 2))
    assert not merging_pays((1024, 1024), 2048, 512)
    assert merging_pays((1024, 1024), 2048, 1024)


# -- contestants -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A small case in the place of MNIST: 110 samples, batches of 32, the last one of 14."""
    shapes = [(24, 16), (12, 24), (4, 12)]
    monkeypatch.setattr(lowrank, "CASE", lowrank.CASES["digits-32"].__class__("small", (16, 24, 12, 4), 32, 4, 110))
    monkeypatch.setattr(lowrank, "SHAPES", shapes)
    monkeypatch.setattr(lowrank, "NETS", {"dense": (None, None, None), "small ranks": (3, 2, None)})
    monkeypatch.setattr(lowrank, "RATE", 1e-3)
    rng = np.random.default_rng(3)
    labels = np.arange(110) % 4
    x = rng.integers(0, 120, (110, 16))
    x[np.arange(110), labels] += 130
    data = x.astype("uint8"), labels
    monkeypatch.setattr(lowrank, "data_for", lambda case: data)
    return data


@pytest.mark.parametrize("ranks", [(None, None, None), (3, 2, None), (16, 12, None)])
def test_the_products_alone_are_those_of_an_epoch(small, monkeypatch, ranks):
    run = lowrank.products(ranks, *small)
    done = []
    monkeypatch.setattr(np, "matmul", lambda a, b, out: done.append(out.size * a.shape[1]))
    run()
    assert sum(done) == sum(step_total(lowrank.SHAPES, ranks, n) for n in (32, 32, 32, 14))


def test_all_contestants_train_what_they_say(small, monkeypatch):
    found = lowrank.compare(get_backend("numpy"), rounds=2)
    who = {"products", "gpunet", "torch"} if importlib.util.find_spec("torch") else {"products", "gpunet"}
    assert set(found.times.seconds) == {f"{each}, {net}" for each in who for net in lowrank.NETS}
    assert set(found.losses) == {f"{each}, {net}" for each in who - {"products"} for net in lowrank.NETS}
    assert found.steps == 4
    assert found.allowed["dense"] == found.allowed_step["dense"] == 1
    assert found.allowed["small ranks"] > found.allowed_step["small ranks"] > 1


def test_pytorchs_nets_are_ours_step_by_step(small, monkeypatch):
    """From the same weights, on the same batches, the losses agree."""
    torch = pytest.importorskip("torch")
    x, y = small
    order = np.arange(110)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    drawn = []
    for name in ("xavier_uniform_", "zeros_"):
        monkeypatch.setattr(torch.nn.init, name, drawn.append)
    run, loss = lowrank.torch_eager((3, 2, None), x, y)
    trainer = lowrank._trainer((3, 2, None), get_backend("numpy"))
    data = trainer.samples(x, y)
    given = trainer.model.parameters
    names = ["0.right", "0.left", "0.bias", "2.right", "2.left", "2.bias", "4.weight", "4.bias"]
    assert [tuple(each.shape) for each in drawn] == [given[name].shape for name in names]
    with torch.no_grad():
        for tensor, name in zip(drawn, names, strict=True):
            tensor.copy_(torch.tensor(given[name]))
    ours = lowrank.training(trainer, data, 32, lambda: order)
    for _ in range(3):
        ours()
        run()
    assert trainer.evaluate(data)["loss"] == pytest.approx(loss(), rel=1e-5)


def test_nets_that_learned_different_things_are_no_rivals():
    lowrank.check_losses({"gpunet, dense": 0.20, "torch, dense": 0.21})
    lowrank.check_losses({"gpunet, dense": 0.20})
    for theirs in (0.30, float("nan")):
        with pytest.raises(RunError, match=r"the dense net learned different things: loss 0.2 in gpunet"):
            lowrank.check_losses({"gpunet, dense": 0.20, "torch, dense": theirs})
