"""Layers fitted by class-based PCA, stacks of them, and their outputs computed once."""

from __future__ import annotations

import copy
import tempfile
import tracemalloc

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import DataError, InputError, ShapeError
from gpunet.experiments.dmn import extract
from gpunet.experiments.dmn.extract import BATCH, features, fit_stack
from gpunet.spectral.fitted import Thresholds, chosen_rows

CPU = get_backend("numpy")


@pytest.fixture
def rows(rng):
    labels = np.arange(90) % 3
    return (rng.normal(size=(90, 8)) * (1 + np.arange(8)[::-1]) + np.eye(8)[labels]).astype("float32"), labels


@pytest.fixture
def images(rng):
    labels = np.arange(120) % 3
    x = rng.integers(0, 256, (120, 2, 9, 9), dtype=np.uint8) // (1 + labels[:, None, None, None]).astype(np.uint8)
    return x, labels


def weight_of(layer, shape):
    model = gn.Sequential([layer, gn.Flatten()])
    model.build(shape, CPU, dtype="float64")
    return np.array(layer.weight), np.array(layer.bias)


@pytest.mark.parametrize("center", [False, True])
def test_a_dense_layer_gets_the_classes_vectors(rows, center):
    x, labels = rows
    layer = gn.Dense(1, "relu")
    fit = gn.fit_class_pca(layer, x, labels, variance=0.9, correlation=0.8, center=center)
    pca = gn.class_pca(x.astype("float64"), labels, variance=0.9, center=center)
    wanted, kept = gn.deduplicate(pca, 0.8)
    weight, bias = weight_of(layer, (8,))
    assert (layer.units, layer.trainable) == (len(wanted), False)
    np.testing.assert_array_equal(fit.kept, kept)
    np.testing.assert_allclose(np.abs(weight), np.abs(wanted), atol=1e-4)
    assert not bias.any()
    assert fit.samples == {0: 30, 1: 30, 2: 30}
    assert fit.seconds > 0


@pytest.mark.parametrize(("kernel", "padding"), [(3, "valid"), (3, "same"), (1, "valid"), (5, "valid")])
def test_a_conv_layer_gets_the_patches_vectors(images, kernel, padding):
    x, labels = images
    layer = gn.Conv2D(1, kernel, "relu", padding=padding)
    gn.fit_class_pca(layer, x, labels, variance=0.6, correlation=0.9)
    zeros = kernel // 2 if padding == "same" else 0
    padded = np.pad(x / 255, ((0, 0), (0, 0), (zeros, zeros), (zeros, zeros)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3)).transpose(
        0, 2, 3, 1, 4, 5
    )
    patches = windows.reshape(-1, 2 * kernel**2)
    pca = gn.class_pca(patches, np.repeat(labels, len(patches) // len(x)), variance=0.6)
    wanted, _ = gn.deduplicate(pca, 0.9)
    weight, bias = weight_of(layer, (2, 9, 9))
    assert weight.shape == (len(wanted), 2, kernel, kernel)
    np.testing.assert_allclose(np.abs(weight.reshape(len(wanted), -1)), np.abs(wanted), atol=1e-4)
    assert not bias.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["Dense", "Conv2D"])
def test_centred_classes_far_apart_are_those_of_float64(kind, dtype):
    """Means ±1e4 beside spreads of 0.5 to 3: ranks [1, 1] once, where they are [4, 4]."""
    labels, rng = np.arange(2000) % 2, np.random.default_rng(0)
    x = rng.normal(size=(2000, 6)) * [3, 2, 1.5, 1, 0.7, 0.5] + 1e4 * (2 * labels[:, None] - 1)
    x = x.astype(dtype)
    if kind == "Dense":
        pca = gn.fit_class_pca(gn.Dense(3), x, labels, variance=0.9, center=True).pca
    else:
        pca = gn.fit_class_pca(gn.Conv2D(3, 1), x.reshape(2000, 6, 1, 1), labels, variance=0.9, center=True).pca
    assert pca.ranks.tolist() == [4, 4]
    for c in range(2):
        values, vectors = np.linalg.eigh(np.cov(x[labels == c].T.astype(float), bias=True))
        np.testing.assert_allclose(pca.explained_variance[c], values[::-1][:4], rtol=2e-5)
        np.testing.assert_allclose(np.abs(pca.components[c] @ vectors[:, ::-1][:, :4]), np.eye(4), atol=1e-4)
        np.testing.assert_allclose(pca.mean[c], x[labels == c].mean(axis=0, dtype=float), rtol=1e-9)


def test_a_fit_shares_nothing_and_a_refused_one_leaves_the_layer_as_it_was(rows):
    x, labels = rows
    layer, other = gn.Dense(1), gn.Dense(1)
    for wrong in (np.where(np.arange(720).reshape(90, 8) == 719, np.nan, x), np.ma.masked_less(x, 0)):
        with pytest.raises(InputError):
            gn.fit_class_pca(layer, wrong, labels, variance=0.9)
    assert layer.trainable
    given = x.copy()
    fit = gn.fit_class_pca(layer, given, labels, variance=0.9)
    for each in (given, fit.pca.components, fit.pca.mean, fit.pca.explained_variance_ratio, fit.kept):
        each[...] = 0
    fit.samples.clear()
    gn.fit_class_pca(other, x, labels, variance=0.9)
    np.testing.assert_array_equal(weight_of(layer, (8,))[0], weight_of(other, (8,))[0])


def test_at_most_so_many_vectors_are_kept(images):
    layer = gn.Conv2D(1, 3)
    every = gn.fit_class_pca(layer, *images, variance=0.9, correlation=1)
    other = gn.Conv2D(1, 3)
    few = gn.fit_class_pca(other, *images, variance=0.9, correlation=1, most=4)
    shares = every.pca.explained_variance_ratio[every.kept[:, 0], every.kept[:, 1]]
    best = few.pca.explained_variance_ratio[few.kept[:, 0], few.kept[:, 1]]
    assert layer.filters > other.filters == 4
    np.testing.assert_allclose(np.sort(best), np.sort(shares)[-4:])


def test_a_share_that_leaves_classes_without_vectors_says_so(rng):
    x = np.abs(rng.normal(size=(60, 1, 8, 8))).astype("float32") + 3  # the mean dominates: one vector, the same for all
    fit = gn.fit_class_pca(gn.Conv2D(1, 3), x, np.arange(60) % 3, variance=0.5, correlation=0.9)
    assert len(fit.kept) == 1
    assert len(fit.without) == 2
    assert set(fit.without) < {0, 1, 2}


def test_the_fraction_is_a_share_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    chosen = chosen_rows(labels, 0.25, 5)
    assert np.bincount(labels[chosen]).tolist() == [25, 10, 1]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, chosen_rows(labels, 0.25, 5))
    assert chosen.tolist() != chosen_rows(labels, 0.25, 6).tolist()
    np.testing.assert_array_equal(chosen_rows(labels, 1, 5), np.arange(143))


# -- stacks ----------------------------------------------------------------------------------------------------------


def test_a_stack_is_fitted_layer_by_layer(images):
    x, labels = images
    layers = [gn.Reshape((2, 9, 9)), gn.Conv2D(1, 3, "relu", pool=2), gn.Conv2D(1, 3, "relu"), gn.Dense(1, "relu")]
    stack = [*layers[:3], gn.Flatten(), layers[3]]
    thresholds = [Thresholds(0.8), Thresholds(0.9, 0.7, 0.5), Thresholds(0.99, 1, most=3)]
    flat = x.reshape(120, -1)
    fits = fit_stack(stack, flat, labels, thresholds, CPU, seed=4)
    assert layers[1].filters == len(fits[0].kept)
    assert layers[3].units == 3
    by_hand = gn.Conv2D(1, 3, "relu", pool=2)
    gn.fit_class_pca(by_hand, x, labels, variance=0.8)
    outputs = features([gn.Reshape((2, 9, 9)), by_hand], flat, CPU)
    second = gn.Conv2D(1, 3, "relu")
    inputs = outputs.reshape(120, -1, 3, 3)
    gn.fit_class_pca(second, inputs, labels, variance=0.9, correlation=0.7, fraction=0.5, seed=4)
    ours, theirs = (weight_of(layer, (by_hand.filters, 3, 3))[0] for layer in (layers[2], second))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_features_are_the_models_outputs(backend, images):
    x, labels = images
    layers = [gn.Reshape((2, 9, 9)), gn.Conv2D(1, 3, "relu", pool=2), gn.Conv2D(1, 3, "sigmoid", padding="same")]
    fit_stack(layers, x.reshape(120, -1), labels, [Thresholds(0.8), Thresholds(0.9)], backend)
    many = np.concatenate([x.reshape(120, -1)] * 5)[: 2 * BATCH + 7]  # with a ragged last batch
    found = features(layers, many, backend)
    trainer = gn.Trainer(gn.Sequential([*layers, gn.Flatten()]), "squared_error", device=backend)
    np.testing.assert_allclose(backend.to_host(found), trainer.outputs(many), rtol=1e-6, atol=1e-6)


def test_even_patches_and_averages_of_their_maps(images):
    x, labels = images
    layer = gn.Conv2D(1, 4, "relu", pool=3, pooling="average", pool_stride=2)
    gn.fit_class_pca(layer, x, labels, variance=0.8)
    patches = np.lib.stride_tricks.sliding_window_view(x / 255, (4, 4), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    maps = np.maximum(patches.reshape(120, 6, 6, 32) @ weight_of(layer, (2, 9, 9))[0].reshape(layer.filters, 32).T, 0)
    windows = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), axis=(1, 2))[:, ::2, ::2].mean(axis=(4, 5))
    np.testing.assert_allclose(features([layer], x, CPU), windows.transpose(0, 3, 1, 2).reshape(120, -1), atol=1e-5)


def test_features_of_some_rows(images):
    x, labels = images
    layers = [gn.Conv2D(1, 3, "relu")]
    fit_stack(layers, x, labels, [Thresholds(0.8)], CPU)
    rows = np.array([5, 3, 99])
    np.testing.assert_allclose(features(layers, x, CPU, rows), features(layers, x, CPU)[rows], rtol=1e-6)


def test_features_above_the_limit_lie_in_a_file_that_goes_by_itself(images, tmp_path, monkeypatch):
    x, labels = images
    layers = [gn.Conv2D(1, 3, "relu")]
    fit_stack(layers, x, labels, [Thresholds(0.8)], CPU)
    inside = features(layers, x, CPU)
    monkeypatch.setattr(extract, "LIMIT", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outside = features(layers, x, CPU)
    assert isinstance(outside, np.memmap)
    assert not isinstance(inside, np.memmap)
    np.testing.assert_array_equal(outside, inside)
    assert list(tmp_path.iterdir()) == []
    head = gn.Trainer(gn.Sequential([gn.Dense(3)]), device="numpy")
    head.fit(outside, labels, epochs=1, batch_size=32)


def test_fitted_layers_stay_as_they_are_while_the_head_is_trained(images):
    x, labels = images
    layers = [gn.Conv2D(1, 3, "relu")]
    fit_stack(layers, x, labels, [Thresholds(0.8)], CPU)
    model = gn.Sequential([*layers, gn.Flatten(), gn.Dense(3)])
    trainer = gn.Trainer(model, device="numpy")
    trainer.prepare((2, 9, 9))
    before = model.parameters["0.weight"].copy()
    trainer.fit(x, labels, epochs=2, batch_size=32)
    np.testing.assert_array_equal(model.parameters["0.weight"], before)
    assert "0.weight" not in model.gradients


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["variance", "correlation", "fraction"])
@pytest.mark.parametrize("value", [0, -0.1, 1.1, float("nan"), "0.9", None, True])
def test_thresholds_lie_above_0_and_at_most_at_1(rows, name, value):
    with pytest.raises(InputError, match=f"{name} cannot be"):
        gn.fit_class_pca(gn.Dense(1), *rows, **({"variance": 0.9} | {name: value}))


@pytest.mark.parametrize("most", [0, -1, 2.5, True, "3"])
def test_most_is_a_whole_number(rows, most):
    with pytest.raises(InputError, match="most is"):
        gn.fit_class_pca(gn.Dense(1), *rows, variance=0.9, most=most)


def test_other_mistakes(rows, images):
    x, labels = rows
    with pytest.raises(InputError, match="class 3 has 1 sample and one patch: expected at least 2"):
        gn.fit_class_pca(gn.Dense(1), x, np.where(np.arange(90) == 7, 3, labels), variance=0.9)
    with pytest.raises(ShapeError, match="smaller than the 11×11 patch"):
        gn.fit_class_pca(gn.Conv2D(1, 11), *images, variance=0.9)
    with pytest.raises(DataError, match="90 samples and 80 labels"):
        gn.fit_class_pca(gn.Dense(1), x, labels[:80], variance=0.9)
    layer = gn.Dense(1)
    gn.fit_class_pca(layer, x, labels, variance=0.9)
    gn.Sequential([layer]).build((8,), CPU)
    with pytest.raises(InputError, match=r"'0' \(Dense\) has weights already: fit it before"):
        gn.fit_class_pca(layer, x, labels, variance=0.9)


def test_a_layer_that_has_its_weights_is_not_fitted_again(rows):
    x, labels = rows
    fitted, written = gn.Dense(1), gn.Dense(3)
    gn.fit_class_pca(fitted, x, labels, variance=0.9)
    written.weight = np.ones((3, 8))
    left = gn.Dense(3)
    model = gn.Sequential([left])
    model.build((8,), CPU)
    model.replace("0", gn.Dense(3))
    arrays = (
        gn.Dense(3, weight=np.ones((3, 8))),
        gn.Dense(3, bias=np.ones(3)),
        gn.Conv2D(2, 1, weight=x[:2, :, None, None]),
    )
    for layer in (fitted, copy.deepcopy(fitted), left, written, *arrays):
        units, start = getattr(layer, "units", None), dict(layer.start)
        with pytest.raises(
            InputError, match="has weights already: fit it before its model is built, or make a new one"
        ):
            gn.fit_class_pca(layer, x, labels, variance=0.9)
        assert getattr(layer, "units", None) == units
        assert layer.start.keys() == start.keys()
    gn.fit_class_pca(gn.Dense(3, weight="he_normal"), x, labels, variance=0.9)  # says how it would have been drawn


@pytest.mark.parametrize("seed", [1.5, -1, "0", None, True])
@pytest.mark.parametrize("fraction", [1, 0.5])
def test_a_seed_is_a_whole_number_even_where_nothing_is_drawn(rows, seed, fraction):
    x, labels = rows
    with pytest.raises(InputError, match="a seed is an integer ≥ 0"):
        gn.fit_class_pca(gn.Dense(1), x, labels, variance=0.9, fraction=fraction, seed=seed)
    with pytest.raises(InputError, match="a seed is an integer ≥ 0"):
        gn.class_pca(x, labels, 2, fraction=fraction, seed=seed)


# -- fewer samples than features -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_few_samples_of_many_features_make_no_matrix_of_the_features(dtype, center, rng):
    x, labels = rng.integers(0, 256, (40, 6000)).astype(dtype), np.arange(40) % 2
    layer = gn.Dense(1)
    tracemalloc.start()
    fit = gn.fit_class_pca(layer, x, labels, variance=0.8, correlation=1, center=center)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # a matrix of the features takes 288 MB
    scale = 255 if dtype == "uint8" else 1
    for c in range(2):
        own = x[labels == c].astype(float) / scale
        mean = own.mean(axis=0)
        _, s, vt = np.linalg.svd(own - mean if center else own, full_matrices=False)
        rank = int(np.argmax(np.cumsum(s**2) >= 0.8 * (s**2).sum())) + 1
        assert fit.pca.ranks[c] == rank
        np.testing.assert_allclose(fit.pca.explained_variance[c][:rank], s[:rank] ** 2 / 20, rtol=1e-9)
        np.testing.assert_allclose(fit.pca.explained_variance_ratio[c][:rank], s[:rank] ** 2 / (s**2).sum(), rtol=1e-9)
        np.testing.assert_allclose(np.abs(np.sum(fit.pca.components[c][:rank] * vt[:rank], axis=1)), 1, rtol=1e-9)
        np.testing.assert_allclose(fit.pca.mean[c], mean, rtol=1e-12)
    assert fit.pca.residual < 1e-12
    assert layer.units == len(fit.kept) == fit.pca.ranks.sum()
