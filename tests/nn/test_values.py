"""Targets of floats, and weights of samples."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, GpunetError, InputError, ShapeError
from gpunet.nn.samples import Samples

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 6))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2], X[:, 3] - 2], axis=1)
LABELS = np.arange(40) % 3
WEIGHTS = RNG.integers(0, 3, 40).astype(float)


def made(device="numpy", outputs=3, loss="squared_error", optimizer=None, last=None, reduction="mean"):
    kinds = {"squared_error": gn.SquaredError, "softmax_cross_entropy": gn.SoftmaxCrossEntropy,
             "binary_cross_entropy": gn.BinaryCrossEntropy}  # fmt: skip
    model = gn.Sequential([gn.Dense(7, "sigmoid"), gn.Dense(outputs, last)])
    return gn.Trainer(model, kinds[loss](reduction), optimizer or gn.SGD(0.1), device=device, dtype="float64")


def flat(trainer):
    return np.array(trainer.backend.to_host(trainer.model.flat[0]))


def by_hand(x, y, weights, steps, rate=0.1):
    """Gradient descent on Σ w ½‖f(x) − y‖² / n of the same net, with NumPy alone."""
    start = made()
    start.prepare((6,))
    w1, b1, w2, b2 = (np.array(p) for p in start.model.parameters.values())
    n, w = len(x), np.ones(len(x)) if weights is None else weights
    for _ in range(steps):
        h = 1 / (1 + np.exp(-(x @ w1.T + b1)))
        dz = w[:, None] * (h @ w2.T + b2 - y) / n
        dh = (dz @ w2) * h * (1 - h)
        w2, b2, w1, b1 = w2 - rate * dz.T @ h, b2 - rate * dz.sum(0), w1 - rate * dh.T @ x, b1 - rate * dh.sum(0)
    return {"0.weight": w1, "0.bias": b1, "2.weight": w2, "2.bias": b2}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
def test_the_trainer_descends_the_squared_error_of_values(backend, weights):
    trainer = made(backend)
    history = trainer.fit(X, Y, epochs=4, batch_size=40, shuffle=False, sample_weight=weights, validation_data=(X, Y))
    for name, expected in by_hand(X, Y, weights, 4).items():
        np.testing.assert_allclose(trainer.backend.to_host(trainer.model.parameters[name]), expected, atol=1e-12)
    assert set(history.epochs[-1]) == {"train_loss", "seconds", "validation_loss"}
    own = 0.5 * ((trainer.outputs(X) - Y) ** 2).sum(axis=1).mean()
    assert trainer.evaluate(X, Y) == {"loss": pytest.approx(own)}
    assert history["validation_loss"][-1] == pytest.approx(own)
    np.testing.assert_array_equal(trainer.predict(X), trainer.outputs(X))


@pytest.mark.parametrize("last", [None, "relu", "sigmoid"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_of_values(backend, last, reduction):
    table = gn.gradient_check(
        made(last=last).model, gn.SquaredError(reduction), X[:6], Y[:6], device=backend, seed=1, step=1e-5
    )
    assert table.relative_error < 1e-7


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("shape", [(40, 1), (40,)])
def test_a_column_of_one_output_may_be_flat(backend, dtype, shape):
    y = Y[:, :1].astype(dtype).reshape(shape)
    one, other = made(backend, 1), made(backend, 1)
    one.fit(X, y, epochs=2, batch_size=7)
    other.fit(X, y.astype("float64").reshape(40, 1), epochs=2, batch_size=7)
    np.testing.assert_array_equal(flat(one), flat(other))
    assert one.predict(X).shape == (40, 1)


def test_integers_are_classes_and_stay_so():
    trainer = made()
    assert trainer.fit(X, LABELS)["train_accuracy"]
    assert trainer.fit(X, LABELS.astype(float))["train_accuracy"]  # whole numbers, and the model has three outputs
    assert trainer.predict(X).shape == (40,)
    with pytest.raises(InputError, match="y holds values, and the model was trained on classes"):
        trainer.evaluate(X, Y)
    other = made(outputs=1)
    other.fit(X, Y[:, 0])
    with pytest.raises(InputError, match="y holds classes, and the model was trained on values"):
        other.evaluate(X, LABELS % 2)
    other.fit(X, LABELS % 2)  # to train it on classes from now on is nobody's mistake
    assert other.predict(X).shape == (40,)
    with pytest.raises(DataError, match=r"values to be learned are floats: y.astype\(float\)"):
        other.fit(X, LABELS - 30)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (Y[:, :2], ShapeError, r"y has shape \(40, 2\), and the model 3 outputs"),
        (Y[:20], DataError, "40 samples and 20 labels"),
        (Y[:, 0], ShapeError, r"y has shape \(40, 1\), and the model 3 outputs"),
        (np.where(Y[7, 1] == Y, np.nan, Y), DataError, "nan"),
        (np.where(Y[7, 1] == Y, np.inf, Y), DataError, "inf"),
        (Y[..., None], ShapeError, "shape"),
        (Y.astype(complex), GpunetError, "shape"),
        (Y.astype(str), GpunetError, "shape"),
        (np.float64(3), GpunetError, "shape"),
    ],
)
def test_targets_that_do_not_fit_are_refused_in_one_line(y, error, message):
    trainer = made()
    with pytest.raises(error, match=message) as found:
        trainer.fit(X, y)
    assert "\n" not in str(found.value)
    assert trainer.model.learned is None


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
def test_other_losses_take_classes_alone(loss):
    trainer = made(loss=loss, last="sigmoid" if loss[0] == "b" else None)
    with pytest.raises(DataError, match="labels have shape"):
        trainer.fit(X, Y)
    samples = made().samples(X, Y)
    with pytest.raises(InputError, match="these Samples hold targets of shape"):
        trainer.evaluate(samples)
    with pytest.raises(InputError, match="not float32"):
        gn.Trainer(gn.Sequential([gn.Dense(3)]), "squared_error", device="numpy").evaluate(samples)


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy", "binary_cross_entropy"])
def test_a_weight_counts_as_so_many_samples(backend, loss):
    """Weights 0, 1 and 2 are samples left out, and given once or twice: of a sum, the same gradient."""
    last = "sigmoid" if loss[0] == "b" else None
    y = Y if loss == "squared_error" else LABELS
    rows = np.repeat(np.arange(40), WEIGHTS.astype(int))
    one, other = (made(backend, loss=loss, last=last, reduction="sum", optimizer=gn.SGD(0.01)) for _ in range(2))
    one.fit(X, y, epochs=3, batch_size=40, sample_weight=WEIGHTS)
    other.fit(X[rows], y[rows], epochs=3, batch_size=len(rows))
    np.testing.assert_allclose(flat(one), flat(other), atol=1e-12)
    same, usual = (made(backend, loss=loss, last=last) for _ in range(2))
    same.fit(X, y, epochs=2, batch_size=16, sample_weight=np.ones(40))
    usual.fit(X, y, epochs=2, batch_size=16)
    np.testing.assert_allclose(flat(same), flat(usual), atol=1e-14)


def test_samples_keep_their_weights_and_targets():
    trainer, other = made(), made()
    samples = trainer.samples(X, Y, sample_weight=WEIGHTS)
    trainer.fit(samples, epochs=2, batch_size=16)
    other.fit(X, Y, epochs=2, batch_size=16, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(flat(trainer), flat(other))
    few = samples.spaced(10)
    np.testing.assert_array_equal(few.weights, WEIGHTS[::4])
    np.testing.assert_array_equal(few.labels, Y[::4])
    assert samples.valued
    with pytest.raises(InputError, match="hold their own labels"):
        trainer.fit(samples, sample_weight=WEIGHTS)
    assert Samples.of(trainer.backend, X, None, None, weights=WEIGHTS).weights is not None


@pytest.mark.parametrize(
    ("weights", "message"),
    [(WEIGHTS[:9], "shape"), (-WEIGHTS, "that of row .* ≥ 0"), (0 * WEIGHTS, "all 0"), (WEIGHTS * np.nan, "nan"),
     (WEIGHTS[:, None], "shape"), ("1", "dtype"), (3, "shape"), (WEIGHTS.astype(complex), "complex")],
)  # fmt: skip
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(GpunetError, match=message):
        made().fit(X, Y, sample_weight=weights)
    for whole in ([1] * 40, np.ones(40, bool), np.ones(40, "uint8")):
        made().fit(X, Y, sample_weight=whole)


def test_a_run_with_targets_and_weights_is_resumed_bit_for_bit(tmp_path):
    class Stop(gn.Callback):
        def on_step(self, trainer, step):
            raise KeyboardInterrupt

        def steps(self, total):
            return [5]

    options = {"epochs": 4, "batch_size": 16, "sample_weight": WEIGHTS}
    whole, halted = made(optimizer=gn.Adam(0.01)), made(optimizer=gn.Adam(0.01))
    whole.fit(X, Y, **options)
    with pytest.raises(KeyboardInterrupt):
        halted.fit(X, Y, checkpoint=tmp_path, checkpoint_every=1 / 3, callbacks=Stop(), **options)
    again = made(optimizer=gn.Adam(0.01))
    with pytest.raises(InputError, match="data"):
        again.fit(X, Y, checkpoint=tmp_path, checkpoint_every=1 / 3, resume=True, callbacks=Still(),
                  **options | {"sample_weight": WEIGHTS + 1})  # fmt: skip
    again = made(optimizer=gn.Adam(0.01))
    again.fit(X, Y, checkpoint=tmp_path, checkpoint_every=1 / 3, resume=True, callbacks=Still(), **options)
    np.testing.assert_array_equal(flat(again), flat(whole))
    assert gn.load(tmp_path / "checkpoint.safetensors", "numpy").learned.y == "values"


class Still(gn.Callback):
    def steps(self, total):
        return [5]


Still.__name__ = "Stop"


def test_recorded_steps_take_targets_and_weights():
    from .recording import Counting

    trainers = []
    for graphs in ("auto", "off"):
        model = gn.Sequential([gn.Dense(7, "sigmoid"), gn.Dense(3)])
        trainer = gn.Trainer(model, "squared_error", "adam", device=Counting(), graphs=graphs)
        samples = trainer.samples(X, Y, sample_weight=WEIGHTS)
        trainer.fit(samples, epochs=3, batch_size=8)
        trainers.append(trainer)
        assert bool(trainer.graphs.recordings) is (graphs == "auto")
    np.testing.assert_array_equal(*(flat(each) for each in trainers))
    copied = copy.deepcopy(trainers[1])
    for each in (copied, trainers[1]):
        each.fit(X, Y, epochs=1, batch_size=8)
    np.testing.assert_array_equal(flat(copied), flat(trainers[1]))


def test_compressing_a_model_of_values_wants_a_function():
    trainer = made(device="cpu")
    trainer.fit(X, Y)
    with pytest.raises(InputError, match="y holds values: give evaluate a function of the model"):
        gn.compress(trainer.model, X, max_drop=0.1, evaluate=(X, Y))
