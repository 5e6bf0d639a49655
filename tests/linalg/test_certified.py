"""tests/linalg/certified.py: its singular values and vectors against ones known better, and what it refutes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

from . import certified, fuzz
from .certified import Reference, judge

EPS = 2.0**-52
wide = pytest.mark.skipif(not certified.IS_WIDE, reason="longdouble is no better than float64 here")


def known(d, rows=None):
    """A float64 matrix (rows, len(d)) whose singular values are those given, exactly, with right vectors ±1/√n.

    H diag(d) Hᵀ of Hadamard's H, where no product or sum is rounded; rows are repeated to make it longer.
    """
    n = len(d)
    h = scipy.linalg.hadamard(n).astype(float)
    x = h @ np.diag(d) @ h.T
    assert (np.abs(np.array(d)) * 2.0**45 % 1 == 0).all()
    return np.tile(x, ((rows or n) // n, 1)) / n, h / n**0.5


SPECTRA = {
    "apart": np.arange(16, 0, -1) / 4.0,
    "equal": np.ones(16),
    "near": 1 + np.array([2.0**-40] * 3 + [2.0**-41] * 5 + [0.0] * 8),
    "graded": 2.0 ** -np.arange(0, 48, 3),
    "rank 3": np.array([1.0, 2.0**-10, 2.0**-44] + [0.0] * 13),
    "zero": np.zeros(16),
}


@wide
@pytest.mark.parametrize("rows", [16, 64, 4096])
@pytest.mark.parametrize("name", SPECTRA)
def test_exact_spectra_are_found_to_longdouble(name, rows):
    d = SPECTRA[name]
    x, v = known(d, rows)
    for a, right in ((x, True), (x.T, False)):
        found = Reference(a.astype(np.longdouble))
        assert found.by == "longdouble"
        exact = d * np.sqrt(np.longdouble(rows // 16))
        assert np.abs(found.s - exact).max() <= found.error / 4
        assert found.error <= 2**-57 * float(exact[0])
        for k in range(1, 16):
            told = found.sine(v[:, :k], right)
            if d[k - 1] == d[k]:
                assert told is None
            else:
                assert told[0] <= told[1]


@wide
def test_it_tells_an_angle_below_float64_from_none():
    """The leading vectors, turned towards the next by 1e-15."""
    x, v = known(SPECTRA["apart"])
    turned = v[:, :4].copy().astype(np.longdouble)
    turned[:, 1] += np.longdouble(1e-15) * v[:, 9]
    sine, unsure = Reference(x.astype(np.longdouble)).sine(turned, True)
    assert unsure < EPS
    assert abs(sine - 1e-15) <= unsure


def test_it_knows_the_sine_of_vectors_that_are_not_of_unit_length():
    x, v = known(SPECTRA["apart"])
    mixed = v[:, :3] @ np.array([[1.0, 0.01, 0], [0, 1.01, 0], [0, 0, 1]])
    mixed[:, 2] = v[:, 2] * 0.8 + v[:, 5] * 0.6
    assert Reference(x).sine(mixed, True)[0] == pytest.approx(0.6)
    assert Reference(x).sine(v[:, ::-1][:, :3], True)[0] == pytest.approx(1)
    assert Reference(x).sine(v, True) == (0, 0)


@wide
@pytest.mark.parametrize("shape", [(8, 8), (30, 5), (4, 9)])
def test_it_is_right_of_hostile_matrices(shape):
    """To forty digits, and of Hilbert's (12, 12), whose σ₁₂ is 1e-16 σ₁."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(0)
    hostile = [make(rng, *shape) for make in fuzz.SPECTRA.values()]
    with mpmath.workdps(50):

        def exactly(number):
            return mpmath.mpf(float(number)) + mpmath.mpf(float(number - np.longdouble(float(number))))

        for x in [*hostile, fuzz.SPECTRA["Hilbert"](rng, 12, 12)]:
            tall = x if x.shape[0] >= x.shape[1] else x.T
            found = Reference(x.astype(np.longdouble))
            exact = mpmath.svd_r(mpmath.matrix(tall.tolist()), compute_uv=False)
            assert max(abs(exactly(s) - exact[i]) for i, s in enumerate(found.s)) <= found.error / 4


@wide
def test_the_order_of_rows_and_columns_does_not_matter():
    """Of long, flat and repeated ones, where sums of equal numbers lose most."""
    rng = np.random.default_rng(1)
    for name, shape in [("picture", (5000, 12)), ("constant", (3000, 8)), ("flat", (70, 64)), ("mean", (300, 40))]:
        x = fuzz.scaled(fuzz.SPECTRA[name](rng, *shape))[0]
        found, again = Reference(x), Reference(x[rng.permutation(len(x))][:, rng.permutation(x.shape[1])])
        assert found.by == "longdouble"
        assert np.abs(found.s - again.s).max() <= found.error / 2


def test_what_is_too_large_is_judged_by_lapack_and_its_error():
    d = np.linspace(2, 1, 500)
    rng = np.random.default_rng(2)
    found = Reference(fuzz._of_spectrum(rng, 600, 500, d))
    assert found.by == "lapack"
    assert np.abs(found.s - d).max() <= found.error <= 100 * EPS * 2


def certificate(sigma, sine=np.inf, complete=False, beyond=np.inf):
    return np.array(sigma, np.float64).reshape(-1, 2), sine, complete, beyond


APART, VECTORS = known(SPECTRA["apart"])  # σ: 4, 3.75, 3.5, …


def refuted(given, s=(4, 3.75), vectors=VECTORS[:, :2], truth=None):
    return judge(truth or Reference(APART), 0, given, np.array(s, np.longdouble), [(vectors, True)], np.float64)[0]


def test_a_certificate_that_holds_is_not_refuted():
    narrow = [(4 - EPS, 4 + EPS), (3.75, 3.75)]
    assert refuted(certificate(narrow, 1e-15, True, 3.5 + EPS)) == []
    assert refuted(certificate([(0, np.inf)] * 2)) == []


@wide
def test_every_part_is_refuted():
    both = [(4, 4), (3.75, 3.75)]
    assert "σ_2 = 3.75 outside [3.75" in refuted(certificate([(4, 4), (3.75 + 2 * EPS, 3.8)]))[0]
    assert "σ_1 = 4 outside" in refuted(certificate([(np.nan, 4), (3.75, 3.75)]))[0]
    assert "σ_k+1 = 3.5 beyond" in refuted(certificate(both, beyond=3.5 - 2 * EPS))[0]
    assert "sine is nan" in refuted(certificate(both, sine=np.nan))[0]
    turned = VECTORS[:, :2] + 1e-10 * VECTORS[:, 2:4]
    assert "sine 1e-10 of at most 9e-11" in refuted(certificate(both, sine=9e-11), vectors=turned)[0]
    missed = VECTORS[:, [0, 2]]
    assert "a vector is missed" in refuted(certificate(both, complete=True), s=(4, 3.5), vectors=missed)[0]
    assert "complete, and σ_k+1 = 3.5" in refuted(certificate(both, complete=True), s=(4, 3.25), vectors=missed)[1]
    assert "sigma is float64(1, 2)" in refuted(certificate([(4, 4)]))[0]


@wide
def test_a_finite_angle_without_a_gap_is_refuted():
    x, v = known(SPECTRA["equal"])
    bounds = certificate([(1, 1)] * 2, 1e-3)
    assert "no gap" in refuted(bounds, (1, 1), v[:, :2], Reference(x))[0]
    assert "complete" in refuted(certificate([(1, 1)] * 2, complete=True), (1, 1), v[:, :2], Reference(x))[0]
    assert refuted(certificate([(1, 1)] * 16, 0, True, 0), [1] * 16, v, Reference(x)) == []


def test_nearness_is_bound_over_truth():
    s = np.array([4 + 8 * EPS, 3.75], np.longdouble)
    given = certificate([(4 - 80 * EPS, 4 + EPS), (3.75, 3.75 + 30 * EPS)], 1e-14, True)
    _, near = judge(Reference(APART), 0, given, s, [(VECTORS[:, :2], True)], np.float64)
    assert near.sigma == pytest.approx((10 + 32) / 2)
    assert near.sine == pytest.approx(1e-14 / EPS)
    none = judge(Reference(APART), 0, certificate([(4, 4)]), s[:1], [(VECTORS[:, :1], True)], np.float64)[1]
    assert (none.sine, none.complete) == (np.inf, False)


def test_nearness_is_told_by_door_and_route():
    near = [certified.Bounds(2.0, 3.0, True, "longdouble"), certified.Bounds(4.0, np.inf, False, "lapack")]
    done = [fuzz.Verdict(0, i, "svd", "", 1, "gram", 0.0, (), (b,)) for i, b in enumerate(near)]
    told = fuzz.certificates(done)
    assert set(told) == {"all", "svd", "svd, gram"}
    assert told["all"]["judged"] == 2
    assert told["svd"]["by LAPACK"] == 1
    assert told["svd, gram"]["sine"] == {"median": np.inf, "90 %": np.inf, "inf": 0.5}
    assert told["all"]["complete"] == 0.5
    assert fuzz.certificate_of(SimpleNamespace()) is None
