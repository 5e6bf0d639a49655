"""Passes on BLAS's own threads: the same bits as on one, from any thread, in a forked process, in spite of Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gpunet.backend import base, blas, get_backend, why_no_numba

if reason := why_no_numba():
    pytest.skip(reason, allow_module_level=True)
if not blas.lends():
    pytest.skip("NumPy's BLAS lends no threads", allow_module_level=True)

from gpunet.backend import numba_backend
from gpunet.backend.blas import multiply
from gpunet.backend.numba_cache import kernel
from gpunet.backend.shares import GRAIN, spread

from ..nn.test_threads import in_threads

ONE = np.float64(1)
SIZES = [1, GRAIN, 2 * GRAIN, 2 * GRAIN + 1, 4 * GRAIN - 1, 1000, 4099]


@pytest.fixture(autouse=True)
def four():
    with threadpool_limits(4, user_api="blas"):
        yield


@kernel
def add(total, other, number):
    """Total += other + number."""
    for i in range(total.size):
        total[i] += other[i] + number


@pytest.fixture
def calls(monkeypatch):
    """How many shares each pass had that was cut."""
    found, lend = [], blas.lend
    monkeypatch.setattr(blas, "lend", lambda n, *about: (found.append(n), lend(n, *about)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_optimisers_have_the_same_bits_on_any_number_of_threads(name, dtype, monkeypatch, calls):
    backend, rng = get_backend("cpu"), np.random.default_rng(0)

    def steps(start, grads, decayed):
        params, first, second = (np.array(each) for each in start)
        for step in range(1, 4):
            scalars = np.zeros(base.N_SCALARS)
            scalars[:7] = 1e-2, 0.9, 0.999, 1e-8, 1e-2, step, step
            if name == "sgd":
                backend.sgd(params, grads, scalars, decayed)
            elif name == "momentum":
                backend.momentum(params, grads, first, scalars, decayed)
            else:
                backend.adam(params, grads, first, second, scalars, decayed, name == "adamw")
        return np.stack([params, first, second]).view(np.uint8)

    for size in SIZES:
        start = rng.standard_normal((3, size)).astype(dtype)
        start[2] **= 2
        grads = rng.standard_normal(size).astype(dtype) * dtype_of_tiny(rng, size, dtype)
        grads[::97], grads[1::101] = np.nan, np.inf
        for decayed in (0, size // 3, size):
            monkeypatch.setattr(numba_backend, "OPTIMISER", sys.maxsize)
            want = steps(start, grads, decayed)
            assert calls == []
            monkeypatch.setattr(numba_backend, "OPTIMISER", GRAIN)
            np.testing.assert_array_equal(steps(start, grads, decayed), want)
            if size >= 4 * GRAIN and not decayed:
                assert set(calls) == {4}
            calls.clear()


def dtype_of_tiny(rng, size, dtype):
    """Some gradients so small that moments are denormal numbers."""
    return np.where(rng.random(size) < 0.2, np.finfo(dtype).tiny, 1).astype(dtype)


def test_each_thread_has_what_pays(calls):
    total, other = np.zeros(10 * GRAIN, "float32"), np.ones(10 * GRAIN, "float32")
    for least, threads, shares_ in (
        (GRAIN, 4, 4), (3 * GRAIN, 4, 3), (5 * GRAIN, 4, 2), (6 * GRAIN, 4, None), (GRAIN, 2, 2), (GRAIN, 1, None),
    ):  # fmt: skip
        with threadpool_limits(threads, user_api="blas"):
            spread(least, add, (total, other), np.float32(1))
        assert calls == ([shares_] if shares_ else [])
        calls.clear()
    np.testing.assert_array_equal(total, 12)


def test_where_blas_lends_no_threads_one_does_all(monkeypatch):
    total = np.zeros(1000)
    monkeypatch.setattr(blas, "lends", lambda: False)
    spread(GRAIN, add, (total, np.ones(1000)), 2 * ONE)
    np.testing.assert_array_equal(total, 3)


@pytest.mark.slow
def test_threads_that_train_at_once_do_not_wait_for_each_other():
    a = np.ones((600, 600), "float32")

    def work(seed):
        total, other = np.zeros(5000 + seed), np.arange(5000.0 + seed)
        for _ in range(50):
            spread(GRAIN, add, (total, other), ONE)
            if seed % 2:
                multiply(a.size * len(a), a, a, np.empty_like(a))
        return total

    with threadpool_limits(2, user_api="blas"):
        found = in_threads(*[lambda seed=seed: work(seed) for seed in range(4)])
    for seed, total in enumerate(found):
        np.testing.assert_array_equal(total, 50 * (np.arange(5000.0 + seed) + 1))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_process_has_threads_of_its_own():
    """Another thread's passes are over when a process is forked: OpenBLAS ends its threads then, and must not wait."""
    end, other = threading.Event(), np.ones(200_000)
    spread(GRAIN, add, (np.zeros(len(other)), other), ONE)  # compiled now: numba's lock, held at a fork, stays locked

    def work():
        total = np.zeros(len(other))
        while not end.is_set():
            spread(GRAIN, add, (total, other), ONE)

    thread = threading.Thread(target=work)
    thread.start()
    codes = []
    for _ in range(5):
        child = os.fork()
        if not child:  # no test framework's way out of here
            signal.alarm(20)
            total = np.zeros(len(other))
            spread(GRAIN, add, (total, other), ONE)
            os._exit(7 if (total == 2).all() else 8)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    end.set()
    thread.join(60)
    assert codes == [7] * 5


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such timers here")
def test_ctrl_c_comes_when_all_shares_are_done():
    total, other, interrupted = np.zeros(400_000), np.ones(400_000), 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for turn in range(50):
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + turn * 1e-5)
                for _ in range(1000):
                    spread(GRAIN, add, (total, other), ONE)
                pytest.fail("nothing was interrupted")
            interrupted += 1
            assert total.min() == total.max()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 50


CODE = """
import numpy as np
from gpunet.backend import blas, get_backend, numba_backend, shares
from numba.core.ccallback import CFunc
blas._calls()[1](2)
backend, scalars, made = get_backend("cpu"), np.ones(16), []
compiled = CFunc._compile_uncached
CFunc._compile_uncached = lambda self: (made.append(self.__name__), compiled(self))[1]
for dtype in ("float32", "float64"):
    params, grads = np.ones((2, 2 * numba_backend.OPTIMISER), dtype)
    backend.sgd(params, grads, scalars, 0)
print(made, shares._routine.cache_info().currsize)
"""


@pytest.mark.slow
def test_what_runs_there_is_compiled_once_for_each_dtype_and_cached(tmp_path):
    surroundings = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    names = [f"sgd_pass_of_{'_'.join([dtype] * 4)}" for dtype in ("float32", "float64")]
    for want in (names, []):
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=surroundings, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == f"{want} 2", done.stderr
