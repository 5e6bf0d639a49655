"""How CupyBackend launches its kernels: how many, on how many blocks, with what types, and never with new memory."""

from __future__ import annotations

import types
from collections import Counter

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.base import N_SCALARS, SECOND_STEP, STEP
from gpunet.backend.cupy_backend import CupyBackend, Kernels
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import CaptureError

from ..conftest import stand_in
from .case_list import CASES, CONVS
from .cases import Bench, conv, results
from .host_module import running


@pytest.fixture
def gpu():
    return CupyBackend(module=stand_in())


class Step:
    """One training step as Trainer issues it, on arrays that stay where they are."""

    def __init__(self, backend, layers, shape, batch=64, dtype="float32"):
        rng = np.random.default_rng(0)
        self.backend, self.batch = backend, batch
        self.model = gn.Sequential(layers)
        self.model.build(shape, backend, dtype=dtype)
        self.model.bind(batch)
        self.x = backend.asarray(rng.integers(0, 256, (200, *shape)).astype("uint8"))
        self.labels = backend.asarray(rng.integers(0, 10, 200))
        self.order, self.cursor = backend.asarray(rng.permutation(200)), backend.asarray(np.array([0]))
        self.inputs, self.targets = backend.empty((batch, *shape), dtype), backend.empty(batch, "int64")
        self.totals = backend.asarray(np.array([0.0, 0, 0, -1]))
        self.scalars = backend.asarray(np.array([0.01, 0.9, 0.999, 1e-8, 1e-4, 0, 0, 0, 0]))
        self.loss = gn.SoftmaxCrossEntropy()
        self.loss.attach(backend, "identity")
        self.moments = [backend.zeros(len(self.model.flat[0]), dtype) for _ in range(2)]

    def run(self):
        backend, model = self.backend, self.model
        backend.take_batch(
            self.x, self.labels, self.order, self.cursor, 1 / 255, self.inputs, self.targets, self.scalars
        )
        model._learn(self.inputs, self.targets, self.loss, self.totals)
        params, grads, decayed = model.flat
        backend.adam(params, grads, *self.moments, self.scalars, decayed)

    def state(self):
        return [np.array(self.backend.to_host(a)) for a in (self.model.flat[0], *self.moments, self.totals)]


def dense():
    return [gn.Dense(512, "relu"), gn.Dense(256, "relu"), gn.Dense(10)]


def test_dropout_is_two_launches_a_layer_and_one_a_step(gpu):
    step = Step(gpu, [gn.Dense(60, "relu"), gn.Dropout(), gn.Dense(40, "relu"), gn.Dropout(), gn.Dense(10)], (30,))
    for mode, launches in ((True, {"dropout_f32": 4, "redraw": 1}), (False, {"activate_f32": 2})):
        step.model.train(mode)
        with gpu.session():
            step.run()
            gpu.cp.machine.launched.clear()
            step.run()
        names = {"dropout_f32", "redraw", "activate_f32"}
        assert Counter(name for name in gpu.cp.machine.launched if name in names) == Counter(launches)


def convnet():
    return [gn.Conv2D(8, 3, "relu", pool=2), gn.Conv2D(30, 3, "relu", pool=2), gn.Flatten(), gn.Dense(10)]


@pytest.mark.parametrize(("keeps_nan", "activations"), [(True, 0), (False, 2)])
def test_a_step_of_the_mnist_net_is_12_launches_at_most(gpu, keeps_nan, activations):
    gpu.cp.cublaslt.relu_keeps_nan = keeps_nan
    step = Step(gpu, dense(), (784,))
    with gpu.session():
        step.run()
        gpu.cp.machine.launched.clear()
        step.run()
    assert Counter(gpu.cp.machine.launched) == Counter({
        "gather_u8_f32": 1, "cublasLtMatmul": 5, "bias_activation_f32": activations,
        "affine_softmax_cross_entropy_f32": 1, "narrow_backward_f32": 1, "chain_and_sum_f32": 1, "adam_f32": 1,
    })  # fmt: skip
    assert len(gpu.cp.machine.launched) <= 12


def test_a_step_of_a_convnet_is_one_launch_forward_and_two_backward_each(gpu):
    step = Step(gpu, convnet(), (3, 16, 16), batch=8)
    with gpu.session():
        step.run()
        gpu.cp.machine.launched.clear()
        step.run()
    launched = Counter(gpu.cp.machine.launched)
    assert launched["conv_f32"] == launched["conv_filters_f32"] == 2
    assert launched["conv_inputs_f32"] == 1  # nobody wants the gradient of the data
    assert launched["activation_backward_f32"] == 2
    assert launched.total() == 12


@pytest.mark.parametrize(("layers", "shape", "batch"), [(dense, (784,), 64), (convnet, (3, 16, 16), 8)])
def test_a_step_computes_what_numpy_computes(gpu, layers, shape, batch):
    steps = [Step(backend, layers(), shape, batch, "float64") for backend in (gpu, NumpyBackend())]
    for step in steps:
        with step.backend.session():
            for _ in range(2):
                step.run()
    for found, right in zip(*(step.state() for step in steps), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-11 * max(1, np.abs(right).max()))


@pytest.mark.parametrize(("layers", "shape", "batch"), [(dense, (64,), 16), (convnet, (3, 12, 12), 5)])
def test_a_recorded_step_gives_the_bits_of_an_eager_one(gpu, layers, shape, batch):
    eager, recorded = (Step(gpu, layers(), shape, batch) for _ in range(2))
    with gpu.session():
        eager.run()
        recorded.run()
        replay = gpu.record(recorded.run)
        for _ in range(2):
            eager.run()
            with running("shuffled", 5):
                replay()
    for found, right in zip(recorded.state(), eager.state(), strict=True):
        assert found.tobytes() == right.tobytes()


# -- views, dtypes, shapes -------------------------------------------------------------------------------------------


def test_views_with_strides_are_copied_into_scratch_memory(gpu, rng):
    wide = gpu.asarray(rng.normal(size=(9, 40)).astype("float32"))
    view, copy = wide[:, 3:17], gpu.asarray(gpu.to_host(wide)[:, 3:17])
    weight = gpu.asarray(rng.normal(size=(5, 14)).astype("float32"))
    for run in (
        lambda x, out: gpu.affine(x, weight, None, "relu", out),
        lambda x, out: gpu.gemm(x, weight, out, transpose_b=True),
        lambda x, out: gpu.affine(x, weight, gpu.zeros(5), "sigmoid", out),
    ):
        outs = [gpu.empty((9, 5)) for _ in range(2)]
        run(view, outs[0])
        run(copy, outs[1])
        np.testing.assert_array_equal(*map(gpu.to_host, outs))
    outs = [gpu.empty((9, 14)) for _ in range(2)]
    gpu.activate("sigmoid", view, outs[0])
    gpu.activate("sigmoid", copy, outs[1])
    np.testing.assert_array_equal(*map(gpu.to_host, outs))


def test_a_data_set_of_a_rare_dtype_works_but_cannot_be_recorded(gpu, rng):
    data = rng.normal(size=(9, 4)).astype("float16")
    given, order, cursor = gpu.asarray(data), gpu.asarray(np.arange(9)[::-1].copy()), gpu.asarray(np.array([1]))
    out = gpu.empty((3, 4))
    with gpu.session():
        gpu.gather(given, order, cursor, 0.5, out)
        np.testing.assert_array_equal(gpu.to_host(out), data[[7, 6, 5]].astype("float32") / 2)
        with pytest.raises(CaptureError):
            gpu.record(lambda: gpu.gather(given, order, cursor, 0.5, out))
        gpu.gather(given, order, cursor, 1, out)


def test_scratch_does_not_grow_with_every_size_of_batch(gpu, rng):
    kept = []
    for n in (32, 31, 17, 5, 1):
        bench = Bench(gpu, "float32")
        with gpu.session():
            for case in (conv((n, *CONVS[2][1:])), *CASES[18:20]):
                results(bench, case.run(bench, *case.draw(rng)))
            z, labels = bench.give(rng.normal(size=(n, 10))), bench.give(rng.integers(0, 10, n))
            gpu.softmax_cross_entropy(z, labels, 1.0, bench.room((n, 10)), gpu.zeros(4, "float64"))
            gpu.activation_backward("relu", z, z, bench.room((n, 10)), bench.room(10))
        kept.append(len(gpu.pool.arrays))
    assert kept[0] == kept[-1]


class Large(types.SimpleNamespace):
    """An array as the dispatch sees it, without the memory."""

    def __init__(self, shape, dtype="float32"):
        size, dtype = int(np.prod([int(n) for n in shape])), np.dtype(dtype)
        super().__init__(shape=shape, ndim=len(shape), dtype=dtype, size=size, itemsize=dtype.itemsize,
                         flags=types.SimpleNamespace(c_contiguous=True))  # fmt: skip

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        return Large(self.shape[1:], self.dtype)


def test_sizes_beyond_32_bits_are_launched_within_cudas_limits(gpu, monkeypatch):
    launches = []
    monkeypatch.setattr(
        Kernels, "launch", lambda self, name, dtype, grid, block, *args: launches.append((grid, block, args))
    )
    monkeypatch.setattr(CupyBackend, "scratch", lambda self, purpose, shape, dtype: Large((1,), dtype))
    monkeypatch.setattr(CupyBackend, "constant", lambda self, purpose, key, make: Large((1,)))
    rows, images, maps = Large((3_000_000, 1024)), Large((500_000, 3, 64, 64)), Large((500_000, 32, 64, 64))
    bias, labels, filters = Large((1024,)), Large((3_000_000,), "int64"), Large((32, 3, 3, 3))
    gpu.activate("relu", rows, Large(rows.shape))
    gpu.activation_backward("relu", rows, rows, rows, bias)
    gpu.activation_backward("relu", rows, rows, rows, None)
    gpu.gather(rows, labels, bias, 1, Large(rows.shape))
    gpu.softmax_cross_entropy(rows, labels, 1, rows, bias)
    gpu.adam(*[Large((3_000_000_000,))] * 4, bias, 3_000_000_000)
    gpu.conv2d(images, filters, bias, "relu", 1, 1, maps, None)
    gpu.conv2d_backward(images, filters, 1, 1, None, maps, filters, bias, images)
    gpu.maxpool2d(maps, 2, Large((500_000, 32, 32, 32)), None)
    gpu.maxpool2d_backward(Large((500_000, 32, 32, 32)), Large((1,)), 2, maps)
    narrow, scores = Large((10, 1024)), Large((3_000_000, 10))
    gpu.affine_loss(rows, narrow, bias, scores, "softmax_cross_entropy", (), labels, 1, scores, bias, bias)
    gpu.affine_backward(scores, rows, narrow, narrow, rows, "relu", bias)
    gpu.take_batch(rows, labels, labels, bias, 1, Large(rows.shape), labels, bias)
    assert len(launches) == 14
    for grid, block, args in launches:
        assert 32 <= np.prod(block) <= 256
        assert 0 < grid[0] < 2**31
        assert max(grid[1:], default=1) <= 65535
        for arg in args:
            assert arg is None or isinstance(arg, (Large, np.generic)), (
                "a Python number has no type that a kernel could rely on"
            )


@pytest.mark.parametrize("source", ["uint8", "float16"])
@pytest.mark.parametrize(("place", "n"), [(0, 4), (-3, 5), (7, 6), (40, 3), (2, 0)])
def test_a_batch_beyond_the_order_or_without_samples(gpu, source, place, n):
    """Rows that are not there are the nearest; labels, cursor and clocks move all the same. float16 has no kernel."""
    data, order = np.arange(30).reshape(10, 3).astype(source), np.array([3, 1, -2, 12, 0, 9, 4, 7])
    given = [gpu.asarray(each) for each in (data, np.arange(10), order, np.array([place]))]
    out, labels, clock = gpu.empty((n, 3)), gpu.empty(n, "int64"), gpu.zeros((1, N_SCALARS), "float64")
    gpu.take_batch(*given, 0.5, out, labels, clock)
    rows = order[np.clip(place + np.arange(n), 0, 7)].clip(0, 9)
    np.testing.assert_array_equal(gpu.to_host(out), data[rows] * 0.5)
    np.testing.assert_array_equal(gpu.to_host(labels), rows)
    assert gpu.to_host(given[3]) == place + n
    assert gpu.to_host(clock)[0, [STEP, SECOND_STEP]].tolist() == [1, 1]
