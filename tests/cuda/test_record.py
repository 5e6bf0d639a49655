"""Recorded work: replayed it gives eager's bits, and whatever cannot be recorded leaves a stream that goes on."""

from __future__ import annotations

import contextlib
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import cublaslt
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.backend.device import why_no_graphs
from gpunet.errors import CaptureError, DivergedError, ShapeError

from .host_module import why_not
from .pretend import pretend

needs_compiler = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture
def backend():
    return CupyBackend(module=pretend(devices=2))


@pytest.fixture
def arrays(backend):
    return backend.asarray(np.arange(16.0, dtype="float32").reshape(4, 4)), backend.empty((4, 4))


def test_a_recording_runs_when_it_is_called_and_only_then(backend, arrays):
    x, out = arrays
    square = backend.to_host(x) @ backend.to_host(x)
    with backend.session():
        backend.gemm(x, x, out)
        backend.copy(0, out)
        replay = backend.record(lambda: backend.gemm(x, x, out))
        assert not backend.to_host(out).any()
        for _ in range(2):
            replay()
            np.testing.assert_array_equal(backend.to_host(out), square)
            backend.copy(0, out)
    (graph,) = (each() for each in backend.cp.machine.graphs)
    assert (graph.launches, graph.uploads) == (2, 1)


def test_numbers_are_baked_in_and_arrays_are_looked_up(backend, arrays):
    x, out = arrays
    number = [2]
    replay = backend.record(lambda: backend.cp.multiply(x, number[0], out=out))
    number[0] = 100
    backend.copy(3, x)
    with backend.session():
        replay()
    assert (backend.to_host(out) == 6).all()


WORK = {
    "allocate": lambda b, x, out: b.empty(10),
    "temporary": lambda b, x, out: b.cp.add(x * 2, x, out=out),
    "from_pool": lambda b, x, out: b.cp.empty((4, 4), "float32"),  # it is free in the pool: CUDA would not notice
    "scratch": lambda b, x, out: b.scratch("new", 8, "float32"),
    "constant": lambda b, x, out: b.constant("new", (8,), lambda: b.cp.zeros(8)),
    "upload": lambda b, x, out: b.asarray(np.ones(4)),
    "copy_host": lambda b, x, out: b.copy(np.ones((4, 4)), out),
    "read": lambda b, x, out: b.to_host(x),
    "look": lambda b, x, out: float(x[0, 0]),
    "wait": lambda b, x, out: b.synchronize(),
    "cublas": lambda b, x, out: b.cp.matmul(x, x, out=out),
    "decompose": lambda b, x, out: b.cp.linalg.svd(x),
    "new_product": lambda b, x, out: b.gemm(x, x, out, transpose_a=True),
    "nested": lambda b, x, out: b.record(lambda: None),
    "mistake": lambda b, x, out: b.no_such_operation(x),
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("allocate", "an allocation inside"),
        ("temporary", "kept array"),
        ("from_pool", "an allocation of 64 bytes"),
        ("scratch", "an allocation inside"),
        ("constant", "an allocation of 64 bytes"),
        ("upload", "a copy from the host"),
        ("copy_host", "a copy from the host"),
        ("read", "a read back to the host"),
        ("look", "cannot record this step: cudaErrorStreamCaptureUnsupported"),
        ("wait", "waiting for the device"),
        ("cublas", "cuBLAS"),
        ("decompose", "cuSOLVER"),
        ("new_product", "run the step once before"),
        ("nested", "another recording"),
        ("mistake", "no_such_operation"),
    ],
)
def test_what_cannot_be_recorded(backend, arrays, name, words):
    x, out = arrays
    free = backend.empty((4, 4))
    del free
    backend.gemm(x, x, out)
    before, held = backend.to_host(out).copy(), backend.cp.get_default_memory_pool().used_bytes()
    with pytest.raises(CaptureError, match=words) as error:
        backend.record(lambda: WORK[name](backend, x, out))
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(backend.to_host(out), before)  # nothing was run
    assert backend.cp.get_default_memory_pool().used_bytes() == held
    with backend.session():
        assert not backend.cp.cuda.get_current_stream().is_capturing()
    assert gc.isenabled()
    backend.gemm(x, x, out)  # the stream goes on
    with backend.session():
        backend.record(lambda: backend.gemm(x, x, out))()
    np.testing.assert_array_equal(backend.to_host(out), before)


def test_work_on_the_default_stream_breaks_the_recording_and_not_the_program(backend, arrays):
    _, out = arrays
    cp = backend.cp

    def work():
        with cp.cuda.Stream.null:
            out.fill(1)

    with pytest.raises(CaptureError, match="Implicit") as found:
        backend.record(work)
    assert not found.value.passing
    with backend.session():
        backend.record(lambda: backend.copy(5, out))()
    assert (backend.to_host(out) == 5).all()


NEXT = {  # by how the first call fails after another thread has ended the capture
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: ": lambda b, x, out: b.cp.add(x, x, out=out),
    "has invalidated the capture sequence": lambda b, x, out: b.gemm(x, x, out, transpose_a=True),
    "CUBLAS_STATUS_EXECUTION_FAILED": lambda b, x, out: b.gemm(x, x, out),
    "cudaErrorStreamCaptureInvalidated: ": lambda b, x, out: b._stream().record(),
    "cudaErrorStreamCaptureInvalidated: .* during capture": lambda b, x, out: None,  # end_capture itself
}


@pytest.mark.parametrize("words", NEXT)
def test_a_capture_that_another_thread_has_ended_may_be_tried_again(backend, arrays, words):
    x, out = arrays
    backend.gemm(x, x, out)

    def work():
        backend.cp.machine.invalidate()
        NEXT[words](backend, x, out)

    with pytest.raises(CaptureError, match=f"cannot record this step: .*{words}") as found:
        backend.record(work)
    assert found.value.passing
    with backend.session():
        backend.record(lambda: backend.copy(5, out))()
    assert (backend.to_host(out) == 5).all()


@pytest.mark.parametrize("index", [0, 1])
def test_another_threads_own_stream_does_no_harm_and_its_legacy_stream_ends_a_capture(index):
    backend = CupyBackend(index, pretend(devices=2))
    out = backend.empty(4)

    def beside(work):
        with ThreadPoolExecutor(1) as other:
            return other.submit(work).result()

    def in_a_session():
        with backend.session():
            return float(backend.cp.ones(4).sum())

    def outside():
        with backend.cp.cuda.Device(index), pytest.raises(RuntimeError, match="Implicit"):
            backend.cp.ones(4)

    for other, passing in ((in_a_session, False), (outside, True)):
        with pytest.raises(CaptureError, match="cannot record") if passing else contextlib.nullcontext() as found:
            backend.record(lambda other=other: (beside(other), backend.copy(2, out)))()
        assert found is None or found.value.passing is passing


@pytest.mark.parametrize("name", ["look", "cublas", "decompose", "mistake"])
def test_a_mistake_of_our_own_is_not_tried_again(backend, arrays, name):
    x, out = arrays
    with pytest.raises(CaptureError) as found:
        backend.record(lambda: WORK[name](backend, x, out))
    assert not found.value.passing


def test_a_product_that_fails_in_mid_capture_cannot_be_recorded(backend, arrays):
    x, out = arrays
    backend.gemm(x, x, out)
    backend.cp.cublaslt.fails["cublasLtMatmul"] = 14
    with pytest.raises(CaptureError, match=r"this step: cublasLt: .* CUBLAS_STATUS_INTERNAL_ERROR") as found:
        backend.record(lambda: backend.gemm(x, x, out))
    assert not found.value.passing  # the capture itself is whole


@pytest.mark.parametrize("error", [DivergedError("loss"), ShapeError("shape"), KeyboardInterrupt()])
def test_the_callers_own_errors_and_interrupts_pass_through(backend, error):
    def work():
        raise error

    with pytest.raises(type(error)):
        backend.record(work)
    with backend.session():
        assert not backend.cp.cuda.get_current_stream().is_capturing()
    assert gc.isenabled()


@pytest.mark.parametrize("call", ["begin_capture", "end_capture"])
def test_cudas_failures_have_a_reason(backend, arrays, monkeypatch, call):
    def fail(*_):
        raise backend.cp.cuda.runtime.CUDARuntimeError("cudaErrorNotSupported: operation not supported\nmore")

    _, out = arrays
    with monkeypatch.context() as patch:
        patch.setattr(backend._stream(), call, fail)
        with pytest.raises(CaptureError, match=r"^cuda:0 cannot record this step: cudaErrorNotSupported: [a-z ]+$"):
            backend.record(lambda: backend.copy(1, out))
    assert gc.isenabled()


def test_garbage_is_not_collected_in_mid_capture(backend, arrays):
    seen = []
    backend.record(lambda: seen.append(gc.isenabled()))
    assert (seen, gc.isenabled()) == ([False], True)
    gc.disable()
    try:
        backend.record(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_without_cublaslt_steps_run_one_by_one(backend, arrays):
    x, out = arrays
    backend.cp.cublaslt.fails["cublasLtMatmul"] = 8
    assert isinstance(backend.products, cublaslt.CupyProducts)
    backend.gemm(x, x, out)
    np.testing.assert_array_equal(backend.to_host(out), backend.to_host(x) @ backend.to_host(x))
    with pytest.raises(CaptureError, match=r"cupy\.matmul: cublasLt: cublasLtMatmul failed"):
        backend.record(lambda: backend.gemm(x, x, out))
    assert "ARCH_MISMATCH" in why_no_graphs(backend)


@needs_compiler
def test_graphs_are_tried(backend, monkeypatch):
    assert why_no_graphs(backend) is None
    monkeypatch.setattr(type(backend), "records", False)
    assert why_no_graphs(backend) == "cuda:0 runs operations one by one: it has no graphs"


# -- whole steps ------------------------------------------------------------------------------------------------------


def train(backend, graphs, batch=16):
    data = gn.datasets.load("digits")
    model = gn.Sequential([gn.Dense(24, "relu"), gn.Dense(16, "sigmoid"), gn.Dense(10)])
    trainer = gn.Trainer(model, optimizer=gn.Adam(3e-3), device=backend, seed=3, graphs=graphs)
    history = trainer.fit(data.x_train[:72], data.y_train[:72], epochs=2, batch_size=batch)
    return trainer, history.epochs, {name: backend.to_host(p) for name, p in model.parameters.items()}


@needs_compiler
@pytest.mark.parametrize("index", [0, 1])
def test_replayed_training_gives_the_bits_of_eager_training(index):
    cp = pretend(devices=2)
    found = []
    for graphs in ("auto", "off"):
        trainer, _, parameters = train(CupyBackend(index, cp), graphs)
        assert bool(trainer.graphs.reason) is (graphs == "off"), trainer.graphs.reason
        assert all(p.device.id == index for p in trainer.model.parameters.values())
        found.append(parameters)
    assert len(cp.machine.graphs) == 3  # one and four steps of the full batch, and the short one
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])
    _, _, right = train(gn.get_backend("numpy"), "off")
    for name, value in right.items():
        np.testing.assert_allclose(found[0][name], value, atol=1e-6)
    cp.machine.check_guards()
