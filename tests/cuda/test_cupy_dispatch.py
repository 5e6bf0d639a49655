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
from . import pretend_cublaslt
from .case_list import CASES, CONVS
from .cases import Bench, Emulation, conv, results
from .halves import bits, numbers
from .host_module import running
from .pretend import pretend


@pytest.fixture
def gpu():
    return CupyBackend(module=stand_in())


class Step:
    """One training step as Trainer issues it, on arrays that stay where they are."""

    def __init__(self, backend, layers, shape, batch=64, dtype="float32", mixed=False):
        rng = np.random.default_rng(0)
        self.backend, self.batch = backend, batch
        self.model = gn.Sequential(layers)
        self.model.build(shape, backend, dtype=dtype)
        self.model._mix(mixed)
        self.model.bind(batch)
        self.model.train()
        self.x = backend.asarray(rng.integers(0, 256, (200, *shape)).astype("uint8"))
        self.labels = backend.asarray(rng.integers(0, 10, 200))
        self.order, self.cursor = backend.asarray(rng.permutation(200)), backend.asarray(np.array([0]))
        low = self.model._low_input
        self.inputs = backend.empty((batch, *shape), dtype) if low is None else low
        self.targets = backend.empty(batch, "int64")
        self.rounded = self.model._arenas.rounded.flat[: len(self.model.flat[0])] if mixed else None
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
        backend.adam(params, grads, *self.moments, self.scalars, decayed, rounded=self.rounded)

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


def test_averages_of_maps_are_a_launch_for_a_block_of_images_and_two_for_each_of_filters(gpu):
    images, filters = 33, 1025  # one more than a block of each takes
    x, weight = gpu.zeros((images, 1, 4, 4)), gpu.zeros((filters, 1, 2, 2))
    out = gpu.empty((images, filters, 1, 1))
    with gpu.session():
        gpu.conv2d_avgpool(x, weight, None, "relu", 0, 3, 3, out)
        kept = len(gpu.pool.arrays)
        gpu.cp.machine.launched.clear()
        gpu.conv2d_avgpool(x, weight, None, "relu", 0, 3, 3, out)
    assert Counter(gpu.cp.machine.launched) == {"im2col_f32": 2, "cublasLtMatmul": 4, "average_maps_f32": 4}
    assert len(gpu.pool.arrays) == kept


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


def test_a_mixed_step_of_the_mnist_net_is_13_launches(gpu):
    """One more than that of float32: the loss's gradient is float32, and what the products take of it is not."""
    step = Step(gpu, dense(), (784,), mixed=True)
    with gpu.session():
        step.run()
        gpu.cp.machine.launched.clear()
        step.run()
    assert Counter(gpu.cp.machine.launched) == Counter({
        "gather_u8_bf16": 1, "cublasLtMatmul": 5, "bias_activation_bf16": 2, "affine_softmax_cross_entropy_bf16": 1,
        "to_bfloat16": 1, "narrow_backward_bf16": 1, "chain_and_sum_bf16": 1, "adam_f32": 1,
    })  # fmt: skip


def factored():
    return [gn.LowRankDense(64, 9, "relu"), gn.LowRankDense(32, 20, "tanh"), gn.Dense(10)]


# By what a net is of: layers, shape of a sample, batch, whether precisions are mixed.
NETS = {
    "dense": (dense, (64,), 16, False), "convolutions": (convnet, (3, 12, 12), 5, False),
    "mixed": (dense, (64,), 16, True), "mixed and factored": (factored, (64,), 16, True),
    "mixed above convolutions": (convnet, (3, 12, 12), 5, True),
}  # fmt: skip


@pytest.mark.parametrize("forks", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_a_recorded_step_gives_the_bits_of_an_eager_one(gpu, net, forks):
    layers, shape, batch, mixed = NETS[net]
    gpu.forks = forks
    eager, recorded = (Step(gpu, layers(), shape, batch, mixed=mixed) for _ in range(2))
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


@pytest.mark.parametrize("net", [name for name in NETS if "mixed" in name])
def test_a_mixed_step_computes_what_numpys_emulation_computes(gpu, net):
    """A first step's gradients, up to the roundings that other orders of sums turn to the next bfloat16.

    Each of those is half of 2⁻⁸ at most of one of the products that a gradient is the sum of, in each of two layers.
    """
    layers, shape, batch, mixed = NETS[net]
    steps = [Step(backend, layers(), shape, batch, mixed=mixed) for backend in (gpu, Emulation())]
    for step in steps:
        with step.backend.session():
            step.run()
    found, right = (step.backend.to_host(step.model.flat[1]) for step in steps)
    assert np.abs(found - right).max() <= 2**-8 * np.abs(right).max()
    assert np.linalg.norm(found - right) <= 2**-9 * np.linalg.norm(right)
    found, right = (step.state()[-1] for step in steps)
    np.testing.assert_allclose(found, right, rtol=2**-9)
    for step in steps:
        params, rounded = (step.backend.to_host(each) for each in (step.model.flat[0], step.rounded))
        np.testing.assert_array_equal(rounded, bits(params))


def test_products_of_whole_numbers_have_numpys_bits(gpu, rng):
    """Sums that float32 holds exactly know no order: forward and backward of two layers, and what lies between."""
    x, first, second, dz = (rng.integers(-4, 5, shape) / 4.0 for shape in ((40, 24), (32, 24), (20, 32), (40, 20)))
    found = []
    for backend in (gpu, Emulation()):
        bench = Bench(backend, "float32", mixed=True)
        given, weights, slopes = bench.give(x, half=True), [bench.give(w, half=True) for w in (first, second)], dz
        h, y, dh = (bench.room(shape, half=True) for shape in ((40, 32), (40, 20), (40, 32)))
        grads, sums = [bench.room(w.shape) for w in (first, second)], bench.room(32)
        with backend.session():
            backend.affine(given, weights[0], bench.give(np.arange(32) / 8.0), "relu", h)
            backend.gemm(h, weights[1], y, transpose_b=True)
            backend.affine_backward(bench.give(slopes, half=True), h, weights[1], grads[1], dh, "relu", sums)
            backend.affine_backward(dh, given, weights[0], grads[0], None, "identity", None)
        found.append(results(bench, (h, y, dh, *grads, sums)))
    for ours, right in zip(*found, strict=True):
        np.testing.assert_array_equal(*(numbers(e) if e.dtype == np.uint16 else e for e in (ours, right)))


def test_why_bfloat16_and_tf32_would_be_no_faster(monkeypatch):
    def backend(major=9, refuse=lambda compute, epilogue: False):
        cp = pretend()
        cp.cublaslt.refuse = refuse
        properties = cp.cuda.runtime.getDeviceProperties
        cp.cuda.runtime.getDeviceProperties = lambda index: properties(index) | {"major": major}
        return CupyBackend(module=cp)

    new, old = backend(), backend(7)
    assert new.slow_bfloat16 == new.slow_tf32 == ""
    assert old.slow_bfloat16 == old.slow_tf32
    assert "Pretend GPU has no such units: it has compute capability 7.0, they came with 8.0" in old.slow_tf32
    broken = backend()
    monkeypatch.setitem(pretend_cublaslt.MATRICES, 68, {(0, 0)})
    assert broken.slow_tf32 == ""
    assert "cublasLtMatmulAlgoGetHeuristic failed with CUBLAS_STATUS_INVALID_VALUE" in broken.slow_bfloat16
    without = backend(refuse=lambda compute, epilogue: True)
    assert without.slow_tf32 == without.slow_bfloat16 == f"products run through cupy.matmul: {without.products.reason}"


@pytest.mark.parametrize("word", ["mixed", "tf32"])
def test_a_trainers_word_reaches_the_products_of_its_steps_alone(gpu, word):
    asked = []
    gpu.cp.cublaslt.refuse = lambda compute, epilogue: bool(asked.append(compute))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 20)).astype("float32"), rng.integers(0, 3, 48)
    model = gn.Sequential([gn.Dense(32, "relu"), gn.Dense(24, "relu"), gn.Dense(3)])
    trainer = gn.Trainer(model, device=gpu, precision=word)
    assert trainer.precision == word
    trainer.fit(x, y, epochs=3, batch_size=16)
    assert not trainer.graphs.reason
    assert set(asked) == ({68} if word == "mixed" else {68, 77})  # 68: the check, and keeps_nan
    assert gpu.tf32 is False
    del asked[:]
    trainer.evaluate(x, y)
    assert set(asked) == {68}


def test_without_cublaslt_mixed_steps_are_computed_in_float32(gpu):
    """Products through cupy.matmul widen their operands, and round what is to be rounded."""
    gpu.cp.cublaslt.fails["cublasLtMatmul"] = 8
    assert gpu.products.reason
    steps = [Step(backend, dense(), (64,), 16, mixed=True) for backend in (gpu, Emulation())]
    for step in steps:
        with step.backend.session():
            step.run()
    found, right = (step.backend.to_host(step.model.flat[1]) for step in steps)
    assert np.linalg.norm(found - right) <= 2**-9 * np.linalg.norm(right)


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
    half, halves = gpu.empty((9, 40), "uint16"), gpu.empty((9, 14), "uint16")
    gpu.to_bfloat16(wide, half)
    gpu.to_bfloat16(view, halves)
    np.testing.assert_array_equal(gpu.to_host(halves), gpu.to_host(half)[:, 3:17])
    for run in (
        lambda x, out: gpu.gemm(x, halves, out, transpose_b=True),
        lambda x, out: gpu.affine(x, halves, gpu.zeros(9), "relu", out),
    ):
        outs = [gpu.empty((9, 9), "uint16") for _ in range(2)]
        run(half[:, 3:17], outs[0])
        run(halves, outs[1])
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
        Kernels, "launch", lambda self, name, dtypes, grid, block, *args: launches.append((grid, block, args))
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
    gpu.avgpool2d(maps, 2, 1, Large((500_000, 32, 63, 63)))
    gpu.avgpool2d_backward(Large((500_000, 32, 63, 63)), 2, 1, maps)
    narrow, scores = Large((10, 1024)), Large((3_000_000, 10))
    gpu.affine_loss(rows, narrow, bias, scores, "softmax_cross_entropy", (), labels, 1, scores, bias, bias)
    gpu.affine_backward(scores, rows, narrow, narrow, rows, "relu", bias)
    gpu.take_batch(rows, labels, labels, bias, 1, Large(rows.shape), labels, bias)
    half, slopes = Large(rows.shape, "uint16"), Large(scores.shape, "uint16")
    gpu.to_bfloat16(rows, half)
    gpu.take_batch(rows, labels, labels, bias, 1, half, labels, bias)
    gpu.activation_backward("relu", half, rows, half, bias)
    gpu.affine_loss(half, Large(narrow.shape, "uint16"), bias, scores, "softmax_cross_entropy", (), labels, 1, scores,
                    bias, bias)  # fmt: skip
    gpu.affine_backward(slopes, half, Large(narrow.shape, "uint16"), narrow, half, "relu", bias)
    assert len(launches) == 21
    for grid, block, args in launches:
        assert 32 <= np.prod(block) <= 256
        assert 0 < grid[0] < 2**31
        assert max(grid[1:], default=1) <= 65535
        for arg in args:
            assert arg is None or isinstance(arg, (Large, np.generic)), (
                "a Python number has no type that a kernel could rely on"
            )


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("source", ["uint8", "float16"])
@pytest.mark.parametrize(("place", "n"), [(0, 4), (-3, 5), (7, 6), (40, 3), (2, 0)])
def test_a_batch_beyond_the_order_or_without_samples(gpu, source, dtype, place, n):
    """Rows that are not there are the nearest; labels, cursor and clocks move all the same. float16 has no kernel."""
    data, order = np.arange(30).reshape(10, 3).astype(source), np.array([3, 1, -2, 12, 0, 9, 4, 7])
    given = [gpu.asarray(each) for each in (data, np.arange(10), order, np.array([place]))]
    out, labels, clock = gpu.empty((n, 3), dtype), gpu.empty(n, "int64"), gpu.zeros((1, N_SCALARS), "float64")
    gpu.take_batch(*given, 0.5, out, labels, clock)
    rows = order[np.clip(place + np.arange(n), 0, 7)].clip(0, 9)
    found = gpu.to_host(out)
    np.testing.assert_array_equal(numbers(found) if dtype == "uint16" else found, data[rows] * 0.5)
    np.testing.assert_array_equal(gpu.to_host(labels), rows)
    assert gpu.to_host(given[3]) == place + n
    assert gpu.to_host(clock)[0, [STEP, SECOND_STEP]].tolist() == [1, 1]
