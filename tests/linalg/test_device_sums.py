"""Sums that grow on a GPU, and what is built on decompositions there."""

from __future__ import annotations

import types

import numpy as np
import pytest

from gpunet.backend import get_backend
from gpunet.errors import ConvergenceError, InputError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca, moments, patches, pca
from gpunet.linalg.patches import PatchDensities
from gpunet.spectral.ridge import Moments, TiledMoments, ridge
from gpunet.spectral.svd_weights import singular_rows
from tests.linalg.far import Far, far  # noqa: F401 (a fixture)

array_api_strict = pytest.importorskip("array_api_strict")
pytestmark = pytest.mark.usefixtures("far")


# -- sums that grow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 150, 1100])
def test_sums_of_bytes_have_the_cpu_bits(width, rng):
    x = rng.integers(0, 256, (3000, width), dtype=np.uint8)
    here, there = StreamingGram().update(x), StreamingGram()
    for part in (x[:1], x[1:1500], x[1500:]):
        there.update(Far(part))
    np.testing.assert_array_equal(there.gram(), here.gram())
    np.testing.assert_array_equal(there.mean, here.mean)
    assert isinstance(there.gram(), np.ndarray)


@pytest.mark.parametrize("mean", [0.0, 1e6])
@pytest.mark.parametrize("center", [False, True])
def test_sums_of_floats(mean, center, rng, monkeypatch):
    monkeypatch.setattr(moments, "GPU_CHUNK_BYTES", 1)
    x = (mean + rng.standard_normal((3000, 12)) * np.arange(1, 13)).astype("float32")
    here = StreamingGram(center=center).update(x)
    there = StreamingGram(center=center).update(Far(x[:100])).update(Far(x[100:]))
    np.testing.assert_allclose(there.gram(), here.gram(), rtol=0, atol=1e-10 * np.abs(here.gram()).max())
    np.testing.assert_allclose(there.density(), here.density(), rtol=0, atol=1e-10 * np.abs(here.density()).max())
    one, other = there.components(3), here.components(3)
    top = one.explained_variance[0]
    np.testing.assert_allclose(one.explained_variance, other.explained_variance, rtol=0, atol=1e-10 * top)
    assert there.components(variance=0.5).count == 3000


def test_sums_are_kept_where_they_are_asked_or_where_the_first_batch_lies(rng):
    x = rng.standard_normal((40, 5))
    asked = StreamingGram(device="cuda").update(x).update(Far(x))
    np.testing.assert_allclose(asked.density(), x.T @ x / 40)
    there = StreamingGram().update(Far(x)).update(x)  # the host's batch goes to the GPU
    np.testing.assert_allclose(there.gram(), asked.gram())
    with pytest.raises(InputError, match=r"make StreamingGram\(device='cuda'\)"):
        StreamingGram().update(x).update(Far(x))
    with pytest.raises(InputError, match=r"batch holds nan at \[1, 0\]"):
        StreamingGram().update(Far(np.array([[1.0], [np.nan]])))
    merged = StreamingGram().merge(there).merge(StreamingGram().update(x))
    np.testing.assert_allclose(merged.gram(), 3 * x.T @ x)
    home = StreamingGram().update(x).merge(there)
    np.testing.assert_allclose(home.gram(), 3 * x.T @ x)


def test_classes_one_by_one(rng):
    x, labels = rng.integers(0, 256, (600, 30), dtype=np.uint8), rng.integers(0, 4, 600) * 10
    whole = class_pca(x, labels, 3)
    there, asked = StreamingClassGram(), StreamingClassGram(device="cuda")
    for stream in (there.update(Far(x), labels), asked.update(x, Far(labels))):
        found = stream.components(3)
        np.testing.assert_array_equal(found.counts, whole.counts)
        np.testing.assert_allclose(found.components, whole.components, atol=1e-6)


@pytest.mark.parametrize("center", [False, True])
def test_float64_as_on_the_cpu(center, rng):
    """Through the moments' root where the matrix itself says too little, and refused where that does too."""
    x = 1e7 + rng.normal(size=(400, 30)) * np.linspace(3, 1, 30)
    here, there = (StreamingGram(center=center).update(place(x)).components(3) for place in (np.asarray, Far))
    assert np.arccos(np.minimum(np.abs(np.sum(here.components * there.components, axis=1)), 1)).max() < 1e-6
    assert there.residual < 1e-13
    x = rng.normal(size=(500, 20)) * np.logspace(0, -10, 20) @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    with pytest.raises(ConvergenceError, match="sums of squares show the first"):
        StreamingGram().update(Far(x)).components()
    np.testing.assert_allclose(StreamingGram().update(Far(x)).mean, x.mean(axis=0), rtol=1e-12)
    for scale in (2.0**-300, 2.0**470):
        found, wanted = (StreamingGram(center=center).update(Far(x * by)).components(2) for by in (scale, 1))
        np.testing.assert_allclose(found.components, wanted.components, atol=1e-13)
    with pytest.raises(InputError, match="underflow float64: scale them up"):
        StreamingGram().update(Far(x * 1e-170)).components(2)
    with pytest.raises(InputError, match="whose squares overflow float64: scale the samples down"):
        StreamingGram().update(Far(x * 1e170))


@pytest.mark.parametrize("center", [False, True])
def test_few_samples_are_kept(center, rng):
    """No more of them than features: what squares do not show they do."""
    x = rng.normal(size=(12, 12)) * np.logspace(0, -10, 12) @ np.linalg.qr(rng.normal(size=(30, 12)))[0].T
    there = StreamingGram(center=center)
    for part in (x[:1], x[1:4], x[4:]):
        there.update(Far(part))
    s = np.linalg.svd(x - x.mean(axis=0) if center else x)[1][:11]
    found = there.components(11)
    np.testing.assert_allclose(np.sqrt(found.explained_variance * 12), s, rtol=0, atol=1e-14 * s[0])
    moved = StreamingGram(center=center, device="cpu").merge(there).components(11)
    np.testing.assert_allclose(moved.explained_variance, found.explained_variance, rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("kind", ["noise", "one spike"])
def test_products_of_float64_are_rounded_once(kind, rng):
    """Beside one large value 1023 small ones are rounded alike: 100 roundings in a plain product."""
    x = rng.normal(size=(5000, 6)) * 10.0 ** rng.integers(-3, 4, 6)
    if kind == "one spike":
        x, x[0] = 0.01 * rng.random((5000, 6)), 127
    wide = x.astype(np.longdouble)
    exact = wide.T @ wide
    size = np.sqrt(np.diagonal(exact))
    found = moments.exact_products(array_api_strict, array_api_strict.asarray(x))
    assert (np.abs(np.asarray(found) - exact) <= (5**0.5 + 1) * 2.0**-53 * size * size[:, None]).all()


@pytest.mark.parametrize("k", [1, 3, 200])
def test_noise_of_many_features_is_not_refused(k, rng):
    x = rng.normal(size=(3000, 200))
    here, there = StreamingGram().update(x).components(k), StreamingGram().update(Far(x)).components(k)
    np.testing.assert_allclose(there.explained_variance, here.explained_variance, rtol=1e-13)


def test_eigenvectors_that_do_not_converge_are_no_bare_error(monkeypatch, rng):
    def failing(*args, **settings):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    x, labels = rng.normal(size=(60, 5)), np.arange(60) % 2
    there, wanted = StreamingGram().update(Far(x)), StreamingGram().update(x).components(2)
    classes = class_pca(x, labels, 2)
    monkeypatch.setattr(pca, "leading_stack", failing)
    np.testing.assert_allclose(there.components(2).components, wanted.components, atol=1e-10)  # on the host
    np.testing.assert_allclose(class_pca(Far(x), labels, 2).components, classes.components, atol=1e-10)  # by gesvd
    np.testing.assert_allclose(class_pca(Far(x[:8]), labels[:8], 2).components[0] ** 2 @ np.ones(5), 1)
    monkeypatch.setattr(pca.stacked, "solve", failing)
    with pytest.raises(ConvergenceError, match=r"^class 0 of 2 has no SVD on a GPU, by gesvd \(Eig[^\n]*$"):
        class_pca(Far(x), labels, 2)


def test_nothing_is_shared_nor_half_done(rng):
    x, labels = rng.normal(size=(40, 4)), np.arange(40) % 2
    stream = StreamingGram().update(Far(x))
    other = StreamingGram().merge(stream)
    other.update(Far(x))
    for handed in (stream.gram(), stream.mean):
        handed[...] = 77
    np.testing.assert_allclose(stream.gram(), x.T @ x)
    np.testing.assert_allclose(other.gram(), 2 * x.T @ x)
    classes = StreamingClassGram().update(Far(x), labels)
    bad = np.where(np.arange(160).reshape(40, 4) == 157, np.nan, x)
    for wrong in (bad, np.ones((40, 5)), x.astype(np.uint8)):
        with pytest.raises(InputError):
            classes.update(Far(wrong), labels)
        with pytest.raises(InputError):
            stream.update(Far(wrong))
    assert (stream.count, *(classes.classes[c].count for c in (0, 1))) == (40, 20, 20)
    new = StreamingGram()
    with pytest.raises(InputError):
        new.update(Far(bad))
    new.update(np.ones((3, 9), "float32"))  # neither the width, nor the device, nor the dtype were fixed
    assert isinstance(new._state.centred.scatter, np.ndarray)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("small", [1e-25, 1e25])
def test_patches_of_classes_far_apart(far, small, center, rng, monkeypatch):  # noqa: F811
    monkeypatch.setattr(patches, "FEW", 0)  # products of float32, as of larger blocks
    images, labels = rng.normal(size=(60, 2, 6, 6)), np.arange(60) % 3
    images[labels == 1] += 1e4
    images[labels == 2] *= small
    images = images.astype("float32")
    here, there = PatchDensities(get_backend("numpy"), 3), PatchDensities(far, 3)
    for part in (slice(0, 20), slice(20, 60)):
        here.update(images[part], labels[part])
        there.update(Far(images[part]), labels[part])
    for label in range(3):
        for one, other in zip(here.density(label, center), there.density(label, center), strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())
    one, other = here.components(variance=0.9, center=center), there.components(variance=0.9, center=center)
    np.testing.assert_array_equal(one.ranks, other.ranks)
    np.testing.assert_allclose(one.explained_variance, other.explained_variance, rtol=1e-5)
    with pytest.raises(InputError, match="class 1 hold NaN"):
        there.update(Far(np.full((2, 2, 6, 6), np.nan, "float32")), [1, 1])
    assert there.counts == here.counts


def test_moments_keep_to_the_array_api(rng):
    xp, x = array_api_strict, rng.normal(size=(2500, 7)) + 1000
    for dtype, rtol in (("float32", 1e-4), ("float64", 1e-10)):
        found = (
            moments.blocks(xp, xp.asarray(x))
            if dtype == "float64"
            else moments.block(xp, xp.asarray(x, dtype=xp.float32))
        )
        wanted = np.cov(x.astype(dtype).astype(float).T, bias=True) * 2500
        np.testing.assert_allclose(np.asarray(found.about(True)), wanted, rtol=0, atol=rtol * wanted.max())
        (found,) = pca.decompose_stack(xp, [found], 3, None, True, np.float32)
        np.testing.assert_allclose(found.explained_variance * 2500, np.linalg.eigvalsh(wanted)[::-1][:3], rtol=rtol)


# -- what is built on them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [False, True])
def test_singular_rows(each, rng):
    x, labels = rng.standard_normal((90, 20)).astype("float32"), rng.integers(0, 3, 90)
    given = labels if each else None
    here, there = singular_rows(x, 7, given), singular_rows(Far(x), 7, given)
    assert len(here.found) == len(there.found) == (3 if each else 1)
    for one, other in zip(here[:2], there[:2], strict=True):
        assert isinstance(other, np.ndarray)
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_ridge_regression(rng):
    labels = rng.integers(0, 4, 300)
    x = (rng.normal(size=(300, 12)) + 2 * np.eye(12)[labels] + 5).astype("float32")

    def batches(part, place):
        return lambda: ((place(x[part][s : s + 64]), labels[part][s : s + 64]) for s in range(0, len(x[part]), 64))

    here, there = (
        ridge(batches(slice(200), place), batches(slice(200, None), place), 12, 4) for place in (np.asarray, Far)
    )
    assert there.penalty == here.penalty
    np.testing.assert_allclose(there.weight, here.weight, atol=1e-5)
    np.testing.assert_allclose(there.bias, here.bias, atol=1e-4)
    assert there.correct(Far(x), labels) == here.correct(x, labels)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("ratio", [300, 3000, 1e6])
def test_ridge_regression_of_a_large_mean(ratio, standardise, rng):
    labels = rng.integers(0, 3, 400)
    x = (rng.normal(size=(400, 8)) + 2 * np.eye(8)[labels] + ratio).astype("float32")
    here, there = Moments(8, 3, standardise=standardise), Moments(8, 3, standardise=standardise)
    for part in (slice(0, 50), slice(50, 400)):
        here.update(x[part], labels[part])
        there.update(Far(x[part]), labels[part])
    one, other = here.solve(1e-2), there.solve(1e-2)
    np.testing.assert_allclose(other.weight, one.weight, atol=1e-5)
    assert other.correct(Far(x), labels) == one.correct(x, labels)
    with pytest.raises(InputError, match="hold NaN"):
        there.update(Far(np.full((2, 8), np.nan)), [0, 1])
    np.testing.assert_array_equal(there.solve(1e-2).weight, other.weight)
    there.update(x, labels)  # of all twice, half of them on the host
    np.testing.assert_allclose(there.solve(1e-2).weight, one.weight, atol=1e-5)


def test_ridge_regression_that_is_not_solvable(rng):
    x = (rng.normal(size=(40, 8)) @ rng.normal(size=(8, 30))).astype("float32")  # more samples than features
    with pytest.raises(InputError, match=r"penalty 1e-14 is not solvable \(.*positive definite\)"):
        Moments(30, 2).update(Far(x), np.arange(40) % 2).solve(1e-14)


def test_a_factor_that_is_none_is_found(far, rng, monkeypatch):  # noqa: F811
    """CuPy's cholesky gives something, and says nothing, where a matrix is not positive definite."""
    moments = Moments(5, 2).update(Far(rng.normal(size=(40, 5)).astype("float32")), np.arange(40) % 2)
    for wrong in (0.5, float("nan")):
        monkeypatch.setattr(far.xp, "linalg", types.SimpleNamespace(cholesky=lambda a, by=wrong: a * by), raising=False)
        with pytest.raises(InputError, match="is not positive definite"):
            moments.solve(1e-3)


# -- fewer samples than features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ridge_regression_of_few_samples(dtype, standardise, rng):
    x, labels = (rng.normal(size=(24, 60)) + 100).astype(dtype), np.arange(24) % 3
    here, there = Moments(60, 3, standardise=standardise), Moments(60, 3, standardise=standardise)
    for part in (slice(0, 10), slice(10, 24)):
        here.update(x[part], labels[part])
        there.update(Far(x[part]), labels[part])
    assert there.joint is None
    one, other = here.solve(1e-2), there.solve(1e-2)
    np.testing.assert_allclose(other.weight, one.weight, atol=1e-10)
    np.testing.assert_allclose(other.bias, one.bias, atol=1e-7)
    there.update(x[:5], labels[:5])  # from the host
    here.update(x[:5], labels[:5])
    np.testing.assert_allclose(there.solve(1e-2).weight, here.solve(1e-2).weight, atol=1e-10)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_patches_of_few_images(far, dtype, center, rng):  # noqa: F811
    images, labels = rng.integers(0, 256, (13, 2, 8, 8)).astype(dtype), np.arange(13) % 2
    here, there = PatchDensities(get_backend("numpy"), 7), PatchDensities(far, 7)
    for part in (slice(0, 4), slice(4, 13)):
        here.update(images[part], labels[part])
        there.update(Far(images[part]), labels[part])
    assert here.counts == there.counts == {0: 28, 1: 24}
    assert all(isinstance(each, patches.Few) for each in (*here.classes.values(), *there.classes.values()))
    one, other = here.components(variance=0.8, center=center), there.components(variance=0.8, center=center)
    np.testing.assert_array_equal(one.ranks, other.ranks)
    np.testing.assert_allclose(one.explained_variance, other.explained_variance, rtol=1e-6)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.einsum("ckf,ckf->ck", one.components, other.components))[0, :3], 1, atol=1e-5)
    for label in range(2):
        ours, theirs = here.density(label, center), there.density(label, center)
        np.testing.assert_allclose(theirs[0], ours[0], atol=1e-5 * np.abs(ours[0]).max())
        values = np.linalg.eigvalsh(ours[0])[::-1][: one.ranks[label]]
        np.testing.assert_allclose(one.explained_variance[label][: one.ranks[label]], values, rtol=1e-5)


# -- many features ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardise", [False, True])
def test_ridge_regression_of_many_features(standardise, rng):
    labels = rng.integers(0, 4, 300)
    x = (rng.normal(size=(300, 50)) + 2 * np.eye(50)[labels] + 5).astype("float32")
    x[:, 7] = 0.1
    here, there = (TiledMoments(50, 4, standardise=standardise, tile=16) for _ in range(2))
    for start in range(0, 300, 128):
        part = slice(start, start + 128)
        here.update(x[part], labels[part])
        there.update(Far(x[part]) if start < 200 else x[part], labels[part])  # the last from the host
    penalties = (1e-3, 1e-2, 1e-1)
    for one, other in zip(here.solutions(penalties), there.solutions(penalties), strict=True):
        assert isinstance(other.weight, np.ndarray)
        np.testing.assert_allclose(other.weight, one.weight, atol=1e-6)
        np.testing.assert_allclose(other.bias, one.bias, atol=1e-5)
        assert other.residual == pytest.approx(one.residual, rel=1e-3)
    with pytest.raises(InputError, match="hold NaN"):
        there.update(Far(np.full((2, 50), np.nan)), [0, 1])


def test_a_factor_of_a_tile_that_is_none_is_found(far, rng, monkeypatch):  # noqa: F811
    moments = TiledMoments(5, 2).update(Far(rng.normal(size=(40, 5)).astype("float32")), np.arange(40) % 2)
    wrong = types.SimpleNamespace(cholesky=lambda a: a * float("nan"), inv=far.xp.linalg.inv)
    monkeypatch.setattr(far.xp, "linalg", wrong, raising=False)
    with pytest.raises(InputError, match="is not positive definite"):
        moments.solutions((1e-3,))
