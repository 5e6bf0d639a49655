"""Densities of patches: against the patches written out, however the images arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.backend import get_backend
from gpunet.errors import InputError, ShapeError
from gpunet.linalg import patches as module
from gpunet.linalg.patches import PatchDensities


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
    for bad in (np.nan, np.inf, 1e30):
        images = np.ones((4, 1, 5, 5), "float32")
        images[2, 0, 1, 1] = bad
        with pytest.raises(InputError, match="NaN"), np.errstate(all="ignore"):
            PatchDensities(backend, 3).update(images, [0, 0, 1, 1])
    with pytest.raises(InputError, match="no images were added"):
        PatchDensities(backend, 3).components(variance=0.9)
