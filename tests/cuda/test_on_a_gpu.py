"""What only a GPU can prove, on one where there is one; the pretend GPU goes through the same tests everywhere."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.cublaslt import CublasLt
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.backend.device import gpu_facts
from gpunet.errors import CaptureError, MemoryFullError

from ..conftest import RTOL, need_gpu
from .halves import bits, half_even, numbers
from .host_module import why_not
from .pretend import pretend


@pytest.fixture(params=["pretend", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request):
    if request.param == "cupy":
        need_gpu()
    elif reason := why_not():
        pytest.skip(reason)
    return CupyBackend(module=pretend() if request.param == "pretend" else None)


@pytest.fixture
def arrays(backend, rng):
    a, b = (rng.normal(size=(48, 48)).astype("float32") for _ in range(2))
    return backend.asarray(a), backend.asarray(b), backend.empty((48, 48))


SIZES = [(64, 784, 512), (1, 1, 1), (31, 33, 17), (5, 1000, 3), (2048, 256, 10), (3, 0, 4)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(backend, rng, dtype, size):
    m, k, n = size if backend.xp.__name__ == "cupy" else (min(each, 70) for each in size)
    bias = rng.normal(size=n).astype(dtype)
    for transpose_a, transpose_b, with_bias, relu in np.ndindex(2, 2, 2, 2):
        a = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
        right = (a.T if transpose_a else a).astype(float) @ (b.T if transpose_b else b) + with_bias * bias.astype(float)
        right = np.maximum(right, 0) if relu else right
        out = backend.asarray(np.full((m, n), np.nan, dtype))
        given = backend.asarray(bias) if with_bias else None
        with backend.session():
            for _ in range(2):
                backend.products.matmul(
                    backend.asarray(a), backend.asarray(b), out, bool(transpose_a), bool(transpose_b), given, bool(relu)
                )
        error = np.abs(backend.to_host(out) - right).max(initial=0)
        assert error <= RTOL[dtype] * np.sqrt(max(1, k)) * np.abs(right).max(initial=1), (transpose_a, transpose_b)


def test_operands_at_any_place(backend, rng):
    """Slices of larger buffers, as parameters are: aligned to an element only."""
    host = [rng.normal(size=size).astype("float32") for size in (33 * 20, 20 * 7, 7)]
    right = host[0].reshape(33, 20) @ host[1].reshape(20, 7) + host[2]
    for offset in range(5):
        a, b, bias = (backend.asarray(np.concatenate([np.zeros(offset, "float32"), x]))[offset:] for x in host)
        out = backend.zeros(33 * 7 + offset)[offset:].reshape(33, 7)
        with backend.session():
            backend.products.matmul(a.reshape(33, 20), b.reshape(20, 7), out, bias=bias)
        np.testing.assert_allclose(backend.to_host(out), right, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_diverged_product_looks_diverged(backend, dtype):
    a = np.ones((64, 32), dtype)
    a[3], a[5] = np.nan, np.inf
    out, ones = backend.empty((64, 16), dtype), backend.asarray(np.ones((32, 16), dtype))
    with backend.session():
        backend.products.matmul(backend.asarray(a), ones, out, bias=backend.zeros(16, dtype), relu=True)
    found = backend.to_host(out)
    assert np.isnan(found[3]).all()
    assert np.isinf(found[5]).all()
    assert np.isfinite(np.delete(found, [3, 5], axis=0)).all()


@pytest.mark.parametrize("door", ["environment", "backend"])
def test_tf32_is_coarser_and_off_by_itself(backend, rng, door):
    a, b = (rng.normal(size=(256, 256)).astype("float32") for _ in range(2))
    if backend.slow_tf32:
        pytest.skip(backend.slow_tf32)
    errors, given, out = [], [backend.asarray(each) for each in (a, b)], backend.empty((256, 256))
    for tf32 in (False, True, False):
        with backend.session():
            if door == "environment":
                CublasLt(backend.cp, tf32=tf32 or None).matmul(*given, out)
            else:
                backend.tf32 = tf32
                backend.gemm(*given, out)
        errors.append(np.abs(backend.to_host(out) - a.astype(float) @ b.astype(float)).max())
    assert errors[0] == errors[2] < 2e-4
    assert 4 * errors[0] < errors[1] < 0.2


# -- bfloat16 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixes(backend):
    """The backend, if it multiplies bfloat16."""
    if backend.slow_bfloat16:
        pytest.skip(backend.slow_bfloat16)
    return backend


@pytest.mark.parametrize("out_dtype", ["float32", "uint16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_of_bfloat16(mixes, rng, size, out_dtype):
    """Summed in float32, and rounded once: between what the bounds of such a sum round to."""
    m, k, n = size if mixes.xp.__name__ == "cupy" else (min(each, 70) for each in size)
    for transpose_a, transpose_b in np.ndindex(2, 2):
        a, b = (half_even(rng.normal(size=shape)) for shape in ((m, k), (k, n)))
        given = (
            mixes.asarray(bits(each.T if turned else each)) for each, turned in ((a, transpose_a), (b, transpose_b))
        )
        out = mixes.asarray(np.full((m, n), 0x7FC0).astype(out_dtype))
        with mixes.session():
            mixes.gemm(*given, out, bool(transpose_a), bool(transpose_b))
        found, right = mixes.to_host(out), a @ b
        slack = RTOL["float32"] * np.sqrt(max(1, k)) * np.abs(right).max(initial=1)
        if out_dtype == "float32":
            assert np.abs(found - right).max(initial=0) <= slack
        else:
            assert (half_even(right - slack) <= numbers(found)).all()
            assert (numbers(found) <= half_even(right + slack)).all()


def test_whole_numbers_in_bfloat16_have_no_error_but_the_last_rounding(mixes, rng):
    """Long sums, which a GPU may split: parts that were rounded by themselves would show."""
    m, k, n = (64, 8192, 32) if mixes.xp.__name__ == "cupy" else (16, 512, 8)
    a, b = rng.integers(-8, 9, (m, k)), rng.integers(-8, 9, (k, n))
    for dtype in ("float32", "uint16"):
        out = mixes.empty((m, n), dtype)
        with mixes.session():
            mixes.gemm(mixes.asarray(bits(a)), mixes.asarray(bits(b)), out)
        found = mixes.to_host(out)
        np.testing.assert_array_equal(found, a @ b if dtype == "float32" else bits(a @ b))


@pytest.mark.parametrize("offset", range(5))
def test_operands_of_bfloat16_at_any_place(mixes, rng, offset):
    """Aligned to two bytes alone, as a layer's parameters may be that stand behind others."""
    host = [half_even(rng.normal(size=shape)) for shape in ((33, 20), (7, 20))]
    bias, out = rng.normal(size=7).astype("float32"), mixes.empty(33 * 7 + offset, "uint16")[offset:].reshape(33, 7)
    given = [mixes.asarray(np.concatenate([np.zeros(offset, "uint16"), bits(x).ravel()]))[offset:] for x in host]
    with mixes.session():
        mixes.affine(given[0].reshape(33, 20), given[1].reshape(7, 20), mixes.asarray(bias), "relu", out)
    right, found = np.maximum(host[0] @ host[1].T + bias, 0), numbers(mixes.to_host(out))
    assert (half_even(right - 5e-5) <= found).all()
    assert (found <= half_even(right + 5e-5)).all()


@pytest.mark.parametrize("rounds", [True, False])
def test_a_diverged_product_of_bfloat16_looks_diverged(mixes, rounds):
    a = np.ones((64, 32))
    a[3], a[5] = np.nan, np.inf
    out = mixes.empty((64, 24), "uint16" if rounds else "float32")
    with mixes.session():
        mixes.affine(mixes.asarray(bits(a)), mixes.asarray(bits(np.ones((24, 32)))), mixes.zeros(24), "relu", out)
    found = mixes.to_host(out)
    found = numbers(found) if rounds else found
    assert np.isnan(found[3]).all()
    assert np.isinf(found[5]).all()
    assert np.isfinite(np.delete(found, [3, 5], axis=0)).all()


def test_denormals_and_nan_are_rounded_as_anywhere(backend):
    """By bit operations, which CuPy's -ftz=true does not reach."""
    upper, lower = np.arange(1 << 16, dtype="uint32"), np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], "uint32")
    x = (upper[:, None] << 16 | lower).view("float32")
    out = backend.empty(x.shape, "uint16")
    with backend.session():
        backend.to_bfloat16(backend.asarray(x), out)
    np.testing.assert_array_equal(backend.to_host(out), bits(x))


def test_work_in_a_session_and_outside_is_in_order(backend, arrays):
    """Sessions run on a stream of their own; the default stream waits for it, and it for the default stream."""
    out, xp = arrays[2], backend.xp
    right = np.zeros((48, 48), "float32")
    backend.copy(0, out)
    for step in range(30):
        with backend.session():
            for _ in range(5):
                xp.add(out, 1, out=out)
        right += 5
        xp.multiply(out, 2 if step % 10 == 0 else 1, out=out)
        right *= 2 if step % 10 == 0 else 1
    np.testing.assert_array_equal(xp.asnumpy(out), right)


def test_another_stream_is_in_order_too(backend, arrays):
    out, xp = arrays[2], backend.xp
    backend.copy(0, out)
    backend.synchronize()  # theirs is not in a session's order before it meets one
    with xp.cuda.Device(backend.index), xp.cuda.Stream(non_blocking=True):
        for _ in range(20):
            xp.add(out, 1, out=out)
            with backend.session():
                xp.multiply(out, 2, out=out)
        found = xp.asnumpy(out)
    right = 0.0
    for _ in range(20):
        right = np.float32((right + 1) * 2)
    assert (found == right).all()


# -- graphs -----------------------------------------------------------------------------------------------------------


def test_a_replay_gives_eagers_bits(backend, arrays):
    a, b, out = arrays
    after = backend.empty((48, 48))
    bias = backend.asarray(np.linspace(-1, 1, 48, dtype="float32"))

    def work():
        backend.affine(a, b, bias, "relu", out)
        backend.affine(out, b, bias, "sigmoid", after)
        backend.gemm(after, out, a, transpose_a=True)

    start = backend.to_host(a).copy()
    with backend.session():
        for _ in range(4):
            work()
        eager = [backend.to_host(x).copy() for x in (a, out, after)]
        backend.copy(start, a)
        replay = backend.record(work)
        np.testing.assert_array_equal(backend.to_host(a), start)
        for _ in range(4):
            replay()
    for x, right in zip((a, out, after), eager, strict=True):
        np.testing.assert_array_equal(backend.to_host(x), right)


REFUSED = {
    "allocation": lambda b, a, out: b.cp.empty(1000),
    "temporary": lambda b, a, out: b.cp.add(a * 2, a, out=out),
    "from the pool": lambda b, a, out: b.cp.empty((48, 48), "float32"),
    "upload": lambda b, a, out: b.cp.asarray(np.ones(4)),
    "read": lambda b, a, out: b.cp.asnumpy(a),
    "look": lambda b, a, out: float(a[0, 0]),
    "wait for the stream": lambda b, a, out: b.cp.cuda.get_current_stream().synchronize(),
    "wait for the device": lambda b, a, out: b.cp.cuda.Device(0).synchronize(),
    "cuBLAS": lambda b, a, out: b.cp.matmul(a, a, out=out),
    "cuSOLVER": lambda b, a, out: b.cp.linalg.svd(a),
    "new product": lambda b, a, out: b.gemm(a, a, out, transpose_a=True),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_recorded_leaves_everything_usable(backend, arrays, what):
    a, _, out = arrays
    spare = backend.empty((48, 48))
    del spare
    with backend.session():
        backend.gemm(a, a, out)
    right = backend.to_host(out).copy()
    with pytest.raises(CaptureError):
        backend.record(lambda: REFUSED[what](backend, a, out))
    np.testing.assert_array_equal(backend.to_host(out), right)
    assert gc.isenabled()
    with backend.session():
        replay = backend.record(lambda: backend.gemm(a, a, out))
        backend.copy(0, out)
        replay()
    np.testing.assert_array_equal(backend.to_host(out), right)


def test_recordings_may_be_dropped_while_they_run(backend, arrays):
    a, b, out = arrays
    with backend.session():
        backend.gemm(a, b, out)
        right = backend.to_host(out).copy()
        for _ in range(20):
            backend.record(lambda: backend.gemm(a, b, out))()
            kept = backend.empty(1000)  # memory is asked for and given back between replays
            del kept
    np.testing.assert_array_equal(backend.to_host(out), right)


@pytest.mark.parametrize("precision", ["float32", "mixed", "tf32"])
def test_replayed_training_gives_the_bits_of_eager_training(backend, precision):
    """Tiny, for the pretend GPU's sake; the full batch and the short one at each epoch's end."""
    data, found = gn.datasets.load("digits"), []
    for graphs in ("auto", "off"):
        model = gn.Sequential([gn.Dense(12, "relu"), gn.Dense(8, "sigmoid"), gn.Dense(10)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on a GPU without such units: in float32
            trainer = gn.Trainer(
                model, optimizer=gn.Adam(3e-3), device=backend, seed=3, graphs=graphs, precision=precision
            )
        trainer.fit(data.x_train[:72], data.y_train[:72], epochs=2, batch_size=30)
        found.append({name: backend.to_host(p) for name, p in model.parameters.items()})
        assert bool(trainer.graphs.reason) is (graphs == "off"), trainer.graphs.reason
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_full_device_is_one_line_and_no_end(backend):
    total = backend.memory()["total"]
    with pytest.raises(
        MemoryFullError, match=r"no room on cuda:0 \(.+\) for an array of shape .+ GiB are free"
    ) as error:
        backend.empty((total, 2), "uint8")
    assert "\n" not in str(error.value)
    assert backend.to_host(backend.zeros(10)).tolist() == [0] * 10


def test_peak_memory_grows_with_what_is_held(backend):
    before = backend.memory()
    kept = backend.empty(before["peak"] + (8 << 20), "uint8")
    after = backend.memory()
    assert after["peak"] >= kept.nbytes
    assert after["total"] == before["total"] >= after["peak"]
    del kept
    assert backend.memory()["peak"] == after["peak"]


def test_facts(backend):
    facts = gpu_facts(backend)
    assert (facts["device"], facts["graphs"]) == ("cuda:0", "on"), facts
    assert facts["products"].startswith("cublasLt 1"), facts
    assert 0 < facts["free_bytes"] <= facts["memory_bytes"]
