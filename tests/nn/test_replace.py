"""Replacing a layer in mid-training: what is kept, what restarts, what is carried over, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import InputError, ShapeError

OPTIMISERS = {
    "sgd": lambda: gn.SGD(0.05),
    "momentum": lambda: gn.SGD(0.05, momentum=0.9, l2=1e-3),
    "adam": lambda: gn.Adam(1e-2, l2=1e-3),
    "adamw": lambda: gn.AdamW(1e-2, weight_decay=0.1),
}


def made(optimizer, dtype="float64", layers=None, seed=0):
    layers = layers or [gn.Dense(12, "relu"), gn.Dense(10, "sigmoid"), gn.Dense(3)]
    return gn.Trainer(gn.Sequential(layers), optimizer=OPTIMISERS[optimizer](), device="numpy", dtype=dtype, seed=seed)


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 9)), rng.integers(0, 3, 40)


def by_name(trainer):
    """Parameters and state by parameter name, copies."""
    model, found = trainer.model, {}
    for name in model._store.trained:
        place, shape = model._store.layout.places[name], model._store.layout.shapes[name]
        state = {key: value[place].reshape(shape).copy() for key, value in trainer.optimizer.state.items()}
        found[name] = {"value": model.parameters[name].copy(), **state}
    return found


class Reference:
    """Every parameter with its own moments and step counts, updated from the gradients that the trainer found."""

    def __init__(self, optimizer, trainer):
        self.settings, self.kind, self.names = trainer.optimizer.settings, optimizer, {}
        for name, value in trainer.model.parameters.items():
            self.add(name, value)

    def add(self, name, value, first=None, second=None, ages=(0, 0)):
        first, second = (np.zeros_like(value) if moment is None else moment for moment in (first, second))
        self.names[name] = [value.copy(), first.copy(), second.copy(), *ages]

    def step(self, gradients):
        s = self.settings
        for name, g in gradients.items():
            entry = self.names[name]
            w, m, v, steps, second_steps = entry
            if self.kind == "adamw":
                w = w - s["learning_rate"] * s["weight_decay"] * w * (not name.endswith("bias"))
            else:
                g = g + 2 * s["l2"] * w * (not name.endswith("bias"))
            if self.kind.startswith("adam"):
                m = s["beta1"] * m + (1 - s["beta1"]) * g
                v = s["beta2"] * v + (1 - s["beta2"]) * g * g
                steps, second_steps = steps + 1, second_steps + 1
                first, second = m / (1 - s["beta1"] ** steps), v / (1 - s["beta2"] ** second_steps)
                w = w - s["learning_rate"] * first / (np.sqrt(second) + s["epsilon"])
            else:
                m = s["momentum"] * m + g
                w = w - s["learning_rate"] * m
            entry[:] = [w, m, v, steps, second_steps]


@pytest.mark.parametrize("state", ["restart", "carry", "carry-both"])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_training_across_replacements_is_that_of_parameters_with_ages_of_their_own(data, optimizer, state):
    trainer = made(optimizer)
    train, order = trainer.samples(*data), np.arange(40)
    trainer._workspace(20)
    reference = Reference(optimizer, trainer)

    def steps(count):
        for turn in range(count):
            trainer.tally.cursor[0] = 20 * (turn % 2)
            trainer.step(train, order, 20)
            reference.step({name: g.copy() for name, g in trainer.model.gradients.items()})
            for name, value in trainer.model.parameters.items():
                np.testing.assert_allclose(value, reference.names[name][0], rtol=1e-10, atol=1e-12, err_msg=name)

    def replace(name, layer):
        trainer.model.replace(name, layer, state=state if isinstance(layer, gn.LowRankDense) else "restart")
        old = reference.names.pop(f"{name}.weight", None)
        for part in ("left", "right"):
            reference.names.pop(f"{name}.{part}", None)
        parameters = trainer.model.parameters
        if f"{name}.weight" in parameters:
            reference.add(f"{name}.weight", parameters[f"{name}.weight"])
            return
        left, right = (parameters[f"{name}.{part}"] for part in ("left", "right"))
        for part, value, carried in (
            ("left", left, lambda moment, power: moment @ (right**power).T),
            ("right", right, lambda moment, power: (left**power).T @ moment),
        ):
            first = carried(old[1], 1) if state != "restart" else None
            second = carried(old[2], 2) if state == "carry-both" else None
            ages = {"restart": (0, 0), "carry": (old[3], 0), "carry-both": (old[3], old[4])}[state]
            reference.add(f"{name}.{part}", value, first, second, ages)

    steps(7)
    replace("0", gn.factorise(trainer.model.layer("0"), 4))
    replace("2", gn.factorise(trainer.model.layer("2"), 3, "balanced"))  # two at once: the trainer follows both
    steps(6)
    replace("0", gn.merge(trainer.model.layer("0")))
    steps(5)
    replace("0", gn.factorise(trainer.model.layer("0"), 2))
    steps(4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_what_is_not_touched_keeps_its_bits(data, optimizer, dtype):
    trainer = made(optimizer, dtype)
    x, y = data[0].astype(dtype), data[1]
    trainer.fit(x, y, epochs=2, batch_size=16)
    before = by_name(trainer)
    trainer.model.replace("2", gn.factorise(trainer.model.layer("2"), 3))
    trainer.follow()
    after = by_name(trainer)
    assert set(after) == (set(before) - {"2.weight"}) | {"2.left", "2.right"}
    for name in set(after) & set(before):
        assert set(after[name]) == set(before[name])
        for part, value in before[name].items():
            np.testing.assert_array_equal(after[name][part], value, err_msg=f"{name} {part}")
    for name in ("2.left", "2.right"):
        assert not any(value.any() for part, value in after[name].items() if part != "value")


def test_a_learning_rate_set_later_reaches_every_age(data):
    trainer = made("adam")
    trainer.fit(*data, epochs=1, batch_size=16)
    trainer.model.replace("0", gn.factorise(trainer.model.layer("0"), 2), state="carry")
    trainer.fit(*data, epochs=1, batch_size=16)
    assert len(trainer.optimizer.ranges) > 1
    trainer.optimizer.learning_rate = 1e-30
    before = {name: value.copy() for name, value in trainer.model.parameters.items()}
    trainer.fit(*data, epochs=1, batch_size=16)
    for name, value in trainer.model.parameters.items():
        np.testing.assert_allclose(value, before[name], rtol=0, atol=1e-25, err_msg=name)


def test_frozen_layers_stay_out_of_the_optimiser(data):
    layers = [gn.Dense(12, "relu", trainable=False), gn.Dense(10, "relu"), gn.Dense(3)]
    trainer = made("adam", layers=layers)
    trainer.fit(*data, epochs=1, batch_size=16)
    model = trainer.model
    before = model.parameters["0.weight"].copy()
    model.replace("0", gn.factorise(model.layer("0"), 9))
    assert "0.left" not in model.gradients
    np.testing.assert_allclose(model.parameters["0.left"] @ model.parameters["0.right"], before, atol=1e-12)
    left = model.parameters["0.left"].copy()
    trainer.fit(*data, epochs=1, batch_size=16)
    np.testing.assert_array_equal(model.parameters["0.left"], left)


def test_two_trainers_of_one_model_both_follow(data):
    first = made("adam")
    first.fit(*data, epochs=1, batch_size=16)
    second = gn.Trainer(first.model, optimizer=gn.SGD(0.1, momentum=0.9), device=first.backend, dtype="float64")
    second.fit(*data, epochs=1, batch_size=16)
    first.model.replace("0", gn.factorise(first.model.layer("0"), 3))
    for trainer in (first, second):
        before = trainer.evaluate(*data)["loss"]
        trainer.fit(*data, epochs=3, batch_size=16)
        assert trainer.evaluate(*data)["loss"] < before


def test_evaluation_goes_on_after_a_replacement_of_a_bound_model(data):
    trainer = made("sgd")
    trainer.prepare((9,))
    outputs = trainer.outputs(data[0])
    trainer.model.replace("0", gn.factorise(trainer.model.layer("0"), 9))
    np.testing.assert_allclose(trainer.outputs(data[0]), outputs, rtol=1e-10)


def test_any_layer_may_be_replaced_by_one_that_fits(data):
    trainer = made("adam")
    trainer.fit(*data, epochs=1, batch_size=16)
    other = gn.Dense(10, "relu", weight=np.zeros((10, 12)))
    trainer.model.replace("2", other)
    assert trainer.model.layer("2") is other
    assert not trainer.model.parameters["2.weight"].any()
    trainer.follow()
    assert not by_name(trainer)["2.weight"]["first"].any()
    assert not by_name(trainer)["2.bias"]["first"].any()


# -- mistakes: each is one line, and the model is as it was ----------------------------------------------------------


def test_mistakes_leave_the_model_as_it_was(data):
    trainer = made("adam")
    trainer.fit(*data, epochs=1, batch_size=16)
    model = trainer.model
    before, layers = by_name(trainer), list(model.layers)
    factored = gn.factorise(model.layer("0"), 3)
    for name, layer, options, error, message in [
        ("1", factored, {}, InputError, r"no layer '1': it has '0' \(Dense\), '2' \(Dense\), '4' \(Dense\)"),
        (0, factored, {}, InputError, "no layer 0: it has '0'"),
        ("0", factored, {"state": "keep"}, InputError, "state is 'keep': expected one of restart, carry, carry-both"),
        ("2", factored, {}, ShapeError, r"samples of shape \(10,\), its replacement of shape \(12,\)"),
        ("0", gn.Dense(12), {}, InputError, "activation 'relu', its replacement 'identity'"),
        ("4", gn.Dense(3, "sigmoid"), {}, InputError, "activation 'identity', its replacement 'sigmoid'"),
        ("0", model.layers[1], {}, InputError, "stands in the model already"),
        ("0", "a layer", {}, InputError, "expected a layer such as Dense"),
        ("0", gn.Dense(12, "relu"), {"state": "carry"}, InputError, r"what factorise\(\) made of the layer '0'"),
        ("0", gn.Dense(12, "relu", weight=np.zeros((2, 2))), {}, ShapeError, r"shape \(2, 2\): expected"),
        ("2", gn.LowRankDense(10, 10, "relu", left=np.zeros((1, 1))), {}, ShapeError, r"shape \(1, 1\)"),
    ]:
        with pytest.raises(error, match=message):
            model.replace(name, layer, **options)
        assert list(model.layers) == layers
        after = by_name(trainer)
        assert set(after) == set(before)
        for key, value in before.items():
            np.testing.assert_array_equal(after[key]["value"], value["value"])
    with pytest.raises(InputError, match="no weights yet"):
        gn.Sequential([gn.Dense(3)]).replace("0", gn.Dense(3))


def test_what_was_made_of_one_layer_carries_nothing_to_another(data):
    layers = [gn.Dense(9, "relu"), gn.Dense(9, "relu"), gn.Dense(3)]
    trainer = made("adam", layers=layers)
    trainer.fit(*data, epochs=1, batch_size=16)
    with pytest.raises(InputError, match="made of the layer '2'"):
        trainer.model.replace("2", gn.factorise(trainer.model.layer("0"), 3), state="carry")
