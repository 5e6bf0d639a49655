"""The gradient check agrees with right gradients, finds wrong ones, and is not fooled by corners."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import DataError, InputError, ShapeError
from gpunet.nn.init import normal

from ..conftest import stand_in


@pytest.fixture
def data(rng):
    return rng.normal(size=(12, 5)), rng.integers(0, 3, 12)


def net(hidden="relu", **kwargs):
    drawing = {"weight": normal(0.5), "bias": normal(0.5)}
    return gn.Sequential([gn.Dense(6, hidden, **drawing), gn.Dense(3, **drawing, **kwargs)])


# -- right gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [
    ("softmax_cross_entropy", None), ("binary_cross_entropy", "sigmoid"), ("squared_error", "relu"),
])  # fmt: skip
@pytest.mark.parametrize("hidden", ["relu", "sigmoid"])
def test_right_gradients(data, head, hidden):
    loss, activation = head
    drawing = {"weight": normal(0.5), "bias": normal(0.5)}
    model = gn.Sequential([gn.Dense(6, hidden, **drawing), gn.Dense(3, activation, **drawing)])
    table = gn.gradient_check(model, loss, *data)
    slots = [name for name, layer in zip(("0", "2"), model.layers, strict=True) if layer]
    assert list(table.parameters) == [f"{name}.{kind}" for name in slots for kind in ("weight", "bias")]
    assert table.relative_error < 1e-8
    assert [check.shape for check in table.parameters.values()] == [(6, 5), (6,), (3, 6), (3,)]


def test_every_layer_there_is(rng):
    model = gn.Sequential(
        [gn.Reshape((1, 6, 6)), gn.Conv2D(2, 3, "relu", pool=2), gn.Dropout(0.3), gn.Flatten(),
         gn.LowRankDense(5, 2, "sigmoid"), gn.Dropout(0.2), gn.Dense(3)]
    )  # fmt: skip
    table = gn.gradient_check(model, "softmax_cross_entropy", rng.normal(size=(4, 36)), np.arange(4) % 3, seed=1)
    assert table.relative_error < 1e-7
    assert len(table.parameters) == 7


def test_the_backends(backend, data):
    assert gn.gradient_check(net(), "softmax_cross_entropy", *data, device=backend).relative_error < 1e-8


def test_the_numbers_are_those_of_the_formulas(data):
    """One layer, softmax: the gradient by hand."""
    x, labels = data
    model = gn.Sequential([gn.Dense(3, weight=normal(1.0), bias=normal(1.0))])
    trainer = gn.Trainer(model, device="numpy", dtype="float64")
    trainer.prepare((5,))
    z = x @ model.parameters["0.weight"].T + model.parameters["0.bias"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    p[np.arange(12), labels] -= 1
    table = gn.gradient_check(model, "softmax_cross_entropy", x, labels)
    assert table.parameters["0.weight"].largest == pytest.approx(np.abs(p.T @ x / 12).max(), rel=1e-12)
    assert table.parameters["0.bias"].largest == pytest.approx(np.abs(p.mean(axis=0)).max(), rel=1e-12)
    total = gn.gradient_check(model, gn.SoftmaxCrossEntropy("sum"), x, labels)
    assert total.parameters["0.weight"].largest == pytest.approx(12 * table.parameters["0.weight"].largest, rel=1e-12)
    assert total.relative_error < 1e-8


def test_uint8_is_scaled(rng):
    x, labels = rng.integers(0, 256, (9, 5), dtype=np.uint8), np.arange(9) % 3
    tables = [gn.gradient_check(net(), "softmax_cross_entropy", each, labels) for each in (x, x / 255)]
    for name, check in tables[0].parameters.items():
        assert check.largest == pytest.approx(tables[1].parameters[name].largest, rel=1e-12)


# -- wrong gradients --------------------------------------------------------------------------------------------------


class Wrong(NumpyBackend):
    """One element of the first weight's gradient is off by a share of the largest."""

    share = 1e-5

    def gemm(self, a, b, out, transpose_a=False, transpose_b=False):
        super().gemm(a, b, out, transpose_a, transpose_b)
        if transpose_a and out.shape == (6, 5):
            out[2, 3] += self.share * np.abs(out).max()


@pytest.mark.parametrize(("share", "low", "high"), [(1e-5, 4.9e-6, 5.1e-6), (-0.3, 0.1, 0.2), (2.0, 0.4, 1.0)])
def test_one_wrong_element_is_found(data, share, low, high):
    backend = Wrong()
    backend.share = share
    checks = gn.gradient_check(net(), "softmax_cross_entropy", *data, device=backend).parameters
    wrong = checks.pop("0.weight")
    assert low < wrong.relative_error < high
    assert wrong.elementwise_error >= 0.9 * wrong.relative_error
    assert wrong.corners == 0
    assert max(check.relative_error for check in checks.values()) < 1e-8


def test_a_gradient_of_zero_is_wrong(data):
    class Lazy(NumpyBackend):
        def gemm(self, a, b, out, transpose_a=False, transpose_b=False):
            super().gemm(a, b, out, transpose_a, transpose_b)
            if transpose_a:
                out[...] = 0

    table = gn.gradient_check(net(), "softmax_cross_entropy", *data, device=Lazy())
    assert table.parameters["0.weight"].relative_error == pytest.approx(1)
    assert table.parameters["0.weight"].largest == 0
    assert table.parameters["0.bias"].relative_error < 1e-8


def test_what_is_not_finite_is_not_right(data):
    x, labels = data
    model = gn.Sequential([gn.Dense(6, "relu", weight=normal(1e200)), gn.Dense(3, weight=normal(1e200))])
    assert not gn.gradient_check(model, "softmax_cross_entropy", x, labels).relative_error < 1e-6


# -- corners ----------------------------------------------------------------------------------------------------------


def test_a_corner_within_the_step_is_resolved():
    """relu(w x + b) with the pre-activation 3e-6 above zero: a step of 1e-5 sees both sides of the corner."""
    hidden = gn.Dense(1, "relu", weight=np.array([[1.0]]), bias=np.array([3e-6 - 1.0]))
    model = gn.Sequential([hidden, gn.Dense(2, weight=np.array([[2.0], [-1.0]]))])
    table = gn.gradient_check(model, "softmax_cross_entropy", np.array([[1.0]]), np.array([0]))
    for name in ("0.weight", "0.bias"):
        check = table.parameters[name]
        assert check.elementwise_error > 0.1
        assert check.relative_error < 1e-6
        assert check.corners == 1
    assert table.parameters["2.bias"].corners == 0
    coarse = gn.gradient_check(model, "softmax_cross_entropy", np.array([[1.0]]), np.array([0]), step=1e-7)
    assert coarse.parameters["0.bias"].corners == 0


def test_a_corner_at_the_very_point_is_not_hidden():
    model = gn.Sequential(
        [gn.Dense(1, "relu", weight=np.array([[1.0]])), gn.Dense(2, weight=np.array([[2.0], [-1.0]]))]
    )
    table = gn.gradient_check(model, "softmax_cross_entropy", np.array([[0.0]]), np.array([0]))
    assert table.parameters["0.bias"].relative_error > 0.1


def test_dead_units_have_gradients_of_zero(data):
    x, labels = data
    model = gn.Sequential([gn.Dense(4, "relu", bias=lambda shape, rng: np.full(shape, -1e3)), gn.Dense(3)])
    table = gn.gradient_check(model, "softmax_cross_entropy", x, labels)
    dead = table.parameters["0.weight"]
    assert (dead.largest, dead.relative_error, dead.elementwise_error) == (0, 0, 0)


# -- what it leaves alone ---------------------------------------------------------------------------------------------


def test_the_model_the_loss_and_the_data_are_left_alone(data):
    x, labels = (each.copy() for each in data)
    trainer = gn.Trainer(net(), device="numpy", optimizer=gn.SGD(0.1))
    trainer.fit(x, labels, epochs=2)
    before = trainer.model.flat[0].copy()
    table = gn.gradient_check(trainer.model, trainer.loss, x, labels)
    assert table.relative_error < 1e-8
    np.testing.assert_array_equal(trainer.model.flat[0], before)
    assert trainer.model.dtype == "float32"
    np.testing.assert_array_equal(x, data[0])
    np.testing.assert_array_equal(labels, data[1])
    trainer.fit(x, labels)

    fresh = net()
    gn.gradient_check(fresh, "softmax_cross_entropy", x, labels)
    assert not fresh.built


def test_the_trained_weights_are_the_ones_that_are_checked(data):
    trainer = gn.Trainer(net(), device="numpy", dtype="float64", optimizer=gn.SGD(0.5))
    trainer.fit(*data, epochs=20)
    trainer.fit(*data, epochs=1, batch_size=12)
    grads = trainer.model.gradients["2.weight"]
    trainer.optimizer.learning_rate = 1e-300  # one more step, for the gradient of the weights as they stand
    trainer.fit(*data, epochs=1, batch_size=12)
    found = gn.gradient_check(trainer.model, "softmax_cross_entropy", *data).parameters["2.weight"].largest
    assert found == pytest.approx(np.abs(grads).max(), rel=1e-9)


def test_frozen_layers_are_not_checked(data):
    model = gn.Sequential([gn.Dense(6, "relu", trainable=False), gn.Dense(3)])
    assert list(gn.gradient_check(model, "softmax_cross_entropy", *data).parameters) == ["2.weight", "2.bias"]


def test_a_model_on_another_device(data):
    from gpunet.backend.cupy_backend import CupyBackend

    trainer = gn.Trainer(net(), device=CupyBackend(module=stand_in()))
    trainer.prepare((5,))
    assert gn.gradient_check(trainer.model, "softmax_cross_entropy", *data).relative_error < 1e-8


def test_the_same_seed_gives_the_same_numbers(data):
    first, again, other = (gn.gradient_check(net(), "softmax_cross_entropy", *data, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_it_reads_as_a_table(data):
    lines = str(gn.gradient_check(net(), "softmax_cross_entropy", *data)).splitlines()
    assert lines[0].split() == [
        "parameter",
        "shape",
        "largest",
        "rounding",
        "relative",
        "error",
        "by",
        "element",
        "corners",
    ]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["0.weight", "6×5"], ["0.bias", "6"], ["2.weight", "3×6"], ["2.bias", "3"],
    ]  # fmt: skip
    assert len({line.rstrip().rfind(" ") for line in lines[1:]}) == 1


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, -1e-5, float("nan")])
def test_a_bad_step(data, step):
    with pytest.raises(InputError, match=r"step cannot be .*: expected a finite number > 0"):
        gn.gradient_check(net(), "softmax_cross_entropy", *data, step=step)


def test_other_mistakes(data):
    x, labels = data
    with pytest.raises(InputError, match="unknown loss 'nonsense'"):
        gn.gradient_check(net(), "nonsense", x, labels)
    with pytest.raises(DataError, match="gradient check: label 3 in row 0 is out of range: expected 0 to 2"):
        gn.gradient_check(net(), "softmax_cross_entropy", x, np.full(12, 3))
    with pytest.raises(DataError, match="gradient check: 12 samples and 11 labels"):
        gn.gradient_check(net(), "softmax_cross_entropy", x, labels[:11])
    trained = gn.Trainer(net(), device="numpy")
    trained.prepare((5,))
    with pytest.raises(ShapeError, match=r"samples have shape \(4,\), the model was built for \(5,\)"):
        gn.gradient_check(trained.model, "softmax_cross_entropy", x[:, :4], labels)
    frozen = gn.Sequential([gn.Dense(3, trainable=False)])
    with pytest.raises(InputError, match="no trained parameter"):
        gn.gradient_check(frozen, "softmax_cross_entropy", x, labels)


def test_the_default_device_is_plain_numpy():
    import inspect

    assert inspect.signature(gn.gradient_check).parameters["device"].default == "numpy"
    assert get_backend("numpy").kernels == "numpy"


# -- gradients that are 0 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("n", [6, 60])
def test_a_gradient_that_is_0_is_right_where_differences_show_rounding_alone(rng, loss, reduction, n):
    """Of balanced classes the bias of equal outputs has no gradient: a few ε/h were called an error of 100."""
    layers = [gn.Dense(4, "sigmoid", weight="zeros"), gn.Dense(3, weight="zeros")]
    kind = {"softmax_cross_entropy": gn.SoftmaxCrossEntropy, "squared_error": gn.SquaredError}[loss](reduction)
    for model in (gn.Sequential([gn.Dense(3, weight="zeros")]), gn.Sequential(layers)):
        table = gn.gradient_check(model, kind, rng.normal(size=(n, 5)), np.arange(n) % 3)
        assert table.relative_error < 1e-6, str(table)


@pytest.mark.parametrize("wrong", [0.0, 1e-9])
def test_a_gradient_that_is_called_0_and_is_not_is_found(rng, wrong):
    class Silent(gn.Dense):
        def backward(self, dy):
            found = super().backward(dy)
            self.d_bias[...] = wrong
            return found

    x, y = rng.normal(size=(20, 5)), np.arange(20) % 3
    table = gn.gradient_check(gn.Sequential([gn.Dense(4, "sigmoid"), Silent(3)]), "softmax_cross_entropy", x, y)
    assert table.parameters["2.bias"].relative_error > 0.9
    small = gn.gradient_check(gn.Sequential([Silent(3)]), "squared_error", x * 1e-4, y * 0, step=1e-3)
    assert small.parameters["0.bias"].relative_error > 0.9


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_a_gradient_that_is_off_by_a_ten_thousandth_is_found(rng, size):
    class Off(gn.Dense):
        def backward(self, dy):
            found = super().backward(dy)
            self.d_weight[0, 0] += 1e-4 * abs(self.d_weight).max()
            return found

    x, y = size * rng.normal(size=(20, 5)), np.arange(20) % 3
    table = gn.gradient_check(gn.Sequential([Off(3)]), "softmax_cross_entropy", x, y, step=1e-5 / size**0.5)
    assert table.parameters["0.weight"].relative_error > 2e-5


# -- gradients near the rounding --------------------------------------------------------------------------------------


class Scaled(gn.Dense):
    """Its gradient is `share` times what is right."""

    share = 1.0

    def backward(self, dy):
        found = super().backward(dy)
        self.d_weight *= self.share
        return found


@pytest.mark.parametrize("size", [1e-7, 1e-6, 1e-4, 1.0])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "squared_error"])
def test_a_tiny_gradient_is_not_accused_of_the_rounding(rng, size, loss):
    """Of inputs of 1e-6 the difference of the costs is right to three digits: an error of 1e-3 was told."""
    x, y = size * rng.normal(size=(20, 5)), np.arange(20) % 3
    activation = None if loss.startswith("softmax") else "sigmoid"
    model = gn.Sequential([gn.Dense(4, "sigmoid"), gn.Dense(3, activation)])
    assert gn.gradient_check(model, loss, x, y).relative_error < 1e-6


@pytest.mark.parametrize("size", [1e-6, 1e-5, 1e-3, 1.0])
def test_a_gradient_that_is_off_by_a_thousandth_is_found(rng, size):
    layer = Scaled(3)
    layer.share = 1.001
    table = gn.gradient_check(
        gn.Sequential([layer]), "softmax_cross_entropy", size * rng.normal(size=(20, 5)), np.arange(20) % 3
    )
    assert 5e-5 < table.parameters["0.weight"].relative_error < 6e-4


@pytest.mark.parametrize(("loss", "activation"), [
    ("softmax_cross_entropy", None), ("binary_cross_entropy", "sigmoid"), ("squared_error", "sigmoid"),
])  # fmt: skip
def test_what_is_saturated_is_not_accused(rng, loss, activation):
    """The cost of a net that is sure and right is what rounding of its scores has left: all ε, or 0."""
    x = rng.normal(size=(20, 4))
    outputs = 1 if loss.startswith("binary") else 3
    head = gn.Dense(outputs, activation, weight=normal(300))
    model = gn.Sequential([gn.Dense(6, "sigmoid", weight=normal(20)), head])
    trainer = gn.Trainer(model, loss, device="numpy", dtype="float64")
    table = gn.gradient_check(model, loss, x, trainer.predict(x))
    assert table.relative_error < 1e-6, str(table)


# -- layers of one's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("built", [False, True])
def test_what_a_layer_of_ones_own_keeps_is_kept(data, built):
    """A class defined twice under one name, with an attribute that its configuration does not tell."""

    def kind(wrong):
        class Gained(gn.Dense):
            gain = 1.0

            def backward(self, dy):
                dy *= wrong * self.gain
                return super().backward(dy)

            def forward(self, x):
                y = super().forward(x)
                y *= self.gain
                return y

        return Gained

    gained, _ = kind(1.0), kind(2.0)
    layer = gained(3)
    layer.gain = 3.0
    model = gn.Sequential([layer])
    if built:
        model.build((5,), get_backend("numpy"), seed=4)
    total = gn.gradient_check(model, "softmax_cross_entropy", *data, seed=4)
    assert total.relative_error < 1e-8
    plain = gn.gradient_check(gn.Sequential([gn.Dense(3)]), "softmax_cross_entropy", *data, seed=4)
    assert total.parameters["0.bias"].largest != pytest.approx(plain.parameters["0.bias"].largest, rel=0.1)
