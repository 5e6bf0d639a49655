"""What is stored is what was given: numbers that a cast would lose are named, whatever carries them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from safetensors.numpy import save_file

import gpunet as gn
from gpunet.errors import DataError, GpunetError, InputError, ShapeError
from gpunet.nn.serialize import put_back
from gpunet.tensorfile import KEY, seal
from gpunet.tensorfile import read as read_file

X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
Y = np.arange(60) % 3
W = np.random.default_rng(1).normal(size=(3, 5))


def built(weight=W, bias="zeros", dtype="float32", backend=None):
    model = gn.Sequential([gn.Dense(3, weight=weight, bias=bias)])
    model.build((5,), backend or gn.get_backend("numpy"), dtype=dtype)
    return model


def with_one(value, like=W):
    changed = np.array(like, type(value) if isinstance(value, np.generic) else None)
    changed.flat[-1] = value
    return changed


def from_file(values, name="0.weight"):
    def read(tmp_path, loader):
        gn.save(built(), path := tmp_path / "m.safetensors")
        arrays = {"0.weight": W.astype("float32"), "0.bias": np.zeros(3, "float32")} | {name: values}
        if loader == "load_weights":
            save_file(arrays, path)
            return gn.load_weights(built(), path)
        path.write_bytes(seal(arrays, {KEY: read_file(path)[1][KEY]}))
        return gn.load(path, device="numpy")

    return read


WEIGHTS = {
    "an array": lambda w, _: built(w),
    "a function": lambda w, _: built(lambda shape, rng: w),
    "a bias": lambda w, _: built(bias=lambda shape, rng: w[:, 0] if w.ndim == 2 else w),
    "factors": lambda w, _: gn.Sequential([gn.LowRankDense(3, 2, left=w[:, :2], right="zeros")]).build(
        (5,), gn.get_backend("numpy")
    ),
    "load": lambda w, tmp_path: from_file(w)(tmp_path, "load"),
    "load_weights": lambda w, tmp_path: from_file(w)(tmp_path, "load_weights"),
    "put_back": lambda w, _: put_back(built(), built().config(), {"0.weight": w, "0.bias": np.zeros(3, "float32")}),
}


@pytest.mark.parametrize("door", WEIGHTS)
@pytest.mark.parametrize("value", [1e300, -1e39])
def test_weights_beyond_the_models_dtype_are_named(door, value, tmp_path):
    w = W.copy()
    w[:, 0] = value
    with pytest.raises(DataError, match=r"holds -?1e\+(300|39), beyond float32 at \[0"):
        WEIGHTS[door](w, tmp_path)


@pytest.mark.parametrize("door", [door for door in WEIGHTS if door != "put_back"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_named(door, value, tmp_path):
    w = W.astype("float32")
    w[:, 0] = value
    with pytest.raises(DataError, match=r"holds (nan|-inf) at \[0(, 0)?\]: expected finite numbers"):
        WEIGHTS[door](w, tmp_path)


@pytest.mark.parametrize("door", WEIGHTS)
@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_integers_are_no_weights(door, dtype, tmp_path):
    with pytest.raises(InputError, match=f"has dtype {dtype}: expected floats; convert it"):
        WEIGHTS[door]((W > 0).astype(dtype), tmp_path)


@pytest.mark.parametrize("door", ["an array", "a function", "a bias", "factors"])
@pytest.mark.parametrize(
    "change",
    [lambda w: w.astype("complex64"), np.ma.masked_greater, lambda w: w.astype("longdouble"), lambda w: w.astype("U3")],
)
def test_weights_that_would_lose_something_are_refused(door, change):
    w = np.ma.masked_greater(W, 0.5) if change is np.ma.masked_greater else change(W)
    with pytest.raises(InputError, match=r"the initial \w+ (has dtype|is a masked array)"):
        WEIGHTS[door](w, None)


def test_weights_that_lose_nothing_are_taken(tmp_path):
    assert np.isfinite(built(with_one(1e300), dtype="float64").parameters["0.weight"]).all()
    small = np.array([[1, 0, 0, 0, 2]] * 3)
    for kind in (small.tolist(), small.astype("float16"), small.astype(">f8"), np.asfortranarray(small * 1.0)):
        for door in ("an array", "a function"):
            np.testing.assert_array_equal(WEIGHTS[door](kind, None).parameters["0.weight"], small)
    np.testing.assert_array_equal(
        from_file(W.astype("float16"))(tmp_path, "load").parameters["0.weight"], W.astype("f2")
    )


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda shape, rng: np.zeros((2, 2)), r"the initial weight has shape \(2, 2\): expected \(3, 5\)"),
        (lambda shape: np.zeros(shape), r"drawing initial weights of shape \(3, 5\) failed: TypeError"),
        (lambda shape, rng: 1 / 0, "failed: ZeroDivisionError"),
        (lambda shape, rng: None, "the initial weight has dtype object"),
        (lambda shape, rng: "no", "the initial weight has dtype <U2"),
        (gn.init.normal(1e300), "beyond float32"),
        (dict, "failed: "),
    ],
)
def test_functions_that_draw_no_weights(draw, message):
    with pytest.raises(InputError, match=message) as caught:
        built(draw)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("std", [-1, np.nan, np.inf, "1", None])
def test_a_deviation_is_a_number(std):
    with pytest.raises(InputError, match="std cannot be"):
        gn.init.normal(std)


# -- x and labels: one answer on every backend ------------------------------------------------------------------------


def kinds_of(array):
    """The same numbers as others carry them; those of one list must all be taken, or all be refused with a line."""
    return {
        "big-endian": array.astype(array.dtype.newbyteorder(">")), "not contiguous": np.repeat(array, 2, axis=0)[::2],
        "fortran": np.asfortranarray(array), "a list": array.tolist(), "read-only": array.view(),
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds_of(X))
def test_x_of_any_layout_is_the_same_numbers(backend, kind):
    learner = gn.Trainer(built(backend=backend), device=backend)
    expected = learner.evaluate(X, Y)
    assert learner.evaluate(kinds_of(X)[kind], kinds_of(Y)[kind]) == expected


def refused(torch):
    x, y = torch.tensor(X), torch.tensor(Y)
    return {
        "complex": (X.astype("complex64"), Y, "dtype complex64"),
        "longdouble": (X.astype("longdouble"), Y, "longdouble|float128"),
        "text": (X.astype("U8"), Y, "dtype <U8"),
        "objects": (X.astype(object), Y, "dtype object"),
        "structured": (np.zeros(60, [("a", "f4")]), Y, "dtype"),
        "dates": (np.zeros((60, 5), "M8[s]"), Y, "dtype datetime64"),
        "masked": (np.ma.masked_less(X, 0), Y, "masked array"),
        "sparse": (scipy.sparse.csr_array(X), Y, "sparse"),
        "ragged": ([[1.0], [1.0, 2.0]] * 30, Y, "different lengths"),
        "grad": (x.clone().requires_grad_(), Y, "Tensor"),
        "bfloat16": (x.bfloat16(), Y, "Tensor"),
        "sparse tensor": (x.to_sparse(), Y, "Tensor"),
        "0-d tensor": (torch.tensor(1.0), Y, r"shape \(\)"),
        "0-d": (np.array(1.0), Y, r"shape \(\)"),
        "beyond": (X.astype("float64") * 1e300, Y, "beyond float32"),
        "y text": (X, Y.astype("U1"), "labels are <U1"),
        "y objects": (X, Y.astype(object), "labels are object"),
        "y complex": (X, Y.astype(complex), "labels are complex128"),
        "y one-hot": (X, np.eye(3)[Y], r"shape \(60, 3\).*argmax"),
        "y column": (X, Y[:, None], r"shape \(60, 1\).*ravel"),
        "y halves": (X, Y / 2, "labels are float64"),
        "y masked": (X, np.ma.masked_equal(Y, 1), "masked array"),
        "y with grad": (X, y.double().requires_grad_(), "Tensor"),
        "y huge": (X, np.array([10**30] * 60), "labels are object"),
        "y longdouble": (X, np.full(60, np.longdouble("1e4000")), "out of range"),
        "y dates": (X, Y.astype("M8[s]"), "labels are datetime64"),
    }


def taken(torch):
    return {
        "float16": (X.astype("float16"), Y), "float64": (X.astype("float64"), Y),
        "tensor": (torch.tensor(X), torch.tensor(Y)), "int32 tensor": (X, torch.tensor(Y, dtype=torch.int32)),
        "not contiguous tensor": (torch.tensor(X.T.copy()).T, Y), "half tensor": (torch.tensor(X).half(), Y),
        "bool": (X > 0, Y == 1), "whole floats": (X, Y * 1.0), "big-endian floats": (X, Y.astype(">f4")),
        "bool tensor": (X, torch.tensor(Y == 1)),
    }  # fmt: skip


@pytest.mark.parametrize("door", ["fit", "evaluate", "samples"])
def test_what_is_refused_is_refused_everywhere_in_a_line(backend, door):
    for name, (x, y, message) in refused(pytest.importorskip("torch")).items():
        learner = gn.Trainer(gn.Sequential([gn.Dense(3)]), device=backend)
        with pytest.raises(GpunetError, match=message) as caught:
            getattr(learner, door)(x, y)
        assert str(caught.value).isprintable(), name
        assert not learner.model.built, name


@pytest.mark.parametrize("door", ["fit", "evaluate"])
def test_what_is_taken_is_taken_everywhere_alike(backend, door):
    torch = pytest.importorskip("torch")
    for name, (x, y) in taken(torch).items():
        found = []
        for data in ((x, y), (np.asarray(x).astype("float32"), np.asarray(y).astype("int64"))):
            learner = gn.Trainer(built(backend=backend), device=backend)
            getattr(learner, door)(*data)
            found.append(learner.outputs(data[0]))
        np.testing.assert_array_equal(found[0], found[1], err_msg=name)


LINALG = {
    "svd": lambda x: gn.svd(x, 2),
    "StreamingGram": lambda x: gn.StreamingGram().update(x),
    "class_pca": lambda x: gn.class_pca(x, Y, 2),
    "deduplicate": lambda x: gn.deduplicate([x], 0.9),
}


@pytest.mark.parametrize("door", LINALG)
def test_the_engine_refuses_the_same(door):
    for name, (x, y, message) in refused(pytest.importorskip("torch")).items():
        if y is Y and name != "beyond":
            with pytest.raises(GpunetError, match=message) as caught:
                LINALG[door](x)
            assert str(caught.value).isprintable(), name


@pytest.mark.parametrize("shape", [(0, 5), (60, 0)])
def test_empty_data(backend, shape):
    learner = gn.Trainer(gn.Sequential([gn.Dense(3)]), device=backend)
    with pytest.raises((ShapeError, DataError), match=r"no samples|expected \(samples, features\)"):
        learner.fit(np.zeros(shape), np.zeros(shape[0], int))
