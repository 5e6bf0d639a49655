"""Weights, their best factors and what is shown of them, beside NumPy in float64."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.compression.budget import Choice, allocate, hull
from gpunet.compression.networks import MOST_ROWS, _some, patch_rows
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import DataError, InputError, ShapeError
from gpunet.linalg import Energy, FixedRank, StreamingGram


def looked(rng: np.random.Generator, out: int, inner: int, dtype: object = np.float64, bias: bool = True):
    """A weight, and inputs whose mean and directions differ in size."""
    w = rng.standard_normal((out, inner)).astype(dtype)
    x = (
        rng.standard_normal((200, inner))
        @ np.diag(10.0 ** -np.linspace(0, 3, inner))
        @ rng.standard_normal((inner, inner))
    )
    x += 5 * rng.standard_normal(inner)
    weight = Weight("w", w, bias=bias)
    weight.look(StreamingGram().update(x), 1.0)
    return weight, x


def outputs_error(weight: Weight, x: np.ndarray, rank: int, shift: bool, cut: Factors | None = None) -> float:
    """√(E‖Δy‖² / E‖y − E y‖²) on the samples themselves, or over E‖y‖² where there is no bias."""
    cut = cut or weight.cut(rank)
    w = weight.matrix.astype(np.float64)
    off = x @ (w - cut.left.astype(np.float64) @ cut.right.astype(np.float64)).T
    y = x @ w.T
    if shift:
        off, y = off - cut.shift, y - y.mean(0)
    return float(np.linalg.norm(off) / np.linalg.norm(y))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
def test_factors_are_the_best_on_the_data(shape, bias):
    """No factors of that rank do better: σ of (W X) in float64 says what the best leave (Eckart & Young)."""
    weight, x = looked(np.random.default_rng(0), *shape, bias=bias)
    y = x @ weight.matrix.T
    s = np.linalg.svd(y - y.mean(0) if bias else y, compute_uv=False)
    for rank in range(1, min(shape)):
        best = np.sqrt((s[rank:] ** 2).sum() / (s**2).sum())
        assert outputs_error(weight, x, rank, bias) == pytest.approx(best, rel=1e-9)
        if rank <= weight.most:
            assert weight.errors[rank] == pytest.approx(best**2, rel=1e-6)


def test_without_data_it_is_the_plain_svd():
    w = np.random.default_rng(1).standard_normal((20, 11))
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    cut = Weight("w", w).cut(4)
    np.testing.assert_allclose(cut.left @ cut.right, (u[:, :4] * s[:4]) @ vt[:4], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(cut.left, axis=0), np.linalg.norm(cut.right, axis=1), rtol=1e-12)
    assert cut.shift is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_proof_holds_and_is_tight(dtype):
    """The bounds hold of factors as they are stored, and say little more than what is so."""
    weight, x = looked(np.random.default_rng(2), 24, 16, dtype)
    y = x @ weight.matrix.astype(np.float64).T
    s = np.linalg.svd(y - y.mean(0), compute_uv=False)
    for rank in (1, 3, 8):
        cut = weight.cut(rank)
        assert cut.left.dtype == cut.right.dtype == dtype
        said = weight.proof(cut)
        w = weight.matrix.astype(np.float64)
        off = np.linalg.norm(w - cut.left.astype(np.float64) @ cut.right.astype(np.float64)) / np.linalg.norm(w)
        assert off <= said["weight_error"] <= off * (1 + 1e-6) + 1e-9
        measured = outputs_error(weight, x, rank, True)
        unit = float(ml_dtypes.finfo(dtype).eps) * np.linalg.norm(cut.shift) / np.linalg.norm(y.std(0))
        assert measured <= said["output_error"] * (1 + 1e-9) <= np.hypot(measured * (1 + 1e-6) + 1e-8, unit)
        stored = weight.matrix.dtype.type  # what the bias was to be is rounded as it is stored
        rounded = replace(cut, shift=cut.shift.astype(stored).astype(np.float64))
        assert outputs_error(weight, x, rank, True, rounded) <= said["output_error"] * (1 + 1e-9)
        best = np.sqrt((s[rank:] ** 2).sum() / (s**2).sum())
        loose = 1e-9 if dtype == np.float64 else 1e-4  # the engine was given W R in float32
        assert best - loose <= said["least"] <= best * (1 + 1e-12)


@pytest.mark.parametrize("w", [np.zeros((5, 4)), np.ones((5, 4)), np.eye(6, 4) * 1e-25, np.full((4, 6), 1e25)])
def test_weights_of_no_or_one_direction(w):
    weight = Weight("w", w)
    cut = weight.cut(1)
    said = weight.proof(cut)
    assert np.isfinite(cut.left).all()
    assert np.isfinite(cut.right).all()
    assert all(0 <= value <= 1 + 1e-12 for value in said.values())
    if np.linalg.matrix_rank(w) <= 1:
        np.testing.assert_allclose(cut.left @ cut.right, w, rtol=1e-12)


def test_a_constant_output_costs_nothing():
    weight = Weight("w", np.random.default_rng(0).standard_normal((5, 4)))
    weight.look(StreamingGram().update(np.ones((10, 4))), 1.0)
    assert not weight.errors.any()
    cut = weight.cut(1)
    y = np.ones(4) @ weight.matrix.T
    np.testing.assert_allclose(np.ones(4) @ (cut.left @ cut.right).T + cut.shift, y, rtol=1e-12)


def test_rules_read_the_spectrum_on_the_data():
    weight, x = looked(np.random.default_rng(3), 10, 8)
    y = x @ weight.matrix.T
    s = np.linalg.svd(y - y.mean(0), compute_uv=False)
    share = np.cumsum(s**2) / (s**2).sum()
    assert weight.rank(Energy(0.9)) == int((share < 0.9).sum()) + 1
    assert weight.rank(FixedRank(3)) == 3


def test_what_is_no_weight_is_refused():
    with pytest.raises(DataError, match=r"the weight of 'fc' holds nan at \[1, 2\]"):
        Weight("fc", np.array([[0, 0, 0], [0, 0, np.nan]])).found()
    with pytest.raises(DataError, match="the weight of 'fc' has numbers of up to 1e-200: expected them between"):
        Weight("fc", np.full((2, 3), 1e-200)).found()
    with pytest.raises(ShapeError, match="has 3 inputs, and the data 4 features"):
        Weight("fc", np.ones((2, 3))).look(StreamingGram().update(np.ones((5, 4))), 1.0)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2)])
def test_patches_are_what_a_convolution_multiplies(stride, dilation):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((3, 2, 7, 8)).astype(np.float32)
    rows = np.concatenate(list(patch_rows(x, (3, 2), stride, (1, 2), dilation)))
    found = torch.nn.functional.unfold(torch.tensor(x), (3, 2), dilation, (1, 2), stride)
    np.testing.assert_array_equal(rows, found.transpose(1, 2).reshape(rows.shape).numpy())


def test_of_many_positions_the_same_are_taken_each_time():
    rows = np.arange(2 * MOST_ROWS)[:, None]
    assert len(_some(rows)) == MOST_ROWS
    np.testing.assert_array_equal(_some(rows), _some(rows))
    assert _some(rows[:5]) is not None
    assert len(_some(rows[:5])) == 5


# -- the budget -----------------------------------------------------------------------------------------------------


@st.composite
def curves(draw) -> list[Choice]:
    """Ranks of a layer whose errors fall as tails of a spectrum do, and dense."""
    m, n = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    squares = sorted(draw(st.lists(st.floats(0, 1), min_size=min(m, n), max_size=min(m, n))), reverse=True)
    whole = sum(squares) or 1.0
    cut = [Choice(r, r * (m + n), sum(squares[r:]) / whole) for r in range(1, (m * n - 1) // (m + n) + 1)]
    return [*cut, Choice(None, m * n, 0.0)]


@settings(max_examples=200, deadline=None)
@given(st.lists(curves(), min_size=1, max_size=3), st.floats(0.05, 1))
def test_a_budget_is_kept_and_well_spent(layers, share):
    """Against all combinations: what is bought errs no more than the best of a budget smaller by one step of each."""
    whole = sum(each[-1].cost for each in layers)
    least = sum(min(c.cost for c in each) for each in layers)
    if share * whole < least:
        with pytest.raises(InputError, match="the least that these layers cost"):
            allocate(layers, share * whole)
        return
    found = allocate(layers, share * whole)
    cost, error = sum(c.cost for c in found), sum(c.error for c in found)
    assert cost <= share * whole
    combined = [(0.0, 0.0)]
    for each in layers:
        combined = [(c + one.cost, e + one.error) for c, e in combined for one in each]
    step = max(
        (b.cost - a.cost for each in layers for a, b in zip(hull(each), hull(each)[1:], strict=False)), default=0
    )
    best = min((e for c, e in combined if c <= share * whole - step), default=np.inf)
    assert error <= best + 1e-9


def test_the_hull_leaves_out_what_buys_less():
    choices = [Choice(1, 1, 1.0), Choice(2, 2, 0.9), Choice(3, 3, 0.2), Choice(4, 4, 0.2), Choice(None, 5, 0.0)]
    assert [c.rank for c in hull(choices)] == [1, 3, None]
