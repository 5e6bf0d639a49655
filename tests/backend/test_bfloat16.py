"""Every operation that takes or gives bfloat16, on every backend, against ml_dtypes and sums in float64."""

from __future__ import annotations

import gc
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest

from gpunet.backend import onednn
from gpunet.backend.base import ACTIVATIONS, N_SCALARS, N_TOTALS
from gpunet.backend.numpy_backend import NumpyBackend

from .test_operations import APPLY, SLOPE

U = 2.0**-24  # half a unit in the last place of float32
SHAPES = [(1, 1, 1), (3, 5, 2), (64, 33, 7), (50, 300, 41), (257, 1000, 16)]  # n, d, u


def low(x):
    """The bits of float numbers in bfloat16, by an oracle of its own."""
    with np.errstate(all="ignore"):
        return np.asarray(x, np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)


def wide(bits):
    """The numbers that bits stand for, in float64."""
    return np.asarray(bits).view(ml_dtypes.bfloat16).astype(np.float64)


def at_home(backend, array):
    return np.array(backend.to_host(array))


def on(backend, *arrays):
    return [None if a is None else backend.asarray(np.array(a, order="C")) for a in arrays]


def bound(a, b):
    """How far a sum of products may be from the exact one, in any order: γ Σ|a||b|, and denormals that become 0."""
    terms = a.shape[1] + 1
    return 2 * terms * U * (np.abs(a) @ np.abs(b)) + terms * 2.0**-126


def check_rounded(bits, exact, error):
    """Each of the bfloat16 numbers is the rounding of some number within `error` of the exact one."""
    lowest, highest = (wide(low(exact + sign * error)) for sign in (-1, 1))
    found = wide(bits)
    assert ((lowest <= found) & (found <= highest)).all()


ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-40, -1e-40, 3.4e38, -3.4e38, 1.00390625, 1.01171875])


@pytest.mark.parametrize("size", [1, 12, 4097])
def test_rounding_is_to_nearest_even_and_keeps_nan(backend, rng, size):
    bits = rng.integers(0, 1 << 32, size, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits.view(np.float32), ODD.astype(np.float32)])
    if backend.name != "cpu":  # whose kernels take denormals for 0, see `cupy_backend`
        x = x[np.isnan(x) | (np.abs(x) >= 2.0**-126) | (x == 0)]
    (given,), out = on(backend, x), backend.empty(x.size, "uint16")
    with backend.session():
        backend.to_bfloat16(given, out)
        expected = low(x)
    found = at_home(backend, out)
    missing = np.isnan(x)
    assert np.isnan(wide(found)[missing]).all()
    np.testing.assert_array_equal(found[~missing], expected[~missing])


def test_numbers_that_bfloat16_holds_come_back(backend):
    every = np.arange(1 << 16, dtype=np.uint32)
    every = every[(every & 0x7F80) != 0]  # without denormals
    numbers = (every << 16).view(np.float32)
    numbers = numbers[~np.isnan(numbers)]
    (given,), out = on(backend, numbers), backend.empty(numbers.size, "uint16")
    backend.to_bfloat16(given, out)
    np.testing.assert_array_equal(at_home(backend, out), numbers.view(np.uint32) >> 16)


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["float32", "uint16"])
def test_products(backend, rng, shape, transposed, kind):
    n, d, u = shape
    a, b = low(rng.normal(size=(n, d))), low(rng.normal(size=(d, u)))
    exact, error = wide(a) @ wide(b), bound(wide(a), wide(b))
    given = on(backend, a.T if transposed[0] else a, b.T if transposed[1] else b)
    out = backend.empty((n, u), kind)
    with backend.session():
        backend.gemm(*given, out, *transposed)
    if kind == "float32":
        assert (np.abs(at_home(backend, out) - exact) <= error).all()
    else:
        check_rounded(at_home(backend, out), exact, error)


@pytest.mark.parametrize("kind", ["float32", "uint16"])
def test_products_of_whole_numbers_are_exact(backend, rng, kind):
    a, b = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((40, 25), (30, 25)))
    given, out = on(backend, low(a), low(b)), backend.empty((40, 30), kind)
    backend.gemm(*given, out, False, True)
    found = at_home(backend, out)
    np.testing.assert_array_equal(found if kind == "float32" else wide(found), a @ b.T)


@pytest.mark.parametrize("kind", ["float32", "uint16"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("activation", APPLY)
def test_affine(backend, rng, activation, with_bias, kind):
    x, w = low(rng.normal(size=(65, 130))), low(rng.normal(size=(37, 130)))
    b = rng.normal(size=37).astype(np.float32) if with_bias else None
    z = wide(x) @ wide(w).T + (0 if b is None else b.astype(np.float64))
    error = bound(wide(x), wide(w).T) + 4 * U * np.abs(z) + 4 * U
    given, out = on(backend, x, w, b), backend.empty((65, 37), kind)
    with backend.session():
        backend.affine(*given, activation, out)
    lowest, highest = APPLY[activation](z - error) - 8 * U, APPLY[activation](z + error) + 8 * U  # all are monotone
    found = at_home(backend, out)
    if kind == "uint16":
        lowest, highest, found = wide(low(lowest)), wide(low(highest)), wide(found)
    assert ((lowest <= found) & (found <= highest)).all()


@pytest.mark.parametrize("kind", ["float32", "uint16"])
@pytest.mark.parametrize("activation", APPLY)
def test_nan_stays_in_affine(backend, activation, kind):
    x, w = low(np.ones((4, 40))), low(np.ones((6, 40)))
    x[2, 5] = low(np.nan)
    given, out = on(backend, x, w, np.zeros(6, np.float32)), backend.empty((4, 6), kind)
    with backend.session():
        backend.affine(*given, activation, out)
    found = at_home(backend, out)
    missing = np.isnan(wide(found) if kind == "uint16" else found)
    assert missing[2].all()
    assert not missing[[0, 1, 3]].any()


@pytest.mark.parametrize("y_kind", ["float32", "uint16"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_backward(backend, rng, activation, with_bias, y_kind):
    y = APPLY[activation](rng.normal(size=(70, 33))).astype(np.float32)
    given_y = low(y) if y_kind == "uint16" else y
    seen = wide(given_y) if y_kind == "uint16" else y.astype(np.float64)
    dy = rng.normal(size=y.shape).astype(np.float32)
    exact = dy * SLOPE[activation](seen)
    dz, sums = backend.empty(y.shape, "uint16"), backend.empty(33, "float32") if with_bias else None
    given = on(backend, given_y, dy)
    with backend.session():
        backend.activation_backward(activation, *given, dz, sums)
    check_rounded(at_home(backend, dz), exact, 8 * U * np.abs(exact) + 2 * U * np.abs(dy))
    if with_bias:  # of the slopes before they are rounded
        error = 200 * U * np.abs(dy).sum(axis=0)
        assert (np.abs(at_home(backend, sums) - exact.sum(axis=0)) <= error).all()
    np.testing.assert_array_equal(at_home(backend, given[1]), dy)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_gather(backend, rng, dtype, scale):
    data = (rng.integers(0, 100, (50, 33)) if dtype != "bool" else rng.integers(0, 2, (50, 33))).astype(dtype)
    if dtype.startswith("float"):
        data = rng.normal(size=(50, 33)).astype(dtype)
    order, out = rng.permutation(50), backend.empty((20, 33), "uint16")
    given = on(backend, data, order, np.array([7]))
    with backend.session():
        backend.gather(*given, scale, out)
    expected = low(data[order[7:27]].astype(np.float32) * np.float32(scale))
    np.testing.assert_array_equal(at_home(backend, out), expected)


UPDATES = {"sgd": 0, "momentum": 1, "adam": 2}


@pytest.mark.parametrize("size", [1, 1000, 150_001])
@pytest.mark.parametrize("optimiser", UPDATES)
def test_optimisers_round_what_they_update_and_change_nothing_else(backend, rng, optimiser, size):
    arrays = [rng.random(size).astype(np.float32) for _ in range(2 + UPDATES[optimiser])]
    scalars = np.zeros(N_SCALARS)
    scalars[:7] = 0.01, 0.9, 0.99, 1e-8, 1e-3, 3, 3
    found = []
    for rounded in (None, backend.empty(size, "uint16")):
        given = on(backend, *arrays, scalars)
        with backend.session():
            backend.tick(given[-1])
            options = {} if rounded is None else {"rounded": rounded}
            getattr(backend, optimiser)(*given, size // 3, **options)
        found.append([at_home(backend, each) for each in given[:-1]])
    for plain, same in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, same)
    np.testing.assert_array_equal(at_home(backend, rounded), low(found[0][0]))


@pytest.mark.parametrize("outputs", [1, 3, 10, 20, 40])
def test_affine_loss(backend, rng, outputs):
    loss, options = ("softmax_cross_entropy", ()) if outputs > 1 else ("binary_cross_entropy", ())
    x, w, b = low(rng.normal(size=(30, 24))), low(rng.normal(size=(outputs, 24))), rng.normal(size=outputs)
    labels = rng.integers(0, max(2, outputs), 30)
    exact = wide(x) @ wide(w).T + b
    given = on(backend, x, w, b.astype(np.float32), labels)
    z, dz = backend.empty((30, outputs), "float32"), backend.empty((30, outputs), "float32")
    totals, sums = backend.zeros(N_TOTALS, "float64"), backend.empty(outputs, "float32")
    with backend.session():
        backend.affine_loss(*given[:3], z, loss, options, given[3], 1 / 30, dz, totals, sums)
    error = (bound(wide(x), wide(w).T) + 4 * U * np.abs(exact)).max()
    assert np.abs(at_home(backend, z) - exact).max() <= error
    if outputs > 1:
        p = np.exp(exact - exact.max(axis=1, keepdims=True))
        slope = (p / p.sum(axis=1, keepdims=True) - (labels[:, None] == np.arange(outputs))) / 30
    else:
        slope = (APPLY["sigmoid"](exact) - labels[:, None]) / 30
    assert np.abs(at_home(backend, dz) - slope).max() <= 4 * error / 30 + 1e-7
    np.testing.assert_allclose(at_home(backend, sums), slope.sum(axis=0), atol=4 * error + 1e-6)


@pytest.mark.parametrize("outputs", [1, 10, 40])
@pytest.mark.parametrize("gives", ["float32", "uint16"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_affine_backward(backend, rng, activation, gives, outputs):
    y = APPLY[activation](rng.normal(size=(66, 35)))
    dz, x, w = low(rng.normal(size=(66, outputs))), low(y), low(rng.normal(size=(outputs, 35)))
    given = on(backend, dz, x, w)
    weight_grad, dx, sums = (backend.empty(shape, kind) for shape, kind in
                             (((outputs, 35), "float32"), ((66, 35), gives), (35, "float32")))  # fmt: skip
    with backend.session():
        backend.affine_backward(*given, weight_grad, dx, activation, sums)
        backend.join()
    of_weights = wide(dz).T @ wide(x)
    assert (np.abs(at_home(backend, weight_grad) - of_weights) <= bound(wide(dz).T, wide(x))).all()
    slope = SLOPE[activation](wide(x))
    exact, error = (wide(dz) @ wide(w)) * slope, bound(wide(dz), wide(w)) * np.abs(slope)
    error = error + 8 * U * np.abs(exact) + 2 * U * np.abs(wide(dz) @ wide(w))
    found = at_home(backend, dx)
    if gives == "uint16":
        check_rounded(found, exact, error)
    else:
        assert (np.abs(found - exact) <= error).all()
    total = error.sum(axis=0) + 150 * U * np.abs(exact).sum(axis=0)
    assert (np.abs(at_home(backend, sums) - exact.sum(axis=0)) <= total).all()


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0)])
def test_products_without_an_element(backend, shape):
    n, d, u = shape
    given, out = on(backend, low(np.ones((n, d))), low(np.ones((u, d)))), backend.empty((n, u), "uint16")
    with backend.session():
        backend.gemm(*given, out, False, True)
    assert not at_home(backend, out).any()


# -- the library ----------------------------------------------------------------------------------------------------


def test_the_library_and_float32_agree(rng):
    if onednn.engine()[0] is None:
        pytest.skip(onednn.engine()[1])
    own = NumpyBackend()
    for _ in range(30):
        m, k, n = rng.integers(1, 200, 3)
        a, b = low(rng.normal(size=(m, k))), low(rng.normal(size=(k, n)))
        views = a[:, ::1], np.ascontiguousarray(b.T).T
        out = np.empty((m, n), np.float32)
        own.gemm(*views, out)
        assert (np.abs(out - wide(a) @ wide(b)) <= bound(wide(a), wide(b))).all()


@pytest.fixture
def looked_for():
    """The library is looked for anew, and once more by whoever comes after the test."""
    onednn.engine.cache_clear()
    yield
    onednn.engine.cache_clear()


@pytest.mark.usefixtures("looked_for")
def test_of_a_machine_without_it_one_line_says_why(monkeypatch):
    monkeypatch.setattr(onednn, "_load", lambda: None)
    library, why = onednn.engine()
    assert library is None
    assert "oneDNN 3, which is not installed" in why
    assert NumpyBackend().slow_bfloat16 == why


@pytest.mark.usefixtures("looked_for")
@pytest.mark.parametrize("fault", ["no units", "an error", "wrong"])
def test_a_library_that_does_not_help_is_left_alone(monkeypatch, fault):
    class Library:
        version = "3.0.0"
        has_units = fault != "no units"

        def begin(self):
            if fault == "an error":
                raise onednn.RunError("oneDNN 3.0.0: dnnl_engine_create failed with status 1")

        def multiplies_exactly(self):
            return fault != "wrong"

    monkeypatch.setattr(onednn, "_load", Library)
    library, why = onednn.engine()
    assert library is None
    assert {"no units": "no units", "an error": "status 1", "wrong": "wrongly"}[fault] in why


def test_more_kinds_of_products_than_are_kept(monkeypatch, rng):
    if onednn.engine()[0] is None:
        pytest.skip(onednn.engine()[1])
    monkeypatch.setattr(onednn, "MOST_PLANS", 3)
    own = NumpyBackend()
    for n in (5, 6, 7, 8, 9, 5):
        a, out = low(np.ones((n, 4))), np.empty((n, n), np.float32)
        own.gemm(a, a, out, False, True)
        assert (out == 4).all()
    assert len(own.pool.arrays["oneDNN"]) <= 3


def test_what_the_library_made_for_products_goes_with_them(monkeypatch):
    library = onednn.engine()[0]
    if library is None:
        pytest.skip(onednn.engine()[1])
    calls: list[str] = []
    call = library._call
    monkeypatch.setattr(library, "_call", lambda name, *arguments: calls.append(name) or call(name, *arguments))
    own = NumpyBackend()
    for n in (5, 6):
        out = np.empty((n, n), np.float32)
        own.affine(*(low(np.ones((n, 4))),) * 2, np.ones(n, np.float32), "identity", out)
        assert (out == 5).all()
    del own
    gc.collect()
    for kind, count in (("primitive", 2), ("primitive_desc", 2), ("memory", 8), ("memory_desc", 8)):
        made = [name for name in calls if name.startswith((f"dnnl_{kind}_create", f"dnnl_matmul_{kind}_create"))]
        assert len(made) == calls.count(f"dnnl_{kind}_destroy") == count, kind


@pytest.mark.usefixtures("looked_for")
@pytest.mark.parametrize("fault", ["text", "no version", "null", "older", "other threads", "a stub"])
def test_a_damaged_or_foreign_library_is_as_none(monkeypatch, tmp_path, fault):
    path = tmp_path / "libdnnl.so.3"
    if fault == "text":
        path.write_text("no library\n")
    else:
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs gcc")
        numbers = {"older": "2, 7, 0, 0, 2, 0", "other threads": "3, 2, 0, 0, 8, 0"}.get(fault, "3, 2, 0, 0, 2, 0")
        about = f"static struct {{ int a, b, c; char *d; unsigned e, f; }} v = {{ {numbers} }};\n"
        gives = {"no version": "void *other(void) { return &v; }", "null": "void *dnnl_version(void) { return 0; }"}
        source = tmp_path / "library.c"
        source.write_text(about + gives.get(fault, "void *dnnl_version(void) { return &v; }") + "\n")
        subprocess.run([compiler, "-w", "-shared", "-fPIC", "-o", path, source], check=True)
    monkeypatch.setattr(onednn, "_of_wheel", lambda: [str(path)])
    monkeypatch.setattr(onednn, "FOLDERS", ())
    monkeypatch.setattr(onednn, "NAMES", ())
    library, why = onednn.engine()
    assert library is None
    assert "oneDNN" in why
