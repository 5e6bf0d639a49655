"""Products of bytes on integer engines are the sums that BLAS gives, bit for bit, and are taken where they pay."""

from __future__ import annotations

import sys
import threading
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import blas, integers
from gpunet.linalg import StreamingClassGram, matrix
from gpunet.linalg.matrix import TallMatrix

needs_engine = pytest.mark.skipif(integers.numkong() is None, reason="no NumKong, or no integer engine, here")
SHAPES = [(1, 1), (63, 5), (64, 64), (4095, 20), (4097, 65), (9000, 130), (300, 700)]


@pytest.fixture
def by_blas(monkeypatch):
    def sums(x):
        with monkeypatch.context() as patch:
            patch.setattr(integers, "numkong", lambda: None)
            return matrix.exact_sums(x)

    return sums


def laid_out(x, layout, rng):
    if layout == "picked":
        return TallMatrix(x, rows=np.sort(rng.permutation(len(x))[: max(1, len(x) // 2)]), tall=True)
    if layout == "wide":
        return TallMatrix(np.ascontiguousarray(x.T))
    return TallMatrix({"rows": x, "columns": np.asfortranarray(x), "every other": np.repeat(x, 2, 0)[::2]}[layout])


@needs_engine
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("layout", ["rows", "columns", "every other", "picked", "wide"])
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_exact(shape, layout, threads, by_blas, monkeypatch, rng):
    monkeypatch.setattr(integers, "current_threads", lambda: threads)
    monkeypatch.setattr(integers, "PER_THREAD", 1)
    x = laid_out(rng.integers(0, 256, shape, dtype=np.uint8), layout, rng)
    for found, wanted in zip(integers.byte_sums(x.some, x.long, x.short), by_blas(x), strict=True):
        np.testing.assert_array_equal(found, wanted)


@needs_engine
@pytest.mark.parametrize("value", [0, 255])
def test_the_largest_sums_do_not_overflow(value):
    x = np.full((integers.ROWS * 2 + 1, 3), value, np.uint8)
    products, sums = integers.byte_sums(lambda where: x[where], *x.shape)
    assert (products == len(x) * (value - 128) ** 2).all()
    assert (sums == len(x) * (value - 128)).all()


@needs_engine
def test_every_door_takes_them_and_gives_the_same_bits(monkeypatch, rng):
    monkeypatch.setattr(integers, "LEAST_ROWS", 1)
    monkeypatch.setattr(integers, "LEAST_WIDTH", 1)
    x, labels, took = rng.integers(0, 256, (700, 30), dtype=np.uint8), rng.integers(0, 2, 700), []
    own = integers.byte_sums
    monkeypatch.setattr(integers, "byte_sums", lambda *given: took.append(1) or own(*given))
    doors = [
        lambda: gn.svd(x, k=5, method="gram").vt,
        lambda: gn.class_pca(x, labels, 3).components,
        lambda: gn.StreamingGram().update(x[:300]).update(x[300:]).gram(),
        lambda: StreamingClassGram().update(x, labels).components(3).components,
    ]
    for door in doors:
        took.clear()
        with_engine = door()
        assert took
        with monkeypatch.context() as patch:
            patch.setattr(integers, "numkong", lambda: None)
            np.testing.assert_array_equal(with_engine, door())


def test_small_work_and_machines_without_one_are_left_to_blas(monkeypatch):
    monkeypatch.setattr(integers, "numkong", lambda: None)
    assert not integers.pays(60_000, 784)
    monkeypatch.setattr(integers, "numkong", lambda: sys)
    assert integers.pays(60_000, 784)
    assert not integers.pays(1000, 784)
    assert not integers.pays(60_000, 32)


@pytest.mark.parametrize(
    ("able", "off", "taken"),
    [({"icelake": True}, 0, True), ({"icelake": True}, 1, False), ({"haswell": True, "icelake": False}, 0, False)],
)
def test_the_machine_must_have_an_engine_and_the_library_be_right(able, off, taken, monkeypatch):
    class Library:
        __spec__ = ModuleSpec("numkong", None)

        @staticmethod
        def get_capabilities():
            return able

        @staticmethod
        def dots_symmetric(x):
            return np.triu(x.astype(np.int32) @ x.T.astype(np.int32)) + off

    monkeypatch.setitem(sys.modules, "numkong", Library)
    assert (integers.numkong.__wrapped__() is not None) == taken
    monkeypatch.setitem(sys.modules, "numkong", None)  # as where it is not installed
    assert integers.numkong.__wrapped__() is None


@needs_engine
def test_as_many_threads_as_blas_has(monkeypatch):
    x, seen = np.zeros((20_000, 100), np.uint8), set()

    def read(where):
        seen.add(threading.current_thread())
        return x[where]

    def threads():
        seen.clear()
        integers.byte_sums(read, *x.shape)
        return seen

    blas.limited(1_000_000, threads)  # which gets one thread
    assert seen == {threading.current_thread()}
    monkeypatch.setattr(integers, "current_threads", lambda: 2)
    assert threading.current_thread() not in threads()
    assert len(seen) <= 2


@needs_engine
def test_a_reader_that_fails_is_told_and_leaves_no_thread(monkeypatch):
    monkeypatch.setattr(integers, "current_threads", lambda: 2)
    before = threading.active_count()

    def read(where):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        integers.byte_sums(read, 20_000, 200)
    assert threading.active_count() == before
