"""Densities of patches: against the patches written out, however the images arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.backend import get_backend
from gpunet.checks import on_host
from gpunet.errors import ConvergenceError, InputError, ShapeError
from gpunet.linalg import patches as module
from gpunet.linalg.patches import PatchDensities
from gpunet.linalg.verify import tolerance


@pytest.fixture(autouse=True, scope="module")
def products_of_float32():
    """Also of blocks so small that they would be float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", 0)
        yield


def written_out(images, kernel, padding):
    """All patches as rows, (channel, row, column) flattened, float64, uint8 as fractions of 255."""
    x = images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * kernel**2)


def made(rng, shape, dtype, classes=3):
    labels = rng.integers(0, classes, shape[0])
    labels[:classes] = range(classes)
    if dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8), labels
    return rng.normal(size=shape).astype(dtype), labels


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel", "padding"),
    [((40, 3, 9, 7), 3, 0), ((40, 3, 9, 7), 3, 1), ((30, 1, 8, 8), 5, 0), ((30, 2, 5, 6), 5, 2), ((30, 12, 1, 1), 1, 0),
     ((30, 2, 3, 3), 3, 0), ((3, 4, 4, 4), 1, 0)],
)  # fmt: skip
def test_densities_are_those_of_the_patches(backend, rng, shape, kernel, padding, dtype, center):
    images, labels = made(rng, shape, dtype)
    found = PatchDensities(backend, kernel, padding).update(backend.asarray(images), labels)
    for label in range(3):
        p = written_out(images[labels == label], kernel, padding)
        rho, mean, count = found.density(label, center)
        wanted = np.cov(p.T, bias=True).reshape(rho.shape) if center else p.T @ p / len(p)
        assert count == len(p)
        np.testing.assert_allclose(mean, p.mean(axis=0), atol=2e-6)
        np.testing.assert_allclose(rho, wanted, atol=2e-6 * max(1, np.abs(wanted).max()))


def test_however_the_images_are_split(rng, monkeypatch):
    images, labels = made(rng, (60, 2, 7, 6), "float32")
    whole = PatchDensities(get_backend("numpy"), 3).update(images, labels)
    monkeypatch.setattr(module, "BLOCK_FLOATS", 300)
    parts = PatchDensities(get_backend("numpy"), 3)
    for start in (0, 1, 20, 33):
        stop = {0: 1, 1: 20, 20: 33, 33: 60}[start]
        parts.update(images[start:stop], labels[start:stop])
    for label in range(3):
        np.testing.assert_allclose(parts.density(label)[0], whole.density(label)[0], atol=1e-6)


def test_a_mean_far_larger_than_the_signal_does_no_harm(rng):
    images = (1000 + 0.1 * rng.normal(size=(200, 2, 6, 6))).astype("float32")
    found = PatchDensities(get_backend("numpy"), 3).update(images, np.zeros(200, int))
    wanted = np.cov(written_out(images, 3, 0).T, bias=True)
    np.testing.assert_allclose(found.density(0, True)[0], wanted, atol=1e-4 * wanted.max())


def test_classes_whose_means_lie_far_apart(backend, rng):
    """A shift for all classes together left 1e8 times the variance to float32."""
    images, labels = rng.normal(size=(90, 2, 6, 6)) * [[[[3]], [[0.1]]]], np.arange(90) % 3
    images = (images + 1e4 * (labels - 1)[:, None, None, None]).astype("float32")
    found = PatchDensities(backend, 3)
    for part in (slice(0, 1), slice(1, 40), slice(40, 90)):
        found.update(backend.asarray(images[part]), labels[part])
    for label in range(3):
        p = written_out(images[labels == label], 3, 0)
        rho, mean, _ = found.density(label, True)
        wanted = np.cov(p.T, bias=True)
        sizes = np.sqrt(np.diagonal(wanted))
        np.testing.assert_allclose(rho / sizes / sizes[:, None], wanted / sizes / sizes[:, None], rtol=0, atol=1e-5)
        np.testing.assert_allclose(mean, p.mean(axis=0), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1)])
def test_constant_images_have_no_variance(kernel, padding, dtype):
    """Not the rounding of their mean, of either sign: any unit vector explains it. With zeros around they have some."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image = (
            rng.integers(0, 256, (2, 5, 4))
            if dtype == "uint8"
            else 10.0 ** rng.integers(-8, 9) * rng.normal(size=(2, 1, 1))
        )
        images = np.broadcast_to(image, (int(rng.integers(2, 40)), 2, 5, 4)).astype(dtype)
        found = PatchDensities(get_backend("numpy"), kernel, padding).update(images, np.zeros(len(images), int))
        pca = found.components(variance=0.9, center=True)
        p = written_out(images[:1], kernel, padding)
        exact = max(0.0, np.linalg.eigvalsh(np.cov(p.T, bias=True).reshape(len(p.T), -1))[-1])
        flat = dtype != "uint8" and not padding
        assert pca.explained_variance[0, 0] == pytest.approx(0 if flat else exact, rel=1e-5, abs=0)
        np.testing.assert_allclose(np.linalg.norm(pca.components[0, : pca.ranks[0]], axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(("kernel", "padding"), [(5, 0), (3, 0), (3, 1)])
def test_pixels_of_different_means(kernel, padding, rng):
    """A fixed pattern beneath noise a ten-thousandth of it: where a patch is all of the image, it has to go."""
    images = (1e4 * rng.normal(size=(2, 5, 5)) + rng.normal(size=(300, 2, 5, 5))).astype("float32")
    p = written_out(images, kernel, padding)
    wanted = np.cov(p.T, bias=True)
    rho, mean, _ = (
        PatchDensities(get_backend("numpy"), kernel, padding).update(images, np.zeros(300, int)).density(0, True)
    )
    np.testing.assert_allclose(rho, wanted, rtol=0, atol=2e-6 * wanted.max())
    np.testing.assert_allclose(mean, p.mean(axis=0), rtol=1e-7, atol=1e-3)


def test_lines_beside_far_brighter_ones(rng):
    """Of patches that are all of the image, one line's moments are not what is left of a brighter one's."""
    images = (rng.normal(size=(200, 1, 3, 3)) * np.array([1e4, 1, 1e-3])[:, None]).astype("float32")
    found = PatchDensities(get_backend("numpy"), 3).update(images, np.zeros(200, int)).density(0)[0]
    wanted = written_out(images, 3, 0)
    wanted = wanted.T @ wanted / 200
    sizes = np.sqrt(np.diagonal(wanted))
    np.testing.assert_allclose(found / sizes / sizes[:, None], wanted / sizes / sizes[:, None], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e37])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_class_whose_squares_leave_float32_beside_one_of_size_1(kernel, scale, rng):
    images, labels = rng.normal(size=(60, 2, 5, 5)) + 2, np.arange(60) % 2
    images = (images * np.where(labels == 0, scale, 1)[:, None, None, None]).astype("float32")
    found = (
        PatchDensities(get_backend("numpy"), kernel).update(images[:33], labels[:33]).update(images[33:], labels[33:])
    )
    for label in range(2):
        p = written_out(images[labels == label], kernel, 0)
        for center in (False, True):
            rho, mean, _ = found.density(label, center)
            wanted = np.cov(p.T, bias=True) if center else p.T @ p / len(p)
            np.testing.assert_allclose(rho, wanted, rtol=0, atol=2e-6 * wanted.max())
            np.testing.assert_allclose(mean, p.mean(axis=0), rtol=1e-5)
    s = np.linalg.svd(written_out(images[labels == 0], kernel, 0))[1]
    np.testing.assert_allclose(found.components(variance=0.9).explained_variance[0, 0], s[0] ** 2 / len(p), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "kernel", "padding"), [((600, 1, 28, 28), 3, 0), ((900, 2, 5, 5), 3, 1), ((3000, 150, 1, 1), 1, 0)]
)
def test_bytes_are_exact(backend, shape, kernel, padding, rng):
    """More products than float32 counts: 2¹⁰ of 128² are 2²⁴."""
    images = rng.integers(0, 2, shape, dtype=np.uint8) * 255
    found = PatchDensities(backend, kernel, padding)
    for part in (slice(0, 100), slice(100, None)):
        found.update(backend.asarray(images[part]), np.zeros(len(images[part]), int))
    p = written_out(images.astype(np.float64), kernel, padding) - 128
    sums, count = found.classes[0], len(p)
    np.testing.assert_array_equal(on_host(sums.products), p.T @ p)
    np.testing.assert_array_equal(on_host(sums.total), p.sum(axis=0))
    assert found.counts == {0: count}
    whole = p.astype(np.int64)
    centred = count * (whole.T @ whole) - np.outer(whole.sum(axis=0), whole.sum(axis=0))
    np.testing.assert_allclose(found.density(0, True)[0], centred / count / count / 255**2, rtol=1e-14, atol=1e-16)


def test_what_float32_products_do_not_show_is_refused(rng):
    x = rng.normal(size=(400, 20)) * np.logspace(0, -5, 20) @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    images, labels = x.reshape(400, 20, 1, 1), np.zeros(400, int)
    narrow = PatchDensities(get_backend("numpy")).update(images.astype("float32"), labels)
    with pytest.raises(
        ConvergenceError, match=r"of class 0 has a residual of .* sums of squares show the first .*give float64"
    ):
        narrow.components(variance=1.0)
    assert narrow.components(variance=0.9).residual < tolerance("float32", 20, 5)
    found = PatchDensities(get_backend("numpy")).update(images, labels).components(variance=1.0)
    s = np.linalg.svd(x)[1]
    np.testing.assert_allclose(
        np.sqrt(found.explained_variance[0] * 400), s[: found.ranks[0]], rtol=0, atol=1e-9 * s[0]
    )
    with pytest.raises(InputError, match="underflow float64"):
        PatchDensities(get_backend("numpy")).update(images * 1e-170, labels).components(variance=0.9)
    with pytest.raises(InputError, match="squares overflow"):
        PatchDensities(get_backend("numpy")).update(images * 1e170, labels)


def test_small_blocks_are_multiplied_in_float64(rng, monkeypatch):
    monkeypatch.setattr(module, "FEW", 1 << 20)
    x = rng.normal(size=(400, 20)) * np.logspace(0, -5, 20) @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    x = x.astype("float32")
    found = PatchDensities(get_backend("numpy")).update(x.reshape(400, 20, 1, 1), np.zeros(400, int))
    assert found.components(variance=1.0).residual < tolerance("float32", 20, 10)
    np.testing.assert_allclose(found.density(0)[0], x.T.astype(float) @ x / 400, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_refused_updates_change_nothing_and_nothing_is_shared(dtype, rng):
    images, labels = made(rng, (30, 2, 5, 5), dtype)
    given = images.copy()
    found = PatchDensities(get_backend("numpy"), 3).update(given, labels)
    before = {c: found.density(c) for c in range(3)}
    given[...] = 7
    last = np.flatnonzero(labels == 2)[-1]
    wrong = {
        "nan in class 2": (np.where((np.arange(30) == last)[:, None, None, None], np.nan, images), labels),
        "other shape": (images[:, :1], labels),
        "too few labels": (images, labels[:-1]),
        "labels of another kind": (images, labels + 0.5),
        "other dtype": (images.astype("float32" if dtype == "uint8" else "uint8"), labels),
        "masked": (np.ma.masked_less(images, 1), labels),
        "no images": (images[:0], labels[:0]),
        "text": (images.astype(str), labels),
    }  # fmt: skip
    for name, (x, y) in wrong.items():
        for target in (found, PatchDensities(get_backend("numpy"), 3)):
            if name in ("other shape", "other dtype") and target is not found:
                continue  # these are right at first
            with pytest.raises(InputError):
                target.update(x, y)
        assert target.shape in (None, (2, 5, 5))
        assert not PatchDensities(get_backend("numpy"), 3).classes
    for c, (rho, mean, count) in before.items():
        again = found.density(c)
        np.testing.assert_array_equal(again[0], rho)
        np.testing.assert_array_equal(again[1], mean)
        assert again[2] == count
        again[0][...] = again[1][...] = 77
        np.testing.assert_array_equal(found.density(c)[0], rho)
    new = PatchDensities(get_backend("numpy"), 3)
    with pytest.raises(InputError, match="class 1 hold NaN"):
        new.update(np.full((4, 1, 9, 9), np.nan, "float32"), [1, 1, 1, 1])
    new.update(images, labels)  # neither the shape nor the dtype was fixed
    np.testing.assert_array_equal(new.density(0)[0], before[0][0])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 12), channels=st.integers(1, 4), rows=st.integers(1, 9), columns=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5]), padding=st.integers(0, 2), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape(n, channels, rows, columns, kernel, padding, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, channels, rows, columns), dtype=np.uint8)
    found = PatchDensities(get_backend("numpy"), kernel, padding)
    if min(rows, columns) + 2 * padding < kernel:
        with pytest.raises(ShapeError, match="smaller than the"):
            found.update(images, np.zeros(n, int))
        return
    found.update(images, np.zeros(n, int))
    p = written_out(images, kernel, padding)
    np.testing.assert_allclose(found.density(0)[0], p.T @ p / len(p), atol=2e-6)


def test_components_explain_the_share(rng):
    images, labels = made(rng, (80, 2, 6, 6), "float32")
    densities = PatchDensities(get_backend("numpy"), 3).update(images, labels)
    found = densities.components(variance=0.7)
    for place, label in enumerate(found.classes):
        values = np.linalg.eigvalsh(densities.density(int(label))[0])[::-1]
        share = np.cumsum(values) / values.sum()
        assert found.ranks[place] == np.searchsorted(share, 0.7) + 1
        np.testing.assert_allclose(found.explained_variance[place, : found.ranks[place]],
                                   values[: found.ranks[place]], rtol=1e-6)  # fmt: skip


def test_mistakes():
    backend = get_backend("numpy")
    with pytest.raises(ShapeError, match="images of 2×5 are smaller than the 3×3 patch"):
        PatchDensities(backend, 3).update(np.zeros((2, 1, 2, 5), "float32"), [0, 1])
    found = PatchDensities(backend, 3).update(np.zeros((2, 1, 5, 5), "float32"), [0, 1])
    with pytest.raises(ShapeError, match=r"shape \(1, 5, 6\), those before had \(1, 5, 5\)"):
        found.update(np.zeros((2, 1, 5, 6), "float32"), [0, 1])
    for bad in (np.nan, np.inf):
        images = np.ones((4, 1, 5, 5), "float32")
        images[2, 0, 1, 1] = bad
        with pytest.raises(InputError, match="NaN"), np.errstate(all="ignore"):
            PatchDensities(backend, 3).update(images, [0, 0, 1, 1])
    with pytest.raises(InputError, match=r"uint8 is read as fractions of 255, .* x\.astype\('float32'\) / 255"):
        found.update(np.zeros((2, 1, 5, 5), "uint8"), [0, 1])
    with pytest.raises(ShapeError, match=r"labels have shape \(3,\): expected \(2,\)"):
        found.update(np.zeros((2, 1, 5, 5), "float32"), [0, 1, 1])
    with pytest.raises(InputError, match="no images of class 7 were added"):
        found.density(7)
    with pytest.raises(InputError, match="no images were added"):
        PatchDensities(backend, 3).components(variance=0.9)
