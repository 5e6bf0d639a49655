"""Kinds of fault that the engine had, a small matrix each and its relatives, at `svd`, `class_pca`, `StreamingGram`.

What is right is said by `tests/linalg/fuzz.py`: LAPACK in float64, sums in longdouble.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from gpunet.errors import ConvergenceError, GpunetError, InputError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca, svd
from gpunet.linalg.matrix import TallMatrix, gram
from gpunet.linalg.solvers import ROUTES
from gpunet.linalg.svd import METHODS

from . import fuzz


def check_svd(a, k=None, **settings):
    found = svd(a, k, **settings)
    b, e = fuzz.scaled(a)
    k = min(a.shape) if k is None else k
    assert (
        fuzz.judge_triples(
            b, e, k, fuzz.result_dtype(a.dtype), settings.get("compute", "both"), found.u, found.s, found.vt, False
        )
        == []
    )
    return found


def check_class_pca(x, labels, k, center):
    found, dtype = class_pca(x, labels, k, center=center), fuzz.result_dtype(x.dtype)
    truths = fuzz._by_class(x, labels, center)
    assert fuzz._judge_classes(truths, k, None, dtype, dtype)(found, False) == []
    return found


def check_streaming(batches, k, center):
    sums = StreamingGram(center=center)
    for batch in batches:
        sums.update(batch)
    found, whole = sums.components(k), fuzz.Samples(*fuzz.scaled(np.concatenate(batches)), center)
    assert whole.judge(found, k, None, fuzz.result_dtype(batches[0].dtype), False) == []
    return found


def halves(x):
    return [x[: len(x) // 3], x[len(x) // 3 :]]


# --- 1: the check is less accurate than what it checks ----------------------------------------------------------------


def picture(dtype):
    """256×256 pixels × RGB: a flat background with a square on it."""
    image = np.full((256, 256, 3), (200, 180, 37), np.uint8)
    image[40:60, 100:130] = (3, 90, 255)
    pixels = image.reshape(-1, 3)
    return pixels if dtype == "uint8" else (pixels / 255).astype(dtype)


FLAT = {
    "0.1": lambda: np.full((1000, 3), 0.1, "f4"),
    "0.1 in float64": lambda: np.full((100_000, 3), 0.1),
    "0.1 in many rows of float64": lambda: np.full((941_321, 1), 0.1),
    "one column": lambda: np.full((300_000, 1), 0.1, "f4"),
    "a picture": lambda: picture("float32"),
    "a large picture": lambda: np.tile(picture("uint8"), (13, 1)).astype("i8") * 77,
    "a picture of bytes": lambda: picture("uint8"),
    "white": lambda: np.full((200_000, 3), 255, np.uint8),
    "true": lambda: np.ones((50_000, 4), bool),
    "float16": lambda: np.full((50_000, 4), 0.1, "f2"),
    "int16": lambda: np.full((50_000, 4), 32767, "i2"),
    "int64": lambda: np.full((50_000, 4), 2**53),
    "large": lambda: np.full((50_000, 4), 3e33, "f4"),
    "wider": lambda: np.full((20_000, 40), 0.1, "f4"),
}


@pytest.mark.parametrize("name", FLAT)
def test_1_what_lapack_gets_right_is_not_refused(name):
    a = FLAT[name]()
    check_svd(a)
    check_svd(np.ascontiguousarray(a.T))
    check_svd(a, 1, compute="right")
    check_svd(a, 1, compute="left")
    labels = np.arange(len(a)) % 2
    for center in (False, True):
        check_class_pca(a, labels, 1, center)
        check_streaming(halves(a), 1, center)


@pytest.mark.parametrize("method", METHODS)
def test_1_on_every_route(method):
    """Block Krylov methods have no room in three columns."""
    if method not in ("subspace", "randomized"):
        check_svd(np.full((1000, 3), 0.1, "f4"), method=method)
        check_svd(np.full((20_000, 3), 0.1, "f4"), 1, method=method)
    check_svd(np.full((20_000, 60), 0.1, "f4"), 1, method=method)


@pytest.mark.parametrize("method", ["auto", "full", "gram", "qr"])
def test_1_in_a_stack(method):
    stack = np.stack([np.full((1000, 3), 0.1, "f4"), np.zeros((1000, 3), "f4"), np.full((1000, 3), -7e20, "f4")])
    found = svd(stack, method=method)
    for a, u, s, vt in zip(stack, found.u, found.s, found.vt, strict=True):
        assert fuzz.judge_triples(*fuzz.scaled(a), 3, a.dtype, "both", u, s, vt, False) == []


def test_1_the_check_still_refuses(rng):
    """A float32 result cannot be as good as 1e-9: were the check blind, it would pass."""
    for shape in ((1000, 3), (100_000, 3), (60, 40)):
        with pytest.raises(ConvergenceError, match=r"tol=1e-09"):
            svd(rng.standard_normal(shape).astype("f4"), tol=1e-9)


def test_1_an_orthonormal_basis_passes_whatever_its_size():
    """All left vectors of LAPACK: the estimate of their orthogonality, from random signs, must not refuse them."""
    for m, n in ((17, 255), (15, 240), (33, 400), (64, 64)):
        for c in (0.3, 0.6, 0.95):
            kahan = (1 - c * c) ** (0.5 * np.arange(m))[:, None] * (np.eye(m, n) - c * np.triu(np.ones((m, n)), 1))
            check_svd(kahan)


# --- 3: means and variances of float32 over many rows -----------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("mean", [1e6, -3e3, 0.1])
def test_3_means_of_many_rows(mean, center, rng):
    x = (mean + rng.normal(size=(100_000, 4)) * [4, 3, 2, 1] * abs(mean) ** 0.25).astype("f4")
    exact = x.astype(np.longdouble).mean(axis=0).astype(float)
    found = check_class_pca(x, np.zeros(len(x), int), 1, center)
    np.testing.assert_allclose(found.mean[0], exact, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(check_streaming(halves(x), 1, center).mean, exact, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", ["f2", "f4", "u1", "i4"])
def test_3_variances_of_many_rows(dtype, rng):
    x = np.rint(100 + rng.normal(size=(100_000, 3)) * [5, 3, 1]).astype(dtype)
    exact = np.sort(np.linalg.eigvalsh(np.cov(x.T.astype(float), ddof=0)))[::-1]
    pca = check_class_pca(x, np.zeros(len(x), int), 3, True)
    np.testing.assert_allclose(pca.explained_variance[0], exact, rtol=1e-5)
    np.testing.assert_allclose(check_streaming(halves(x), 3, True).explained_variance, exact, rtol=1e-11)


# --- 4: scale ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", [1e-25, 1e-38, 1e25, 1e37])
def test_4_a_class_of_another_size(size, center, rng):
    """Of a class of 1e-25 beside one of 1 the squares leave float32."""
    x = np.concatenate([rng.normal(size=(60, 5)) * [5, 4, 3, 2, 1], size * rng.normal(size=(60, 5)) * [1, 2, 3, 4, 5]])
    found = check_class_pca(x.astype("f4"), np.repeat([3, 8], 60), 2, center)
    assert 10 < found.explained_variance[1, 0] / size**2 < 50
    one = check_class_pca(x[60:].astype("f4"), np.zeros(60, int), 2, center)
    np.testing.assert_allclose(found.components[1], one.components[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", [1e-140, 1e-100, 1e100, 1e140])
def test_4_streams_of_any_size(size, center, rng):
    x = size * rng.normal(size=(60, 5)) * [5, 4, 3, 2, 1]
    check_streaming(halves(x), 3, center)
    check_streaming([x, 1e-30 * x], 1, center)
    check_class_pca(x, np.zeros(60, int), 3, center)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", [1e-320, 1e-170, 1e170, 1e200, 1e300])
def test_4_variances_beyond_float64_are_an_error(size, center, rng):
    """What cannot be represented is said, in one line: no unit vectors of nothing, no zeros, no infinities."""
    x = size * rng.normal(size=(60, 5)) * [5, 4, 3, 2, 1]

    def streamed():
        return StreamingGram(center=center).update(x)

    for call in (
        lambda: streamed().gram(),
        lambda: streamed().density(),
        lambda: streamed().components(2),
        lambda: class_pca(x, np.zeros(60, int), 2, center=center),
    ):
        with pytest.raises(InputError, match=r"^[^\n]*(scale|range|float64)[^\n]*$"):
            call()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_4_svd_at_the_ends_of_the_range(dtype, rng):
    for size in (np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny, np.finfo(dtype).max / 40):
        check_svd((rng.integers(-1, 2, (40, 6)) * float(size)).astype(dtype))
        check_svd(np.eye(6, dtype=dtype) * np.dtype(dtype).type(size))
    with pytest.raises(InputError, match="exceeds the range"):
        svd(np.full((4, 4), np.finfo(dtype).max))


def test_4_one_stack_of_many_sizes():
    noise = np.random.default_rng(3).standard_normal((5, 5))
    stack = np.stack([noise * size for size in (1e-40, 1e-20, 1, 1e30, 3e37)]).astype("f4")
    found = svd(stack)
    for a, u, s, vt in zip(stack, found.u, found.s, found.vt, strict=True):
        assert fuzz.judge_triples(*fuzz.scaled(a), 5, a.dtype, "both", u, s, vt, False) == []


# --- 7: doors that verify nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 1e4, 1e7])
@pytest.mark.parametrize("center", [False, True])
def test_7_components_beside_a_large_mean(center, mean, rng):
    """Of the Gram matrix components 2–3 were 0.1–0.19 rad off, and the residual was told as 2.5e-16."""
    x = mean + rng.normal(size=(400, 30)) * np.linspace(3, 1, 30)
    part = x - x.astype(np.longdouble).mean(axis=0).astype(float) if center else x
    vt = np.linalg.svd(part, full_matrices=False)[2]
    for found in (
        check_class_pca(x, np.zeros(400, int), 3, center).components[0],
        check_streaming(halves(x), 3, center).components,
    ):
        for j in range(3):
            assert 1 - abs(vt[j] @ found[j]) < 1e-11


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_7_graded_classes(dtype, rng):
    """σ from 1 to 1e-5: their squares lie 1e-10 apart, below float32's ε."""
    q = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    x = ((np.linalg.qr(rng.standard_normal((200, 8)))[0] * np.logspace(0, -5, 8)) @ q.T).astype(dtype)
    check_class_pca(x, np.arange(200) % 2, 8, False)
    check_class_pca(x, np.arange(200) % 2, 8, True)


@pytest.mark.parametrize("center", [False, True])
def test_7_more_components_than_the_rank(center, rng):
    """σ₄ … σ₉ are 0, and their vectors any orthonormal ones; sums of squares of float64 would not show it."""
    x = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 9))
    check_class_pca(x, np.zeros(50, int), 9, center)
    check_class_pca(x[:5], np.zeros(5, int), 5, center)  # fewer samples than features
    check_streaming(halves(x.astype("f4")), 9, center)
    for batches in (halves(x), [x[i : i + 1] for i in range(50)], [x[:1], x[1:6]], [np.tile(x, (300, 1)), x]):
        found = check_streaming(batches, 5, center)
        assert (np.sqrt(found.explained_variance[3:] / found.explained_variance[0]) < 1e-14).all()


def test_7_the_leading_of_features_of_many_sizes():
    """`eigh` finds e₄ before e₃, whose λ is 1e-17 of the first, and each is a true eigenvector."""
    x = np.random.default_rng(0).normal(size=(60, 8)) * [1, 0.1, 3e-9, 1e-60, 1e-70, 1e-80, 1e-90, 1e-100]
    for k in range(1, 8):
        check_streaming(halves(x), k, False)
        check_streaming(halves(x), k, True)


@pytest.mark.parametrize("n", [7, 13, 40, 500])
def test_7_ill_conditioned_streams(n):
    """Hilbert and Vandermonde matrices, σ from 1 to 1e-16: what LAPACK shows of all rows, batches of them show."""
    grid = np.arange(n)
    for x in (1 / (grid[:, None] + np.arange(1, 13)), np.vander(np.linspace(-1, 1, n), 12) + 1e6):
        for center in (False, True):
            check_streaming(halves(x), min(n, 12), center)
            check_streaming([x], 3, center)


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_7_constant_samples(dtype):
    """No variance at all: any unit vector is right, and asking for it is no mistake."""
    x = np.full((50, 4), 3, dtype) if dtype == "u1" else np.full((50, 4), 0.1, dtype)
    for center in (False, True):
        check_class_pca(x, np.arange(50) % 2, 2, center)
        check_streaming(halves(x), 4, center)
    check_streaming(halves(np.zeros((50, 4), dtype)), 2, False)


# --- 9: crashes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["one pixel each", "dark", "alike", "constant", "any"])
@pytest.mark.parametrize("shape", [(2, 68), (13, 68), (300, 784)])
def test_7_few_bytes_about_their_mean_have_an_exact_gram_matrix(what, shape, rng):
    """Of few samples, which lie along the short side, what their mean leaves is far smaller than what 128 leaves."""
    n, d = shape
    x = {
        "one pixel each": lambda: 5 * np.eye(n, d, dtype=np.uint8),
        "dark": lambda: rng.integers(0, 2, shape, dtype=np.uint8),
        "alike": lambda: np.full(shape, 200, np.uint8) + (np.arange(n) == 1)[:, None].astype(np.uint8),
        "constant": lambda: np.full(shape, 200, np.uint8),
        "any": lambda: rng.integers(0, 256, shape, dtype=np.uint8),
    }[what]()
    mean = TallMatrix(x, what="x").row_mean()
    whole = x.astype(np.int64)
    about = n * whole - whole.sum(axis=0)  # n (x − m), whole
    right = (about @ about.T).astype(np.float64) / n**2
    np.testing.assert_allclose(gram(TallMatrix(x, what="x", mean=mean), "float64"), right, rtol=4e-16, atol=0)


@pytest.mark.parametrize("method", ["subspace", "randomized"])
def test_9_blocks_as_wide_as_the_matrix(method):
    """np.eye(15), k = 1: UnboundLocalError, as for every n // width == 3."""
    for n in range(1, 70):
        for k in {1, min(2, n), max(1, n // 9)}:
            with contextlib.suppress(ConvergenceError):
                check_svd(np.eye(n), k, method=method)


def failing(*args, **kwargs):
    raise np.linalg.LinAlgError("Eigenvalues did not converge")


@pytest.mark.parametrize("shape", [(400, 30), (30, 400), (300, 290), (700, 520)])
@pytest.mark.parametrize("route", ROUTES)
def test_9_a_route_that_fails_leads_to_the_next(route, shape, monkeypatch, rng):
    a = rng.standard_normal(shape).astype("f4")
    first = svd(a, 5).route
    monkeypatch.setitem(ROUTES, route, failing)
    found = check_svd(a, 5)
    assert found.route != route
    if route == first:
        assert f"{route}: Eigenvalues did not converge" in found.rejected
    check_class_pca(a[:, :30], np.zeros(len(a), int), 3, True)


def test_9_where_all_routes_fail_each_is_named(monkeypatch, rng):
    for route in ROUTES:
        monkeypatch.setitem(ROUTES, route, failing)
    a = rng.standard_normal((400, 30))
    for method in METHODS:
        with pytest.raises(ConvergenceError, match=r"^[^\n]*: Eigenvalues did not converge[^\n]*$"):
            svd(a, method=method)
    with pytest.raises(ConvergenceError, match=r"^[^\n]*did not converge[^\n]*$"):
        class_pca(a, np.zeros(400, int), 2)


@pytest.mark.parametrize("name", ["eigh", "svd"])
def test_9_lapack_that_does_not_converge_is_no_bare_error(name, monkeypatch, rng):
    """Another way is found, or the error is gpunet's."""
    x = rng.standard_normal((40, 6))
    sums = StreamingGram().update(x)
    monkeypatch.setattr(np.linalg, name, failing)
    for call in (lambda: svd(x), lambda: sums.components(2), lambda: class_pca(x, np.zeros(40, int), 2)):
        with contextlib.suppress(ConvergenceError):
            call()


# --- 11: words --------------------------------------------------------------------------------------------------------


def test_11_nan_in_a_stack_names_the_matrix(rng):
    for shape in ((4, 5, 6), (2, 3, 5, 6), (3, 90, 80)):
        stack = rng.standard_normal(shape)
        where = tuple(n - 1 for n in shape)
        stack[where] = np.nan
        number = np.ravel_multi_index(where[:-2], shape[:-2])
        with pytest.raises(InputError, match=r"^[^\n]*nan[^\n]*$") as said:
            svd(stack)
        assert str(list(where)) in str(said.value) or (
            f"matrix {number} " in str(said.value) and str(list(where[-2:])) in str(said.value)
        )


def test_11_nan_in_samples_names_the_place(rng):
    x = rng.standard_normal((7, 4))
    x[5, 2] = np.inf
    for call in (lambda: svd(x), lambda: class_pca(x, np.arange(7) % 2, 1), lambda: StreamingGram().update(x)):
        with pytest.raises(InputError, match=r"^[^\n]*inf at \[5, 2\][^\n]*$"):
            call()


def test_11_the_sign_of_square_matrices(rng):
    """Of tall and square ones the rows of vt, of wide ones the columns of u."""
    for m, n in ((6, 6), (7, 6), (6, 7), (70, 70)):
        for stacked in (False, True):
            a = rng.standard_normal((m, n))
            found = svd(a[None] if stacked else a)
            u, vt = (w[0] if stacked else w for w in (found.u, found.vt))
            short = vt.T if m >= n else u
            assert (short[np.abs(short).argmax(axis=0), np.arange(min(m, n))] > 0).all()


@pytest.mark.parametrize("sums", [StreamingGram, StreamingClassGram])
def test_11_merging_something_else_is_one_line(sums):
    for other in (None, 3, np.eye(2)):
        with pytest.raises(InputError, match=r"^[^\n]*merge[^\n]*$|^[^\n]*expected[^\n]*$"):
            sums().merge(other)


def test_11_bytes_and_fractions_do_not_mix(rng):
    pixels = rng.integers(0, 256, (20, 4), dtype=np.uint8)
    bytes_first, fractions_first = StreamingGram().update(pixels), StreamingGram().update(pixels / 255)
    labels = np.arange(20) % 2
    by_class = StreamingClassGram().update(pixels, labels)
    before = bytes_first.gram()
    for call in (
        lambda: bytes_first.update(pixels / 255),
        lambda: fractions_first.update(pixels),
        lambda: bytes_first.merge(fractions_first),
        lambda: fractions_first.merge(bytes_first),
        lambda: by_class.update(pixels / 255, labels),
    ):
        with pytest.raises(InputError, match=r"^[^\n]*uint8[^\n]*$"):
            call()
    np.testing.assert_array_equal(bytes_first.gram(), before)
    assert (bytes_first.count, fractions_first.count) == (20, 20)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: svd(x, 2.5),
        lambda x, y: svd(x, tol=float("nan")),
        lambda x, y: svd(x, tol="small"),
        lambda x, y: svd(x, tol=True),
        lambda x, y: svd(x, compute="all"),
        lambda x, y: svd([[1, 2], [3]]),
        lambda x, y: svd(None),
        lambda x, y: class_pca(x, y),
        lambda x, y: class_pca(x, y, "two"),
        lambda x, y: class_pca(x, None, 2),
        lambda x, y: class_pca(x, y[:-1], 2),
        lambda x, y: class_pca(x, y, variance=float("nan")),
        lambda x, y: class_pca(x, y, variance="0.9"),
        lambda x, y: class_pca(x, y, 1, fraction="1"),
        lambda x, y: class_pca(x, np.ma.masked_equal(y, 1), 1),
        lambda x, y: StreamingGram().update(x).components(variance="0.9"),
        lambda x, y: class_pca(x[0], y, 1),
        lambda x, y: StreamingGram().components(1),
        lambda x, y: StreamingGram().mean,
        lambda x, y: StreamingGram().density(),
        lambda x, y: StreamingGram().update(x[0]),
        lambda x, y: StreamingGram().update(None),
        lambda x, y: StreamingGram().update(x).update(x[:, 1:]),
        lambda x, y: StreamingGram().update(x).components(99),
        lambda x, y: StreamingClassGram().update(x, None),
        lambda x, y: StreamingClassGram().components(1),
    ],
)
def test_11_mistakes_are_one_line(call, rng):
    with pytest.raises(GpunetError) as said:
        call(rng.standard_normal((8, 3)), np.arange(8) % 2)
    assert len(str(said.value).splitlines()) == 1
