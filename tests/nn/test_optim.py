"""Optimisers on functions whose minimum is known, and their settings."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import InputError

from ..conftest import slow_on_the_stand_in

MAKERS = {
    "sgd": lambda: gn.SGD(0.1),
    "momentum": lambda: gn.SGD(0.02, momentum=0.9),
    "adam": lambda: gn.Adam(0.05),
    "adamw": lambda: gn.AdamW(0.05, weight_decay=0),
}


def attached(optimizer, backend, start, decayed=0):
    params = backend.asarray(np.array(start, dtype="float64"))
    grads = backend.zeros(len(params), "float64")
    optimizer.attach(backend, params, grads, decayed)
    return params, grads


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("name", MAKERS)
def test_a_quadratic_bowl(backend, name):
    """½ Σ cᵢ (pᵢ − tᵢ)² with curvatures from 0.1 to 5 has its minimum at t."""
    curvature, target = np.linspace(0.1, 5, 20), np.linspace(-2, 2, 20)
    params, grads = attached(optimizer := MAKERS[name](), backend, np.zeros(20))
    for _ in range(1500):
        backend.copy(curvature * (np.array(backend.to_host(params)) - target), grads)
        optimizer.step()
    np.testing.assert_allclose(backend.to_host(params), target, atol=2e-3)


@pytest.mark.usefixtures("session")
@slow_on_the_stand_in
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_rosenbrocks_valley(backend, name):
    """(1 − x)² + 100 (y − x²)² has its only minimum at (1, 1)."""
    optimizer = gn.SGD(2e-4, momentum=0.95) if name == "momentum" else gn.Adam(0.02)
    params, grads = attached(optimizer, backend, [-1.2, 1.0])
    for _ in range(8000):
        x, y = np.array(backend.to_host(params))
        backend.copy(np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]), grads)
        optimizer.step()
    np.testing.assert_allclose(backend.to_host(params), [1, 1], atol=2e-2)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("name", MAKERS)
def test_l2_pulls_only_the_decayed_parameters(backend, name):
    optimizer = {
        "sgd": gn.SGD(0.1, l2=0.5),
        "momentum": gn.SGD(0.05, momentum=0.5, l2=0.5),
        "adam": gn.Adam(0.05, l2=0.5),
        "adamw": gn.AdamW(0.05, weight_decay=0.5),
    }[name]
    params, _ = attached(optimizer, backend, np.ones(8), decayed=5)
    for _ in range(400):
        optimizer.step()
    np.testing.assert_allclose(backend.to_host(params), [0] * 5 + [1] * 3, atol=1e-2)


@pytest.mark.usefixtures("session")
def test_learning_rate_can_be_changed_between_steps(backend):
    params, grads = attached(optimizer := gn.SGD(0.5), backend, [1.0])
    backend.copy(1.0, grads)
    optimizer.step()
    optimizer.learning_rate = 0.25
    optimizer.step()
    assert float(backend.to_host(params)[0]) == 0.25
    with pytest.raises(InputError):
        optimizer.learning_rate = float("nan")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_second_step_allocates_nothing_that_stays(name, device, rng):
    backend = gn.get_backend(device)
    optimizer = MAKERS[name]()
    _, grads = attached(optimizer, backend, rng.normal(size=200_000))
    backend.copy(rng.normal(size=200_000), grads)
    optimizer.step()
    tracemalloc.start()
    for _ in range(20):
        optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000  # bytes, against 1.6 MB of parameters: views, numbers, no arrays


@pytest.mark.parametrize(
    "make",
    [
        lambda: gn.SGD(0),
        lambda: gn.SGD(-1),
        lambda: gn.SGD(float("nan")),
        lambda: gn.SGD("fast"),
        lambda: gn.SGD(0.1, momentum=1),
        lambda: gn.SGD(0.1, l2=-1),
        lambda: gn.Adam(beta1=1),
        lambda: gn.Adam(beta2=-0.1),
        lambda: gn.Adam(epsilon=0),
        lambda: gn.Adam(float("inf")),
        lambda: gn.AdamW(weight_decay=-1),
        lambda: gn.AdamW(weight_decay=float("nan")),
    ],
)
def test_bad_settings(make):
    with pytest.raises(InputError, match="cannot be"):
        make()
