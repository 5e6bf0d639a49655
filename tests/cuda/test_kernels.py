"""The real kernels, compiled for the host, against their NumPy twins: any shape, any address, any order of threads."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.backend.cupy_backend import CupyBackend
from gpunet.backend.numpy_backend import NumpyBackend

from ..conftest import RTOL, stand_in
from .case_list import CASES, NAMES
from .cases import Bench, results
from .host_module import running

SEED = 20260101


@pytest.fixture(scope="module")
def gpu():
    return CupyBackend(module=stand_in())


def run(case, bench):
    with bench.backend.session(), np.errstate(all="ignore"):
        return results(bench, case.run(bench, *case.draw(np.random.default_rng(SEED))))


def check(got, want, dtype, terms):
    for found, right in zip(got, want, strict=True):
        assert found.shape == right.shape
        if right.dtype.kind != "f":
            np.testing.assert_array_equal(found, right)
            continue
        scale = max(1.0, np.abs(right).max(initial=0))
        tolerance = RTOL[dtype] * scale * np.sqrt(terms) * 4
        np.testing.assert_allclose(found.astype("float64"), right, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_kernels_compute_what_numpy_does(gpu, case):
    want = run(case, Bench(NumpyBackend(), "float64"))
    for dtype in ("float32", "float64"):
        check(run(case, Bench(gpu, dtype)), want, dtype, case.terms)
    gpu.cp.machine.check_guards()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_order_of_threads_and_blocks_changes_no_bit(gpu, case):
    bench = Bench(gpu, "float32")
    with running("forward"):
        first = run(case, bench)
    for order, seed in (("reversed", 0), ("shuffled", 1), ("shuffled", 2)):
        with running(order, seed):
            for found, before in zip(run(case, bench), first, strict=True):
                assert found.tobytes() == before.tobytes(), (order, seed)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("offset", [1, 2])
def test_arrays_that_are_not_aligned_give_the_same_bits(gpu, case, offset):
    got = run(case, Bench(gpu, "float32", offset))
    for found, aligned in zip(got, run(case, Bench(gpu, "float32")), strict=True):
        assert found.tobytes() == aligned.tobytes()
    gpu.cp.machine.check_guards()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_nothing_is_read_beyond_the_end_of_an_array(gpu, case):
    bench = Bench(gpu, "float32")
    with running("forward", edges=True):
        got = run(case, bench)
    for found, right in zip(got, run(case, bench), strict=True):
        assert found.tobytes() == right.tobytes()
