"""patches on small images: filters and encodings against plain loops, mirror images, networks that are kept."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.datasets import Dataset
from gpunet.errors import DataError, InputError
from gpunet.experiments import experiment
from gpunet.experiments.claims import judge
from gpunet.experiments.framework import Run
from gpunet.experiments.images import as_images, squares, validation_split
from gpunet.experiments.patches import Settings, body
from gpunet.experiments.patches.body import NONE, Encoder, filters, refined
from gpunet.experiments.patches.claims import TABLE
from gpunet.experiments.result import Result
from gpunet.progress import Progress
from gpunet.spectral.ridge import Moments

from .schema import parse

SMALL = Settings(
    dictionaries=(4, 8), size=3, grid=2, sweep_samples=100, mirrored=True, head_epochs=30, head_rate=0.03, sweeps=False,
    whitening=1e-3, whitenings=(0.1, 1e-3),
)  # fmt: skip
PLAIN = dataclasses.replace(SMALL, mirrored=False)


@pytest.fixture(autouse=True)
def _fewer(monkeypatch, request):
    """A covariance of fewer patches, which takes less time."""
    if "uncorrelated" not in request.node.name:
        monkeypatch.setattr(body, "SAMPLED", 2000)


def pictures(shape=(3, 9, 9), n=60, dtype="uint8", name="own"):
    """Noise, brighter in its first rows, which is the class."""
    rng = np.random.Generator(np.random.Philox(7))
    y = np.arange(n) % 2
    x = rng.integers(0, 120, (n, *shape))
    rows = x if len(shape) < 2 or shape[-1] == 3 else x.swapaxes(1, -2)
    rows[y == 1, : rows.shape[1] // 2] += 120
    x = x.reshape(n, -1).astype(dtype)
    return Dataset(name, x[: n // 2], y[: n // 2], x[n // 2 :], y[n // 2 :], shape, 2, "here")


def a_run(data, settings=SMALL, seeds=(0,), device="numpy"):
    run = Run(experiment("patches"), data, settings, list(seeds))
    run.backend, run.bar = get_backend(device), Progress()
    return run


def compute(data, settings=SMALL, seeds=(0,), device="numpy"):
    return Run(experiment("patches"), data, settings, list(seeds)).compute(device)


def windows(image, size):
    rows, columns = (side - size + 1 for side in image.shape[1:])
    return {(r, c): image[:, r : r + size, c : c + size].ravel() for r in range(rows) for c in range(columns)}


def encoder(images, settings=SMALL, count=8, device="numpy"):
    return Encoder(a_run(images, settings, device=device), images, settings, count, 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("settings", [SMALL, PLAIN, dataclasses.replace(SMALL, whitening=NONE)])
def test_encodings_by_plain_loops(dtype, settings):
    """Means of max(±⟨z, d⟩ − t, 0) over windows, and those of the mirror image in the mirrored window."""
    images = as_images(pictures(dtype=dtype), "patches", 3)
    encode = encoder(images, settings)
    found = encode(images.x_test[:5]).reshape(5, 2, 8, 2, 2)
    weight, bias = (encode.made[name] for name in ("weight", "bias"))
    rows, scale = weight.reshape(2, 1 + settings.mirrored, 8, 27), 255 if dtype == "uint8" else 1
    bias = bias.reshape(rows.shape[:3])
    for x, features in zip(images.x_test[:5], found, strict=True):
        image, expected = x.reshape(images.shape).astype(float) / scale, np.zeros((2, 8, 2, 2))
        for mirrored in range(1 + settings.mirrored):
            for (r, c), p in windows(image, 3).items():
                encoded = np.maximum(rows[:, mirrored] @ p + bias[:, mirrored], 0) / 16
                for row, column in itertools.product((0, 1), repeat=2):  # windows of positions 0 to 3 and 3 to 6
                    if 3 * row <= r <= 3 * row + 3 and 3 * column <= c <= 3 * column + 3:
                        expected[:, :, row, 1 - column if mirrored else column] += encoded
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_filters_are_what_they_are_said_to_be():
    """(C + ε)^−½ d with d of norm 1, of both signs, then their mirror images; biases centre, and take the threshold."""
    images = as_images(pictures(n=400), "patches", 3)
    made, how = filters(images, SMALL, 8, 0)
    weight, bias = made["weight"].reshape(2, 2, 8, 3, 3, 3), made["bias"].reshape(2, 16)
    np.testing.assert_array_equal(weight[0], -weight[1])
    np.testing.assert_allclose(weight[:, 1], weight[:, 0, ..., ::-1], atol=1e-9)
    assert how["residual"] < 1e-6
    threshold = -bias.sum(axis=0) / 2
    np.testing.assert_allclose(threshold, threshold[0])
    values = (bias[0] + threshold)[:, None] + weight[0].reshape(16, 27) @ patches(images, 20_000).T
    assert threshold[0] == pytest.approx(SMALL.threshold * values.std(), rel=0.03)
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=0.05)
    unthresholded = filters(images, dataclasses.replace(SMALL, threshold=0.0), 8, 0)[0]
    np.testing.assert_allclose(unthresholded["bias"].reshape(2, 16).sum(axis=0), 0, atol=1e-12)


def patches(images, count):
    """Patches of 3×3 pixels at random places of random training images, from 0 to 1."""
    rng, planes = np.random.Generator(np.random.Philox(1)), images.x_train.reshape(-1, *images.shape)
    drawn = rng.integers(0, (len(planes), 7, 7), (count, 3))
    return np.array([planes[i, :, r : r + 3, c : c + 3].ravel() for i, r, c in drawn]) / 255


def test_whitened_patches_are_uncorrelated():
    """E z zᵀ = C (C + ε)^−1, which is 1 as ε vanishes: of d the variance of ⟨z, d⟩ is 1."""
    images = as_images(pictures(n=400), "patches", 3)
    settings = dataclasses.replace(PLAIN, whitening=1e-9, threshold=0.0)
    made, _ = filters(images, settings, 40, 3)
    rows = made["weight"][:40].reshape(40, 27)
    covariance = np.cov(patches(images, 20_000).T)
    np.testing.assert_allclose(np.sum((rows @ covariance) * rows, axis=1), 1, atol=0.06)
    plain, _ = filters(images, dataclasses.replace(PLAIN, whitening=NONE), 8, 3)
    np.testing.assert_allclose(np.linalg.norm(plain["weight"].reshape(16, 27), axis=1), 1, rtol=1e-6)
    far = dataclasses.replace(images, x_train=(images.x_train * 1e9).astype("float32"))
    plain, _ = filters(far, dataclasses.replace(PLAIN, whitening=NONE), 8, 3)
    np.testing.assert_allclose(np.linalg.norm(plain["weight"].reshape(16, 27), axis=1), 1, rtol=1e-6)


def test_a_smaller_dictionary_is_the_beginning_of_a_larger_one():
    """As long as it is only drawn."""
    images, drawn = as_images(pictures(), "patches", 3), dataclasses.replace(PLAIN, refinements=0)
    large, small = (filters(images, drawn, count, 0)[0]["weight"] for count in (8, 4))
    np.testing.assert_array_equal(large.reshape(2, 8, -1)[:, :4], small.reshape(2, 4, -1))


def test_gain_shape_k_means_by_plain_loops(monkeypatch):
    monkeypatch.setattr(body, "ROWS", 7)
    z = np.random.Generator(np.random.Philox(5)).standard_normal((50, 6))
    dictionary = z[:4] / np.linalg.norm(z[:4], axis=1, keepdims=True)
    np.testing.assert_allclose(refined(z, 4, 0), dictionary)
    explained = []
    for rounds in (1, 2, 3):
        total = dictionary.copy()
        for row in z:
            nearest = max(range(4), key=lambda d: abs(row @ dictionary[d]))
            total[nearest] += (row @ dictionary[nearest]) * row
        explained.append(np.sum(np.max((z @ dictionary.T) ** 2, axis=1)))
        dictionary = total / np.linalg.norm(total, axis=1, keepdims=True)
        np.testing.assert_allclose(refined(z, 4, rounds), dictionary, atol=1e-5)
    assert explained == sorted(explained), "what a patch's own explains of it grows"


def test_an_image_and_its_mirror_image_are_alike():
    images = as_images(pictures(), "patches", 3)
    encode, mirrored = encoder(images), images.x_test.reshape(-1, *images.shape)[..., ::-1].reshape(30, -1)
    np.testing.assert_allclose(encode(mirrored), encode(images.x_test), atol=1e-5)
    plain = encoder(images, PLAIN)
    assert np.abs(plain(mirrored) - plain(images.x_test)).max() > 1e-2


def test_a_head_for_both_is_the_best_of_a_training_set_that_is_doubled():
    """Ridge regression on images and mirror images, on features of both, gives the same scores as ours on half."""
    images, penalty = as_images(pictures(), "patches", 3), 0.05
    encode, y = encoder(images), np.eye(2)[np.tile(images.y_train, 2)]
    doubled = images.x_train.reshape(-1, *images.shape)
    doubled = np.concatenate([doubled, doubled[..., ::-1]]).reshape(60, -1)
    features = encode.net.outputs(doubled).astype(float)
    mean = features.mean(axis=0)
    centred = features - mean
    weight = np.linalg.solve(centred.T @ centred + penalty * np.eye(len(mean)), centred.T @ (y - y.mean(axis=0)))
    direct = (encode.net.outputs(images.x_test) - mean) @ weight + y.mean(axis=0)
    own = encode(images.x_train).astype(float)
    middle = own.mean(axis=0)
    half = np.linalg.solve(
        (own - middle).T @ (own - middle) + penalty * np.eye(own.shape[1]), (own - middle).T @ (y - y.mean(axis=0))[:30]
    )
    np.testing.assert_allclose((encode(images.x_test) - middle) @ half + y.mean(axis=0), direct, atol=1e-4)


@pytest.mark.parametrize("settings", [SMALL, PLAIN])
def test_the_whole_network_gives_the_heads_scores(settings):
    images = as_images(pictures(), "patches", 3)
    encode = encoder(images, settings)
    train = encode(images.x_train)
    solved = Moments(train.shape[1], 2).update(train, images.y_train).solve(1e-2)
    net = encode.with_head(solved.weight, solved.bias)
    scores = encode(images.x_test) @ solved.weight.T + solved.bias
    np.testing.assert_allclose(net.outputs(images.x_test), scores, atol=1e-4)


@pytest.mark.slow
def test_networks_lie_beside_the_result(tmp_path):
    data = pictures(n=200)
    done = Run(experiment("patches"), data, SMALL, [0, 1]).carry_out(tmp_path, "numpy", Progress())
    for count in (4, 8):
        net = gn.load(tmp_path / done.result.notes["networks"][f"{count} patches"], device="numpy")
        accuracy = float((net.predict(data.x_test) == data.y_test).mean())
        assert accuracy == done.result.values(f"{count} patches", "test_accuracy")[0]
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"4-patches.safetensors", "8-patches.safetensors"}


def test_networks_of_an_earlier_run_are_removed(tmp_path):
    for count in (4, 8):
        settings = dataclasses.replace(SMALL, dictionaries=(count,), head_epochs=0)
        Run(experiment("patches"), pictures(), settings, [0]).carry_out(tmp_path, "numpy", Progress())
        (tmp_path / "mine.safetensors").touch()
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"mine.safetensors", "8-patches.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(12, 12, 3), (3, 9, 12)])
def test_no_network_is_kept_that_takes_other_images_than_those_given(tmp_path, shape):
    settings = dataclasses.replace(SMALL, head_epochs=0)
    done = Run(experiment("patches"), pictures(shape), settings, [0]).carry_out(tmp_path, "numpy", Progress())
    assert list(tmp_path.glob("*.safetensors")) == list(done.networks) == []
    assert done.result.notes["kept"].startswith("no networks")


def test_a_figure_of_dictionaries_takes_two():
    for sizes, expected in (((4,), []), ((4, 8), ["accuracy"])):
        run = compute(pictures(), dataclasses.replace(SMALL, dictionaries=sizes, head_epochs=0))
        assert [figure.stem for figure in experiment("patches").figures(run)] == expected


@pytest.mark.parametrize(("n", "held"), [(3, 1), (1442, 145), (60_000, 5000)])
def test_settings_are_chosen_on_training_images(n, held):
    data = pictures((2, 2), 2 * n)
    split = validation_split(dataclasses.replace(data, x_train=np.arange(n)[:, None], y_train=np.arange(n)))
    assert len(split.x_test) == held
    np.testing.assert_array_equal(np.sort(np.concatenate([split.x_train, split.x_test]).ravel()), np.arange(n))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(split, f"x_{part}")[:, 0], getattr(split, f"y_{part}"))


@pytest.mark.parametrize("factor", [1e18, 1e-18])
def test_numbers_that_are_no_pixels(factor):
    data = pictures(dtype="float32")
    wild = dataclasses.replace(data, x_train=data.x_train * np.float32(factor))
    with pytest.raises(DataError, match=r"^own: the largest number of the training images is .*; scale them$"):
        compute(wild)


def test_features_that_are_all_zero():
    with pytest.raises(InputError, match=r"^own: these features allow no head .*; try a lower --threshold"):
        compute(pictures(), dataclasses.replace(SMALL, threshold=1e9))


@pytest.mark.slow
def test_pytorch_runs_a_network_that_was_kept(tmp_path):
    torch = pytest.importorskip("torch")
    data = pictures(n=200)
    done = Run(experiment("patches"), data, SMALL, [0]).carry_out(tmp_path, "numpy", Progress())
    net = gn.load(tmp_path / done.result.notes["networks"]["8 patches"], device="numpy")
    scores = gn.to_torch(net)(torch.from_numpy(data.x_test.astype(np.float32) / 255))
    np.testing.assert_allclose(scores.detach().numpy(), net.outputs(data.x_test), atol=1e-4)


@pytest.mark.slow
def test_a_run():
    data = pictures(n=300)
    result = compute(data, seeds=(0, 1))
    assert result.names == ["4 patches", "8 patches", "4 patches, head by Adam"]
    assert parse(result.text())["settings"]["size"] == 3
    assert all(min(result.values(name, "test_accuracy")) > 0.7 for name in result.names)
    assert result.values("8 patches", "features") == [64, 64]
    assert {len(each) for each in result.notes["svd"].values()} == {2}
    assert all(len(result.seconds(name, "head")) == 2 for name in result.names)
    again, alone = compute(data, seeds=(0, 1)), compute(data, seeds=(1,))
    assert again.rows == result.rows
    assert [row.metrics["test_accuracy"].values for row in alone.rows] == [
        row.metrics["test_accuracy"].values[1:] for row in result.rows
    ]


@pytest.mark.slow
def test_every_setting_is_changed():
    result = compute(pictures(), dataclasses.replace(SMALL, dictionaries=(4,), sweeps=True, head_epochs=0))
    assert result.notes["sweep_training_samples"] == 30
    assert result.names[1:4] == ["whitening=0.001", "whitening=0.1", "whitening=none"]
    assert {name for name in result.names if name.startswith("size")} == {f"size={n}" for n in (3, 4, 5, 6, 7, 8)}
    assert {"grid=1", "grid=2", "grid=3", "grid=4", "mirrored=False", "mirrored=True"} < {*result.names}
    base = ("whitening=0.001", "threshold=0.3", "grid=2", "size=3", "mirrored=True")
    assert len({result.values(name, "test_accuracy")[0] for name in base}) == 1


def test_a_setting_that_allows_no_head_is_left_out(monkeypatch):
    monkeypatch.setattr(body, "SWEPT", {"threshold": (0.0, 1e9)})
    result = compute(pictures(), dataclasses.replace(SMALL, dictionaries=(4,), sweeps=True, head_epochs=0))
    assert {name for name in result.names if name.startswith("threshold")} == {"threshold=0", "threshold=0.3"}
    assert result.notes["left_out"]["threshold=1e+09"].startswith("own: these features allow no head")


@pytest.mark.slow
def test_settings_that_print_alike_are_one_row():
    near = dataclasses.replace(SMALL, dictionaries=(4,), sweeps=True, head_epochs=0, whitening=1e-3 * (1 + 1e-9))
    result = compute(pictures(), near)
    assert len(result.values("whitening=0.001", "test_accuracy")) == 1
    assert result.values("whitening=0.001", "test_accuracy") == result.values("4 patches", "test_accuracy")
    assert all(claim.verdict for claim in judge(experiment("patches"), result))


def test_none_is_no_whitening_to_ask_for():
    for change in ({"whitening": NONE}, {"whitenings": (NONE,)}):
        with pytest.raises(InputError, match="stands for none at all"):
            compute(pictures(), dataclasses.replace(SMALL, **change))


def test_features_that_would_take_too_much_memory_are_not_trained_on(monkeypatch):
    data = pictures(n=400)
    size = 4 * 32 * (len(data.x_train) + len(data.x_test))
    monkeypatch.setattr(body, "HELD", size - 1)
    result = compute(data)
    assert result.notes["no_head_by_adam"].startswith("32 features of ")
    assert result.names == ["4 patches", "8 patches"]
    monkeypatch.setattr(body, "HELD", size)
    assert "no_head_by_adam" not in compute(data).notes


@pytest.mark.slow
def test_settings_that_would_take_too_many_features_are_left_out(monkeypatch):
    monkeypatch.setattr(body, "MOST", 100)
    result = compute(pictures(), dataclasses.replace(SMALL, dictionaries=(4,), sweeps=True, head_epochs=0))
    assert {name for name in result.names if name.startswith("grid")} == {"grid=1", "grid=2", "grid=3"}


@pytest.mark.parametrize(("planes", "mirrored"), [(3, True), (1, False)])
def test_mirror_images_of_colour_images_are_taken_for_the_same(planes, mirrored):
    settings = dataclasses.replace(SMALL, mirrored=None, head_epochs=0)
    assert compute(pictures((planes, 9, 9)), settings).settings["mirrored"] is mirrored


def test_images_are_cut_to_their_middle():
    images = as_images(pictures((3, 9, 12), n=4), "patches", 3)
    cut, whole = squares(images), images.x_train.reshape(-1, 3, 9, 12)
    assert cut.shape == (3, 9, 9)
    np.testing.assert_array_equal(cut.x_train.reshape(-1, 3, 9, 9), whole[..., 1:10])
    assert squares(cut) is cut
    assert compute(pictures((3, 12, 9))).names


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
        (pictures(), Settings(dictionaries=(8192,)), InputError, "8192 patches with 2×2 windows are 65,536 features"),
        (pictures(), Settings(dictionaries=(1024,), grid=99), InputError, "1024 patches with 6×6 windows are 73,728"),
    ],
)
def test_what_cannot_be(data, settings, error, words):
    with pytest.raises(error, match=words):
        compute(data, settings)


@pytest.mark.parametrize(
    "change",
    [{"dictionaries": (0,)}, {"dictionaries": ()}, {"size": 0}, {"whitening": 0.0}, {"threshold": -0.1}, {"grid": 0}],
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
