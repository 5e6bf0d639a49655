"""Objects that are copied, shared, or changed late: they work as one would think, or raise one line."""

import copy
import operator
import pickle

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import InputError
from gpunet.nn.layers.base import Layer, Parameter, Spec

X = np.random.default_rng(0).standard_normal((60, 5)).astype("float32")
Y = np.arange(60) % 3

OPTIMISERS = {
    "sgd": lambda: gn.SGD(0.05, l2=1e-3),
    "momentum": lambda: gn.SGD(0.05, 0.9),
    "adam": lambda: gn.Adam(1e-2, l2=1e-3),
    "adamw": lambda: gn.AdamW(1e-2, weight_decay=0.1),
}
COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),  # noqa: S301
}


class Counting(Layer):
    """A layer of one's own: a scale that learns, and a sum that is no parameter, kept as it goes."""

    def spec(self, input_shape):
        return Spec(input_shape, {"scale": Parameter(input_shape, lambda shape, rng: rng.normal(1, 0.1, shape))})

    def config(self):
        return {}

    def attach(self, backend, parameters, gradients):
        super().attach(backend, parameters, gradients)
        self.total = 0.0

    def forward(self, x):
        self.x = x
        np.multiply(x, self.scale, out=self.y)
        self.total += float(abs(x).sum())
        return self.y

    def backward(self, dy):
        np.einsum("ij,ij->j", dy, self.x, out=self.d_scale)
        if self.dx is not None:
            np.multiply(dy, self.scale, out=self.dx)
        return self.dx


def net(device="numpy", optimizer="adam", layers=None, **kwargs):
    layers = layers or [gn.Dense(8, "relu"), gn.LowRankDense(6, 2, "relu"), gn.Dense(3)]
    return gn.Trainer(gn.Sequential(layers), optimizer=OPTIMISERS[optimizer](), device=device, **kwargs)


def weights(trainer):
    return {name: np.array(value) for name, value in trainer.model.parameters.items()}


def same(one, other):
    one, other = (each if isinstance(each, dict) else weights(each) for each in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# -- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("device", ["numpy", "cpu", "strict"])
def test_a_copied_trainer_goes_on_as_the_original_would(device, how, optimizer):
    if device == "strict":
        from gpunet.testing import StrictBackend

        device = StrictBackend()
    original = net(device, optimizer)
    original.fit(X, Y, epochs=2, batch_size=16)
    before = weights(original)
    copied = COPIES[how](original)
    same(copied, before)
    copied.fit(X, Y, epochs=3, batch_size=16)
    same(original, before)  # untouched
    assert not np.array_equal(weights(copied)["0.weight"], before["0.weight"])
    original.fit(X, Y, epochs=3, batch_size=16)
    same(original, copied)
    assert copied.epoch == original.epoch == 5
    assert original.evaluate(X, Y) == copied.evaluate(X, Y)


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_trainer_takes_replaced_layers_and_their_ages_along(how):
    original = net(layers=[gn.Dense(8, "relu"), gn.Dense(6, "relu"), gn.Dense(3)])
    original.fit(X, Y, epochs=1, batch_size=16)
    original.model.replace("2", gn.factorise(original.model.layer("2"), 2), state="carry-both")
    original.fit(X, Y, epochs=1, batch_size=16)
    copied = COPIES[how](original)
    for trainer in (original, copied):
        trainer.fit(X, Y, epochs=2, batch_size=16)
    same(original, copied)


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_model_has_the_weights_and_learns(how):
    trainer = net()
    trainer.fit(X, Y, epochs=1)
    model = COPIES[how](trainer.model)
    same(dict(model.parameters), weights(trainer))
    other = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="numpy")
    first = other.evaluate(X, Y)["loss"]
    before = weights(trainer)
    other.fit(X, Y, epochs=5)
    assert other.evaluate(X, Y)["loss"] < first
    same(trainer, before)
    assert [layer.owner for layer in model.layers] == [model] * 3


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_that_is_built_again_draws_as_the_original_does(how):
    models = [net().model for _ in range(2)]
    for model in models:
        model.build((5,), get_backend("numpy"), seed=1)
    models[1] = COPIES[how](models[1])
    for model in models:
        model.build((5,), get_backend("numpy"), seed=2)
    same(dict(models[0].parameters), dict(models[1].parameters))


@pytest.mark.parametrize("how", COPIES)
def test_a_trainer_or_model_without_weights_is_copied_too(how):
    original = net(seed=3)
    copied, model = COPIES[how](original), COPIES[how](original.model)
    built = gn.Trainer(model, optimizer=OPTIMISERS["adam"](), device="numpy", seed=3)
    for trainer in (original, copied, built):
        trainer.fit(X, Y, epochs=2)
    same(original, copied)
    same(original, built)


@pytest.mark.parametrize("how", ["deepcopy", "copy"])
def test_a_layer_of_ones_own_keeps_what_it_holds_beside_parameters(how):
    trainer = net(layers=[Counting(), gn.Dense(3)])
    trainer.fit(X, Y, epochs=2)
    copied = COPIES[how](trainer)
    assert copied.model.layers[0].total == trainer.model.layers[0].total > 0
    for each in (trainer, copied):
        each.fit(X, Y, epochs=2)
    same(trainer, copied)
    assert copied.model.layers[0].total == trainer.model.layers[0].total


@pytest.mark.parametrize("how", COPIES)
def test_copied_parameters_are_arrays_of_ones_own(how):
    trainer = net()
    trainer.fit(X, Y)
    best = COPIES[how](trainer.model.parameters)
    before = weights(trainer)
    if how != "copy":
        trainer.fit(X, Y)
        same(best, before)
        trainer.model.parameters.update(best)
    best["0.weight"] = None
    same(trainer, before)


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_layer_starts_with_the_values_of_now(how):
    trainer = net()
    trainer.fit(X, Y, epochs=2)
    layer = COPIES[how](trainer.model.layers[0])
    assert layer.owner is None
    other = gn.Sequential([layer, gn.Dense(4)])
    other.build((5,), get_backend("numpy"))
    np.testing.assert_array_equal(other.parameters["0.weight"], trainer.model.parameters["0.weight"])
    other.parameters["0.weight"][:] = 0
    assert trainer.model.parameters["0.weight"].any()
    wider = gn.Sequential([COPIES[how](layer), gn.Dense(4)])
    with pytest.raises(gn.errors.ShapeError, match="shape"):
        wider.build((6,), get_backend("numpy"))


def test_a_copied_optimiser_has_the_settings_and_no_state():
    trainer = net(optimizer="momentum")
    trainer.fit(X, Y)
    copied = copy.deepcopy(trainer.optimizer)
    assert dict(copied.settings) == dict(trainer.optimizer.settings)
    copied.learning_rate = 0.5
    assert trainer.optimizer.learning_rate == 0.05
    fresh = gn.Trainer(net().model, optimizer=copied, device="numpy")
    fresh.fit(X, Y)
    trainer.fit(X, Y)  # is not disturbed


@pytest.mark.parametrize("how", ["deepcopy", "copy"])
def test_what_subclasses_hold_is_copied(how):
    class Mine(gn.Trainer):
        pass

    class Net(gn.Sequential):
        pass

    trainer = Mine(Net([gn.Dense(3)]), device="numpy")
    trainer.fit(X, Y)
    trainer.tags, trainer.model.tags = ["a"], ["b"]
    copied = COPIES[how](trainer)
    assert (copied.tags, copied.model.tags, type(copied), type(copied.model)) == (["a"], ["b"], Mine, Net)
    assert copied.tags is not trainer.tags


def test_copies_taken_in_mid_training_are_of_that_moment():
    taken = []

    class Take(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            taken.append((weights(trainer), copy.deepcopy(trainer)))

    trainer = net()
    trainer.fit(X, Y, epochs=3, callbacks=[Take()])
    for before, copied in taken:
        same(copied, before)
    taken[0][1].fit(X, Y, epochs=2)
    same(taken[0][1], trainer)


# -- sharing ----------------------------------------------------------------------------------------------------------


def test_a_layer_of_two_models_is_refused_and_leaves_the_first_as_it_was():
    trainer = net()
    layer = trainer.model.layers[0]
    for layers in ([layer, gn.Dense(3)], [gn.Dense(2), layer]):
        with pytest.raises(InputError, match="another model"):
            gn.Sequential(layers)
    built = net_with_weights()
    with pytest.raises(InputError, match="another model"):
        built.model.replace("0", layer)
    other = net()
    for each in (trainer, other):
        each.fit(X, Y)
    same(trainer, other)


def test_a_layer_is_free_again_when_its_model_is_gone_or_has_replaced_it():
    layers = [gn.Dense(4), gn.Dense(3)]
    gn.Sequential(layers)
    model = gn.Sequential(layers)
    model.build((5,), get_backend("numpy"))
    before = np.array(layers[0].weight)
    model.replace("0", gn.Dense(4))
    again = gn.Sequential([layers[0], gn.Dense(2)])
    again.build((5,), get_backend("numpy"), seed=7)
    np.testing.assert_array_equal(again.parameters["0.weight"], before)  # it takes its values along
    again.parameters["0.weight"] = 2 * before
    assert not np.array_equal(model.parameters["0.weight"], again.parameters["0.weight"])
    del again
    last = gn.Sequential([layers[0]])
    last.build((5,), get_backend("numpy"))
    np.testing.assert_array_equal(last.parameters["0.weight"], 2 * before)
    with pytest.raises(InputError, match=r"the initial weight has shape \(4, 5\): expected \(4, 6\)"):
        last.build((6,), get_backend("numpy"))


def test_an_optimiser_serves_one_trainer():
    optimizer = gn.Adam(1e-2)
    one, two = (gn.Trainer(net().model, optimizer=optimizer, device="numpy") for _ in range(2))
    one.fit(X, Y)
    two.fit(X, Y)
    before = weights(two)
    for work in (lambda: one.fit(X, Y), lambda: one.step(one.samples(X, Y), one.upload_order(np.arange(60)), 4)):
        with pytest.raises(InputError, match="attached to another trainer"):
            work()
    same(two, before)


def test_a_loss_may_be_shared():
    loss = gn.SoftmaxCrossEntropy()
    shared = [gn.Trainer(net().model, loss, gn.SGD(0.1), device=device) for device in ("numpy", "cpu")]
    for trainer in shared:
        trainer.fit(X, Y)
    shared[0].fit(X, Y)
    alone = gn.Trainer(net().model, "softmax_cross_entropy", gn.SGD(0.1), device="numpy")
    alone.fit(X, Y)
    alone.fit(X, Y)
    same(alone, shared[0])


def test_two_trainers_of_one_model_each_keep_their_own_state():
    model = net().model
    one, two = (gn.Trainer(model, optimizer=gn.Adam(1e-2), device="numpy") for _ in range(2))
    one.fit(X, Y, batch_size=16)
    two.fit(X, Y, batch_size=60)
    two.evaluate(X, Y)
    one.fit(X, Y, batch_size=16)
    assert one.optimizer.export(model.trained_layout)[0]["clocks"][0][5] == 8


# -- changed late -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_a_layer_frozen_later_stays_and_the_others_learn_as_if_it_had_been_frozen(optimizer):
    late = net(optimizer=optimizer, layers=[gn.Dense(8, "relu"), gn.Dense(3)])
    late.prepare((5,))
    late.model.layers[0].trainable = False
    early = net(optimizer=optimizer, layers=[gn.Dense(8, "relu", trainable=False), gn.Dense(3)])
    for trainer in (late, early):
        trainer.fit(X, Y, epochs=3)
    same(late, early)
    assert "0.weight" not in late.model.gradients
    before = weights(late)
    late.model.layers[0].trainable = True
    late.fit(X, Y)
    assert not np.array_equal(weights(late)["0.weight"], before["0.weight"])


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_all_layers_may_be_frozen_and_freed_again(optimizer):
    trainer = net(optimizer=optimizer)
    trainer.fit(X, Y)
    for layer in trainer.model.layers:
        layer.trainable = False
    before = weights(trainer)
    trainer.fit(X, Y)
    same(trainer, before)
    copied = copy.deepcopy(trainer)
    for each in (trainer, copied):
        for layer in each.model.layers:
            layer.trainable = True
        each.fit(X, Y)
    same(trainer, copied)
    assert not np.array_equal(weights(trainer)["0.weight"], before["0.weight"])


def test_freezing_in_mid_training_keeps_the_others_state():
    class Freeze(gn.Callback):
        def steps(self, total):
            return (3,)

        def on_step(self, trainer, step):
            self.then = np.array(trainer.model.layers[0].weight)
            trainer.model.layers[0].trainable = False

    freeze, trainer, plain = Freeze(), net(), net()
    trainer.fit(X, Y, batch_size=16, epochs=2, callbacks=[freeze])
    np.testing.assert_array_equal(trainer.model.layers[0].weight, freeze.then)
    steps = trainer.optimizer.export(trainer.model.trained_layout)[0]["clocks"][:, 5]
    assert steps.tolist() == [8.0]  # of those that learn: none has started afresh
    plain.fit(X, Y, batch_size=16, epochs=2)
    assert not np.array_equal(weights(plain)["0.weight"], freeze.then)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_parameter_that_is_set_is_the_models(device):
    trainer = net(device)
    trainer.fit(X, Y)
    layer = trainer.model.layers[0]
    view = trainer.model.parameters["0.weight"]
    layer.weight = np.ones((8, 5))
    assert layer.weight is view or np.shares_memory(layer.weight, view)
    assert (view == 1).all()
    layer.weight *= 2
    assert (view == 2).all()
    layer.bias = [1, 2, 3, 4, 5, 6, 7, 8]
    assert trainer.model.parameters["0.bias"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    trainer.fit(X, Y)
    assert not (view == 2).all()


def test_parameters_set_by_name_are_the_models():
    trainer = net()
    trainer.prepare((5,))
    model = trainer.model
    model.parameters["0.weight"] = np.ones((8, 5))
    model.parameters["0.weight"] *= 3
    model.parameters.update({"0.bias": np.arange(8.0)}, **{"4.bias": [1.0, 2, 3]})
    named = model.parameters
    named |= {"4.weight": np.full((3, 6), 0.5)}
    assert (model.layers[0].weight == 3).all()
    assert model.layers[0].bias.tolist() == list(range(8))
    assert model.layers[2].bias.tolist() == [1, 2, 3]
    assert (model.layers[2].weight == 0.5).all()
    for name, value, match in (
        ("5.weight", 1.0, "no parameter '5.weight'"), ("0.bias", np.ones(7), "shape"),
        ("0.bias", np.full(8, np.inf), "inf"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=match):
            model.parameters[name] = value
    assert model.layers[0].bias.tolist() == list(range(8))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.ones((5, 8)), "shape"), (np.full((8, 5), np.nan), "nan"), (np.full((8, 5), 1e300), "beyond float32"),
        ("weights", "dtype"), (None, "dtype"), (np.ones((8, 5), complex), "dtype"),
        (np.ma.masked_array(np.ones((8, 5)), True), "masked"),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_set_stays(value, match):
    trainer = net()
    trainer.prepare((5,))
    before = weights(trainer)
    with pytest.raises(InputError, match=match):
        trainer.model.layers[0].weight = value
    same(trainer, before)


@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        (lambda: gn.Dense(6, "relu"), {"units": 7, "activation": "sigmoid", "name": "x", "head": True}),
        (lambda: gn.LowRankDense(6, 2), {"units": 7, "rank": 1, "d_left": np.ones((6, 2))}),
        (lambda: gn.Activation("relu"), {"activation": "sigmoid"}),
    ],
)
def test_what_a_built_layer_cannot_follow_is_refused(layer, changes):
    made = layer()
    trainer = net(layers=[made, gn.Dense(3)])
    trainer.prepare((5,))
    for name, value in changes.items():
        before = getattr(made, name)
        with pytest.raises(InputError, match=name):
            setattr(made, name, value)
        assert getattr(made, name) is before
    with pytest.raises(InputError, match="trainable is 'no'"):
        made.trainable = "no"


LATE = [
    (
        lambda: gn.Dense(6, "relu"),
        {"units": (-1, "x", 2.5, True), "activation": ("zz", 3), "trainable": ("no", 1, None)},
    ),
    (lambda: gn.LowRankDense(6, 2), {"units": (0,), "rank": (0, "x"), "activation": ("zz",)}),
    (
        lambda: gn.Conv2D(4, 3),
        {"filters": ("x", 0), "kernel": (0, -1), "pool": (16, "x"), "padding": (-1, "full"), "activation": ("zz",)},
    ),
    (lambda: gn.MaxPool2D(2), {"size": (0, "x", 16), "trainable": ("no",)}),
    (lambda: gn.AvgPool2D(2), {"size": (0, "x"), "stride": (0, "x")}),
    (lambda: gn.Conv2D(4, 3, pooling="average"), {"pool": (0, "x"), "pool_stride": (0, "x"), "pooling": ("mean", 3)}),
    (lambda: gn.Reshape((5,)), {"shape": (3, (0,), "x", ())}),
    (lambda: gn.Flatten(), {"shape": ((5,),)}),
    (lambda: gn.Activation("relu"), {"activation": ("zz",)}),
]


@pytest.mark.parametrize(("layer", "changes"), LATE)
def test_settings_of_a_layer_in_no_model_are_checked_whenever_they_are_set(layer, changes):
    made = layer()
    for name, values in changes.items():
        before = getattr(made, name)
        for value in values:
            with pytest.raises(InputError, match=name):
                setattr(made, name, value)
            assert getattr(made, name) is before


def test_settings_of_a_layer_in_no_model_take_effect():
    dense, conv = gn.Dense(6), gn.Conv2D(4, 3)
    dense.units, dense.activation, conv.padding, conv.kernel = np.int32(4), "relu", "same", 5
    model = gn.Sequential([gn.Reshape((1, 4, 4)), conv, gn.Flatten(), dense, gn.Dense(3)])
    model.build((16,), get_backend("numpy"))
    assert model.parameters["1.weight"].shape == (4, 1, 5, 5)
    assert model.shapes((16,))[1] == (4, 4, 4)
    assert model.parameters["3.weight"].shape == (4, 64)
    assert "5.weight" in model.parameters  # the ReLU has a place of its own
    low = gn.LowRankDense(6, 2)
    with pytest.raises(InputError, match="rank is 7: expected a whole number from 1 to 6"):
        low.rank = 7
    low.rank, low.units = 6, 5
    with pytest.raises(InputError, match="rank 6 takes rows of at least 6 features and has as many units"):
        low.spec((8,))


def test_a_layer_of_a_model_that_is_not_built_yet_keeps_its_settings():
    """An activation that came late would change the names of all parameters above it."""
    layer = gn.Dense(6)
    model = gn.Sequential([layer, gn.Dense(3)])
    for name, value in {"activation": "relu", "units": 7, "name": "x", "head": True}.items():
        with pytest.raises(InputError, match=name):
            setattr(layer, name, value)
    layer.trainable = False
    layer.weight = np.ones((6, 5), "float32")
    trainer = gn.Trainer(model, device="numpy")
    trainer.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(layer.weight, np.ones((6, 5)))
    assert list(model.gradients) == ["1.weight", "1.bias"]


def test_a_weight_that_cannot_be_one_is_refused_when_the_model_is_built():
    layer = gn.Dense(6)
    layer.bias = np.full(6, np.nan)
    with pytest.raises(InputError, match="the initial bias holds nan"):
        gn.Sequential([layer]).build((5,), get_backend("numpy"))


def test_a_weight_that_ones_own_layer_sets_is_what_it_starts_with():
    made = Counting()
    made.scale = np.arange(5.0)
    net(layers=[made, gn.Dense(3)]).prepare((5,))
    np.testing.assert_array_equal(made.scale, np.arange(5))


def test_a_layer_that_takes_anothers_place_starts_with_what_was_set():
    model = net_with_weights().model
    new, old = gn.Dense(8, "relu"), model.layers[0]
    new.weight, old.weight = np.full((8, 5), 7.0), np.full((8, 5), 2.0)
    model.replace("0", new)
    np.testing.assert_array_equal(model.parameters["0.weight"], np.full((8, 5), 7))
    model.replace("0", old)  # which takes its values along
    np.testing.assert_array_equal(model.parameters["0.weight"], np.full((8, 5), 2))
    cut = gn.factorise(old, 2)
    cut.left, cut.bias = np.ones((8, 2)), np.ones(8)
    right = cut.given(["right"])
    model.replace("0", cut)
    np.testing.assert_array_equal(model.parameters["0.left"], np.ones((8, 2)))
    np.testing.assert_array_equal(model.parameters["0.bias"], np.ones(8))
    assert right == {}
    free = net_with_weights().model.layers[0]  # its model is gone
    want = np.array(free.weight)
    model.replace("0", free)
    np.testing.assert_array_equal(model.parameters["0.weight"], want)


@pytest.mark.parametrize("cause", ["shape", "nan", "range"])
def test_a_model_that_cannot_be_built_again_is_as_it_was(cause):
    first = gn.Dense(3, weight=lambda shape, rng: np.full(shape, np.nan if shape[1] == 6 else 1e300))
    if cause == "shape":
        first = gn.Dense(3)
        first.weight = np.ones((3, 5))
    model = gn.Sequential([first, gn.Dense(2)])
    backend = get_backend("numpy")
    model.build((5,), backend, dtype="float64", seed=3)
    before, views = {name: np.array(p) for name, p in model.parameters.items()}, model.parameters
    shape, dtype = {"shape": ((6,), "float64"), "nan": ((6,), "float64"), "range": ((5,), "float32")}[cause]
    with pytest.raises(InputError):
        model.build(shape, get_backend("cpu"), dtype=dtype)
    assert (model.built, model.input_shape, model.dtype, model.backend) == (True, (5,), "float64", backend)
    same(dict(views), before)
    trainer = gn.Trainer(model, "squared_error", device="numpy", dtype="float64")
    trainer.predict(X)


def test_a_model_that_could_not_be_built_is_mended_by_setting_the_weight():
    layer = gn.Dense(3)
    layer.weight = np.ones((3, 4))
    model = gn.Sequential([layer])
    with pytest.raises(InputError, match="initial weight"):
        model.build((5,), get_backend("numpy"))
    layer.weight = np.ones((3, 5))
    model.build((5,), get_backend("numpy"))
    np.testing.assert_array_equal(model.parameters["0.weight"], np.ones((3, 5)))


@pytest.mark.parametrize("layer", [lambda: gn.Dense(5), lambda: gn.LowRankDense(5, 2)])
def test_a_layer_without_a_model_has_nothing_to_factorise_or_merge(layer):
    made = layer()
    for name, shape in {"weight": (5, 4), "left": (5, 2), "right": (2, 4), "bias": (5,)}.items():
        setattr(made, name, np.ones(shape))
    with pytest.raises(InputError, match="no weights before its model is built"):
        gn.factorise(made, 2) if isinstance(made, gn.Dense) else gn.merge(made)


def test_a_layer_of_ones_own_needs_a_config_for_saving_alone(tmp_path):
    class Twice(Layer):
        def spec(self, input_shape):
            return Spec(input_shape)

        def forward(self, x):
            np.multiply(x, 2, out=self.y)
            return self.y

        def backward(self, dy):
            np.multiply(dy, 2, out=dy)
            return dy

    trainer = net(layers=[Twice(), gn.Dense(3)])
    trainer.fit(X, Y)
    with pytest.raises(InputError, match="has no config"):
        gn.save(trainer.model, tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["a.b", "a/b", "", 3])
def test_a_parameter_has_the_name_of_an_attribute(name):
    with pytest.raises(InputError, match="parameter is called"):
        Spec((3,), {name: Parameter((3,), lambda shape, rng: np.zeros(shape))})


@pytest.mark.parametrize("move", ["freeze", "replace", "build"])
def test_views_of_before_say_so(move):
    trainer = net_with_weights()
    model = trainer.model
    parameters, gradients = model.parameters, model.gradients
    if move == "freeze":
        model.layers[1].trainable = False
    elif move == "replace":
        model.replace("0", gn.Dense(8, "relu"))
    else:
        model.build((5,), get_backend("numpy"))
    for views, name in ((parameters, "0.weight"), (gradients, "0.bias")):
        with pytest.raises(InputError, match="have moved"):
            views[name] = np.zeros((8, 5))
        with pytest.raises(InputError, match="have moved"):
            views[name]
        for look in (dict, operator.methodcaller("get", name), lambda v: list(v.values()), lambda v: {**v}, copy.copy):
            with pytest.raises(InputError, match="have moved"):
                look(views)
        assert name in views
        assert name in repr(views)
    model.parameters["0.bias"] = np.ones(8)
    np.testing.assert_array_equal(model.layers[0].bias, np.ones(8))


def test_the_parts_of_models_and_trainers_cannot_be_exchanged():
    trainer = net()
    trainer.prepare((5,))
    model = trainer.model
    for change in (lambda: model.layers.append(gn.Dense(3)), lambda: operator.setitem(model.layers, 0, gn.Dense(8))):
        with pytest.raises(InputError, match="layers are fixed"):
            change()
    with pytest.raises(InputError, match="epoch"):
        trainer.epoch = -1
    for thing, name, value in (
        (model, "layers", []), (model, "dtype", "float64"), (model, "input_shape", (3,)), (model, "backend", None),
        (trainer, "model", net().model), (trainer, "backend", get_backend("cpu")), (trainer, "dtype", "float64"),
        (trainer, "batch_size", 3),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{name} of a"):
            setattr(thing, name, value)
    for name, value in (("optimizer", "a word"), ("loss", "a word"), ("graphs", "a word")):
        with pytest.raises(InputError):
            setattr(trainer, name, value)
    same(trainer, net_with_weights())


def net_with_weights():
    trainer = net()
    trainer.prepare((5,))
    return trainer


@pytest.mark.parametrize("prepared", [False, True])
def test_a_loss_or_optimiser_set_later_is_used(prepared):
    model = [gn.Dense(8, "relu"), gn.Dense(3, "sigmoid")]
    late = gn.Trainer(gn.Sequential(model), "squared_error", gn.Adam(1e-3), device="numpy")
    if prepared:
        late.prepare((5,))
    late.loss, late.optimizer = "binary_cross_entropy", gn.SGD(0.1, 0.9)
    early = gn.Trainer(
        gn.Sequential([gn.Dense(8, "relu"), gn.Dense(3, "sigmoid")]), "binary_cross_entropy", gn.SGD(0.1, 0.9),
        device="numpy",
    )  # fmt: skip
    for trainer in (late, early):
        trainer.fit(X, Y, epochs=2)
    same(late, early)
    with pytest.raises(InputError, match="activation"):
        late.loss = "softmax_cross_entropy"
    assert isinstance(late.loss, gn.BinaryCrossEntropy)


def test_the_same_optimiser_set_again_keeps_its_state():
    trainer, other = net(), net()
    for each in (trainer, other):
        each.fit(X, Y)
    trainer.optimizer = trainer.optimizer
    for each in (trainer, other):
        each.fit(X, Y)
    same(trainer, other)


def test_a_loss_that_was_given_away_does_not_take_settings():
    loss = gn.SoftmaxCrossEntropy()
    trainer = gn.Trainer(net().model, loss, device="numpy")
    with pytest.raises(InputError, match=r"trainer\.loss"):
        loss.reduction = "sum"
    trainer.loss.reduction = "sum"
    other = gn.Trainer(net().model, gn.SoftmaxCrossEntropy("sum"), device="numpy")
    for each in (trainer, other):
        each.fit(X, Y)
    same(trainer, other)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_loss_is_nobodys(copied):
    """Neither that of a loss which was given away, nor that of a trainer's own."""
    given = gn.SoftmaxCrossEntropy()
    trainer = gn.Trainer(net().model, given, device="numpy")
    for loss in (copied(given), copied(trainer.loss)):
        loss.reduction = "sum"
        other = gn.Trainer(net().model, loss, device="numpy")
        assert (other.loss.reduction, trainer.loss.reduction) == ("sum", "mean")
        with pytest.raises(InputError, match=r"trainer\.loss"):
            loss.reduction = "mean"
    trainer = copied(trainer)
    gn.Trainer(net().model, trainer.loss, device="numpy")
    trainer.loss.reduction = "sum"  # of the copied trainer, whose own it is
    other = gn.Trainer(net().model, gn.SoftmaxCrossEntropy("sum"), device="numpy")
    for each in (trainer, other):
        each.fit(X, Y)
    same(trainer, other)


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [("sgd", {"l2": 0.1}), ("momentum", {"momentum": 0.5, "learning_rate": 0.01}), ("adam", {"epsilon": 1e-3})],
)
def test_settings_of_an_optimiser_take_effect_from_the_next_step_on(optimizer, changes):
    late, early = net(optimizer=optimizer), net(optimizer=optimizer)
    late.prepare((5,))
    for name, value in changes.items():
        setattr(late.optimizer, name, value)
        setattr(early.optimizer, name, value)
    for trainer in (late, early):
        trainer.fit(X, Y)
    same(late, early)
    assert {**late.optimizer.settings} | changes == {**late.optimizer.settings}
    with pytest.raises(TypeError):
        late.optimizer.settings["l2"] = 1.0
    with pytest.raises(InputError, match="l2"):
        late.optimizer.l2 = -1


def test_momentum_begins_or_ends_with_another_optimiser_only():
    trainer = net(optimizer="sgd")
    trainer.fit(X, Y)
    with pytest.raises(InputError, match="momentum cannot be set"):
        trainer.optimizer.momentum = 0.9
    assert trainer.optimizer.momentum == 0
    fresh = gn.SGD(0.1)
    fresh.momentum = 0.9
    gn.Trainer(net().model, optimizer=fresh, device="numpy").fit(X, Y)
    assert fresh.states == ("velocity",)


def test_betas_set_in_mid_training_are_pytorchs():
    torch = pytest.importorskip("torch")
    trainer = gn.Trainer(gn.Sequential([gn.Dense(3)]), optimizer=gn.Adam(1e-2), device="numpy", dtype="float64")
    trainer.prepare((5,))
    network = torch.nn.Linear(5, 3).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor(np.array(trainer.model.parameters["0.weight"])))
        network.bias.zero_()
    adam = torch.optim.Adam(network.parameters(), 1e-2)
    x, y = torch.tensor(X.astype("float64")), torch.tensor(Y)
    for betas in ((0.9, 0.999), (0.5, 0.99), (0.95, 0.9)):
        trainer.optimizer.beta1, trainer.optimizer.beta2 = adam.param_groups[0]["betas"] = betas
        trainer.fit(X.astype("float64"), Y, epochs=4, batch_size=60, shuffle=False)
        for _ in range(4):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            adam.step()
        np.testing.assert_allclose(
            trainer.model.parameters["0.weight"], network.weight.detach().numpy(), rtol=1e-12, atol=1e-14
        )


def test_a_model_that_is_built_again_is_trained_from_there():
    trainer, other = net(), net()
    trainer.fit(X, Y, epochs=2, batch_size=30)
    trainer.model.build((5,), trainer.backend, seed=0)
    trainer.epoch = 0
    for each in (trainer, other):
        each.fit(X, Y, epochs=2, batch_size=60)
    same(trainer, other)
    trainer.model.build((4,), trainer.backend)
    trainer.fit(X[:, :4], Y)
    with pytest.raises(gn.errors.ShapeError, match="built for"):
        trainer.fit(X, Y)
    trainer.model.build((5,), trainer.backend, dtype="float64")
    with pytest.raises(InputError, match="float64 weights"):
        trainer.fit(X, Y)


def test_a_model_is_not_built_again_while_it_trains():
    class Build(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.model.build((5,), trainer.backend)

    with pytest.raises(InputError, match="being trained"):
        net().fit(X, Y, callbacks=[Build()])


def test_a_fit_within_a_fit_is_refused():
    class Again(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.fit(X, Y)

    trainer = net()
    with pytest.raises(InputError, match="being trained already"):
        trainer.fit(X, Y, callbacks=[Again()])
    trainer.fit(X, Y)


def test_early_stopping_looks_at_the_metric_of_now():
    stop = gn.EarlyStopping("validation_loss", 2)
    stop.metric = "validation_accuracy"
    trainer = net()
    history = trainer.fit(X, Y, epochs=4, validation_data=(X, Y), callbacks=[stop])
    assert stop.best == max(history["validation_accuracy"])


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_what_has_no_weights_says_so_as_the_original_does(how):
    model = COPIES[how](gn.Sequential([gn.Dense(3)]))
    with pytest.raises(InputError, match="no weights yet"):
        gn.save(model, "nowhere")
    with pytest.raises(InputError, match="the model has no"):
        model.parameters  # noqa: B018


def test_what_no_loss_and_no_parameters_can_be_is_refused_late_as_early():
    trainer = net_with_weights()
    for value in ("SUM", 3, None, ["sum"]):
        with pytest.raises(InputError, match="reduction"):
            trainer.loss.reduction = value
    for value in (3, None, "x", [1]):
        with pytest.raises(InputError, match="dictionary"):
            trainer.model.parameters.update(value)
