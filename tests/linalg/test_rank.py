"""Rules for the rank, against the numbers of their documents."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import InputError, ShapeError
from gpunet.linalg import BreakEven, DimensionFraction, Energy, FixedRank, GavishDonoho, StableRank
from gpunet.linalg.rank import marchenko_pastur_median


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


def test_gavish_donoho_constants():
    """Their table 4 gives ω(1) = 2.858 and ω(0.5) = 2.1711..., λ(1) = 4/√3."""
    assert 4 / 3**0.5 / marchenko_pastur_median(1.0) ** 0.5 == pytest.approx(2.858, abs=2e-3)
    beta = 0.5
    cubic = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43  # their approximation, good to 0.02
    lam = (2 * (beta + 1) + 8 * beta / (beta + 1 + (beta**2 + 14 * beta + 1) ** 0.5)) ** 0.5
    assert lam / marchenko_pastur_median(beta) ** 0.5 == pytest.approx(cubic, abs=0.02)


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


@pytest.mark.parametrize("shape", [(0, 3), (2.0, 3), (2,), (2, 3, 4)])
def test_shapes_that_are_none(shape):
    with pytest.raises(ShapeError, match="expected"):
        StableRank()(shape, [1.0])
