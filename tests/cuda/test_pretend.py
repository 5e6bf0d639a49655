"""The stand-in for cupy has the names and signatures of the real module, and refuses what CuPy and CUDA refuse."""

from __future__ import annotations

import contextlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gpunet
from gpunet.backend.cupy_backend import CupyBackend

from .faces import uses
from .pretend import pretend

USES = sorted(set(uses()), key=lambda use: (use.name, use.where))
UNSUPPORTED = "cudaErrorStreamCaptureUnsupported"


def found(module, name):
    for part in name.split("."):
        module = getattr(module, part)
    return module


def misfits(module, used):
    """The uses that the module does not have, or whose arguments it does not take."""
    for use in used:
        try:
            target = found(module, use.name)
            if use.positional is not None:
                with contextlib.suppress(ValueError):  # compiled without a signature
                    inspect.signature(target).bind(*[None] * use.positional, **dict.fromkeys(use.keywords))
        except (AttributeError, TypeError) as error:
            yield use.where, use.name, str(error)


def test_the_source_is_read():
    names = {use.name for use in USES}
    assert {"cuda.Stream", "cuda.runtime.memGetInfo", "RawModule", "asnumpy", "cuda.using_allocator"} <= names


def test_what_gpunet_uses_of_cupy_is_there():
    assert list(misfits(pytest.importorskip("cupy"), USES)) == []


def test_the_stand_in_has_it_too():
    assert list(misfits(pretend(), [use for use in USES if "cusolver" not in use.where])) == []


METHODS = {
    "Stream": ("__init__", "begin_capture", "end_capture", "is_capturing", "record", "synchronize", "wait_event"),
    "Graph": ("launch", "upload"),
    "MemoryPool": ("malloc", "free_all_blocks", "total_bytes", "used_bytes", "free_bytes"),
}


def parameters(method):
    return [name for name in inspect.signature(method).parameters if name != "self"]


def test_methods_have_cupys_parameters():
    cupy, cp = pytest.importorskip("cupy"), pretend()
    for kind, methods in METHODS.items():
        own_kind = type(cp.get_default_memory_pool()) if kind == "MemoryPool" else getattr(cp.cuda, kind)
        for method in methods:
            real, own = getattr(getattr(cupy.cuda, kind), method), parameters(getattr(own_kind, method))
            try:
                assert own == parameters(real), (kind, method)
            except ValueError:  # compiled without one: its docstring begins with it
                line = real.__doc__.splitlines()[0]
                assert line.startswith(f"{kind}.{method}(")
                assert all(name in line for name in own), line


def test_arrays_are_told_apart_and_reads_are_seen():
    cp = pretend()
    x = cp.asarray(np.arange(6.0).reshape(2, 3))
    assert isinstance(x[0, 0], cp.ndarray)
    assert x[0, 0].shape == ()
    assert np.isnan(cp.asnumpy(cp.empty((2, 2)))).all()
    assert isinstance(cp.asnumpy(x), np.ndarray)
    assert not isinstance(cp.asnumpy(x), cp.ndarray)
    for mistake in (lambda: x + np.ones((2, 3)), lambda: cp.add(x, np.ones((2, 3)), out=x)):
        with pytest.raises(TypeError, match="Unsupported type"):
            mistake()
    with pytest.raises(ValueError, match="non-scalar"):
        x[...] = np.ones((2, 3))
    assert (cp.asnumpy(x + 1) == np.arange(1, 7).reshape(2, 3)).all()


def test_writes_outside_an_array_are_found():
    cp = pretend()
    x = cp.zeros(4, "float32")
    cp.machine.check_guards()
    x.memory.raw[x.memory.start + 16] = 0
    with pytest.raises(AssertionError, match="beyond the end"):
        cp.machine.check_guards()


def capturing(cp):
    stream = cp.cuda.Stream()
    stream.begin_capture(cp.cuda.runtime.streamCaptureModeThreadLocal)
    return stream


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda cp, x: cp.empty(3000), UNSUPPORTED),
        (lambda cp, x: cp.asarray(np.ones(3)), UNSUPPORTED),
        (lambda cp, x: cp.asnumpy(x), UNSUPPORTED),
        (lambda cp, x: float(x[0, 0]), UNSUPPORTED),
        (lambda cp, x: x + 1, UNSUPPORTED),
        (lambda cp, x: cp.cuda.Device(0).synchronize(), UNSUPPORTED),
        (lambda cp, x: cp.matmul(x, x, out=x), "cuBLAS"),
        (lambda cp, x: cp.linalg.svd(x), "cuSOLVER"),
    ],
)
def test_what_a_capture_refuses(work, reason):
    cp = pretend()
    x = cp.zeros((3, 3))
    stream = capturing(cp)
    with stream, pytest.raises((RuntimeError, NotImplementedError), match=reason):
        work(cp, x)
    if reason == UNSUPPORTED:
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="Invalidated"):
            stream.end_capture()
    else:  # CuPy refuses those itself, before CUDA hears of it
        stream.end_capture()
    assert not stream.is_capturing()
    assert (cp.asnumpy(x) == 0).all()


def test_work_on_the_legacy_stream_breaks_a_capture():
    cp = pretend()
    x = cp.zeros(3)
    stream = capturing(cp)
    with pytest.raises(RuntimeError, match="Implicit"):
        x.fill(1)
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()


def test_a_capture_runs_nothing_and_its_graph_everything():
    cp = pretend()
    x = cp.zeros(3)
    stream = capturing(cp)
    with stream:
        cp.add(x, 1, out=x)
        x[1:] = 7
        assert len(stream.nodes) == 2
        graph = stream.end_capture()
    assert (cp.asnumpy(x) == 0).all()
    graph.launch(stream)
    x[0] = 5
    graph.launch(stream)
    assert cp.asnumpy(x).tolist() == [6, 7, 7]


def test_a_decomposition_that_fails_raises_nothing():
    """Cholesky's factor of the part before, where potrf leaves the pivot that is not above 0; NaN of others."""
    cp, rng = pretend(), np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(5, 5))) + 5 * np.eye(5)
    sign = np.diag([1, 1, 1, 1, -1.0])
    a = lower @ sign @ lower.T
    found = cp.asnumpy(cp.linalg.cholesky(cp.asarray(np.stack([lower @ lower.T, a]))))
    np.testing.assert_allclose(found[0], lower, atol=1e-12)
    np.testing.assert_allclose(found[1, :, :4], lower[:, :4], atol=1e-12)
    assert found[1, 4, 4] == pytest.approx(-(lower[4, 4] ** 2))
    wrong = cp.asarray(np.full((3, 3), np.nan))
    for result in (*cp.linalg.svd(wrong), *cp.linalg.eigh(wrong), cp.linalg.inv(cp.zeros((3, 3)))):
        assert cp.asnumpy(cp.isnan(result)).all()
    with pytest.raises(np.linalg.LinAlgError, match="square"):
        cp.linalg.cholesky(cp.zeros((3, 2)))


OPERATIONS = {
    "ufunc": lambda cp, x: x + 1,
    "into": lambda cp, x: cp.add(x, 1, out=x),
    "reduction": lambda cp, x: x.sum(),
    "function": lambda cp, x: cp.concatenate([x, x]),
    "copy": lambda cp, x: x.copy(),
    "assignment": lambda cp, x: x.__setitem__(0, 1),
    "fill": lambda cp, x: x.fill(1),
    "rows": lambda cp, x: x[x > 0],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operands_lie_on_the_current_device(name):
    cp = pretend(devices=2)
    with cp.cuda.Device(1):
        x = cp.ones(3)
        OPERATIONS[name](cp, x)
    with pytest.raises(ValueError, match="is different from the current device"):
        OPERATIONS[name](cp, x)
    assert x[1:].reshape(2, 1).device.id == 1  # views are no work, and reads find the device
    assert cp.asnumpy(x).tolist()[1] in (1, 2)


@pytest.mark.parametrize("work", [lambda cp: cp.empty(3), lambda cp: cp.asarray([1.0]), lambda cp: cp.x.fill(1)])
def test_gpunets_own_work_belongs_into_a_session(monkeypatch, work):
    cp = pretend()
    cp.x = cp.zeros(3)
    work(cp)
    code = work.__code__.replace(co_filename=str(Path(gpunet.__file__).parent / "nn" / "some.py"))
    own = type(work)(code, {})
    with pytest.raises(AssertionError, match=r"outside a session: .*some\.py, line \d+"):
        own(cp)
    with CupyBackend(module=cp).session():
        own(cp)


def test_devices_streams_and_allocators_are_those_of_a_thread():
    cp = pretend(devices=2)
    stream = cp.cuda.Stream()

    def current():
        return cp.cuda.runtime.getDevice(), cp.cuda.get_current_stream().ptr, cp.zeros(3).tolist()

    def refuse(size):
        raise MemoryError

    with stream, cp.cuda.Device(1), cp.cuda.using_allocator(refuse), ThreadPoolExecutor(1) as other:
        assert other.submit(current).result() == (0, 0, [0, 0, 0])
        assert cp.cuda.runtime.getDevice() == 1
        with pytest.raises(MemoryError):
            current()


def test_devices_are_apart():
    cp = pretend(devices=2, total=1 << 20)
    with cp.cuda.Device(1):
        x = cp.zeros(3)
        assert cp.get_default_memory_pool().total_bytes() == 512
        assert cp.cuda.runtime.memGetInfo() == ((1 << 20) - 512, 1 << 20)
    assert (x.device.id, cp.get_default_memory_pool().total_bytes()) == (1, 0)
    with pytest.raises(RuntimeError, match="GPU 1"):
        cp.RawKernel("", "smoke")((1,), (3,), (x,))
    with pytest.raises(RuntimeError, match="InvalidDevice"), cp.cuda.Device(2):
        pass
    full = cp.empty(1 << 17)
    with pytest.raises(MemoryError, match="1,048,576 bytes"):
        cp.empty(1 << 17)
    del full
    assert cp.empty(1 << 17).nbytes == 1 << 20
