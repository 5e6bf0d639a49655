"""Rules for the rank, against the numbers of their documents."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.errors import InputError, ShapeError
from gpunet.linalg import BreakEven, DimensionFraction, Energy, FixedRank, GavishDonoho, StableRank
from gpunet.linalg.rank import marchenko_pastur_median

from .far import far  # noqa: F401 (a fixture)


@pytest.mark.parametrize(("alpha", "ranks"), [(0.5, (154, 85)), (0.25, (77, 42)), (0.125, (38, 21))])
def test_break_even_gives_the_ranks_of_document_001s_code(alpha, ranks):
    """784-512-256-10: mn/(m+n) is 309.73 and 170.67, so those ranks are rounded down (154.9, 42.7, 38.7)."""
    assert tuple(BreakEven(alpha)(shape) for shape in ((512, 784), (256, 512))) == ranks


def test_a_factored_layer_below_break_even_saves():
    m, n = 512, 784
    assert BreakEven(1.0)((m, n)) * (m + n) <= m * n
    assert BreakEven(0.5)((m, n)) * (m + n) < m * n


def test_dimension_and_fixed():
    assert DimensionFraction(0.5)((512, 784)) == 256
    assert DimensionFraction(0.001)((20, 2)) == 1
    assert FixedRank(7)((20, 9)) == 7
    with pytest.raises(InputError, match="rank 10 exceeds"):
        FixedRank(10)((20, 9))


def test_energy():
    s = np.array([3.0, 2.0, 1.0])  # shares 9/14, 13/14, 1
    assert [Energy(share)((3, 5), s) for share in (0.1, 9 / 14, 0.65, 13 / 14, 0.93, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert Energy(1.0)((3, 3), np.array([1.0, 1.0, 0.0])) == 2
    assert Energy(0.9)((2, 2), np.zeros(2)) == 1


def test_stable_rank():
    assert StableRank()((4, 9), np.ones(4)) == 4
    assert StableRank()((4, 9), np.array([1, 0.1, 0.1, 0])) == 2
    assert StableRank()((2, 2), np.array([5.0, 0.0])) == 1


# -- exact, at every boundary -----------------------------------------------------------------------------------------

SHARES = st.one_of(
    st.decimals("0.000001", 1, places=6).map(lambda d: (float(d), Fraction(d))),
    st.integers(2, 999).flatmap(lambda q: st.integers(1, q).map(lambda p: (p / q, Fraction(p, q)))),
)
VALUES = st.one_of(st.integers(0, 9).map(float), st.floats(0, 1e3), st.floats(0, allow_nan=False, allow_infinity=False))
SPECTRA = st.lists(VALUES, min_size=1, max_size=12).map(lambda s: sorted(s, reverse=True))


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.longdouble, lambda a: Fraction(str(a))])
def test_break_even_of_every_percentage(kind):
    """At 200×200, where mn/(m+n) is 100, float64 had 40 of 100 one too low: ⌊0.29·100⌋ = 28."""
    percent = range(1, 101)
    for side, unit in ((200, 1), (400, 2), (2000, 10)):
        found = [
            BreakEven(kind(p / 100) if kind is not np.longdouble else kind(str(p / 100)))((side, side)) for p in percent
        ]
        assert found == [p * unit for p in percent]


@pytest.mark.slow
@given(SHARES, st.integers(1, 5000), st.integers(1, 5000))
@settings(max_examples=300, deadline=None)
def test_shares_of_dimensions_are_exact(share, m, n):
    alpha, exact = share
    assert BreakEven(alpha)((m, n)) == max(1, math.floor(exact * m * n / (m + n)))
    assert DimensionFraction(alpha)((m, n)) == max(1, round(exact * min(m, n)))


def test_halves_go_to_the_even_number():
    assert [DimensionFraction(0.25)((n, n)) for n in (2, 6, 10, 14)] == [1, 2, 2, 4]  # ½ is 0, but a rank is at least 1
    assert [DimensionFraction(0.29)((n, 2 * n)) for n in (50, 150)] == [14, 44]  # 14.5 and 43.5


@pytest.mark.slow
@given(SHARES, SPECTRA)
@settings(max_examples=300, deadline=None)
def test_energy_is_exact(share, s):
    exact = [Fraction(value) ** 2 for value in s]
    wanted = next(r for r in range(1, len(s) + 1) if sum(exact[:r]) >= share[1] * sum(exact))
    assert Energy(share[0])((len(s), 20), s) == wanted


@given(SPECTRA)
@settings(max_examples=300, deadline=None)
def test_stable_rank_is_exact_above_rounding(s):
    exact = [Fraction(value) ** 2 for value in s if value > 20 * 2.0**-52 * s[0]]
    assert StableRank()((len(s), 20), s) == (math.ceil(sum(exact) / exact[0]) if exact else 1)


@pytest.mark.parametrize("small", [1e-6, 1e-9, 1e-12, 1e-100, 1e-300, 5e-324])
def test_all_of_the_energy_is_all_of_it(small):
    assert Energy(1.0)((2, 2), [1, small]) == 2
    assert Energy(1.0)((3, 3), [1, small, 0]) == 2
    assert Energy(1 - 1e-13)((2, 2), [1, small]) == (2 if small == 1e-6 else 1)


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-600, 2.0**600, 2.0**1000])
def test_spectra_of_any_size(scale):
    s = np.array([3.0, 1.0, 1.0, 1.0]) * scale
    assert Energy(0.75)((4, 4), s) == 1
    assert Energy(0.76)((4, 4), s) == 2
    assert StableRank()((4, 4), s) == 2
    assert GavishDonoho()((4, 4), s) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8", "uint8", "int64"])
def test_spectra_of_every_dtype(dtype):
    s = np.array([6, 2, 1, 1]).astype(dtype)  # 36, 40, 41 and 42 of 42
    assert [rule((4, 9), s) for rule in (Energy(0.857), Energy(6 / 7), Energy(0.9), StableRank(), GavishDonoho())] == [
        1, 1, 2, 2, 1
    ]  # fmt: skip


# -- noise ------------------------------------------------------------------------------------------------------------


def omega(beta):
    lam = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    return lam / math.sqrt(marchenko_pastur_median(beta))


@pytest.mark.parametrize("beta", [1e-9, 1e-6, 1e-3, 0.05, 0.3, 0.5, 0.7, 0.95, 0.999999, 1.0])
def test_half_of_the_marchenko_pastur_law_lies_below_its_median(beta):
    """By Gauss–Legendre in θ, t = 1 + β − 2√β cos θ, which knows nothing of the closed form."""
    c, t = math.sqrt(beta), marchenko_pastur_median(beta)
    theta = 2 * math.asin(math.sqrt((t - (1 - c) ** 2) / (4 * c)))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    ends = np.append(theta / 2.0 ** np.arange(40), 0)  # near β = 1 the integrand rises within 1 − c of 0
    half = (ends[:-1, None] - ends[1:, None]) / 2
    phi = ends[1:, None] + (nodes + 1) * half
    mass = (half * weights * np.sin(phi) ** 2 / ((1 - c) ** 2 + 4 * c * np.sin(phi / 2) ** 2)).sum() * 2 / math.pi
    assert abs(mass - 0.5) < 1e-12 + 1e-16 / c  # t itself is known to its last digit only


def test_the_median_where_both_shapes_are_equal():
    """There θ + sin θ = π/2, so θ = π/2 − d with d = cos d, Dottie's number: the median is 2 − 2 sin d."""
    dottie = 0.7390851332151606416553
    assert marchenko_pastur_median(1.0) == pytest.approx(2 - 2 * math.sin(dottie), rel=1e-15)
    assert omega(1.0) == pytest.approx(2.8583624, abs=1e-7)


TABLE = {
    0.05: 1.5194, 0.1: 1.6089, 0.2: 1.7650, 0.3: 1.9061, 0.4: 2.0403, 0.5: 2.1711, 0.6: 2.3021, 0.7: 2.4339,
    0.8: 2.5697, 0.9: 2.7099, 1.0: 2.8582,
}  # fmt: skip


@pytest.mark.parametrize("beta", TABLE)
def test_gavish_donoho_constants(beta):
    """Their table 4, whose medians come from a bisection that stops at 1e-3: so far it may be off, ω·5e-4/(2μ)."""
    allowed = omega(beta) * 1e-3 / (2 * marchenko_pastur_median(beta))
    assert omega(beta) == pytest.approx(TABLE[beta], abs=min(allowed, 1e-3))


@pytest.mark.parametrize("bad", [0, -1, 1.5, float("nan"), "1"])
def test_ratios_that_are_none(bad):
    with pytest.raises(InputError, match="beta cannot be"):
        marchenko_pastur_median(bad)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(200, 200), (300, 100), (60, 500)])
def test_rounding_is_no_signal(shape, dtype, rng):
    """Of an exact rank 3 at 200×200 in float32, 14 to 16 values stood above ω times the median of the rounding."""
    m, n = shape
    for rank in (1, 3, 7):
        a = rng.integers(-3, 4, (m, rank)).astype(dtype) @ rng.integers(-3, 4, (rank, n)).astype(dtype)  # exact
        s = np.linalg.svd(a, compute_uv=False)
        assert GavishDonoho()(shape, s) == np.linalg.matrix_rank(a.astype("float64")) == rank
    assert StableRank()(shape, np.linalg.svd(np.ones(shape, dtype), compute_uv=False)) == 1


def test_gavish_donoho_finds_a_planted_rank(rng):
    signal = 200 * np.linalg.qr(rng.standard_normal((300, 5)))[0] @ np.linalg.qr(rng.standard_normal((150, 5)))[0].T
    s = np.linalg.svd(signal + rng.standard_normal((300, 150)), compute_uv=False)
    assert GavishDonoho()((300, 150), s) == 5
    assert GavishDonoho()((150, 300), s) == 5


def test_which_rules_need_a_spectrum():
    assert [r.needs_spectrum for r in (FixedRank, DimensionFraction, BreakEven)] == [False] * 3
    assert [r.needs_spectrum for r in (Energy, StableRank, GavishDonoho)] == [True] * 3
    with pytest.raises(InputError, match=r"Energy\(share=0.9\) needs the singular values"):
        Energy(0.9)((3, 3))


@pytest.mark.parametrize("bad", [0, -0.5, 1.5, float("nan"), "0.5", True, None])
@pytest.mark.parametrize("rule", [BreakEven, DimensionFraction, Energy])
def test_shares_that_are_none(rule, bad):
    with pytest.raises(InputError, match=r"expected a number in \(0, 1\]"):
        rule(bad)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "3"])
def test_ranks_that_are_none(bad):
    with pytest.raises(InputError, match="expected an integer ≥ 1"):
        FixedRank(bad)


@pytest.mark.parametrize("s", [[1.0, 2.0], [2.0, -1.0], [2.0, np.nan], [1.0], [[2.0, 1.0]]])
def test_spectra_that_are_none(s):
    with pytest.raises(InputError, match="expected the 2 singular values"):
        StableRank()((2, 3), s)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        (np.ma.array([2.0, 1.0]), r"spectrum is a masked array.*\.filled"),
        (np.array([2.0, 1.0], "longdouble"), r"\.astype\('float64'\)"),
        (np.array([2.0, 1.0j]), "dtype complex128"),
        (["2", "1"], "spectrum has dtype <U1"),
        ([[1], [1, 2]], "rows of different lengths"),
    ],
)
@pytest.mark.parametrize("rule", [Energy(0.5), StableRank(), GavishDonoho()])
def test_spectra_that_are_no_numbers(rule, spectrum, message):
    with pytest.raises(InputError, match=message):
        rule((2, 3), spectrum)


@pytest.mark.parametrize("shape", [(0, 3), (2.0, 3), (2,), (2, 3, 4), 5, None, "ab", (True, 2), np.ones((200, 200))])
@pytest.mark.parametrize("rule", [FixedRank(3), BreakEven(0.5), DimensionFraction(0.5), StableRank()])
def test_shapes_that_are_none(rule, shape):
    with pytest.raises(ShapeError, match=r"shape is .*: expected \(m, n\)") as caught:
        rule(shape, [1.0])
    assert "\n" not in str(caught.value)


def test_a_spectrum_may_lie_on_a_gpu(far):  # noqa: F811
    assert Energy(0.9)((2, 3), far.asarray(np.array([3.0, 1.0]))) == 1
    assert GavishDonoho()((3, 3), far.asarray(np.array([9.0, 1.0, 1.0], "float32"))) == 1
