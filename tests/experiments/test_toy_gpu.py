"""Stacked nets on a GPU, the pretend one or a real one, against the CPU's stack, which looks after every step."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DivergedError
from gpunet.experiments.framework import Run
from gpunet.experiments.toy import Settings, stack, x
from gpunet.experiments.toy.stack import Block, draw_weights, train
from tests.conftest import make_backend
from tests.experiments.test_toy_stacked import data, points, xor_easy

EXACT = {"learning_rate": 0.8, "threshold": 0.04, "dtype": "float64"}


@pytest.fixture(scope="module", params=["cuda-host", pytest.param("cupy", marks=pytest.mark.gpu)])
def gpu(request):
    return make_backend(request.param)


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


def test_nets_in_several_blocks(gpu, monkeypatch):
    """As where a GPU has no room for all at once; and a net's numbers are its own."""
    weights, (x, labels) = draw_weights((2, 3, 3, 1), range(5)), points(range(5))
    settings = EXACT | {"limit": 60, "learning_rate": 0.1, "threshold": 0.25, "device": gpu}
    whole = train(weights, x, labels, **settings)
    monkeypatch.setattr(stack, "GPU_BLOCK_BYTES", 30_000)
    parts = train(weights, x, labels, **settings)
    assert whole.converged.any()
    check(whole, parts)
    alone = train([w[2:3] for w in weights], x[2:3], labels[2:3], **settings)
    np.testing.assert_allclose(alone.course[:, 0], whole.course[:, 2], atol=1e-9)


def test_nothing_is_read_back_between_marks(gpu, monkeypatch):
    if gpu.kernels == "cupy" and not hasattr(gpu.cp, "machine"):
        pytest.skip("only the pretend GPU counts what is read")
    made, read, forward, host_read = [], [], Block.forward, gpu.cp.machine.host_read
    monkeypatch.setattr(Block, "forward", lambda self: (made.append(self), forward(self))[1])
    monkeypatch.setattr(gpu.cp.machine, "host_read", lambda what: (read.append(len(made) - 1), host_read(what))[1])
    done = train(draw_weights((2, 3, 3, 1), range(5)), *xor_easy(), limit=900, **EXACT | {"learning_rate": 0.2},
                 device=gpu)  # fmt: skip
    assert set(read) == set(done.marks.tolist())
    assert len(made) == 901
    assert (done.steps[done.converged] < 900).any()
    assert not np.isin(done.steps[done.converged], done.marks).all(), "a net stopped between two marks"


def test_divergence(gpu):
    weights = draw_weights((2, 3, 3, 1), range(3))
    with pytest.raises(DivergedError, match=r"NaN or infinite by step \d+, at learning rate 1e\+308"):
        train(weights, *points(range(3)), limit=50, learning_rate=1e308, threshold=0.01, device=gpu)


def test_the_experiment_on_a_gpu(gpu):
    settings = Settings(learning_rates=(0.8,), limit=30, dtype="float64")
    sets = [gn.datasets.load(name) for name in ("linear", "xor-easy")]
    here, there = (Run(x, sets, settings, [0, 1]).compute(device) for device in ("cpu", gpu))
    assert (here.device, there.device) == ("cpu", "cuda:0")
    for one, other in zip(here.rows, there.rows, strict=True):
        assert one.name == other.name
        for name, metric in one.metrics.items():
            if name != "gradient_error":
                np.testing.assert_allclose(other.metrics[name].values, metric.values, atol=1e-6, err_msg=one.name)
