"""gn.Classifier and gn.Regressor: labels, weights, units, and what scikit-learn does with them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpunet as gn
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import DivergedError, InputError
from gpunet.estimators.network import moments
from gpunet.testing import StrictBackend

QUICK = {"epochs": 20, "learning_rate": 0.02, "device": "cpu"}
CODES = np.repeat([1, 0, 2], 30)
TEXTS = np.array(["b", "a", "ç d"])[np.repeat([0, 1, 2], 30)]


@pytest.fixture
def x(rng):
    """Three classes whose features have very different sizes."""
    return (rng.normal(size=(90, 4)) + np.repeat(np.eye(3, 4) * 4, 30, axis=0)) * [1, 1e4, 1e-4, 1] + [0, 1e5, 0, 7]


def classifier(**options):
    return gn.Classifier((16,), **QUICK | options)


def regressor(**options):
    return gn.Regressor((16,), **QUICK | options)


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (CODES, [0, 1, 2]), (CODES + 1, [1, 2, 3]), (CODES.astype(float), [0, 1, 2]), (TEXTS, ["a", "b", "ç d"]),
        (TEXTS.astype(object), ["a", "b", "ç d"]), (TEXTS.tolist(), ["a", "b", "ç d"]), (np.eye(3)[CODES], [0, 1, 2]),
        (np.eye(3, dtype=bool)[CODES].tolist(), [0, 1, 2]),
    ],
    ids=["numbers", "from 1", "floats", "texts", "objects", "list", "one-hot", "one-hot list"],
)  # fmt: skip
def test_labels(x, y, classes):
    net = classifier().fit(x, y)
    assert net.classes_.tolist() == classes
    assert net.score(x, y) > 0.95
    np.testing.assert_array_equal(net.predict(x), net.classes_[classifier().fit(x, CODES).predict(x)])


def test_two_classes(x):
    for y in (CODES == 1, np.where(CODES == 1, 1, -1)):
        net = classifier().fit(x, y)
        assert net.classes_.tolist() == np.unique(y).tolist()
        assert net.score(x, y) > 0.95
        assert net.predict(x).dtype == net.classes_.dtype


def test_a_column_is_told_and_taken(x):
    with pytest.warns(Warning, match="A column-vector y was passed"):
        assert classifier().fit(x, TEXTS[:, None]).score(x, TEXTS) > 0.95


def test_probabilities_are_the_softmax_of_the_outputs(x):
    net = classifier().fit(x, CODES)
    z = net.trainer_.outputs(((x - net.mean_) / net.scale_).astype("float32")).astype(np.float64)
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(x), expected, atol=1e-12)
    np.testing.assert_allclose(net.predict_log_proba(x), np.log(expected), atol=1e-9)


def test_labels_that_are_refused(x):
    several = np.eye(3)[CODES]
    several[7, :2] = 1
    with pytest.raises(InputError, match="y has 2 labels in row 7: expected one label a sample"):
        classifier().fit(x, several)
    with pytest.raises(InputError, match="y has 1 class, 'a': expected at least 2 classes"):
        classifier().fit(x[:3], ["a"] * 3)
    with pytest.raises(InputError, match=r"Unknown label type: .* For values use gn\.Regressor\.$"):
        classifier().fit(x, x[:, 0])
    with pytest.raises(InputError, match="Complex data not supported"):
        classifier().fit(x, CODES * 1j)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_a_sample_of_weight_0_is_left_out(x):
    weights = np.where(np.arange(90) % 3, 1.5, 0)
    some = weights > 0
    for net, y in ((classifier(), CODES), (regressor(), x[:, 0])):
        out = clone(net).fit(x[some], y[some])
        np.testing.assert_array_equal(net.fit(x, y, sample_weight=weights).predict(x), out.predict(x))


def test_class_weights_are_sample_weights(x, rng):
    y = rng.permutation(CODES)
    balanced = classifier(class_weight="balanced").fit(x[20:], y[20:])
    counts = np.bincount(y[20:])
    like = classifier().fit(x[20:], y[20:], sample_weight=(70 / 3 / counts)[y[20:]])
    np.testing.assert_allclose(balanced.predict_proba(x), like.predict_proba(x), atol=1e-5)
    only = classifier(class_weight={0: 1e4, 1: 1e-3, 2: 1e-3}).fit(x, y)
    assert (only.predict(x) == 0).mean() > 0.8
    texts = classifier(class_weight={"a": 1e4, "b": 1e-3, "ç d": 1e-3}).fit(x, rng.permutation(TEXTS))
    assert (texts.predict(x) == "a").mean() > 0.8


def test_class_weights_of_some_classes(x, rng):
    y = rng.permutation(TEXTS)
    some = classifier(class_weight={"b": 5}).fit(x, y)
    like = classifier().fit(x, y, sample_weight=np.where(y == "b", 5, 1))
    np.testing.assert_array_equal(some.predict_proba(x), like.predict_proba(x))
    without = classifier(class_weight={"b": 0}).fit(x, y)
    assert without.classes_.tolist() == ["a", "b", "ç d"]
    assert (without.predict(x) != "b").all()
    for wrong, message in (
        ({"b": 5, "z": 1}, "class_weight has the label 'z': expected some of the classes"),
        ({"b": -1}, "class_weight of 'b' cannot be -1"), ("foo", "class_weight is 'foo': expected {label: weight}"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            classifier(class_weight=wrong).fit(x, y)
        with pytest.raises(InputError, match=message):
            classifier(class_weight=wrong).partial_fit(x[:2], y[:2], classes=["a", "b", "ç d"])


def test_weights_of_batches_keep_their_size(x):
    """By plain SGD on units that are given, a sample of weight 50 is a step 50 times as long."""
    options = {"optimizer": "sgd", "learning_rate": 1e-3, "standardize": False, "dtype": "float64", "device": "cpu"}
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y, classes = (CODES == 1).astype(int), [0, 1]
    start = gn.Sequential([gn.Dense(2)])
    start.build((4,), gn.get_backend("cpu"), dtype="float64", seed=0)
    start = np.array(start.parameters["0.weight"])
    moved = {}
    for weight in (None, {1: 50}, {0: 3}):
        net = gn.Classifier((), class_weight=weight, **options).partial_fit(x[:1], y[:1], classes=classes)
        moved[str(weight)] = net.model_.parameters["0.weight"] - start
    assert y[0] == 1
    np.testing.assert_allclose(moved["{1: 50}"], 50 * moved["None"], atol=1e-12)
    np.testing.assert_array_equal(moved["{0: 3}"], moved["None"])
    weighted = gn.Classifier((), **options).partial_fit(x[:1], y[:1], classes=classes, sample_weight=[50])
    np.testing.assert_allclose(weighted.model_.parameters["0.weight"] - start, 50 * moved["None"], atol=1e-12)
    with pytest.raises(InputError, match="class_weight is 'balanced', and partial_fit does not know all samples"):
        gn.Classifier(class_weight="balanced").partial_fit(x, y)


def test_weights_are_the_gradients_factor(x):
    """One step of SGD on the whole data, beside the gradient by NumPy."""
    y = x[:, 0]
    weights = np.linspace(0.1, 3, 90)
    net = gn.Regressor(
        (), optimizer="sgd", learning_rate=0.5, epochs=1, batch_size=90, dtype="float64", device="cpu", patience=None
    ).fit(x, y, sample_weight=weights)
    w = weights / weights.sum()
    mean, target = w @ x, (y - w @ y) / np.sqrt(w @ (y - w @ y) ** 2)
    units = (x - mean) / np.sqrt(w @ (x - mean) ** 2)
    np.testing.assert_allclose(net.mean_, mean, rtol=1e-12)
    fresh = gn.Sequential([gn.Dense(1)])
    fresh.build((4,), gn.get_backend("cpu"), dtype="float64", seed=0)
    start = np.array(fresh.parameters["0.weight"])
    slopes = (units @ start.T)[:, 0] - target
    np.testing.assert_allclose(net.model_.parameters["0.weight"], start - 0.5 * (w * slopes) @ units, atol=1e-12)
    np.testing.assert_allclose(net.model_.parameters["0.bias"], -0.5 * w @ slopes, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(90), "sample_weight of row 0 is -1.0: expected finite numbers"),
        (np.ones(90) * 1j, "Complex data not supported: sample_weight"),
        (np.zeros(90), "(at least one non-zero|sample_weight is 0 for all)"),  # scikit-learn 1.9's words, or ours
    ],
)
def test_weights_that_are_refused(x, weights, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, CODES, sample_weight=weights)


# -- units ------------------------------------------------------------------------------------------------------------


def test_features_of_very_different_size_are_learned(x):
    assert classifier().fit(x, CODES).score(x, CODES) > 0.95
    assert classifier(standardize=False).fit(x, CODES).score(x, CODES) < 0.9
    for kind in (np.float64, np.float32):
        net = classifier().fit(x.astype(kind), CODES)
        np.testing.assert_allclose(net.mean_, x.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(net.scale_, x.std(axis=0), rtol=1e-4)


def test_moments_by_chunks(x, monkeypatch):
    monkeypatch.setattr("gpunet.estimators.base.CHUNK_BYTES", 8 * 4 * 7)
    weights = np.linspace(0.1, 2, 90)
    x[:, 3] = 1e6
    for w in (None, weights):
        mean, scale = moments(x, w)
        np.testing.assert_allclose(mean, np.average(x, axis=0, weights=w), rtol=1e-13)
        deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))
        np.testing.assert_allclose(scale[:3], deviation[:3], rtol=1e-12)
        assert scale[3] == 1


@pytest.mark.parametrize("value", [0.1, -1e6 / 3, 1e-300, 0.0])
def test_constants_of_any_length(value, rng):
    """Beside StandardScaler's, whose weighted sums see that 0.1 is 0.1 in each of 100,000 rows."""
    x = np.c_[np.full(100_000, value), 1e3 + rng.normal(size=100_000)]
    for w in (None, rng.random(100_000)):
        mean, scale = moments(x, w)
        like = StandardScaler().fit(x, sample_weight=w)
        assert (mean[0], scale[0]) == (value, like.scale_[0]) == (value, 1)
        np.testing.assert_allclose([mean[1], scale[1]], [like.mean_[1], like.scale_[1]], rtol=1e-9)
    net = gn.Regressor((), epochs=1, batch_size=100_000, device="cpu").fit(x[:, 1:], x[:, 0])
    assert net.y_scale_.tolist() == [1]
    np.testing.assert_array_equal(moments(sparse.csr_array(x), None), moments(x, None))


def test_pixels_are_divided_by_255_whatever_their_dtype_is_later():
    data = gn.datasets.load("digits")
    net = classifier().fit(data.x_train, data.y_train)
    assert net.mean_ is None
    assert net.model_.scale == 1 / 255
    assert net.score(data.x_test, data.y_test) > 0.9
    for kind in (np.float32, np.int64):
        np.testing.assert_array_equal(net.predict(data.x_test.astype(kind)), net.predict(data.x_test))
    np.testing.assert_array_equal(net.predict(sparse.csr_array(data.x_test)), net.predict(data.x_test))
    raw = classifier(standardize=False).fit(data.x_train, data.y_train)
    assert raw.model_.scale == 1


def test_values_come_back_in_their_own_units(rng):
    x = rng.normal(size=(200, 3))
    y = np.stack([1e6 * x[:, 0] + 5e6, 1e-6 * x[:, 1]], axis=1)
    net = regressor(epochs=60).fit(x, y)
    assert net.predict(x).shape == (200, 2)
    assert net.score(x, y) > 0.95
    assert regressor().fit(x, y[:, 0]).predict(x).shape == (200,)
    assert regressor().fit(x, y[:, :1]).predict(x).shape == (200, 1)
    np.testing.assert_allclose(net.y_mean_, y.mean(axis=0), rtol=1e-12)
    constant = regressor().fit(x, np.full(200, 3.5))
    np.testing.assert_allclose(constant.predict(x), 3.5, atol=0.2)


def test_a_data_set_of_the_field():
    x, y = load_diabetes(return_X_y=True)
    assert cross_val_score(gn.Regressor((16,), l2=1e-2, epochs=40, device="cpu"), x, y, cv=3).mean() > 0.4


def test_what_float64_cannot_square(x, rng):
    for unit in (1e-200, 1e200):
        normal = rng.normal(size=(90, 4))
        net, like = classifier().fit(normal * unit, CODES), classifier().fit(normal, CODES)
        np.testing.assert_allclose(net.scale_, unit * normal.std(axis=0), rtol=1e-12)
        np.testing.assert_allclose(net.predict_proba(normal * unit), like.predict_proba(normal), atol=1e-5)
        values = regressor().fit(normal, normal[:, 0] * unit)
        np.testing.assert_allclose(values.y_scale_, unit * normal[:, 0].std(), rtol=1e-12)
        learned = regressor().fit(normal, normal[:, 0]).predict(normal)
        np.testing.assert_allclose(values.predict(normal) / unit, learned, atol=1e-5)
        expected = r2_score(normal[:, 0], learned)
        assert values.score(normal, normal[:, 0] * unit) == pytest.approx(expected, abs=1e-5)
    x[[0, 3], 1] = 1.7e308, -1.7e308
    with pytest.raises(InputError, match="the differences in column 1 of X overflow float64"):
        classifier().fit(x, CODES)
    with pytest.raises(InputError, match="the differences in column 0 of y overflow float64"):
        regressor().fit(x[:, :1], x[:, 1])
    for y in (np.zeros(90, [("a", "f4")]), np.arange(90).astype("m8[s]")):
        with pytest.raises(InputError, match=r"y has dtype .*: expected real numbers"):
            regressor().fit(x, y)
    with pytest.raises(InputError, match="y is a sparse csr_array: expected a dense array"):
        regressor().fit(x, sparse.csr_array(x[:, :1]))


# -- data from elsewhere ----------------------------------------------------------------------------------------------


def test_tensors_frames_lists_and_sparse(x, monkeypatch):
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    like = classifier().fit(x, CODES).predict_proba(x)
    tensor = torch.tensor(np.repeat(x, 2, axis=1), requires_grad=True)[:, ::2]
    np.testing.assert_array_equal(classifier().fit(tensor, torch.tensor(CODES)).predict_proba(tensor), like)
    np.testing.assert_array_equal(classifier().fit(x.tolist(), CODES.tolist()).predict_proba(x.tolist()), like)
    frame = pandas.DataFrame(x, columns=list("abcd"))
    net = classifier().fit(frame, pandas.Series(TEXTS))
    assert net.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(net.predict_proba(frame), like)
    one_hot = pandas.get_dummies(pandas.Series(TEXTS))
    assert classifier().fit(frame, one_hot).score(frame, one_hot) > 0.95
    monkeypatch.setattr("gpunet.estimators.base.CHUNK_BYTES", 8 * 4 * 7)
    net = classifier().fit(sparse.csc_array(x), CODES)
    np.testing.assert_allclose(net.predict_proba(sparse.coo_array(x)), like, atol=1e-4)
    values = regressor().fit(torch.tensor(x), torch.tensor(x[:, 0], requires_grad=True))
    np.testing.assert_array_equal(values.predict(x), regressor().fit(x, x[:, 0]).predict(x))


def test_what_takes_more_than_the_memory_is_refused_before(x, monkeypatch):
    monkeypatch.setattr("gpunet.estimators.base.physical_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"X of shape \(90, 4\), .*, takes 1,440 bytes, .* has 1,000: give some rows"):
        classifier().fit(x, CODES)


# -- layers, first weights, ends --------------------------------------------------------------------------------------


def test_what_takes_a_model_says_where_an_estimator_has_its_own(x, tmp_path):
    for net in (gn.Classifier(), gn.Classifier((3,), epochs=1).fit(x, np.arange(len(x)) % 3), gn.Regressor()):
        with pytest.raises(
            InputError, match=r"expected gn.Sequential\(\[...\]\); once it is fitted, pass its .model_$"
        ):
            gn.save(net, tmp_path / "net.safetensors")


def test_layers_of_ones_own():
    data = gn.datasets.load("digits")
    layers = [gn.Reshape((1, 8, 8)), gn.Conv2D(4, 3, "relu"), gn.Flatten(), 16]
    for hidden in (layers, lambda: layers):
        net = gn.Classifier(hidden, **QUICK | {"epochs": 2}).fit(data.x_train[:300], data.y_train[:300])
        assert [type(each).__name__ for each in net.model_.layers] == ["Reshape", "Conv2D", "Flatten", "Dense", "Dense"]
        clone(net).fit(data.x_train[:300], data.y_train[:300])
    assert layers[1].owner is None
    assert len(gn.Classifier(32, **QUICK).fit(data.x_train[:99], data.y_train[:99]).model_.layers) == 2
    assert len(gn.Classifier((), **QUICK).fit(data.x_train[:99], data.y_train[:99]).model_.layers) == 1


@pytest.mark.parametrize("pixels", [True, False])
def test_first_weights_from_the_classes(pixels):
    data = gn.datasets.load("digits")
    x = data.x_train if pixels else data.x_train * 1.0
    net = gn.Classifier((20,), "sigmoid", init="class-pca", epochs=1, learning_rate=1e-9, device="cpu")
    weight = net.fit(x, data.y_train).model_.parameters["0.weight"]
    units = x / 255 if pixels else (x - net.mean_) / net.scale_
    for c in range(10):  # two vectors a class
        vt = np.linalg.svd(units[data.y_train == c], full_matrices=False)[2][:2]
        own = weight[2 * c : 2 * c + 2]
        cosines = np.abs((vt * own).sum(axis=1)) / np.linalg.norm(own, axis=1)
        np.testing.assert_allclose(cosines, 1, atol=1e-5)
    drawn = 20 * 2 / (64 + 20) * (units**2).sum(axis=1).mean()
    np.testing.assert_allclose(((units @ weight.T) ** 2).sum(axis=1).mean(), drawn, rtol=1e-4)


def test_first_weights_from_the_classes_begin_better():
    data = gn.datasets.load("digits")
    scores = {}
    for init in ("random", "class-pca"):
        net = gn.Classifier((40,), init=init, epochs=2, learning_rate=1e-3, device="cpu")
        scores[init] = net.fit(data.x_train, data.y_train).score(data.x_test, data.y_test)
    assert scores["class-pca"] > scores["random"]


def test_it_ends_when_nothing_is_gained(x):
    net = classifier(epochs=400, patience=3, tol=0.1, validation_split=0.25).fit(x, CODES)
    assert net.n_iter_ < 400
    assert net.trainer_.stopped.startswith("validation_loss")
    assert len(net.history_["validation_loss"]) == net.n_iter_
    best = min(net.history_["validation_loss"])
    assert net.history_["validation_loss"][-1] >= best
    assert classifier(epochs=400, patience=3, tol=0.1).fit(x, CODES).trainer_.stopped.startswith("train_loss")
    assert classifier(epochs=30, patience=None).fit(x, CODES).n_iter_ == 30


def test_callbacks_and_factors(x):
    watched = gn.Factorise(0.5, rank=2, layers=["0"])
    net = classifier(callbacks=[watched]).fit(x, CODES)
    assert net.score(x, CODES) > 0.9
    assert net.get_params()["callbacks"][0] is watched
    clone(net).fit(x, CODES)


# -- going on ---------------------------------------------------------------------------------------------------------


def test_warm_start_goes_on(x):
    whole = classifier(epochs=6, patience=None).fit(x, CODES)
    net = classifier(epochs=3, patience=None, warm_start=True).fit(x, CODES)
    mean = net.mean_
    assert net.fit(x, CODES).n_iter_ == 6
    assert net.mean_ is mean
    np.testing.assert_array_equal(net.predict_proba(x), whole.predict_proba(x))
    with pytest.raises(InputError, match=r"warm_start goes on with the classes \[0, 1, 2\]"):
        net.fit(x, CODES + 1)
    values = regressor(epochs=3, patience=None, warm_start=True).fit(x, x[:, 0]).fit(x, x[:, 0])
    assert values.n_iter_ == 6


def test_partial_fit_is_an_epoch(x):
    net = classifier(epochs=3, patience=None).fit(x, CODES)
    parts = classifier()
    for _ in range(3):
        parts.partial_fit(x, CODES)
    np.testing.assert_array_equal(parts.predict_proba(x), net.predict_proba(x))
    assert parts.history_["train_loss"] == net.history_["train_loss"]
    assert parts.loss_ == net.loss_


def test_classes_that_come_later(x):
    net = classifier().partial_fit(x[:60], TEXTS[:60], classes=["a", "b", "ç d"])
    assert net.partial_fit(x[60:], TEXTS[60:]).predict_proba(x).shape == (90, 3)
    with pytest.raises(InputError, match="y holds 'z': expected one of the classes"):
        net.partial_fit(x[:1], ["z"])
    with pytest.raises(InputError, match="y has no classes: expected at least 2"):
        classifier().partial_fit(x, TEXTS, classes=())
    with pytest.raises(InputError, match="at the first call: expected the same"):
        net.partial_fit(x, TEXTS, classes=["a", "b"])
    with pytest.raises(InputError, match="y has 2 outputs, and those before 1"):
        regressor().partial_fit(x, x[:, 0]).partial_fit(x, x[:, :2])


# -- in scikit-learn's hands ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_searches_pipelines_and_processes(x):
    search = GridSearchCV(
        classifier(), {"hidden_layers": [(4,), (8, 8)], "l2": [None, 1e-3], "optimizer": ["adam", gn.SGD(0.1)]}, cv=3
    )
    assert search.fit(x, TEXTS).best_score_ > 0.9
    one = cross_val_score(make_pipeline(gn.PCA(3), classifier()), x, TEXTS, cv=3)
    np.testing.assert_array_equal(
        cross_val_score(make_pipeline(gn.PCA(3), classifier()), x, TEXTS, cv=3, n_jobs=2), one
    )


def test_copies_and_pickles(x):
    for net, y in ((classifier(), TEXTS), (regressor(), x[:, 0])):
        net.fit(x, y)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):  # noqa: S301  # our own
            np.testing.assert_array_equal(other.predict(x), net.predict(x))
            other.set_params(warm_start=True, epochs=1).fit(x, y)
        assert not hasattr(clone(net), "trainer_")
        assert type(net).__name__ in net._repr_html_()


def test_random_states(x):
    first, second = (classifier(random_state=s).fit(x, CODES).predict_proba(x) for s in (1, 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(classifier(random_state=1).fit(x, CODES).predict_proba(x), first)
    state = [classifier(random_state=np.random.RandomState(5)).fit(x, CODES).predict_proba(x) for _ in "ab"]
    np.testing.assert_array_equal(*state)
    assert classifier(random_state=None).fit(x, CODES).score(x, CODES) > 0.9


def test_on_a_backend_that_is_strict(x):
    net = classifier(device=StrictBackend()).fit(x, CODES, sample_weight=np.linspace(1, 2, 90))
    assert net.score(x, CODES) > 0.9
    assert (
        regressor(device=StrictBackend()).fit(x, x[:, 0], sample_weight=np.linspace(1, 2, 90)).score(x, x[:, 0]) > 0.9
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_layers", "x", "hidden_layers hold 'x': expected units such as 64"),
        ("hidden_layers", (4, 2.5), r"hidden_layers hold 2\.5: expected units"),
        ("hidden_layers", None, "hidden_layers is None: expected a list"),
        ("activation", "nope", "activation"),
        ("optimizer", "nope", "optimizer is 'nope'"),
        ("learning_rate", -1, "learning_rate cannot be -1"),
        ("l2", -1, "l2 cannot be -1"),
        ("epochs", 0, "epochs is 0: expected a whole number"),
        ("batch_size", 0, "batch_size is 0: expected a whole number"),
        ("standardize", "yes", "standardize is 'yes': expected True or False"),
        ("validation_split", 1, "validation_split cannot be 1"),
        ("validation_split", 0.001, "of 90 samples holds out 0"),
        ("patience", 0, "patience is 0"),
        ("tol", -1, "tol cannot be -1"),
        ("callbacks", [3], "callbacks hold 3: expected callbacks"),
        ("warm_start", 1, "warm_start is 1: expected True or False"),
        ("device", "tpu", "tpu"),
        ("dtype", "int8", "dtype is 'int8'"),
        ("precision", "half", "precision is 'half': expected one of float32, mixed, tf32"),
        ("progress", 3, "progress is 3"),
        ("random_state", -1, "random_state is -1: expected a whole number ≥ 0"),
        ("random_state", "x", "random_state is 'x': expected a whole number"),
        ("init", "pca", "init is 'pca': expected one of random, class-pca"),
    ],
)
def test_settings_out_of_range(x, name, value, message):
    with pytest.raises(InputError, match=message):
        classifier().set_params(**{name: value}).fit(x, CODES)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_precision_is_the_trainers(x, make, monkeypatch):
    """A parameter as scikit-learn has them; "mixed" gives other bits than float32, and no worse an answer."""
    monkeypatch.setattr(NumpyBackend, "slow_bfloat16", "")
    monkeypatch.setattr(NumpyBackend, "least_bfloat16", 0)
    assert make().get_params()["precision"] == "float32"
    asked, y = clone(make(precision="mixed")), CODES if make is classifier else x[:, 0]
    assert (asked.precision, asked.get_params()["precision"]) == ("mixed", "mixed")
    plain, mixed = make().fit(x, y), asked.fit(x, y)
    assert (plain.trainer_.trained_in, mixed.trainer_.trained_in) == ("float32", "mixed")
    assert plain.loss_ != mixed.loss_
    assert mixed.score(x, y) == pytest.approx(plain.score(x, y), abs=0.02)
    again = pickle.loads(pickle.dumps(mixed))  # noqa: S301
    np.testing.assert_array_equal(again.predict(x), mixed.predict(x))
    with pytest.raises(InputError, match="has float32 weights, and dtype is 'float64': leave one out"):
        asked.set_params(dtype="float64").fit(x, y)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_where_mixed_precision_gains_nothing_it_says_so_and_is_float32_to_the_bit(x, make, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "slow_bfloat16", "no units")
    y = CODES if make is classifier else x[:, 0]
    with pytest.warns(UserWarning, match="training in float32, not mixed: no units"):
        found = make(precision="mixed").fit(x, y)
    assert (found.precision, found.trainer_.trained_in) == ("mixed", "float32")
    assert found.loss_ == make().fit(x, y).loss_


def test_adamw_has_no_l2(x):
    for optimizer in ("adamw", gn.AdamW()):
        with pytest.raises(InputError, match=r"l2 is 0\.1, and AdamW .* optimizer=gn\.AdamW\(weight_decay=…\)"):
            classifier(optimizer=optimizer, l2=0.1).fit(x, CODES)
    assert classifier(optimizer="adamw").fit(x, CODES).score(x, CODES) > 0.95


def test_first_weights_need_a_layer_and_samples(x):
    with pytest.raises(InputError, match="init is 'class-pca' and hidden_layers are"):
        gn.Classifier((), init="class-pca").fit(x, CODES)
    with pytest.raises(InputError, match="use fewer hidden units"):
        gn.Classifier((64,), init="class-pca").fit(x, CODES)


def test_what_diverges_is_one_line(x):
    with pytest.raises(DivergedError, match="lower the learning rate"):
        regressor(optimizer=gn.SGD(1e6, momentum=0.9), learning_rate=None).fit(x, x[:, 0])
    net = classifier().fit(x, CODES)
    net.model_.parameters["0.weight"][...] = np.nan
    with pytest.raises(DivergedError, match="sample 0 has outputs that are not finite"):
        net.predict(x)


# -- fits that are refused, or stopped --------------------------------------------------------------------------------


def state(net):
    return {name: value for name, value in vars(net).items() if name not in net.get_params()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


def test_a_refused_fit_leaves_what_was_fitted(x):
    net = regressor().fit(x, x[:, 0])
    before, predicted = state(net), net.predict(x)
    with pytest.raises(InputError, match="epochs is 0"):
        net.set_params(epochs=0).fit(x[:, :2], 1000 * x[:, 0] + 9)
    with pytest.raises(InputError, match="sample_weight of row 0"):
        net.partial_fit(x, x[:, :1], sample_weight=-np.ones(90))
    assert same(before, state(net))
    np.testing.assert_array_equal(net.predict(x), predicted)

    net = classifier().fit(x, TEXTS)
    before, predicted = state(net), net.predict(x)
    with pytest.raises(InputError, match="hidden_layers is None"):
        net.set_params(hidden_layers=None).fit(x, np.where(TEXTS == "a", "cat", "dog"))
    with pytest.raises(InputError, match="sample_weight of row 0"):
        net.fit(x[:, :3], TEXTS, sample_weight=-np.ones(90))
    with pytest.raises(InputError, match="batch_size is 0"):
        net.set_params(batch_size=0).partial_fit(x, TEXTS)
    assert same(before, state(net))
    np.testing.assert_array_equal(net.predict(x), predicted)
    assert net.set_params(batch_size=9).partial_fit(x, TEXTS).score(x, TEXTS) > 0.95


class Stops(gn.Callback):
    def on_epoch_end(self, trainer, epoch, logs):
        raise KeyboardInterrupt


def test_a_first_fit_that_is_stopped_leaves_nothing(x):
    net = classifier(callbacks=[Stops()])
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, CODES)
    assert not state(net)
    with pytest.raises(NotFittedError):
        net.predict(x)
    net = regressor(optimizer=gn.SGD(1e6, momentum=0.9), learning_rate=None)
    with pytest.raises(DivergedError):
        net.fit(x, x[:, 0])
    assert not state(net)


def test_a_later_fit_that_is_stopped(x):
    """A network of its own leaves the one before; one that went on is neither, and is given up."""
    net = classifier().fit(x, TEXTS)
    before, predicted = state(net), net.predict(x)
    with pytest.raises(KeyboardInterrupt):
        net.set_params(callbacks=[Stops()]).fit(x[:, :2], CODES)
    assert same(before, state(net))
    np.testing.assert_array_equal(net.predict(x), predicted)
    with pytest.raises(KeyboardInterrupt):
        net.set_params(warm_start=True).fit(x, TEXTS)
    with pytest.raises(NotFittedError):
        net.predict(x)
    assert net.set_params(callbacks=[]).fit(x[:, :2], CODES).score(x[:, :2], CODES) > 0.5


# -- what is told in one line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", None] * 45, "y holds None in row 1: expected a value for every sample"),
        ([None, 1.0] * 45, "y holds None in row 0: expected a value for every sample"),
        (np.array(["a"] * 89 + [np.nan], object), "y holds nan in row 89: expected a value"),
        (np.array(["a", 1] * 45, object), "y holds 'a' in row 0 and 1 in row 1: expected values of one kind"),
        (np.array([1, "a"] * 45, object), "y holds 1 in row 0 and 'a' in row 1: expected values of one kind"),
    ],
    ids=["None", "None, floats", "NaN", "text first", "number first"],
)
def test_labels_that_are_missing_or_mixed(x, y, message):
    for kind in (classifier(), regressor(), gn.ClassPCA(1)):
        with pytest.raises(InputError, match=message):
            kind.fit(x, y)


def test_frames_that_are_refused(x):
    pandas = pytest.importorskip("pandas")
    gaps = pandas.Series(["a", pandas.NA, "b"] * 30, dtype="string")
    with pytest.raises(InputError, match=r"y holds .*NA.* in row 1: expected a value for every sample"):
        classifier().fit(x, gaps)
    assert classifier().fit(x, pandas.Series(TEXTS, dtype="string")).classes_.tolist() == ["a", "b", "ç d"]
    frame = pandas.DataFrame(x, columns=list("abcd"))
    frame["day"] = pandas.date_range("2020", periods=90)
    for kind in (classifier(), regressor(), gn.PCA(1), gn.ClassPCA(1)):
        with pytest.raises(InputError, match=r"column 'day' of X holds datetime64.*: expected real numbers; leave it"):
            kind.fit(frame, CODES)


def test_images_are_to_be_rows():
    images = np.zeros((6, 1, 8, 8), np.uint8)
    for kind in (classifier(), regressor(), gn.PCA(1), gn.ClassPCA(1)):
        with pytest.raises(InputError, match=r"X has shape \(6, 1, 8, 8\): .* reshape it, X\.reshape\(len\(X\), -1\)"):
            kind.fit(images, [0, 1] * 3)


def test_more_features_than_memory_holds_are_refused_before_their_moments(x):
    wide = sparse.csr_array((40, 10**10))
    for kind in (classifier(), classifier(standardize=False), regressor()):
        with pytest.raises(InputError, match=r"X of shape \(40, 10000000000\), dense float32, takes 1,600,000,000,000"):
            kind.fit(wide, CODES[:40])


def test_a_one_hot_column_without_a_one_is_no_class(x):
    assert classifier().fit(x, np.eye(4)[CODES + (CODES > 1)]).classes_.tolist() == [0, 1, 3]
