"""Memory, order and errors of the CuPy backend, on the pretend GPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from gpunet.backend.cupy_device import CupyDevice
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import MemoryFullError

from .pretend import pretend

GIB = 1 << 30


class Memory(CupyDevice):
    """The class under test without an operation; they are abstract."""

    __abstractmethods__ = frozenset()


Memory.__abstractmethods__ = frozenset()


@pytest.fixture
def cp():
    return pretend(devices=2)


@pytest.fixture(params=[0, 1])
def memory(cp, request):
    return Memory(request.param, cp)


def test_names(memory):
    assert (memory.name, memory.xp is memory.cp, memory.records) == (f"cuda:{memory.index}", True, True)
    assert memory.device_name() == "Pretend GPU"


def test_arrays_lie_on_their_device_contiguous_and_of_the_dtype_asked_for(cp, memory):
    host = np.arange(12.0).reshape(3, 4)
    for given in (host, host.T, host.astype("uint8"), host.tolist(), host[::2]):
        for dtype in (None, "float32", "int64"):
            array = memory.asarray(given, dtype)
            assert isinstance(array, cp.ndarray)
            assert array.device.id == memory.index
            assert array.flags.c_contiguous
            assert array.dtype == (dtype or np.asarray(given).dtype)
            np.testing.assert_array_equal(memory.to_host(array), np.asarray(given))
    for made, value in ((memory.empty(3), np.nan), (memory.zeros((2, 3)), 0)):
        np.testing.assert_array_equal(memory.to_host(made), value)
        assert made.device.id == memory.index
    assert cp.cuda.runtime.getDevice() == 0


def test_an_array_of_this_device_is_taken_as_it_is_and_one_of_another_copied(cp):
    one, other = Memory(0, cp), Memory(1, cp)
    x = one.asarray(np.arange(3.0))
    assert one.asarray(x) is x
    moved = other.asarray(x)
    assert (moved.device.id, other.to_host(moved).tolist()) == (1, [0, 1, 2])
    one.copy(9, x)
    assert other.to_host(moved).tolist() == [0, 1, 2]


def test_host_arrays_may_change_after_they_were_given(memory):
    host = np.arange(3.0)
    array = memory.asarray(host)
    host[:] = 9
    assert memory.to_host(array).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("source", "right"), [(3, 3), (np.float64(2.5), 2.5), (np.arange(4), range(4)), ([1] * 4, 1)])
def test_copy_casts(memory, source, right):
    out = memory.empty(4)
    memory.copy(source, out)
    assert memory.to_host(out).tolist() == np.broadcast_to(np.float32(right), 4).tolist()
    twice = memory.empty(4, "int64")
    memory.copy(out, twice)
    assert memory.to_host(twice).tolist() == memory.to_host(out).astype(int).tolist()


def test_scratch_and_constants_are_made_once(memory):
    first = memory.scratch("mask", (3, 2), "float32")
    assert memory.scratch("mask", (3, 2), "float32") is first
    assert memory.scratch("mask", (2, 3), "float32") is not first
    made = []
    for _ in range(2):
        memory.constant("ones", (3,), lambda: made.append(1) or memory.zeros(3))
    assert made == [1]


# -- order ----------------------------------------------------------------------------------------------------------


def test_a_session_has_its_own_stream_that_the_default_stream_waits_for(cp, memory):
    with memory.session():
        stream = cp.cuda.get_current_stream()
        assert (stream.ptr != 0, stream.non_blocking, stream.device_id) == (True, False, memory.index)
        with memory.session():
            assert cp.cuda.get_current_stream().ptr == stream.ptr
    assert cp.cuda.get_current_stream().ptr == 0
    assert cp.machine.waits == []  # nothing to order beyond what CUDA orders


def test_backends_of_a_thread_and_device_share_the_stream(cp):
    def current(memory):
        with memory.session():
            return cp.cuda.get_current_stream().ptr

    found = [current(Memory(0, cp)), current(Memory(0, cp)), current(Memory(1, cp))]
    thread = threading.Thread(target=lambda: found.append(current(Memory(0, cp))))
    thread.start()
    thread.join()
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert Memory(0, cp).products is Memory(0, cp).products


def test_another_stream_is_waited_for_and_waits(cp, memory):
    with cp.cuda.Device(memory.index):
        theirs = cp.cuda.Stream(non_blocking=True)
        with theirs:
            with memory.session():
                ours = cp.cuda.get_current_stream()
                assert [ptr for ptr, _ in cp.machine.waits] == [ours.ptr]
            assert [ptr for ptr, _ in cp.machine.waits] == [ours.ptr, theirs.ptr]
            with pytest.raises(KeyError), memory.session():
                raise KeyError
            assert cp.cuda.get_current_stream() is theirs
    assert len(cp.machine.waits) == 4


# -- how much ---------------------------------------------------------------------------------------------------------


def test_peak_is_the_most_that_the_pool_of_this_device_held(cp):
    memory, other = Memory(1, cp), Memory(0, cp)
    kept = memory.empty(1 << 20)
    del kept
    assert memory.memory() == {"peak": 4 << 20, "total": 2 << 30}
    with memory.session():
        cp.get_default_memory_pool().free_all_blocks()
        assert cp.get_default_memory_pool().total_bytes() == 0
    assert memory.memory()["peak"] == Memory(1, cp).memory()["peak"] == 4 << 20
    assert other.memory()["peak"] == 0


def test_peak_is_what_the_device_uses_where_the_pool_is_switched_off(cp, memory):
    cp.machine.taken[memory.index] = 5000
    assert memory.memory() == {"peak": 5000, "total": 2 << 30}


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.empty((1 << 20, 1 << 10)),
        lambda m: m.zeros((1 << 20, 1 << 10)),
        lambda m: m.scratch("columns", (1 << 20, 1 << 10), "float32"),
        lambda m: m.asarray(np.broadcast_to(np.float32(0), (1 << 20, 1 << 10))),
    ],
)
def test_a_full_device_is_one_line(memory, ask):
    kept = memory.empty(1 << 28, "uint8")
    with pytest.raises(MemoryFullError) as error:
        ask(memory)
    text = one_line(error)
    for words in (
        f"cuda:{memory.index} (Pretend GPU)", "(1048576, 1024), float32, 4 GiB", "1.75 of 2 GiB are free",
        "hold 0.25 GiB", "a smaller batch", "device=\"cpu\"",
    ):  # fmt: skip
        assert words in text
    assert error.value.__cause__ is None
    assert memory.empty(1 << 28, "uint8").nbytes == kept.nbytes  # and goes on


def test_cudas_own_words_for_full_are_understood(cp, memory, monkeypatch):
    def fail(*_, **__):
        raise cp.cuda.runtime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    monkeypatch.setattr(cp, "empty", fail)
    with pytest.raises(MemoryFullError, match=r"shape \(3,\), float32"):
        memory.empty(3)


def test_other_errors_are_not_taken_for_it(cp, memory, monkeypatch):
    def fail(*_, **__):
        raise ValueError("negative dimensions are not allowed")

    monkeypatch.setattr(cp, "empty", fail)
    with pytest.raises(ValueError, match="negative"):
        memory.empty(-3)


def test_the_workspace_of_the_products_may_not_fit(cp):
    memory = Memory(0, pretend(total=1 << 20))
    with pytest.raises(MemoryFullError, match=r"\(33554432,\), uint8, 0.0312 GiB"):
        _ = memory.products


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 10), (1 << 31, 1 << 31, 1 << 10), 1 << 50])
def test_a_full_main_memory_is_one_line(shape):
    with pytest.raises(MemoryFullError) as error:
        NumpyBackend().empty(shape)
    assert f"shape {(shape,) if isinstance(shape, int) else shape}, float32" in one_line(error)
