"""What users hand in, at every door: kinds of arrays that are refused or read alike, and nothing that is shared."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.sparse

import gpunet as gn
from gpunet.checks import as_array, check_labels, real_array
from gpunet.datasets.arrays import Dataset, from_arrays, validate
from gpunet.errors import DataError, InputError, ShapeError
from gpunet.experiments.dmn.extract import features, fit_stack
from gpunet.linalg import StreamingClassGram
from gpunet.linalg.patches import PatchDensities
from gpunet.nn.history import History
from gpunet.nn.samples import Samples
from gpunet.spectral.fitted import Thresholds
from gpunet.spectral.ridge import Moments
from gpunet.spectral.svd_weights import singular_rows

Y = np.arange(30) % 3
X = np.random.default_rng(0).integers(0, 4, (30, 8)).astype("float32")  # exact in every dtype
X[:, :3] += 3 * np.eye(3, dtype="float32")[Y]
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")


def trainer(device="numpy", **options):
    return gn.Trainer(gn.Sequential([gn.Dense(5, "relu"), gn.Dense(3)]), device=device, **options)


def backend():
    return trainer().backend


def ready():
    made = trainer()
    made.prepare((8,))
    return made


# Every door that takes numbers: a function of (x, y), both of which it must look at.
BOTH = {
    "Trainer.fit": lambda x, y: trainer().fit(x, y),
    "validation_data": lambda x, y: trainer().fit(X, Y, validation_data=(x, y)),
    "Trainer.evaluate": lambda x, y: ready().evaluate(x, y),
    "Trainer.samples": lambda x, y: ready().samples(x, y),
    "Samples.of": lambda x, y: Samples.of(backend(), x, y, 3),
    "class_pca": lambda x, y: gn.class_pca(x, y, 2),
    "StreamingClassGram.update": lambda x, y: StreamingClassGram().update(x, y),
    "Dense.fit": lambda x, y: gn.fit_class_pca(gn.Dense(3), x, y, variance=0.9),
    "Conv2D.fit": lambda x, y: gn.fit_class_pca(gn.Conv2D(3, 1), x[:, None, :, None], y, variance=0.9),
    "PatchDensities.update": lambda x, y: PatchDensities(backend(), 1, 0).update(x[:, :, None, None], y),
    "fit_stack": lambda x, y: fit_stack([gn.Dense(3)], x, y, [Thresholds(0.9)], backend()),
    "singular_rows": lambda x, y: singular_rows(x, 6, y),
    "ridge.Moments": lambda x, y: Moments(8, 3).update(x, y),
    "datasets.from_arrays": lambda x, y: from_arrays("mine", x, y, X, Y, source="mine.npz"),
    "datasets.validate": lambda x, y: validate(Dataset("mine", x, y, X, Y, (8,), 3, "mine.npz")),
}
ALONE = {
    "Trainer.predict": lambda x: ready().predict(x),
    "Trainer.outputs": lambda x: ready().outputs(x),
    "svd": lambda x: gn.svd(x, 2),
    "svd of a stack": lambda x: gn.svd(x[None], 2),
    "StreamingGram.update": lambda x: gn.StreamingGram().update(x),
    "features": lambda x: features([gn.Dense(2)], x, backend()),
    "deduplicate": lambda x: gn.deduplicate([x, x], 0.9),
    "initial weights": lambda x: gn.Sequential([gn.Dense(30, weight=x)]).build((8,), backend()),
    "backend.asarray": lambda x: backend().asarray(x),
}
DOORS = ALONE | {f"{name}: x": lambda x, door=door: door(x, Y) for name, door in BOTH.items()}
LABELS = {f"{name}: y": lambda y, door=door: door(X, y) for name, door in BOTH.items()}
SLICED = {"svd of a stack", "Conv2D.fit: x", "PatchDensities.update: x"}  # a sparse matrix cannot have their shapes


@pytest.mark.parametrize("door", [*DOORS, *LABELS])
def test_masked_arrays_are_refused(door):
    given = X if door in DOORS else Y
    with pytest.raises(InputError, match=r"masked array.*\.filled\(") as caught:
        (DOORS | LABELS)[door](np.ma.masked_greater(given, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("door", [*(door for door in DOORS if door not in SLICED)])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
def test_sparse_matrices_are_refused(door, kind):
    with pytest.raises(InputError, match=r"sparse .*\.toarray\(\)") as caught:
        DOORS[door](kind(X))
    assert "\n" not in str(caught.value)


READ_AS_THEY_COME = {"backend.asarray", "datasets.from_arrays: x", "datasets.validate: x"}


@pytest.mark.parametrize("door", [door for door in DOORS if door not in READ_AS_THEY_COME])
def test_longdouble_is_refused(door):
    with pytest.raises(InputError, match=r"\.astype\('float64'\)"):
        DOORS[door](X.astype("longdouble"))


@pytest.mark.parametrize("door", [door for door in DOORS if door not in READ_AS_THEY_COME])
@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "M8[s]"])
def test_what_is_no_number_is_refused(door, dtype):
    with pytest.raises(InputError, match="dtype"):
        DOORS[door](X.astype("int64").astype(dtype))


@pytest.mark.parametrize("door", [door for door in DOORS if door != "datasets.validate: x"])
@pytest.mark.parametrize("kind", [lambda x: x.astype(">f4"), lambda x: x.astype("float16"), np.matrix, "read-only"])
def test_kinds_of_arrays_that_are_read_alike(door, kind):
    """Big-endian, half precision, subclasses, read-only memory: none raises, none is changed."""
    if kind is np.matrix and door in SLICED:
        pytest.skip("a matrix has two dimensions")
    given = X.copy() if kind == "read-only" else kind(X)
    given.flags.writeable = False
    before = given.copy()
    DOORS[door](given)
    np.testing.assert_array_equal(np.asarray(given), np.asarray(before))


# -- as_array ---------------------------------------------------------------------------------------------------------


def test_a_plain_array_is_itself():
    assert as_array(X, "x") is X
    assert type(as_array(np.matrix(X), "x")) is np.ndarray


def test_subclasses_become_views_and_keep_their_memory(tmp_path):
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=X.shape)
    plain = as_array(mapped, "x")
    assert type(plain) is np.ndarray
    assert np.shares_memory(plain, mapped)


def test_byte_order_is_native():
    array = as_array(X.astype(">f8"), "x")
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, X)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([np.ma.array([1.0]), [2.0]], InputError, r"x is a masked array"),
        ([[1.0, np.ma.masked]], InputError, r"x is a masked array"),
        ([scipy.sparse.eye(2)], InputError, r"x is a sparse"),
        ([[1, 2], [3]], ShapeError, "x has rows of different lengths"),
        (np.zeros(3, [("a", "f4")]).view(np.recarray), InputError, "x has dtype"),
        (None, InputError, "x has dtype object"),
    ],
)
def test_what_is_no_array_of_numbers(given, error, message):
    with pytest.raises(error, match=message):
        real_array(given, "x")


def test_tensors(rng):
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_array(torch.tensor(X), "x"), X)
    for tensor in (torch.tensor(X, requires_grad=True), torch.tensor(X).to_sparse(), torch.tensor(X).bfloat16()):
        with pytest.raises(InputError, match="x is a Tensor, which is no array"):
            as_array(tensor, "x")


# -- the trainer: all backends read all dtypes alike ------------------------------------------------------------------


DTYPES = ["bool", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float64", ">f2", ">f4",
          ">f8", ">i2", ">u4", ">i8"]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_trains_alike(backend, dtype):
    """uint8 alone is a fraction of 255; all others are the numbers that they are, bit for bit."""
    x = (X > 2) if dtype == "bool" else X
    runs = []
    for each in (x.astype("float32"), x.astype(dtype)):
        learner = trainer(backend)
        history = learner.fit(each, Y, epochs=2, batch_size=8, validation_data=(each, Y))
        runs.append((learner.outputs(each), history["train_loss"], history["validation_loss"]))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i4", "float16", "float64", "longdouble"])
def test_labels_of_every_dtype(backend, dtype):
    y = Y % 2
    losses = [trainer(backend).fit(X, each, batch_size=8)["train_loss"] for each in (y, y.astype(dtype), y.tolist())]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.inf, "label inf in row 1 is out of range: expected 0 to 2"),
        (-np.inf, "label -inf in row 1"),
        (np.nan, "expected integer class numbers"),
        (1e30, r"label 1e\+30 in row 1"),
        (2.0**64, "label 1.8"),
        (2**64 - 1, "label 18446744073709551615 in row 1"),
        (0.5, "expected integer class numbers"),
    ],
)
def test_labels_that_are_none(bad, message):
    y = [0, bad, 1]
    with pytest.raises(DataError, match=message):
        check_labels(np.array(y, "uint64") if isinstance(bad, int) else y, 3, "data")


def test_values_beyond_the_models_dtype_are_named():
    x = X.astype("float64")
    x[4, 1] = 1e39
    with pytest.raises(DataError, match=r"training data row 4, feature 1, is 1e\+39 in float64, beyond float32"):
        trainer().fit(x, Y)
    assert np.isfinite(trainer(dtype="float64").fit(x, Y, batch_size=30)["train_loss"][0])
    x[4, 1] = np.nan
    with pytest.raises(DataError, match=r"is nan in float64; remove"):
        trainer().fit(x, Y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.fit(X), InputError, "training data has no labels"),
        (lambda t: t.evaluate(X), InputError, "evaluation data has no labels"),
        (lambda t: t.fit(t.samples(X, Y), Y), InputError, "Samples hold their own labels"),
        (lambda t: t.fit(X, 5), DataError, r"labels have shape \(\)"),
        (lambda t: t.fit(X[:, :0], Y), ShapeError, r"x has shape \(30, 0\)"),
        (
            lambda t: t.fit(X, Y, validation_data=(X,)),
            InputError,
            r"validation_data is a tuple: expected a pair \(x, y\)",
        ),
        (lambda t: t.fit(X, Y, validation_data=(X, Y, Y)), InputError, "validation_data is a tuple"),
        (lambda t: t.fit(X, Y, validation_data=(X, None)), InputError, "validation data has no labels"),
        (lambda t: t.fit(X, Y, validation_data=X), InputError, "validation_data is a ndarray"),
        (lambda t: t.fit(X, Y, validation_data=(X[:, :4], Y)), ShapeError, "the model was built for"),
        (lambda t: t.fit(X, Y, epochs=1.5), InputError, "expected whole numbers"),
        (lambda t: t.fit(X, Y, batch_size="8"), InputError, "expected whole numbers"),
        (lambda t: t.fit(X, Y, callbacks=None), InputError, "callbacks hold a NoneType"),
        (lambda t: t.fit(X, Y, callbacks=[5]), InputError, "callbacks hold a int"),
    ],
)
def test_calls_that_say_too_little_or_too_much(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(trainer())
    assert "\n" not in str(caught.value)


def test_validation_data_may_be_a_list():
    assert "validation_loss" in trainer().fit(X, Y, validation_data=[X, Y]).epochs[0]


def test_an_array_on_a_gpu_is_not_read_by_the_cpu():
    from tests.linalg.far import Far

    with pytest.raises(InputError, match=r"lies on a GPU and the device is cpu: copy it with \.get\(\)"):
        backend().asarray(Far(X))


@pytest.mark.parametrize("refused", [lambda x: (x * np.nan, Y), lambda x: (x, Y + 7), lambda x: (x, Y[:4])])
def test_data_that_is_refused_fixes_no_shape(refused):
    learner = trainer()
    with pytest.raises(DataError):
        learner.fit(*refused(X[:, :5]))
    assert not learner.model.built
    learner.fit(X, Y)


@pytest.mark.parametrize("labels", [Y - 1, Y + 0.5, Y[:4], 3])
def test_singular_rows_of_labels_that_are_none(labels):
    with pytest.raises(DataError, match="the data: "):
        singular_rows(X, 6, labels)


# -- nothing is shared ------------------------------------------------------------------------------------------------


def test_samples_are_copies(backend):
    """Of host arrays and of arrays that lie on the device already."""
    learner = trainer(backend)
    for x in (X.copy(), backend.asarray(X.copy())):
        y = Y.copy()
        data = learner.samples(x, y)
        before = learner.evaluate(data), learner.outputs(data).copy()
        backend.copy(7, x) if not isinstance(x, np.ndarray) else x.fill(7)
        y[:] = 0
        assert learner.evaluate(data) == before[0]
        np.testing.assert_array_equal(learner.outputs(data), before[1])


def test_training_reads_host_arrays_where_they_lie(monkeypatch):
    """On the CPU a data set may fill half the memory: `fit` makes no second one of it, and keeps none."""
    learner, seen = ready(), []
    step = learner.step
    monkeypatch.setattr(
        learner, "step", lambda train, *rest: seen.append(np.shares_memory(train.x, X)) or step(train, *rest)
    )
    learner.fit(X, Y, batch_size=8)
    assert seen == [True] * 4
    assert not hasattr(learner, "plan")


def test_results_are_the_callers(backend):
    learner = trainer(backend)
    history = learner.fit(X, Y, epochs=2, batch_size=8)
    outputs, classes = learner.outputs(X), learner.predict(X)
    kept = outputs.copy(), classes.copy()
    learner.outputs(X[::-1].copy()), learner.predict(X[::-1].copy())
    np.testing.assert_array_equal(outputs, kept[0])
    np.testing.assert_array_equal(classes, kept[1])
    outputs[:], classes[:] = 7, 7
    np.testing.assert_array_equal(learner.outputs(X), kept[0])
    losses = history["train_loss"]
    history.epochs[0]["train_loss"] = 0.0
    history.epochs.clear()
    assert learner.history["train_loss"] == losses
    losses.clear()
    assert len(learner.history["train_loss"]) == 2
    assert learner.fit(X, Y, epochs=1).epochs != History().epochs


def test_parameters_are_views_under_names_that_stay():
    model = ready().model
    for views in (model.parameters, model.gradients):
        for change in ("clear", "pop", "popitem", "setdefault"):
            assert not hasattr(views, change)
        with pytest.raises((TypeError, AttributeError)):
            del views["0.weight"]
        assert sorted(views) == ["0.bias", "0.weight", "2.bias", "2.weight"]
        assert list(views | {"x": 1}) == [*views, "x"]
        assert list({"x": 1} | views) == ["x", *views]
        assert views.get("x", 3) == 3
        assert views.get("2.bias") is views["2.bias"]
        assert list(views.copy()) == list(views)
        with pytest.raises(InputError, match="no parameter"):
            views.update({"2.bias": np.full(3, 9.0), "x": 1})
        assert (views["2.bias"] != 9).all()
        copied = copy.copy(views)
        copied["2.bias"][:] = 7
        assert (views["2.bias"] != 7).all()
    model.parameters["2.bias"][:] = 3  # what a callback may do
    assert (model.layers[1].bias == 3).all()
    config = model.config()
    config[0]["units"] = 99
    assert model.config()[0]["units"] == 5


def test_one_loss_may_serve_two_trainers():
    """It keeps its model's last activation and device: shared, the second would change the first's gradients."""
    loss = gn.SquaredError()
    alone, first, second = (
        gn.Trainer(gn.Sequential([gn.Dense(3, activation)]), each, gn.SGD(0.1), device="numpy")
        for activation, each in (("sigmoid", gn.SquaredError()), ("sigmoid", loss), (None, loss))
    )
    first.prepare((8,)), second.prepare((8,))
    assert first.fit(X, Y, epochs=2)["train_loss"] == alone.fit(X, Y, epochs=2)["train_loss"]


def test_an_optimizer_serves_the_trainer_that_attached_it_last():
    adam = gn.Adam()
    first, second = (trainer(optimizer=adam) for _ in range(2))
    first.fit(X, Y)
    second.fit(X, Y)
    before = second.model.flat[0].copy()
    with pytest.raises(InputError, match="optimizer was attached to another trainer since"):
        first.fit(X, Y)
    np.testing.assert_array_equal(second.model.flat[0], before)
    adam.learning_rate = 0.5  # still the second's
    second.fit(X, Y)
    assert second.optimizer.learning_rate == 0.5
