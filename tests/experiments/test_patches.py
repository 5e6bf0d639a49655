"""patches on small images: encodings against plain loops, whitening, nested dictionaries, the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpunet.backend import get_backend
from gpunet.datasets import Dataset
from gpunet.errors import DataError, InputError
from gpunet.experiments import experiment
from gpunet.experiments.claims import judge
from gpunet.experiments.framework import Run
from gpunet.experiments.images import as_images
from gpunet.experiments.patches import Settings, body
from gpunet.experiments.patches.body import dictionary, encode
from gpunet.experiments.patches.claims import TABLE
from gpunet.experiments.result import Result

from .schema import parse

SMALL = Settings(dictionaries=(4, 8), size=3, grid=2, sweep_samples=100)


@pytest.fixture(autouse=True)
def _fewer(monkeypatch, request):
    """A covariance of fewer patches, which takes less time."""
    if "uncorrelated" not in request.node.name:
        monkeypatch.setattr(body, "SAMPLED", 2000)


def pictures(shape=(3, 9, 8), n=60, dtype="uint8", name="own"):
    """Noise, brighter at one side, which is the class."""
    rng = np.random.Generator(np.random.Philox(7))
    y = np.arange(n) % 2
    x = rng.integers(0, 120, (n, *shape))
    x[y == 1, ..., : shape[-1] // 2] += 120
    x = x.reshape(n, -1).astype(dtype)
    return Dataset(name, x[: n // 2], y[: n // 2], x[n // 2 :], y[n // 2 :], shape, 2, "here")


def compute(data, settings=SMALL, seeds=(0,), device="numpy"):
    return Run(experiment("patches"), data, settings, list(seeds)).compute(device)


def windows(image, size):
    rows, columns = (side - size + 1 for side in image.shape[1:])
    return {(r, c): image[:, r : r + size, c : c + size].ravel() for r in range(rows) for c in range(columns)}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("whitening", [1e-2, None])
def test_encodings_by_plain_loops(dtype, whitening):
    images = as_images(pictures(dtype=dtype), "patches", 3)
    product, offset, how = made = dictionary(images, SMALL, whitening, 0)
    found = encode(images.x_test[:5], images.shape, made, SMALL, get_backend("numpy"))
    assert (found.shape, found.dtype) == ((5, 4, 2, 8), np.uint8)
    assert how["residual"] < 1e-6
    scale = 255 if dtype == "uint8" else 1
    for image, counts in zip(images.x_test[:5], found, strict=True):
        patches = windows(image.reshape(images.shape).astype(float) / scale, 3)
        sums = np.zeros((2, 2, 2, 8))
        for (r, c), p in patches.items():
            both = p @ product.astype(float) - offset
            cosine = both[:8] / np.linalg.norm(both[8:])
            assert np.abs(np.abs(cosine) - SMALL.threshold).min() > 1e-6, "an example on the border"
            sums[r // 4 if r < 4 else 1, c // 3, 0] += cosine > SMALL.threshold
            sums[r // 4 if r < 4 else 1, c // 3, 1] += cosine < -SMALL.threshold
        rows, columns = 7, 6  # positions of a 3×3 patch in 9×8: fields of 4 and 3 rows, 3 and 3 columns
        assert len(patches) == rows * columns
        shares = sums / (np.array([4, 3])[:, None] * np.array([3, 3]))[..., None, None]
        np.testing.assert_array_equal(counts.reshape(2, 2, 2, 8), np.rint(255 * shares))


def test_whitened_patches_are_uncorrelated():
    """E z zᵀ = C (C + ε)^−1: eigenvalues λ/(λ + ε), 1 as ε vanishes; the dictionary's are of norm 1."""
    images = as_images(pictures(n=400), "patches", 3)
    product, offset, _ = dictionary(images, SMALL, 1e-9, 3)
    rng = np.random.Generator(np.random.Philox(1))
    planes = images.x_train.reshape(-1, *images.shape)
    drawn = [windows(planes[i], 3)[int(rng.integers(7)), int(rng.integers(6))] for i in rng.integers(0, 200, 20_000)]
    z = (np.array(drawn) / 255) @ product[:, 8:] - offset[8:]
    np.testing.assert_allclose(np.cov(z.T), np.eye(27), atol=0.06)
    plain, _, _ = dictionary(images, SMALL, None, 3)
    np.testing.assert_array_equal(plain[:, 8:], np.eye(27))
    np.testing.assert_allclose(np.linalg.norm(plain[:, :8], axis=0), 1, rtol=1e-6)


def test_a_smaller_dictionary_is_the_beginning_of_a_larger_one():
    images = as_images(pictures(), "patches", 3)
    large, small = (
        encode(images.x_train, images.shape, dictionary(images, settings, 1e-3, 0), settings, get_backend("numpy"))
        for settings in (SMALL, dataclasses.replace(SMALL, dictionaries=(4,)))
    )
    np.testing.assert_array_equal(large[..., :4], small)


def test_a_run():
    data = pictures(n=300)
    result = compute(data, seeds=(0, 1))
    assert result.names == [
        "4 patches", "8 patches", *(f"whitening={e}" for e in ("0.1", "0.01", "0.001", "0.0001", "1e-05", "none")),
    ]  # fmt: skip
    assert parse(result.text())["settings"]["size"] == 3
    assert all(min(result.values(name, "test_accuracy")) > 0.7 for name in result.names)
    assert {name: len(each) for name, each in result.notes["svd"].items()} == dict.fromkeys(result.names, 2)
    assert result.notes["sweep_training_samples"] == 100
    assert all(len(result.seconds(name, "head")) == 2 for name in result.names)
    again, alone = compute(data, seeds=(0, 1)), compute(data, seeds=(1,))
    assert again.rows == result.rows
    assert [row.metrics["test_accuracy"].values for row in alone.rows] == [
        row.metrics["test_accuracy"].values[1:] for row in result.rows
    ]


def test_on_every_backend(backend):
    here, there = compute(pictures()), compute(pictures(), device=backend)
    for name in here.names:
        assert there.mean(name, "test_accuracy") == pytest.approx(here.mean(name, "test_accuracy"), abs=0.07)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 3)])
def test_images_of_any_shape(shape):
    assert compute(pictures(shape)).settings["size"] == 3
    assert compute(pictures(shape), dataclasses.replace(SMALL, size=None)).settings["size"] == 4


@pytest.mark.parametrize(
    ("data", "settings", "error", "words"),
    [
        (pictures((12,)), SMALL, DataError, "has samples of shape .12,.*: patches needs images of at least 3×3"),
        (pictures((2, 40)), SMALL, DataError, "patches needs images of at least 3×3"),
        (pictures((5, 5)), dataclasses.replace(SMALL, size=6), DataError, "needs images of at least 6×6"),
        (pictures(), Settings(dictionaries=(4096,)), InputError, "4096 patches on a grid of 3×3 are 73,728 features"),
        (pictures(), Settings(dictionaries=(512,), grid=99), InputError, "512 patches on a grid of 6×5 are 30,720"),
    ],
)
def test_what_cannot_be(data, settings, error, words):
    with pytest.raises(error, match=words):
        compute(data, settings)


@pytest.mark.parametrize(
    "change",
    [{"dictionaries": (0,)}, {"dictionaries": ()}, {"size": 0}, {"whitening": 0.0}, {"threshold": 1.0}, {"grid": 0}],
)
def test_settings_that_cannot_be(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Settings(**change)


def judged(dataset="cifar10", **rows):
    made = Result("patches", dataset, "cpu", {"dictionaries": (256, 512), "whitening": 1e-3}, [0, 1, 2])
    found = {"256 patches": 0.75, "512 patches": 0.784, "whitening=0.1": 0.6, "whitening=0.001": 0.7}
    for name, accuracy in ({**found, "whitening=none": 0.5} | rows).items():
        for noise in (-1e-3, 0, 1e-3):
            made.row(name).add(test_accuracy=accuracy + noise)
    return {claim.id: claim for claim in judge(experiment("patches"), made)}


def test_a_run_like_the_paper_reproduces_its_claims():
    found = judged()
    tested = {name: claim.verdict for name, claim in found.items() if claim.verdict != "not tested"}
    names = ("512-test-accuracy", "grows", "whitening-is-key", "best-near-1e-3")
    assert tested == dict.fromkeys(names, "reproduced")
    assert len(found) == len(TABLE) + 3
    assert found["2048-test-accuracy"].note == "this run did not measure test accuracy of 2048 patches"


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("512-test-accuracy", {"512 patches": 0.76}), ("grows", {"512 patches": 0.75}),
        ("whitening-is-key", {"whitening=none": 0.7}), ("best-near-1e-3", {"whitening=0.1": 0.72}),
    ],
)  # fmt: skip
def test_each_claim_can_fail(name, rows):
    assert judged(**rows)[name].verdict in ("not reproduced", "inconclusive")


def test_on_other_images():
    found = judged("own")
    assert found["512-test-accuracy"].note == "not applicable: the document speaks of cifar10"
    assert (found["grows"].here, found["grows"].verdict) == (True, "reproduced")
