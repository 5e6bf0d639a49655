"""Settings of another kind than meant: the right thing, or one line; nothing half right."""

from __future__ import annotations

import json
import re
import traceback

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import GpunetError, InputError
from gpunet.linalg.rank import BreakEven
from gpunet.nn.model import ELSEWHERE, Sequential

X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
Y = np.arange(60) % 3
INTEGERS = [np.int8, np.int64, np.uint16]


def trainer(*layers, **options):
    return gn.Trainer(gn.Sequential(layers or [gn.Dense(3)]), device="numpy", **options)


# Every place that takes a whole number, with one that is right there.
WHOLE = {
    "Dense": (gn.Dense, 3),
    "Conv2D filters": (gn.Conv2D, 3),
    "Conv2D kernel": (lambda n: gn.Conv2D(2, n), 3),
    "Conv2D pool": (lambda n: gn.Conv2D(2, 3, pool=n), 2),
    "Conv2D pool_stride": (lambda n: gn.Conv2D(2, 3, pool=3, pooling="average", pool_stride=n), 2),
    "MaxPool2D": (gn.MaxPool2D, 2),
    "AvgPool2D": (gn.AvgPool2D, 2),
    "AvgPool2D stride": (lambda n: gn.AvgPool2D(2, n), 2),
    "Reshape": (lambda n: gn.Reshape((n, 5)), 2),
    "LowRankDense units": (lambda n: gn.LowRankDense(n, 2), 3),
    "LowRankDense rank": (lambda n: gn.LowRankDense(4, n), 3),
    "StepDecay": (lambda n: gn.StepDecay(0.5, n), 2),
    "CyclicalRate": (lambda n: gn.CyclicalRate(0.1, 0.2, n), 2),
    "EarlyStopping": (lambda n: gn.EarlyStopping(patience=n), 3),
    "FixedRank": (lambda n: gn.FixedRank(n)((9, 9)), 3),
    "Factorise": (lambda n: gn.Factorise(rank=n), 3),
    "epochs": (lambda n: trainer().fit(X, Y, epochs=n), 2),
    "batch_size": (lambda n: trainer().fit(X, Y, batch_size=n), 20),
    "seed": (lambda n: trainer(seed=n).fit(X, Y), 2),
    "svd k": (lambda n: gn.svd(X, n), 2),
    "class_pca components": (lambda n: gn.class_pca(X, Y, n), 2),
    "class_pca seed": (lambda n: gn.class_pca(X, Y, 2, fraction=0.5, seed=n), 2),
    "StreamingGram components": (lambda n: gn.StreamingGram().update(X).components(n), 2),
    "build": (lambda n: gn.Sequential([gn.Dense(3)]).build((n,), gn.get_backend("numpy")), 5),
    "bind": (lambda n: built().bind(n), 5),
    "Dense.fit most": (lambda n: gn.fit_class_pca(gn.Dense(3), X, Y, variance=0.9, most=n), 2),
}


def built():
    model = gn.Sequential([gn.Dense(3)])
    model.build((5,), gn.get_backend("numpy"))
    return model


@pytest.mark.parametrize("place", WHOLE)
def test_numpys_integers_are_integers(place):
    make, number = WHOLE[place]
    for kind in INTEGERS:
        make(kind(number))


@pytest.mark.parametrize("place", WHOLE)
@pytest.mark.parametrize(
    "wrong", [True, np.True_, 2.0, np.float64(2), "2", None, [2], np.array([2, 3]), np.timedelta64(2, "s"), -1, 1 + 0j]
)
def test_what_is_no_whole_number_is_named(place, wrong):
    if wrong is None and place in ("svd k", "StreamingGram components", "Dense.fit most"):
        pytest.skip("None is all of them")
    if wrong is None and "stride" in place:
        pytest.skip("None is the size of a window")
    if wrong is None and place == "Factorise":
        pytest.skip("then the rank is the usual one")
    if wrong is None and place == "class_pca components":
        pytest.skip("then variance says how many")
    with pytest.raises(GpunetError) as caught:
        WHOLE[place][0](wrong)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", INTEGERS)
def test_configurations_stay_json(kind):
    layers = [
        gn.Reshape((kind(1), kind(6), kind(6))), gn.Conv2D(kind(2), kind(3), pool=kind(2), trainable=np.True_),
        gn.MaxPool2D(kind(2)), gn.Flatten(), gn.LowRankDense(kind(4), kind(1)), gn.Activation("relu"),
        gn.Dense(kind(3)),
    ]  # fmt: skip
    text = json.dumps(gn.Sequential(layers).config())
    assert json.dumps(Sequential.from_config(json.loads(text)).config()) == text


def test_a_checkpoint_of_numpys_numbers_resumes(tmp_path):
    def run(epochs):
        learner = trainer(
            gn.Dense(np.int64(4), "relu"), gn.Dense(np.int8(3)), optimizer=gn.Adam(np.float32(0.01)), seed=np.int64(1)
        )
        stop = gn.EarlyStopping("train_loss", np.int64(3), least=np.float16(0))
        learner.fit(
            X, Y, epochs=epochs, checkpoint=tmp_path, checkpoint_every=np.uint8(255), callbacks=stop, resume=True
        )
        return learner.outputs(X)

    np.testing.assert_array_equal(run(np.int64(2)), run(np.int16(2)))


FLAGS = {
    "Dense": lambda on: gn.Dense(3, trainable=on),
    "Conv2D": lambda on: gn.Conv2D(3, trainable=on),
    "LowRankDense": lambda on: gn.LowRankDense(3, 2, trainable=on),
    "shuffle": lambda on: trainer().fit(X, Y, shuffle=on),
    "progress": lambda on: trainer().fit(X, Y, progress=on),
    "resume": lambda on: trainer().fit(X, Y, checkpoint="nowhere", resume=on),
    "restore_best": lambda on: gn.EarlyStopping(restore_best=on),
    "halve": lambda on: gn.CyclicalRate(0.1, 0.2, 3, halve=on),
    "merge": lambda on: gn.Factorise(merge=on),
    "center": lambda on: gn.StreamingGram(center=on),
    "class_pca center": lambda on: gn.class_pca(X, Y, 2, center=on),
}


@pytest.mark.parametrize("place", FLAGS)
@pytest.mark.parametrize("wrong", ["no", "False", 1, 0, None, [], np.array([True, False])])
def test_a_switch_is_on_or_off(place, wrong):
    with pytest.raises(InputError, match="expected True or False"):
        FLAGS[place](wrong)


# Of each: what has the setting, its name, values that are none, one that is, and what is kept of it.
LATE = {
    "EarlyStopping patience": (gn.EarlyStopping, "patience", ["3", 0, 2.0, True], np.int8(2), 2),
    "EarlyStopping least": (gn.EarlyStopping, "least", ["x", -1, float("nan")], np.float32(0.5), 0.5),
    "EarlyStopping metric": (gn.EarlyStopping, "metric", [None, 3, b"loss"], "train_loss", "train_loss"),
    "EarlyStopping restore_best": (gn.EarlyStopping, "restore_best", ["no", 1, None], np.False_, False),
    "ExponentialDecay": (lambda: gn.ExponentialDecay(0.5), "factor", ["x", float("nan"), 3, 0], 1, 1.0),
    "StepDecay factor": (lambda: gn.StepDecay(0.5, 2), "factor", ["x", float("nan"), 3, 0], 0.25, 0.25),
    "StepDecay every": (lambda: gn.StepDecay(0.5, 2), "every", [0, 1.5, "2"], np.uint8(3), 3),
    "CyclicalRate half": (lambda: gn.CyclicalRate(0.1, 0.2, 3), "half", [0, "3", None], 4, 4),
    "CyclicalRate low": (lambda: gn.CyclicalRate(0.1, 0.2, 3), "low", [None, 0, 0.21], 0.2, 0.2),
    "CyclicalRate high": (lambda: gn.CyclicalRate(0.1, 0.2, 3), "high", ["x", 0.09, float("inf")], 0.1, 0.1),
    "CyclicalRate halve": (lambda: gn.CyclicalRate(0.1, 0.2, 3), "halve", ["no", 0], True, True),
    "CosineDecay": (gn.CosineDecay, "least", ["x", -1e-9, None], 0.01, 0.01),
    "DivergenceGuard": (gn.DivergenceGuard, "times", ["x", 1, float("inf")], 2, 2.0),
    "Factorise pretrain": (gn.Factorise, "pretrain", [2, "x", -0.1, "atuo", b"auto", []], np.float16(0.5), 0.5),
    "Factorise auto": (gn.Factorise, "pretrain", [None, ["auto"]], "auto", "auto"),
    "Factorise policy": (gn.Factorise, "policy", ["zz", None, []], "always", "always"),
    "Factorise split": (gn.Factorise, "split", ["right", 1], "balanced", "balanced"),
    "Factorise optimizer_state": (gn.Factorise, "optimizer_state", ["zz", None], "carry", "carry"),
    "Factorise merge": (gn.Factorise, "merge", ["no", 0], False, False),
    "Factorise layers": (gn.Factorise, "layers", [3, [3], [None]], ("2", "0"), ["2", "0"]),
    "Factorise rank": (gn.Factorise, "rank", ["x", 0, 2.0, {"0": 0}, {0: 2}], 3, gn.FixedRank(3)),
    "Factorise ranks": (gn.Factorise, "rank", [None], {"0": 3}, {"0": gn.FixedRank(3)}),
    "Loss reduction": (gn.SquaredError, "reduction", ["all", None, []], "sum", "sum"),
    "Adam beta1": (gn.Adam, "beta1", ["x", 1, None], np.float32(0.5), 0.5),
    "Trainer seed": (lambda: trainer(), "seed", ["x", -1, 2.0, None], np.int16(3), 3),
}  # fmt: skip


@pytest.mark.parametrize("place", LATE)
def test_a_setting_is_checked_whenever_it_is_set(place):
    make, name, wrong, right, kept = LATE[place]
    thing = make()
    before = getattr(thing, name)
    for value in wrong:
        with pytest.raises(InputError, match=r": expected ") as caught:
            setattr(thing, name, value)
        assert str(caught.value).isprintable()
        assert getattr(thing, name) == before
    setattr(thing, name, right)
    assert (getattr(thing, name), type(getattr(thing, name))) == (kept, type(kept))


@pytest.mark.parametrize(
    ("make", "name"),
    [(gn.Factorise, "state"), (gn.CosineDecay, "rate"), (gn.EarlyStopping, "config"), (gn.Callback, "steps")],
)
def test_a_method_of_a_callback_gives_way_to_a_function_only(make, name):
    thing = make()
    with pytest.raises(InputError, match=f"{name} of a {make.__name__} is a method: expected a function, got 'carry'"):
        setattr(thing, name, "carry")
    setattr(thing, name, lambda: "mine")
    assert getattr(thing, name)() == "mine"


@pytest.mark.parametrize("name", ["adam", "Adam", "ADAM", None])
def test_the_usual_name_of_an_optimizer(name):
    learner, other = trainer(optimizer=name, seed=2), trainer(optimizer=gn.Adam(), seed=2)
    assert learner.fit(X, Y)["train_loss"] == other.fit(X, Y)["train_loss"]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ("sgd", r"SGD has no default rate, give gn.SGD\(0.1\)"),
        ("SGD", r"SGD has no default rate, give gn.SGD\(0.1\)"),
        ("rmsprop", "expected 'adam' or 'adamw', or an object such as"),
        (gn.Adam, "optimizer is the class Adam: expected 'adam' or 'adamw', or an object such as"),
        (0.1, "optimizer is 0.1"), (0, "optimizer is 0"), ("", "optimizer is ''"), ([], r"optimizer is \[\]"),
        (gn.SquaredError(), "optimizer is SquaredError\\(\\)"),
    ],
)  # fmt: skip
def test_what_is_no_optimizer(optimizer, message):
    with pytest.raises(InputError, match=message):
        trainer(optimizer=optimizer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), gn.SquaredError),
            "unknown loss the class SquaredError: .*object",
        ),
        (lambda: gn.Trainer([gn.Dense(3)]), r"model is \[.*\]: expected gn.Sequential"),
        (lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), device=3), "device is 3: expected 'auto', 'cpu'"),
        (
            lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), dtype=np.float32),
            "dtype is the class float32: expected one of float32, float64",
        ),
        (
            lambda: gn.Sequential(gn.Dense(3)),
            r"layers are given one by one: expected a list of them, gn.Sequential\(\[Dense\(3\)\]\)",
        ),
        (
            lambda: gn.Sequential(gn.Dense(8, "relu"), gn.Dense(3)),
            r"gn.Sequential\(\[Dense\(8, 'relu'\), Dense\(3\)\]\)$",
        ),
        (lambda: gn.Dense(8, 16), r"activation is 16: .*the number of inputs is inferred.*as in gn.Dense\(16\)"),
        (lambda: gn.Conv2D(8, 16, 3), "Conv2D's activation is 3: .*the number of inputs is inferred"),
        (lambda: gn.LowRankDense(8, 16, 3), "LowRankDense's activation is 3: .*the number of inputs is inferred"),
        (lambda: gn.save(trainer(), "m"), r"model is Trainer.*: expected gn.Sequential\(\[...\]\); pass its .model$"),
        (lambda: gn.save(gn.Sequential([gn.Dense(3)]).layers[0], "m"), r"expected gn.Sequential\(\[...\]\)$"),
        (
            lambda: gn.Sequential([gn.Dense(3)]).predict(X),
            r"no weights yet: train it with gn.Trainer\(model\).fit\(x, y\), or build it first$",
        ),
        (lambda: gn.Sequential([gn.Dense]), "layers hold the class Dense: expected layers such as"),
        (lambda: trainer().fit(X, Y, checkpoint=b"x"), "checkpoint is b'x': expected a path"),
        (lambda: trainer().fit(X, Y, epochs=10**30), "expected whole numbers epochs ≥ 0"),
        (lambda: gn.save(built(), 3), "path is 3: expected a path"),
        (lambda: gn.load("a\0b"), "path is .*: expected a path"),
        (lambda: gn.load("x" * 5000), "path is .*: expected a path"),
        (lambda: trainer().history["loss"], None),
        (lambda: trainer().fit(X, Y)["loss"], "the history has no 'loss': it has train_loss"),
        (lambda: gn.Adam().step(), "give it to a gn.Trainer"),
        (lambda: gn.Sequential([gn.Dense(3)]).parameters, "the model has no weights yet"),
        (lambda: gn.Sequential([gn.Dense(3)]).forward(X), "no workspace yet"),
        (lambda: trainer().step(trainer().samples(X, Y), np.arange(60), 3), "has seen no data yet"),
    ],
)
def test_one_line_says_what_was_meant(call, message):
    if message is None:
        assert call() == []
        return
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_one_callback_needs_no_list():
    class Seen(gn.Callback):
        calls = 0

        def on_epoch_end(self, trainer, epoch, logs):
            self.calls += 1

    seen = Seen()
    trainer().fit(X, Y, epochs=3, callbacks=seen)
    trainer().fit(X, Y, epochs=2, callbacks=(each for each in [seen]))
    assert seen.calls == 5


@pytest.mark.parametrize("steps", [None, 3, "abc", [1.5], [None], iter("x")])
def test_a_callback_whose_steps_are_none(steps):
    class Odd(gn.Callback):
        def steps(self, total):
            return steps

    with pytest.raises(InputError, match=r"Odd.steps\(\)"):
        trainer().fit(X, Y, callbacks=[Odd()])


def test_small_floats_of_numpys_are_numbers_like_others():
    """They overflow in products with Python's integers, and make Python's floats as coarse as they are."""
    many = np.tile(X, (2000, 1))
    labels = np.tile(Y, 2000)
    found = [gn.class_pca(many, labels, 2, fraction=kind(0.5), seed=1).counts.tolist() for kind in (float, np.float16)]
    assert found[0] == found[1] == [20000] * 3
    tables = [gn.gradient_check(gn.Sequential([gn.Dense(3)]), "squared_error", X[:4], Y[:4], step=kind(2.0**-14)).step
              for kind in (float, np.float16)]  # fmt: skip
    assert tables[0] == tables[1]
    assert type(tables[1]) is float
    assert gn.Factorise(pretrain=np.float16(0.5), rank=BreakEven(np.float32(0.5))).steps(10**6) == (500_000,)


def test_weights_of_a_shape_that_no_memory_holds():
    for units in (2**40, 10**30, 10**400):
        with pytest.raises(GpunetError, match=r"no room in main memory|GiB"):
            trainer(gn.Dense(units)).fit(X, Y % 2)


def test_what_forward_and_backward_take():
    model = built()
    model.bind(60)
    with pytest.raises(InputError, match="call forward first"):
        model.backward(np.zeros((60, 3), "float32"))
    for wrong in (X[:5], X.astype("float64"), X.tolist(), np.ma.array(X), X[:, :3], None):
        with pytest.raises(InputError, match=r"x is .*: expected ndarray of shape \(60, 5\), float32"):
            model.forward(wrong)
    model.forward(X)
    for wrong in (X, np.zeros((60, 3)), np.zeros(60, "float32")):
        with pytest.raises(InputError, match=r"dz is .*: expected ndarray of shape \(60, 3\), float32"):
            model.backward(wrong)
    model.backward(np.ones((60, 3), "float32"))
    np.testing.assert_allclose(model.gradients["0.bias"], [60, 60, 60])


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_models_of_other_libraries_have_is_told_where_it_is(name):
    """In one line, to which Python adds no name that is alike; a name that is unknown is Python's to tell of."""
    model = gn.Sequential([gn.Dense(3)])
    with pytest.raises(AttributeError) as caught:
        getattr(model, name)
    (*_, line) = traceback.format_exception(caught.value)
    assert line == f"AttributeError: a Sequential has no {name}: {ELSEWHERE[name]}\n"
    for call in re.findall(r"gn\.(\w+)", line):
        assert hasattr(gn, call)
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'layerz'"):
        getattr(model, "layerz")  # noqa: B009


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ReLU", ": did you mean gn.Activation?"), ("CrossEntropyLoss", ": did you mean gn.SoftmaxCrossEntropy?"),
        ("Linear", ": did you mean gn.Dense?"), ("scd", ": did you mean gn.svd?"),
        ("MaxPool", ": did you mean gn.MaxPool2D?"), ("sequential", ": did you mean gn.Sequential?"),
        ("zzzz", ""), ("_scd", ""), ("__wrapped__", ""),
    ],
)  # fmt: skip
def test_a_misspelt_name_of_the_library_is_told_with_the_nearest(name, near):
    with pytest.raises(AttributeError) as caught:
        getattr(gn, name)
    (*_, line) = traceback.format_exception(caught.value)
    assert line == f"AttributeError: module 'gpunet' has no attribute '{name}'{near}\n"
