"""The kernels against their NumPy twins: any shape, any address, and compiled for the host any order of threads."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.backend.cupy_backend import source
from gpunet.backend.numpy_backend import NumpyBackend

from ..conftest import RTOL
from .case_list import CASES, MIXED, NAMES
from .cases import Bench, Emulation, check_guards, real, results
from .halves import bits, half_even, numbers
from .host_module import HostKernel, HostModule, running

SEED = 20260101


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
        if found.dtype == np.uint16:  # to round changes no order, so what is close to `right` rounds in between
            assert (half_even(right - tolerance) <= numbers(found)).all()
            assert (numbers(found) <= half_even(right + tolerance)).all()
            continue
        np.testing.assert_allclose(found.astype("float64"), right, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_kernels_compute_what_numpy_does(gpu, case):
    """On a GPU from addresses that are not aligned, too, where its products may have other bits."""
    if case.mixed and gpu.slow_bfloat16:
        pytest.skip(gpu.slow_bfloat16)
    want = run(case, Bench(NumpyBackend(), "float64"))
    for dtype in ("float32",) if case.mixed else ("float32", "float64"):
        for offset in (0, 1) if real(gpu) else (0,):
            check(run(case, Bench(gpu, dtype, offset, case.mixed)), want, dtype, case.terms)
    check_guards(gpu)


@pytest.mark.slow
def test_every_kernel_is_launched_by_a_case(shim, monkeypatch):
    """Named, not run: that the cases run on a GPU, too, is the fixture's."""
    launched = set()
    monkeypatch.setattr(HostKernel, "__call__", lambda kernel, *_, **__: launched.add(kernel.name))
    for case in CASES:
        for dtype in ("float32",) if case.mixed else ("float32", "float64"):
            run(case, Bench(shim, dtype, mixed=case.mixed))
    assert launched == HostModule(source()).names


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_order_of_threads_and_blocks_changes_no_bit(shim, case):
    bench = Bench(shim, "float32", mixed=case.mixed)
    with running("forward"):
        first = run(case, bench)
    for order, seed in (("reversed", 0), ("shuffled", 1), ("shuffled", 2)):
        with running(order, seed):
            for found, before in zip(run(case, bench), first, strict=True):
                assert found.tobytes() == before.tobytes(), (order, seed)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("offset", [1, 2])
def test_arrays_that_are_not_aligned_give_the_same_bits(shim, case, offset):
    got = run(case, Bench(shim, "float32", offset, case.mixed))
    for found, aligned in zip(got, run(case, Bench(shim, "float32", mixed=case.mixed)), strict=True):
        assert found.tobytes() == aligned.tobytes()
    check_guards(shim)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_nothing_is_read_beyond_the_end_of_an_array(shim, case):
    bench = Bench(shim, "float32", mixed=case.mixed)
    with running("forward", edges=True):
        got = run(case, bench)
    for found, right in zip(got, run(case, bench), strict=True):
        assert found.tobytes() == right.tobytes()


@pytest.mark.parametrize("backend", ["shim", "numpy"])
@pytest.mark.parametrize("case", MIXED, ids=[case.name for case in MIXED])
def test_bfloat16_is_what_float32_gives_on_the_same_numbers_rounded_once(shim, case, backend):
    """The order of sums is float32's, so that no bound is needed: whatever is not rounded has its very bits."""
    on = shim if backend == "shim" else Emulation()
    wide = run(case, Bench(on, "float32"))
    for found, right in zip(run(case, Bench(on, "float32", mixed=True)), wide, strict=True):
        assert found.tobytes() == (bits(right) if found.dtype == np.uint16 else right).tobytes()


def _alike(name):
    """Whether nothing is added up, or nothing but what all add up in one order."""
    return name.startswith(("to_bfloat16", "mixed gather")) or ("mixed backward" in name and "bias=False" in name)


@pytest.mark.parametrize("case", [case for case in MIXED if _alike(case.name)], ids=lambda case: case.name)
def test_where_nothing_is_added_up_the_gpu_rounds_as_numpy_does(shim, case):
    right = run(case, Bench(Emulation(), "float32", mixed=True))
    for found, want in zip(run(case, Bench(shim, "float32", mixed=True)), right, strict=True):
        if found.dtype == np.uint16:
            found, want = numbers(found), numbers(want)  # NumPy's relu gives −0 where the slope is negative
        np.testing.assert_array_equal(found, want)
