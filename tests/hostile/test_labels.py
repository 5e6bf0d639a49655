"""Labels that the model has no output for, or that are missing: said at every door, and harmless in every kernel."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.base import FIRST_BAD, LOSS_SUM
from gpunet.errors import DataError, InputError
from tests.conftest import make_backend

X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
Y = np.arange(60) % 3


def trainer(device, *layers, loss="softmax_cross_entropy", **options):
    return gn.Trainer(gn.Sequential(layers or [gn.Dense(3)]), loss, device=device, **options)


def wide(device, labels=Y * 40):
    return trainer(device, gn.Dense(100)).samples(X, labels)


LABELLED = {
    "fit": lambda t, x, y: t.fit(x, y),
    "fit on a model that has learned": lambda t, x, y: (t.fit(X, Y), t.fit(x, y)),
    "validation_data": lambda t, x, y: t.fit(X, Y, validation_data=x if y is None else (x, y)),
    "evaluate": lambda t, x, y: t.evaluate(x, y),
}


@pytest.mark.parametrize("door", LABELLED)
@pytest.mark.parametrize("given", ["arrays", "Samples of a wider model"])
def test_labels_beyond_the_outputs_are_refused(backend, door, given):
    learner = trainer(backend)
    x, y = (X, Y * 40) if given == "arrays" else (wide(backend), None)
    with pytest.raises(DataError, match=r"label (40|80).* is out of range: expected 0 to 2"):
        LABELLED[door](learner, x, y)
    assert learner.fit(X, Y)["train_loss"]


@pytest.mark.parametrize("door", LABELLED)
def test_samples_without_labels_are_for_predictions_alone(backend, door):
    learner = trainer(backend)
    data = learner.samples(X)
    assert data.labels is None
    np.testing.assert_array_equal(learner.predict(data), learner.predict(X))
    np.testing.assert_array_equal(learner.outputs(data), learner.outputs(X))
    with pytest.raises(InputError, match="has no labels: give x and y, or Samples made of both"):
        LABELLED[door](learner, data, None)


def test_predictions_need_no_labels_that_fit(backend):
    learner = trainer(backend)
    np.testing.assert_array_equal(learner.predict(wide(backend)), learner.predict(X))


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "squared_error"])
@pytest.mark.parametrize("door", LABELLED)
def test_one_output_tells_0_from_1(loss, door):
    learner = trainer("numpy", gn.Dense(1, "sigmoid"), loss=loss)
    with pytest.raises(DataError, match=r"label 2.* is out of range: expected 0 to 1"):
        LABELLED[door](learner, trainer("numpy").samples(X, Y), None)
    with pytest.raises(DataError, match="label 2 in row 2 is out of range: expected 0 to 1"):
        learner.fit(X, Y)
    assert learner.fit(X, Y % 2, validation_data=trainer("numpy").samples(X, Y % 2))["validation_loss"]


@pytest.mark.parametrize("labels", [Y % 2, Y * 0])
def test_softmax_of_one_output_names_the_loss_to_use(backend, labels):
    learner = trainer(backend, gn.Dense(1))
    for door in (learner.fit, learner.evaluate, learner.samples):
        with pytest.raises(InputError, match=r"loss='binary_cross_entropy'.*Dense\(1, 'sigmoid'\)"):
            door(X, labels)
    assert not learner.model.built


def test_gradient_check_looks_at_labels_too():
    model = gn.Sequential([gn.Dense(3)])
    for x, y in ((X[:6], Y[:6] + 1), (wide("numpy"), None)):
        with pytest.raises(DataError, match=r"gradient check.*expected 0 to 2"):
            gn.gradient_check(model, "softmax_cross_entropy", x, y)
    with pytest.raises(InputError, match="gradient check has no labels"):
        gn.gradient_check(model, "softmax_cross_entropy", X[:6], None)
    with pytest.raises(InputError, match="binary_cross_entropy"):
        gn.gradient_check(gn.Sequential([gn.Dense(1)]), "softmax_cross_entropy", X[:6], Y[:6] % 2)


def test_the_guard_looks_at_some_of_the_labels():
    learner = trainer("numpy")
    learner.fit(np.tile(X, (40, 1)), np.tile(Y, 40), callbacks=[gn.DivergenceGuard()])
    with pytest.raises(DataError, match="expected 0 to 2"):
        learner.fit(wide("numpy"), callbacks=[gn.DivergenceGuard()])


def test_samples_of_another_device_or_dtype():
    data = trainer("numpy").samples(X, Y)
    assert trainer("cpu").evaluate(data)
    with pytest.raises(InputError, match="evaluation data: these Samples lie on cpu, the model on cuda:0"):
        trainer(make_backend("cuda-host")).evaluate(data)
    x = X.astype("float64")
    x[7, 2] = 1e300
    data = trainer("numpy", dtype="float64").samples(x, Y)
    for door in ("fit", "evaluate", "predict", "outputs"):
        with pytest.raises(DataError, match=r"row 7, feature 2, is 1e\+300 in float64, beyond float32"):
            getattr(trainer("numpy"), door)(data)
    assert trainer("numpy").fit(trainer("numpy", dtype="float64").samples(X.astype("float64"), Y))


# -- labels that changed after they were checked ----------------------------------------------------------------------


NONE = [-1, 3, 1000, 10**12, -(2**63), 2**63 - 1]


@pytest.mark.parametrize("label", NONE)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "squared_error"])
def test_no_kernel_writes_where_a_label_points(backend, loss, outputs, label):
    if loss == "softmax_cross_entropy" and outputs == 1:
        pytest.skip("refused before")
    room = backend.zeros((64, outputs), "float32")
    z, labels, totals = room[16:32], backend.zeros(16, "int64"), backend.asarray(np.array([0.0, 0, 0, -1]))
    dz = backend.zeros((64, outputs), "float32")
    backend.copy(7, dz)
    backend.copy(label, labels[5:6])
    call = getattr(backend, loss), (*(("sigmoid",) if loss == "squared_error" else ()), z, labels, 1.0, dz[16:32])
    if backend.name == "cpu":
        with pytest.raises(
            DataError, match=f"label {label} of sample 5 of a batch: expected 0 to {max(outputs, 2) - 1}"
        ):
            call[0](*call[1], totals)
    else:
        call[0](*call[1], totals)
        assert np.isnan(backend.to_host(totals)[LOSS_SUM])
        assert backend.to_host(totals)[FIRST_BAD] == 0
    around = np.delete(backend.to_host(dz), np.s_[16:32], axis=0)
    assert (around == 7).all()
    assert (backend.to_host(room) == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_gather_takes_rows_that_are_there(backend, dtype):
    data = backend.asarray(np.arange(12).reshape(4, 3).astype(dtype))
    order, out = backend.asarray(np.array([3, -7, 99, 1, 2**62, -(2**63)])), backend.zeros((6, 3))
    backend.gather(data, order, backend.zeros(1, "int64"), 1, out)
    np.testing.assert_array_equal(backend.to_host(out)[:, 0], [9, 0, 9, 3, 9, 0])


def test_training_on_labels_that_were_overwritten_is_noticed(backend):
    learner = trainer(backend)
    data = learner.samples(X, Y)
    learner.fit(data)
    backend.copy(99, data.labels[:1])
    with pytest.raises((DataError, gn.errors.DivergedError)):
        learner.fit(data)
