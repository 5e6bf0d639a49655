"""What the routes on the CPU are made of: sums, levels, straightening, the choice between them, their memory."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.errors import ConvergenceError
from gpunet.linalg import class_pca, svd
from gpunet.linalg.matrix import RunningSum, TallMatrix, inner
from gpunet.linalg.solvers import (
    NotConverged,
    _complete,
    _qr,
    _rotate,
    basis_size,
    by_levels,
    conditioned,
    finish,
    inverse,
    leading_by_eigh,
    leading_by_lanczos,
    resolved,
)
from gpunet.linalg.svd import cpu_routes
from gpunet.linalg.verify import measure, tolerance
from gpunet.rng import LINALG, stream
from tests.linalg.matrices import check_triples, orthonormal, with_spectrum

EPS = np.finfo(float).eps


# -- sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 255, 256, 1025, 100_003, 1_000_000])
def test_long_sums_of_equal_numbers_lose_nothing(rows):
    a = np.full((rows, 2), 0.1)
    exact = float(rows * (np.longdouble(0.1) ** 2))
    np.testing.assert_allclose(inner(a, a), exact, rtol=40 * EPS)
    np.testing.assert_allclose(inner(a, a[:, :1]), exact, rtol=40 * EPS)


@pytest.mark.parametrize("shape", [(3000, 5, 7), (3000, 70, 70), (999, 3, 3)])
def test_inner_is_the_product(shape, rng):
    rows, n, p = shape
    a, b = np.asfortranarray(rng.standard_normal((rows, n))), rng.standard_normal((rows, p))
    np.testing.assert_allclose(inner(a, b), a.T @ b, atol=1e-11)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_running_sum_is_exact_to_a_few_roundings(values):
    total = RunningSum((1,))
    for each in values:
        total.add(np.array([each]))
        assert total.value is not None  # looking in between changes nothing
    size = math.fsum(map(abs, values))
    assert abs(float(total.value[0]) - math.fsum(values)) <= 8 * EPS * size


def test_running_sum_does_not_drift():
    total = RunningSum((1,))
    for _ in range(100_000):
        total.add(np.array([0.1]))
    assert float(total.value[0]) == pytest.approx(float(100_000 * np.longdouble(0.1)), rel=8 * EPS)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_rows_less_their_mean_without_a_copy(flipped, small, rng, monkeypatch):
    if not small:
        monkeypatch.setattr("gpunet.linalg.matrix.WHOLE_ELEMENTS", 0)
    a = rng.standard_normal((30, 90) if flipped else (90, 30)).astype("f4") + 100
    rows = np.sort(rng.choice(len(a), 20 if flipped else 60, replace=False))
    picked = TallMatrix(a, rows=rows)
    mean = picked.row_mean()
    np.testing.assert_allclose(mean, a[rows].astype(float).mean(axis=0), rtol=1e-14)
    x = TallMatrix(a, rows=rows, mean=mean)
    assert x.flipped is flipped
    expected = a[rows] - mean
    np.testing.assert_allclose(x.dense(np.float64), expected.T if flipped else expected, atol=1e-13)
    assert x.energy() == pytest.approx(np.sum(expected**2), rel=1e-12)


# -- levels and straightening ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("digits", [2, 6, 10, 14, 20])
def test_levels_reach_what_squaring_loses(digits, k, whole, rng, monkeypatch):
    if not whole:
        monkeypatch.setattr("gpunet.linalg.matrix.WHOLE_ELEMENTS", 0)
    a = with_spectrum(rng, 200, 40, np.logspace(0, -digits, 40))
    limit = tolerance(np.float64, 40, k)
    x = TallMatrix(a)
    u, s, v = by_levels(x, k, True, limit)
    assert max(measure(x, u, s, v, limit)) <= limit
    np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False)[:k], atol=limit)


@pytest.mark.parametrize("zero", [0, 1, 17])
def test_vanishing_triples_get_orthonormal_vectors(zero, rng):
    a = with_spectrum(rng, 60, 30, np.concatenate([np.linspace(2, 1, 30 - zero), np.zeros(zero)]))
    x = TallMatrix(a)
    s, v = np.linalg.svd(a)[1], np.linalg.svd(a)[2].T
    u, own, turned = finish(x, s, v, True, 1e-13)
    assert np.linalg.norm(u.T @ u - np.eye(30)) < 1e-13
    assert np.linalg.norm(a @ turned - u * own) < 1e-13


@pytest.mark.parametrize(("found", "last"), [(3, -4), (3, -7), (3, -12), (3, -20), (30, -4), (30, -7)])
@pytest.mark.parametrize("m", [30, 31, 400])
def test_right_vectors_of_a_poor_gram_are_put_right_by_the_long_side(found, last, m, rng):
    """The eigenvectors of XᵀX alone leave 1e-9 and more; what uᵀu says is enough, whatever was thought of them."""
    a = with_spectrum(rng, m, 30, np.logspace(0, last, 30))
    x = TallMatrix(a)
    values, v = leading_by_eigh(a.T @ a, 30)
    limit = tolerance(np.float64, 30, 30)
    with np.errstate(all="ignore"):
        plain = (a @ v) / np.sqrt(values), np.sqrt(values), v
        assert not max(measure(x, *plain, limit)) <= 100 * limit
    assert max(measure(x, *finish(x, np.sqrt(values), v, True, limit, found), limit)) <= limit


@pytest.mark.parametrize("seed", [14, 59, 62, 143, 197, 231])
def test_levels_of_rows_on_many_scales(seed):
    """What eigh leaves below ε λ₁ says nothing: 1e-50 λ₁ it may call what is 3e-25 λ₁."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((65, 130)) * 10.0 ** -rng.uniform(0, 500, (65, 1))
    found, exact = svd(a, 2, method="gram"), np.linalg.svd(a, compute_uv=False)
    assert np.abs(found.s - exact[:2]).max() <= found.tol * exact[0]


@pytest.mark.parametrize("m", [20, 50, 3000])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_columns_of_zeros_are_known(m, dtype, rng):
    """Their right vectors are unit vectors, their σ 0; those of the others are as if there were none."""
    a = rng.standard_normal((m, 20)).astype(dtype)
    a[:, [0, 7, 8, 19]] = 0
    found, other = (svd(b, method="gram") for b in (a, np.delete(a, [0, 7, 8, 19], axis=1)))
    np.testing.assert_allclose(found.s[:16], other.s, rtol=1e-6 if dtype == "f4" else 1e-13)
    assert np.array_equal(found.s[16:], np.zeros(4))
    assert np.array_equal(np.sort(np.abs(found.vt[16:]).argmax(axis=1)), [0, 7, 8, 19])
    assert np.array_equal(found.vt[16:], np.eye(20)[np.abs(found.vt[16:]).argmax(axis=1)])
    np.testing.assert_allclose(found.u.T @ found.u, np.eye(20), atol=1e-5 if dtype == "f4" else 1e-13)


@pytest.mark.parametrize("shape", [(784, 0), (784, 700), (4000, 600), (100, 99), (64, 0)])
@pytest.mark.parametrize("turned", [True, False])
def test_complete_fills_up(shape, turned, rng):
    """Any orthonormal columns, rows of the unit matrix among them."""
    long, kept = shape
    k = min(long, kept + 100)
    q = orthonormal(rng, long, kept) if turned else np.eye(long, kept)
    u = np.concatenate([q, np.full((long, k - kept), np.nan)], axis=1)
    _complete(u, kept, tolerance(np.float64, k, k))
    assert np.array_equal(u[:, :kept], q)
    assert np.linalg.norm(u.T @ u - np.eye(k)) <= tolerance(np.float64, k, k)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20_000, 64), (65_536, 64), (20_000, 160), (40_000, 300)])
@pytest.mark.parametrize("distinct", [1, 2])
def test_rows_that_repeat(shape, distinct, rng):
    """All triples, most of σ zero: the vectors that complete u are no longer constant where u is."""
    a = np.repeat(
        rng.standard_normal((distinct, shape[1])) if distinct > 1 else np.ones((1, shape[1])),
        -(-shape[0] // distinct),
        0,
    )
    found = svd(a)
    assert max(found.residual, found.orthogonality) < found.tol / 2


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 999))
def test_complete_in_float32(long, share, of_rest, seed):
    """Of few rows what is drawn nearly depends on each other."""
    kept = round(share * (long - 1))
    k = kept + round(of_rest * (long - kept))
    u = np.zeros((long, k), np.float32)
    u[:, :kept] = orthonormal(np.random.default_rng(seed), long, kept)
    _complete(u, kept, tolerance(np.float32, k, k))
    assert np.linalg.norm(u.astype(float).T @ u - np.eye(k)) <= tolerance(np.float32, k, k) / 2


@pytest.mark.parametrize(("first", "mixed"), [(0, 300), (0, 0), (37, 250), (10, 40)])
def test_rotate_is_a_product(first, mixed, rng):
    """Triangular but for the columns from `mixed` on."""
    u, turn = rng.standard_normal((500, 300)), rng.standard_normal((300, 290 - first))
    for j in range(mixed):
        turn[first + j + 1 :, j : j + 1] = 0
    expected = u @ turn
    _rotate(u, turn, first)
    np.testing.assert_allclose(u[:, first:290], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 64, 65, 200])
def test_inverse_of_a_triangular_matrix(n, rng):
    lower = np.linalg.cholesky(np.cov(rng.standard_normal((n, 3 * n + 3))).reshape(n, n) + np.eye(n))
    np.testing.assert_allclose(inverse(lower) @ lower, np.eye(n), atol=1e-12)


@settings(deadline=None)
@given(st.integers(64, 90), st.floats(-12, -1), st.integers(0, 99))
def test_conditioned_is_what_the_eigenvalues_say(n, power, seed):
    rng = np.random.default_rng(seed)
    values = np.logspace(0, power, n)
    q = orthonormal(rng, n, n)
    g = (q * values) @ q.T
    assert conditioned(g, n, 10**power / 3)
    assert not conditioned(g, n, min(0.9, 10**power * 30))
    assert conditioned(g, n // 2, 1.0)  # not for it to say


def test_resolved_counts_what_the_limit_allows():
    values = np.array([1.0, 1e-2, 1e-4, 1e-8])
    assert resolved(values, 1e-6, 1e-3) == 3  # residuals 1e-6, 1e-5, 1e-4, 1e-2
    assert resolved(values, 1e-6, 1.0) == 4
    assert resolved(np.array([1.0, 1e-15]), 1e-16, 1.0) == 1  # u is not to be straightened
    assert resolved(np.zeros(3), 1e-6, 1e-3) == 3


# -- verification ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 30), (2000, 300)])
@pytest.mark.parametrize("compute", ["both", "right"])
def test_one_wrong_triple_among_many_is_seen(size, compute, rng):
    m, n = size
    a = rng.standard_normal((m, n))
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    limit, x = tolerance(np.float64, n, n), TallMatrix(a)
    side = None if compute == "right" else u
    assert max(measure(x, side, s, vt.T, limit)) <= limit
    for wrong in (0, n // 2, n - 1):
        bad = vt.T.copy()
        bad[:, wrong] += 30 * limit * rng.standard_normal(n) / n**0.5
        assert max(measure(x, side, s, bad, limit)) > limit
        worse = s.copy()
        worse[wrong] += 30 * limit * s[0]
        assert max(measure(x, side, worse, vt.T, limit)) > limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_columns_are_not_taken_for_errors(dtype):
    a = np.full((300_000, 3), 0.1, dtype)
    u = np.full((300_000, 1), 300_000**-0.5, dtype)
    v = np.full((3, 1), 3**-0.5, dtype)
    s = np.array([math.sqrt(900_000) * float(dtype and np.dtype(dtype).type(0.1))])
    limit = tolerance(dtype, 3, 1)
    assert max(measure(TallMatrix(a), u, s, v, limit)) < limit / 4


# -- iteration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [15, 16, 19, 20, 24, 25])
def test_three_blocks_are_enough_room(n):
    found = leading_by_lanczos(lambda q: q * np.arange(1.0, n + 1)[:, None] ** 2, n, 1, 1e-3)
    assert found[0][0] == pytest.approx(n * n, rel=1e-3)


def falling(n, power=0.7):
    """Eigenvalues of G of which the iteration needs narrow blocks, once started again or not."""
    return np.arange(1.0, n + 1) ** (-2 * power)


@pytest.mark.parametrize(
    ("dtype", "tol", "power"), [(np.float32, 1e-5, 0.7), (np.float64, 1e-13, 0.7), (np.float64, 1e-13, 0.2)]
)
def test_many_vectors_are_found_with_narrow_blocks(dtype, tol, power):
    """G = diag(λ), so that the truth is known: the first k unit vectors. Each fills its basis, and starts again."""
    n, k = 1200, 80
    values, products = falling(n, power), []

    def apply(q):
        assert q.shape == (n, 32)
        products.append(q.shape[1])
        return values[:, None] * q

    found, v = leading_by_lanczos(apply, n, k, tol, 1e-8 if dtype == np.float32 else 1e-15, dtype)
    np.testing.assert_allclose(found, values[:k], rtol=2e-6 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(v.T @ v, np.eye(k), atol=2e-5 if dtype == np.float32 else 1e-13)
    assert np.abs(v[k:]).max() < (1e-2 if dtype == np.float32 else 1e-9)
    assert sum(products) > basis_size(k, 32)


COPIES, PLACES, SPREADS = (8, 31, 32, 33, 100, 400), (0, 1, 30, 70), (0, 1e-14, 1e-9, 1e-5, 1e-2)


@pytest.mark.parametrize(
    ("copies", "at", "spread"),
    [
        # Every pair is among those that are not slow.
        pytest.param(copies, at, spread, marks=[pytest.mark.slow] * (c % 4 != (a + s) % 4))
        for c, copies in enumerate(COPIES) for a, at in enumerate(PLACES) for s, spread in enumerate(SPREADS)
    ],
)  # fmt: skip
def test_narrow_blocks_miss_no_copy_of_a_value(copies, at, spread):
    """Of values nearer to each other than can be told there may be more than a block has columns: wide ones look."""
    n, k = 700, 80
    values = falling(n)
    values[n - copies + 1 :] = values[at] * (1 - spread * np.linspace(1, 0, copies)[1:])  # and the one that is there
    values = np.sort(values)[::-1]
    try:
        found, _ = leading_by_lanczos(lambda q: values[:, None] * q, n, k, 1e-10)
    except NotConverged:
        assert copies >= 31  # with 31 beside θ_k it stalls
    else:
        np.testing.assert_allclose(found, values[:k], rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("copies", "method"), [(60, "auto"), (60, "gram"), *((1100, m) for m in ("auto", "gram", "randomized", "subspace"))]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_repeated_values_are_all_found_where_narrow_blocks_would_not_see_them(copies, dtype, method, rng):
    n, k = 1100, 40
    s = np.concatenate([np.full(copies, 3.0), 2.0 / np.arange(1, n - copies + 1)])
    a = with_spectrum(rng, n, n, s).astype(dtype)
    assert cpu_routes("auto", TallMatrix(a), k, True)[0] == "randomized"
    check_triples(a, svd(a, k, method=method), k)


def test_a_gamble_that_goes_badly_ends_early(rng):
    a = rng.standard_normal((500, 480))
    calls = []

    def apply(q):
        calls.append(1)
        return a.T @ (a @ q)

    with pytest.raises(NotConverged, match="after 2 blocks"):
        leading_by_lanczos(apply, 480, 10, 1e-12, patience=16)
    assert len(calls) == 2


@pytest.mark.parametrize("more", [3e-5, 1e-4, 2e-4])
@pytest.mark.parametrize(("n", "k"), [(1000, 1), (1000, 5), (3000, 1)])
def test_near_one_the_largest_is_found_all_the_same(n, k, more):
    """After one block a matrix near 1 leaves a residual within the tolerance whatever the vectors are."""
    a = np.eye(n, dtype=np.float32)
    a[7, 7] += np.float32(more)
    assert svd(a, k).s[0] == pytest.approx(1 + more, abs=1e-6)


@pytest.mark.parametrize("method", ["auto", "gram", "randomized", "subspace"])
def test_what_the_first_block_misses_is_found(method):
    """The start block spans a space that X maps to itself, and σ₁ is beside it."""
    n, k, width = 700, 5, 9
    q = np.linalg.qr(stream(0, LINALG).standard_normal((n, width)))[0]
    x = np.random.default_rng(5).standard_normal(n)
    for _ in range(2):
        x -= q @ (q.T @ x)
    x /= np.linalg.norm(x)
    a = (q * np.linspace(0.9, 0.5, width)) @ q.T + np.outer(x, x)
    np.testing.assert_allclose(svd(a, k, method=method).s, [1, 0.9, 0.85, 0.8, 0.75], atol=1e-12)


@pytest.mark.slow
def test_what_was_seen_to_go_badly_is_not_iterated_again(rng, monkeypatch):
    """Noise: X is given up after eight blocks, and its Gram matrix goes to LAPACK at once."""
    tried = []
    monkeypatch.setattr("gpunet.linalg.solvers.leading", lambda *_: tried.append(1))
    a = rng.standard_normal((3072, 2000))
    found = svd(a, 1)
    assert found.route == "gram"
    assert len(found.rejected) == 1
    assert found.rejected[0].endswith("λ₁ after 8 blocks")
    assert not tried
    check_triples(a, found, 1)


@pytest.mark.parametrize(
    ("dtype", "size", "copied"),
    [
        *(("f4", 1e3, False), ("f4", 1e-3, False), ("f4", 1e6, True), ("f4", 1e-6, True), ("f4", 1e35, True)),
        *(("f8", 1e-49, False), ("f8", 1e49, False), ("f8", 1e-51, True), ("f8", 1e300, True)),
    ],
)
def test_numbers_of_ordinary_size_are_read_where_they_lie(dtype, size, copied, rng):
    a = (with_spectrum(rng, 700, 600, 30.0 / np.arange(1, 601)) * size).astype(dtype)
    x = TallMatrix(a)
    x.rescale()
    _, part = next(x.chunks())
    assert np.shares_memory(part, a) != copied
    assert 0.25 < np.abs(part).max() <= 1 or not copied
    check_triples(a, svd(a, 1, method="randomized"), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cond", [1, 10, 1e3, 1e6, 1e12, np.inf])
@pytest.mark.parametrize("width", [5, 16, 40])
def test_qr_of_a_block(dtype, cond, width, rng):
    y = with_spectrum(rng, 500, width, np.geomspace(1, 1 / cond, width) if cond < np.inf else np.arange(width) < 3)
    y = y.astype(dtype)
    q, b = _qr(y)
    eps = np.finfo(dtype).eps
    assert q.dtype == b.dtype == dtype
    np.testing.assert_allclose(q.T @ q, np.eye(width), atol=20 * eps)
    np.testing.assert_allclose(q @ b, y, atol=20 * eps)
    assert not np.tril(b, -1).any()


@pytest.mark.parametrize("method", ["subspace", "randomized"])
def test_what_an_iteration_on_squares_cannot_see_it_does_not_answer(method, rng):
    """σ₂ is 6 times the tolerance and lost in the rounding of σ₁²: a null vector in its place leaves no residual."""
    a = with_spectrum(rng, 64, 64, np.concatenate([[1], 2e-13 * 0.1 ** np.arange(63)]))
    with pytest.raises(ConvergenceError, match="float64 products resolve 1 of 2 triples"):
        svd(a, 2, method=method)
    check_triples(a, svd(a, 2), 2)


@pytest.mark.parametrize("k", [1, 20, 70, 600])
def test_few_eigenpairs_are_those_of_all(k, rng):
    a = rng.standard_normal((700, 600))
    values, vectors = leading_by_eigh(a.T @ a, k)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a.T @ a)[::-1][:k], rtol=1e-12)
    assert np.linalg.norm(a.T @ (a @ vectors) - vectors * values) < 1e-10 * values[0]


# -- the choice -----------------------------------------------------------------------------------------------------


def shaped(long, short, dtype, **how):
    """A matrix of that shape that takes no memory."""
    return TallMatrix(np.broadcast_to(np.zeros((), dtype), (long, short)), **how)


def chosen(long, short, k, dtype="f4", both=True, **how):
    x = shaped(long, short, dtype, **how)
    return cpu_routes("auto", x, k, both)[0]


def test_the_cost_model_chooses_as_measured():
    """By `gpunet bench record FILE svd-grid`."""
    for k in (1, 100):
        assert chosen(60_000, 784, k) == "gram"
    assert chosen(60_000, 784, 784) == "gram-levels"
    assert chosen(60_000, 784, 784, both=False) == "gram"
    assert chosen(60_000, 1536, 100) == "gram"
    assert chosen(60_000, 3072, 100) == "gram"
    assert chosen(500 * 40, 500, 500, "f8") == "gram-levels"
    assert chosen(4096, 4096, 10) == "randomized"
    assert chosen(4096, 4096, 256) == "randomized"  # 1.8 s on one core, by gram 3.1
    assert chosen(4096, 4096, 256, "f8") == "gram"  # 4.7 s, randomized 5.1
    assert chosen(1050, 1050, 100, "f8") == "gram"  # too small for a try that noise would make waste
    assert chosen(60_000, 3072, 20) == "randomized"
    assert chosen(60_000, 784, 10, "f8") == "gram"
    assert chosen(32, 32, 32, "f8") == "full"
    assert chosen(1000, 784, 784, "f8", both=False) == "gram"
    assert chosen(4096, 4096, 10, "u1") == "gram"  # bytes: exact, and few passes
    assert chosen(4096, 4096, 10, "i2") == "gram"  # each pass would convert them
    assert chosen(4096, 4096, 10, mean=np.zeros(4096)) == "gram"  # or centre them


def test_every_order_ends_in_what_cannot_fail():
    for long, short, k in ((60_000, 784, 3), (50, 40, 40), (9, 9, 1), (4096, 4096, 9)):
        x = shaped(long, short, "f4")
        routes = cpu_routes("auto", x, k, True)
        assert {"gram-levels", "full", "qr"} <= set(routes)
        assert len(set(routes)) == len(routes)


# -- memory ---------------------------------------------------------------------------------------------------------


def beside(run, results):
    """(what `run` gives, bytes that it took beside its results)."""
    tracemalloc.start()
    found = run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, peak - sum(part.nbytes for part in results(found))


def triples(found):
    return found.u, found.s, found.vt


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: (rng.standard_normal((300_000, 100), dtype=np.float32), "auto"),
        lambda rng: (rng.standard_normal((300_000, 100), dtype=np.float32) * np.float32(10) ** -np.arange(100), "auto"),
        lambda rng: (rng.standard_normal((20_000, 700)), "qr"),
        lambda rng: (rng.standard_normal((30_000, 300)) * 0.8 ** np.arange(300), "gram"),
    ],
    ids=["plain", "graded", "qr", "levels"],
)
def test_memory_beside_input_and_results(make, rng):
    with np.errstate(under="ignore"):
        a, method = make(rng)
    found, extra = beside(lambda: svd(a, method=method), triples)
    assert extra < 64 << 20, f"{extra >> 20} MB"
    sample = slice(0, None, 997)
    np.testing.assert_allclose((found.u[sample] * found.s) @ found.vt, a[sample], atol=found.tol * found.s[0])


@pytest.mark.slow
def test_memory_of_classes_of_few_wide_samples(rng):
    x = rng.integers(0, 256, (1000, 20_000), dtype=np.uint8)
    for labels in (np.zeros(1000, int), np.arange(1000) % 2):
        _, extra = beside(lambda labels=labels: class_pca(x, labels, 10), lambda p: (p.components, p.mean))
        assert extra < 64 << 20, f"{extra >> 20} MB"


def test_rows_of_any_layout_give_the_same_triples(rng):
    a = rng.standard_normal((40, 7))
    for same in (np.asfortranarray(a), a[::-1][::-1], np.broadcast_to(a, (1, 40, 7))[0]):
        check_triples(a, svd(same), 7)
