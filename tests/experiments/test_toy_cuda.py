"""Stacked nets on a GPU: the kernels of stacked.cu, compiled for the host, against the CPU's stack."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gpunet as gn
from gpunet import stacked_cuda
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.errors import DivergedError, InputError, ShapeError
from gpunet.experiments import toy
from gpunet.stacked import draw_weights, train
from tests.conftest import stand_in
from tests.cuda.host_module import running
from tests.experiments.test_toy_stacked import data, points, xor_easy

EXACT = {"learning_rate": 0.8, "threshold": 0.04, "dtype": "float64"}


@pytest.fixture(scope="module")
def gpu():
    return CupyBackend(module=stand_in())


def both(gpu, weights, x, labels, **settings):
    """What the CPU and the GPU make of it, with what they said at the marks."""
    said = [[], []]
    settings = EXACT | settings
    here = train(weights, x, labels, **settings, on_mark=lambda *at: said[0].append(at))
    there = train(weights, x, labels, **settings, on_mark=lambda *at: said[1].append(at), device=gpu)
    assert said[0] == said[1]
    return here, there


def check(here, there, atol=1e-9):
    for name in ("steps", "converged", "marks"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name), err_msg=name)
        assert getattr(there, name).dtype == getattr(here, name).dtype
    for name in ("loss", "largest_loss", "accuracy", "course"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), atol=atol, err_msg=name)
    for one, other in zip(there.weights, here.weights, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=100 * atol)


@pytest.mark.parametrize("sizes", [(2, 3, 3, 1), (2, 1), (3, 4, 1), (2, 1, 3, 1), (2, 5, 4, 3, 2, 1)])
@pytest.mark.parametrize("own", [False, True])
def test_as_on_the_cpu_step_by_step(gpu, sizes, own):
    weights = draw_weights(sizes, range(6))
    x, labels = data(sizes[0], 13, 6 if own else None)
    here, there = both(gpu, weights, x, labels, limit=60, learning_rate=0.3, threshold=0.2)
    assert here.converged.any()
    check(here, there)


@pytest.mark.parametrize(("seeds", "limit"), [(range(5), 900), ((4,), 1500)])
def test_nets_stop_when_they_do_on_the_cpu(gpu, seeds, limit):
    """One of five stops between marks; the second stack ends there. At this rate training is not chaotic."""
    here, there = both(gpu, draw_weights((2, 3, 3, 1), seeds), *xor_easy(), limit=limit, learning_rate=0.2)
    assert here.converged.any()
    check(here, there)


def test_each_nets_own_data_and_float32(gpu):
    x, labels = points(range(5))
    here, there = both(
        gpu, draw_weights((2, 3, 3, 1), range(5)), x, labels, limit=40, learning_rate=0.1, dtype="float32"
    )
    assert there.weights[0].dtype == np.float32
    check(here, there, atol=1e-6)


def test_limits_at_and_around_a_stop(gpu):
    weights, (x, labels) = draw_weights((2, 3, 3, 1), [4]), xor_easy()
    stop = int(train(weights, x, labels, limit=1000, **EXACT).steps[0])
    for limit in (1, stop - 1, stop, stop + 1):
        here, there = both(gpu, weights, x, labels, limit=limit)
        assert here.converged[0] == (limit >= stop)
        check(here, there, atol=1e-6)


def test_nets_that_are_too_large_for_shared_memory(gpu, monkeypatch):
    weights, (x, labels) = draw_weights((2, 3, 3, 1), range(3)), xor_easy()
    small = train(weights, x, labels, limit=30, **EXACT, device=gpu)
    large_x, large_labels = data(5, 300)
    check(*both(gpu, draw_weights((5, 9, 7, 1), range(3)), large_x, large_labels, limit=12, learning_rate=0.01))
    monkeypatch.setattr(stacked_cuda, "SHARED_BYTES", 0)
    global_ = train(weights, x, labels, limit=30, **EXACT, device=gpu)
    for one, other in zip(small.weights, global_.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("order", ["forward", "reversed", "shuffled"])
def test_the_bits_are_a_nets_own_in_any_company_and_order_of_threads(gpu, order):
    weights, (x, labels) = draw_weights((2, 3, 3, 1), range(5)), xor_easy()
    alone = train([w[2:3] for w in weights], x, labels, limit=50, **EXACT, device=gpu)
    with running(order, 3):
        many = train(weights, x, labels, limit=50, **EXACT, device=gpu)
    for one, other in zip(alone.weights, many.weights, strict=True):
        np.testing.assert_array_equal(one[0], other[2])
    np.testing.assert_array_equal(alone.course[:, 0], many.course[:, 2])


def test_launches_are_short_enough_to_be_interrupted(gpu, monkeypatch):
    weights, (x, labels) = draw_weights((2, 3, 3, 1), range(3)), xor_easy()
    whole = train(weights, x, labels, limit=200, **EXACT, device=gpu)
    monkeypatch.setattr(stacked_cuda, "LAUNCH", 700)
    parts = train(weights, x, labels, limit=200, **EXACT, device=gpu)
    check(whole, parts, atol=0)


def test_divergence_and_mistakes(gpu):
    weights, (x, labels) = draw_weights((2, 3, 3, 1), range(3)), xor_easy()
    with pytest.raises(DivergedError, match=r"NaN or infinite by step \d+, at learning rate 0.8"):
        train([np.where(w > 3, np.inf, w) * np.inf for w in weights], x, labels, limit=9, **EXACT, device=gpu)
    with pytest.raises(ShapeError, match="expected one output"):
        train(weights[:1], x, labels, limit=9, **EXACT, device=gpu)
    deep = draw_weights((2, *[1] * 16, 1), [0])
    with pytest.raises(InputError, match="17 layers: expected at most 16 on a GPU; use --device cpu"):
        train(deep, x, labels, limit=9, **EXACT, device=gpu)


def test_the_experiment_on_a_gpu(gpu):
    settings = toy.Settings(learning_rates=(0.8,), limit=30, dtype="float64")
    sets = [gn.datasets.load(name) for name in ("linear", "xor-easy")]
    here, there = (toy.run(sets, settings, [0, 1], device=device) for device in ("cpu", gpu))
    assert (here.device, there.device) == ("cpu", "cuda:0")
    for one, other in zip(here.rows, there.rows, strict=True):
        assert one.name == other.name
        for name, metric in one.metrics.items():
            if name != "gradient_error":
                np.testing.assert_allclose(other.metrics[name].values, metric.values, atol=1e-6, err_msg=one.name)


def test_numbers_that_python_and_cuda_share_agree():
    text = stacked_cuda.source()
    for name in ("SHARED_BYTES", "THREADS", "LAYERS"):
        assert re.search(rf"constexpr int {name} = {getattr(stacked_cuda, name)};", text), name
