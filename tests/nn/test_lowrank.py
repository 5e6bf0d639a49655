"""The factored layer: the same function as its product, the cheapest way round, and back and forth from Dense."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import InputError, ShapeError
from gpunet.testing import StrictBackend

from ..conftest import RTOL


def built(layers, features, backend="numpy", batch=20, dtype="float64", seed=1):
    model = gn.Sequential(layers)
    model.build((features,), get_backend(backend), dtype=dtype, seed=seed)
    model.bind(batch)
    return model


def count(layer, n):
    """Multiplications of one step, told by counting them in the products that the layer runs."""
    total = 0

    class Counting(type(layer.ops)):
        def gemm(self, a, b, out, transpose_a=False, transpose_b=False):
            nonlocal total
            total += out.size * a.shape[0 if transpose_a else 1]
            super().gemm(a, b, out, transpose_a, transpose_b)

        def affine(self, x, weight, bias, activation, out):
            nonlocal total
            total += out.size * x.shape[1]
            super().affine(x, weight, bias, activation, out)

    layer.ops = Counting()
    layer.set_batch_size(n)
    layer.forward(np.ones((n, layer.right.shape[1])))
    layer.backward(np.ones((n, layer.units)))
    return total


@pytest.mark.parametrize("needs_dx", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize(
    ("out", "inner", "rank"), [(20, 20, 3), (20, 20, 12), (20, 20, 20), (7, 40, 6), (40, 7, 7), (3, 3, 1)]
)
def test_the_products_are_associated_the_cheapest_way(out, inner, rank, trainable, needs_dx):
    for n in (1, 2, 9, 64, 500):
        layers = [gn.Dense(inner, trainable=needs_dx), gn.LowRankDense(out, rank, "relu", trainable=trainable)]
        model = built([*layers, gn.Dense(2)], inner, batch=500)
        layer, counts = model.layers[1], {}
        if not needs_dx:
            layer.bind(layer._y, None)
        for merged in (True, False):
            layer._merging_pays = lambda n, dx, merged=merged: merged
            layer.bind(layer._y, layer._dx)
            counts[merged] = count(layer, n)
        del layer._merging_pays
        layer.bind(layer._y, layer._dx)
        assert count(layer, n) == min(counts.values())


@pytest.mark.parametrize("n", [1, 7, 20])
def test_both_ways_give_the_same_numbers(rng, n):
    x, dy = rng.normal(size=(n, 9)), rng.normal(size=(n, 8))
    found = []
    for merged in (True, False):
        model = built([gn.Dense(9), gn.LowRankDense(8, 6, "sigmoid"), gn.Dense(2)], 9)
        layer = model.layers[1]
        layer._merging_pays = lambda n, dx, merged=merged: merged
        layer.bind(layer._y, layer._dx)
        layer.set_batch_size(n)
        y = layer.forward(x).copy()
        dx = layer.backward(dy.copy()).copy()
        found.append([y, dx, layer.d_left.copy(), layer.d_right.copy(), layer.d_bias.copy()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_training_step_agrees_with_two_linear_layers_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    x, labels = rng.normal(size=(32, 9)).astype("float32"), rng.integers(0, 4, 32)
    trainer = gn.Trainer(
        gn.Sequential([gn.LowRankDense(16, 3, "relu"), gn.Dense(4)]), optimizer=gn.Adam(1e-2), device="numpy", seed=4
    )
    trainer.prepare((9,))
    first, head = trainer.model.layers
    modules = [torch.nn.Linear(9, 3, bias=False), torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)]
    with torch.no_grad():
        modules[0].weight.copy_(torch.tensor(first.right))
        modules[1].weight.copy_(torch.tensor(first.left))
        modules[1].bias.copy_(torch.tensor(first.bias))
        modules[3].weight.copy_(torch.tensor(head.weight))
        modules[3].bias.copy_(torch.tensor(head.bias))
    network = torch.nn.Sequential(*modules)
    theirs = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(3):
        trainer.fit(x, labels, epochs=1, batch_size=32)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.tensor(x)), torch.tensor(labels)).backward()
        theirs.step()
    for ours, other in (
        (first.right, modules[0].weight),
        (first.left, modules[1].weight),
        (first.bias, modules[1].bias),
    ):
        np.testing.assert_allclose(ours, other.detach().numpy(), rtol=1e-5, atol=1e-5)


# -- Dense.factorise, LowRankDense.merge ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("split", ["left", "balanced"])
@pytest.mark.parametrize(("out", "inner"), [(12, 30), (30, 12), (9, 9), (1, 5)])
def test_factorise_is_the_truncated_svd(rng, dtype, split, out, inner):
    model = built([gn.Dense(out, "relu", weight=rng.normal(size=(out, inner))), gn.Dense(2)], inner, dtype=dtype)
    weight = np.array(model.layers[0].weight, dtype="float64")
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    for rank in range(1, min(out, inner) + 1):
        layer = gn.factorise(model.layers[0], rank, split)
        left, right = layer._draw["left"]((out, rank), None), layer._draw["right"]((rank, inner), None)
        best = u[:, :rank] * s[:rank] @ vt[:rank]
        np.testing.assert_allclose(left @ right, best, atol=50 * RTOL[dtype] * s[0])
        scale = np.sqrt(s[:rank]) if split == "balanced" else np.ones(rank)
        np.testing.assert_allclose(np.linalg.norm(left, axis=0), scale, rtol=50 * RTOL[dtype], atol=1e-6)


def test_full_rank_changes_nothing_and_merge_takes_it_back(rng):
    model = built([gn.Dense(12, "sigmoid"), gn.Dense(3)], 30)
    x = rng.normal(size=(20, 30))
    before = model.forward(x).copy()
    weight = model.layers[0].weight.copy()
    model.replace("0", gn.factorise(model.layers[0], 12))
    assert isinstance(model.layers[0], gn.LowRankDense)
    np.testing.assert_allclose(model.forward(x), before, rtol=1e-12)
    model.replace("0", gn.merge(model.layers[0]))
    np.testing.assert_allclose(model.layers[0].weight, weight, atol=1e-14)
    np.testing.assert_allclose(model.forward(x), before, rtol=1e-12)


def test_merged_and_factored_outputs_agree(rng):
    x, y = rng.normal(size=(64, 20)).astype("float32"), rng.integers(0, 3, 64)
    trainer = gn.Trainer(gn.Sequential([gn.Dense(24, "relu"), gn.Dense(3)]), optimizer=gn.Adam(1e-2), device="cpu")
    trainer.fit(x, y, epochs=2, batch_size=16)
    trainer.model.replace("0", gn.factorise(trainer.model.layers[0], 4, "balanced"))
    trainer.fit(x, y, epochs=2, batch_size=16)
    factored = trainer.outputs(x)
    trainer.model.replace("0", gn.merge(trainer.model.layers[0]))
    np.testing.assert_allclose(trainer.outputs(x), factored, rtol=1e-5, atol=1e-5)


def test_a_rule_that_needs_the_spectrum_gets_it(rng):
    weight = rng.normal(size=(10, 3)) @ rng.normal(size=(3, 15))
    model = built([gn.Dense(10, weight=weight), gn.Dense(2)], 15)
    assert gn.factorise(model.layers[0], gn.Energy(1 - 1e-10)).rank == 3
    assert gn.factorise(model.layers[0], gn.BreakEven(0.5)).rank == 3


def test_a_factored_model_is_saved_and_loaded(tmp_path, rng):
    model = built([gn.LowRankDense(8, 3, "relu"), gn.Dense(2)], 6, dtype="float32")
    gn.save(model, tmp_path / "m.safetensors")
    again = gn.load(tmp_path / "m.safetensors", "numpy")
    assert [type(layer) for layer in again.layers] == [gn.LowRankDense, gn.Dense]
    assert list(again.parameters) == ["0.left", "0.right", "0.bias", "2.weight", "2.bias"]
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], value)


def test_a_factored_step_can_be_captured(rng):
    backend = StrictBackend()
    layers = [gn.LowRankDense(8, 2, "relu"), gn.LowRankDense(8, 8, "relu"), gn.Dense(3)]
    trainer = gn.Trainer(gn.Sequential(layers), optimizer=gn.Adam(1e-2), device=backend)
    data = trainer.samples(rng.normal(size=(30, 9)).astype("float32"), rng.integers(0, 3, 30))
    trainer._workspace(20)
    trainer.tally.reset()
    order = backend.asarray(np.arange(30))
    for n in (20, 10):
        trainer.step(data, order, n)
    trainer.tally.reset()
    with backend.capture():
        for n in (20, 10):
            trainer.step(data, order, n)


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, -1, 2.5, "3", True, None])
def test_a_rank_is_a_whole_number_from_one(rank):
    with pytest.raises(InputError, match="rank"):
        gn.LowRankDense(8, rank)
    model = built([gn.Dense(8), gn.Dense(2)], 9)
    with pytest.raises(InputError, match="rank is"):
        gn.factorise(model.layers[0], rank)


def test_a_rank_is_at_most_the_smaller_side():
    model = built([gn.Dense(8), gn.Dense(2)], 6)
    with pytest.raises(InputError, match=r"rank 7 exceeds min\(m, n\) = 6"):
        gn.factorise(model.layers[0], 7)
    with pytest.raises(InputError, match="rank is 9: expected a whole number from 1 to 8"):
        gn.LowRankDense(8, 9)
    with pytest.raises(ShapeError, match="at least 5 features"):
        built([gn.LowRankDense(8, 5), gn.Dense(2)], 4)


def test_other_mistakes_are_named():
    model = built([gn.LowRankDense(8, 2, "relu"), gn.Activation("relu"), gn.Dense(2)], 6)
    with pytest.raises(InputError, match=r"'0' \(LowRankDense\) is factored already, at rank 2: merge"):
        gn.factorise(model.layers[0], 1)
    with pytest.raises(InputError, match=r"'3' \(Dense\) has no factors to merge"):
        gn.merge(model.layers[2])
    with pytest.raises(InputError, match=r"'2' \(Activation\) cannot be factorised"):
        gn.factorise(model.layers[1], 1)
    with pytest.raises(InputError, match="split is 'right': expected one of left, balanced"):
        gn.factorise(model.layers[2], 1, "right")
    with pytest.raises(InputError, match="no weights before its model is built"):
        gn.factorise(gn.Dense(4), 1)
    with pytest.raises(InputError, match="no weights before its model is built"):
        gn.merge(gn.LowRankDense(4, 2))
    with pytest.raises(InputError, match="whole number of units"):
        gn.LowRankDense(0, 1)
    with pytest.raises(InputError, match="activation is 'tanhh'"):
        gn.LowRankDense(4, 1, "tanhh")
    with pytest.raises(ShapeError, match="rows of at least 2 features"):
        gn.LowRankDense(8, 2).spec((3, 3))


def test_weights_that_overflowed_are_named(rng):
    model = built([gn.Dense(4), gn.Dense(2)], 5)
    model.parameters["0.weight"][:] = np.inf
    with pytest.raises(InputError, match="finite"):
        gn.factorise(model.layers[0], 2)
