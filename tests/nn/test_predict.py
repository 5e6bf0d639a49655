"""model.predict and model.outputs: what the trainer's give, of a model that may have come from anywhere."""

import copy

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, DivergedError, InputError, ShapeError
from gpunet.nn.samples import Samples
from gpunet.testing import StrictBackend

N = 57
X = np.random.default_rng(0).standard_normal((N, 6))
Y = np.arange(N) % 3


def fitted(*layers, x=X, y=Y, **options):
    model = gn.Sequential([*layers, gn.Dense(options.pop("units", 3), options.pop("activation", None))])
    trainer = gn.Trainer(model, device=options.pop("device", "cpu"), **options)
    trainer.fit(x, y, epochs=3)
    return model, trainer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [1, 10, 57, 1000])
def test_they_are_the_models_own_arithmetic(dtype, batch_size):
    model, _ = fitted(gn.Dense(8, "relu"), gn.Dropout(0.5), dtype=dtype)
    weights = [np.asarray(p, np.float64) for p in model.parameters.values()]
    expected = np.maximum(X @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]
    found = model.outputs(X, batch_size=batch_size)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)
    classes = model.predict(X, batch_size=batch_size)
    assert classes.dtype == np.int64
    assert np.array_equal(classes, expected.argmax(axis=1))


@pytest.mark.parametrize("device", ["numpy", "cpu", StrictBackend()], ids=["numpy", "cpu", "strict"])
def test_they_are_the_trainers(device):
    model, trainer = fitted(gn.Dense(8, "relu"), device=device)
    for x in (X, X.astype("float32"), X.tolist(), trainer.samples(X), trainer.samples(X, Y)):
        assert np.array_equal(model.outputs(x), trainer.outputs(x))
        assert np.array_equal(model.predict(x), trainer.predict(x))


def test_one_output_and_values():
    model, trainer = fitted(y=Y % 2, units=1, activation="sigmoid", loss="binary_cross_entropy")
    assert set(model.predict(X)) <= {0, 1}
    assert np.array_equal(model.predict(X), (model.outputs(X)[:, 0] > 0.5).astype(int))
    assert np.array_equal(model.predict(X), trainer.predict(X))
    values = X @ np.ones((6, 2)) / 3
    model, trainer = fitted(y=values, units=2, loss="squared_error")
    assert model.predict(X).shape == (N, 2)
    assert np.array_equal(model.predict(X), model.outputs(X))
    assert np.array_equal(model.predict(X), trainer.predict(X))


def test_pixels_mean_what_they_meant_in_training():
    pixels = np.random.default_rng(1).integers(0, 256, (N, 6), dtype=np.uint8)
    model, _ = fitted(x=pixels / 255)
    of_bytes = gn.Sequential([gn.Dense(3)], scale=1 / 255)
    gn.Trainer(of_bytes, device="cpu").fit(pixels, Y)
    found = of_bytes.outputs(pixels)
    w, b = (np.asarray(p, np.float64) for p in of_bytes.parameters.values())
    np.testing.assert_allclose(found, pixels / 255 @ w.T + b, atol=1e-5)
    with pytest.raises(InputError, match="x is float64, and the model was trained on uint8"):
        of_bytes.predict(pixels / 255)
    with pytest.raises(InputError, match="x is uint8, and the model was trained on numbers"):
        model.predict(pixels)


def test_of_a_model_that_was_loaded_copied_or_built_by_hand(tmp_path):
    model, _ = fitted(gn.Dense(8, "relu"))
    gn.save(model, tmp_path / "m.safetensors")
    for same in (gn.load(tmp_path / "m.safetensors", device="cpu"), copy.deepcopy(model)):
        assert np.array_equal(same.outputs(X), model.outputs(X))
    small = gn.compress(model, X, rank=2)
    assert small.predict(X).shape == (N,)
    own = gn.Sequential([gn.Dense(2, weight=np.eye(2, 6), bias=np.array([0.0, 1.0]))])
    own.build((6,), gn.get_backend("cpu"), dtype="float64")
    np.testing.assert_allclose(own.outputs(X), X[:, :2] + [0, 1], rtol=1e-15)
    images = gn.Sequential([gn.Conv2D(2), gn.Flatten(), gn.Dense(2)])
    images.build((1, 4, 4), gn.get_backend("cpu"))
    assert images.outputs(np.zeros((5, 1, 4, 4))).shape == (5, 2)


def test_looking_changes_nothing():
    one, other = fitted(gn.Dense(8, "relu"), gn.Dropout()), fitted(gn.Dense(8, "relu"), gn.Dropout())
    before = X.copy()
    one[0].train()
    one[0].predict(X, batch_size=13)
    assert one[0].training
    assert np.array_equal(X, before)
    for _, trainer in (one, other):
        trainer.fit(X, Y, epochs=2, batch_size=10)
    for mine, theirs in zip(one[0].parameters.values(), other[0].parameters.values(), strict=True):
        assert np.array_equal(mine, theirs)


def test_in_a_callback():
    seen = []

    class Look(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append(np.array_equal(trainer.model.predict(X), trainer.predict(X)))

    model = gn.Sequential([gn.Dense(3)])
    gn.Trainer(model, device="cpu").fit(X, Y, epochs=2, batch_size=20, callbacks=Look())
    assert seen == [True, True]


def test_mistakes():
    model, trainer = fitted()
    with pytest.raises(InputError, match="the model has no weights yet"):
        gn.Sequential([gn.Dense(3)]).predict(X)
    with pytest.raises(ShapeError, match=r"samples have shape \(5,\), the model was built for \(6,\)"):
        model.predict(X[:, :5])
    with pytest.raises(ShapeError, match=r"samples have shape \(5,\), the model was built for \(6,\)"):
        model.predict(Samples.of(gn.get_backend("cpu"), X[:, :5], None, None))
    with pytest.raises(ShapeError, match="expected \\(samples, features\\)"):
        model.predict(X[0])
    with pytest.raises(DataError, match="data row 3, feature 2, is nan"):
        model.predict(np.where(np.arange(N * 6).reshape(N, 6) == 20, np.nan, X))
    with pytest.raises(DataError, match="beyond float32"):
        model.predict(Samples.of(gn.get_backend("cpu"), X * 1e200, None, None))
    with pytest.raises(InputError, match="batch_size is 0: expected a whole number of samples"):
        model.predict(X, batch_size=0)
    with pytest.raises(DataError, match="no samples"):
        model.predict(X[:0])
    elsewhere = Samples.of(StrictBackend(), X, None, None)
    object.__setattr__(elsewhere, "device", "cuda:0")
    with pytest.raises(InputError, match="these Samples lie on cuda:0, the model on cpu"):
        model.predict(elsewhere)
    maps = gn.Sequential([gn.Reshape((1, 2, 3))])
    maps.build((6,), gn.get_backend("cpu"))
    with pytest.raises(ShapeError, match="expected a row of outputs"):
        maps.outputs(X)
    model.parameters["0.weight"][:] = 3e38
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match="sample 0 has outputs that are NaN"):
        model.predict(np.array([[1e5, -1e5, 0, 0, 0, 0]]))
    assert trainer.model is model
