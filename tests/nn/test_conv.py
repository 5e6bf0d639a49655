"""Convolutional networks: gradients, agreement with PyTorch, shapes and names, mistakes, training end to end."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import InputError, ShapeError
from gpunet.nn import losses
from gpunet.nn.layers import Activation, AvgPool2D, Conv2D, Dense, Flatten, MaxPool2D, Reshape
from gpunet.nn.model import Sequential
from gpunet.nn.serialize import load, load_weights, save
from gpunet.nn.trainer import Trainer

from .gradients import check_gradients


def averaging(*args, **options):
    return Conv2D(*args, pooling="average", **options)


# shape of a sample, layers below the classifier
BODIES = {
    "one layer": ((3, 8, 8), lambda: [Conv2D(4, 3, "relu"), MaxPool2D(2)]),
    "pooled in one pass": ((3, 8, 8), lambda: [Conv2D(4, 3, "relu", pool=2)]),
    "two layers": ((2, 11, 9), lambda: [Conv2D(3, 3, "relu", pool=2), Conv2D(5, 3, "relu", padding="same")]),
    "grey, same, 5×5": ((1, 7, 6), lambda: [Conv2D(3, 5, "sigmoid", padding="same"), Conv2D(2, 5, padding="same")]),
    "1×1": ((3, 5, 4), lambda: [Conv2D(4, 1, "relu"), Conv2D(3, 1, "sigmoid", pool=2)]),
    "tanh and leaky": ((2, 7, 6), lambda: [Conv2D(3, 3, "tanh", pool=2, padding="same"), Conv2D(4, 3, "leaky_relu")]),
    "batch norms": (
        (2, 8, 7),
        lambda: [gn.BatchNorm(), Conv2D(3, 3, "tanh"), gn.BatchNorm(), Activation("sigmoid"), MaxPool2D(2)],
    ),
    "ragged pools": ((2, 10, 8), lambda: [Conv2D(3, 3, pool=3), MaxPool2D(2)]),
    "pool first": ((2, 6, 6), lambda: [MaxPool2D(2), Conv2D(3, 3, "relu")]),
    "activations of their own": ((1, 6, 6), lambda: [Conv2D(3, 3), Activation("relu"), MaxPool2D(2)]),
    "frozen below": ((1, 8, 8), lambda: [Conv2D(3, 3, "relu", pool=2, trainable=False), Conv2D(2, 3, "sigmoid")]),
    "frozen between": ((1, 8, 8), lambda: [Conv2D(3, 3, "relu"), Conv2D(2, 3, "relu", pool=2, trainable=False)]),
    "even kernels": ((2, 8, 7), lambda: [Conv2D(3, 4, "relu"), Conv2D(4, 2, "tanh", pool=2)]),
    "averages": ((3, 8, 8), lambda: [Conv2D(4, 3, "relu"), AvgPool2D(3, 2)]),
    "averages first": ((2, 8, 7), lambda: [AvgPool2D(), Conv2D(3, 2, "sigmoid")]),
    "averages above": ((2, 8, 8), lambda: [Conv2D(3, 3, "relu"), Conv2D(3, 3, padding="same"), AvgPool2D(4, 1)]),
    "averaged in one pass": ((3, 8, 8), lambda: [averaging(4, 3, "relu", pool=2)]),
    "averaged with overlaps": (
        (2, 10, 9),
        lambda: [averaging(3, 4, "tanh", pool=3, pool_stride=2), averaging(4, 1, "leaky_relu", pool=2, pool_stride=1)],
    ),
    "averaged and frozen below": (
        (1, 8, 8),
        lambda: [averaging(3, 4, "relu", pool=3, pool_stride=2, trainable=False), Conv2D(2, 2, "sigmoid")],
    ),
    "averaged and frozen between": (
        (1, 8, 8),
        lambda: [Conv2D(3, 3, "relu"), averaging(2, 3, "relu", pool=2, trainable=False)],
    ),
    "rows of features": ((54,), lambda: [Dense(48, "relu"), Reshape((3, 4, 4)), Conv2D(2, 3, "relu")]),
}


def built(shape, layers, backend, batch=6, loss="softmax_cross_entropy"):
    model = Sequential([*layers, Flatten(), Dense(3)])
    model.build(shape, backend, dtype="float64", seed=5)
    model.bind(batch)
    found = losses.NAMED[loss](reduction="sum")
    found.attach(backend, "identity")
    return model, found


def stirred(model, backend, rng):
    """Biases away from 0, so that few numbers lie where ReLU and the maximum have kinks."""
    params, _, _ = model.flat
    backend.copy(np.array(backend.to_host(params)) + 0.1 * rng.normal(size=len(params)), params)
    return model


@pytest.mark.parametrize("body", BODIES)
def test_gradients(backend, rng, body):
    shape, layers = BODIES[body]
    model, loss = built(shape, layers(), backend)
    x, labels = rng.normal(size=(6, *shape)), rng.integers(0, 3, 6)
    before = x.copy()
    assert check_gradients(stirred(model, backend, rng), loss, backend, x, labels, rng) < 1e-6
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_random_networks(backend, seed):
    rng = np.random.default_rng(seed)
    padding = str(rng.choice(["valid", "same"]))
    kernel, pooling = int(rng.choice([1, 3, 5] if padding == "same" else [1, 2, 3, 4])), ["max", "average"][seed % 2]
    shape = (int(rng.choice([1, 3])), int(rng.integers(7, 13)), int(rng.integers(7, 13)))
    layers = [
        Conv2D(int(rng.integers(1, 6)), kernel, "relu", pool=int(rng.integers(1, 4)), padding=padding, pooling=pooling),
        Conv2D(int(rng.integers(1, 6)), 3, str(rng.choice(["relu", "sigmoid"])), padding="same"),
    ]
    model, loss = built(shape, layers, backend, batch=4, loss="squared_error")
    x, labels = rng.normal(size=(4, *shape)), rng.integers(0, 3, 4)
    assert check_gradients(stirred(model, backend, rng), loss, backend, x, labels, rng) < 1e-6


@pytest.mark.parametrize("wrong", ["conv2d_backward", "maxpool2d_backward", "avgpool2d_backward"])
def test_the_check_can_fail(rng, wrong):
    class Wrong(NumpyBackend):
        pass

    def scaled(self, *args):
        getattr(NumpyBackend, wrong)(self, *args)
        if args[-1] is not None:
            args[-1][...] *= 1.001

    setattr(Wrong, wrong, scaled)
    model, loss = built((2, 8, 8), [Conv2D(3, 3, "relu"), AvgPool2D(2), Conv2D(3, 2), MaxPool2D(2)], Wrong())
    x, labels = rng.normal(size=(6, 2, 8, 8)), rng.integers(0, 3, 6)
    assert check_gradients(stirred(model, model.backend, rng), loss, model.backend, x, labels, rng) > 1e-6


def scores_and_gradients(layers, x, labels, backend, training=False):
    """Of a net with these layers and weights that are always the same."""
    model, loss = built(x.shape[1:], layers, backend)
    model.train(training)
    weights = np.random.default_rng(3)
    for parameter in model.parameters.values():
        backend.copy(weights.normal(size=parameter.shape), parameter)
    z = model.forward(backend.asarray(x))
    loss(z, backend.asarray(labels), model.d_scores, backend.zeros(4, "float64"))
    model.backward(model.d_scores)
    return [np.array(backend.to_host(a)) for a in (z, model.flat[1])]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_averages_in_one_pass_are_averages_after(backend, rng, training, frozen):
    x, labels = rng.normal(size=(6, 3, 11, 10)), rng.integers(0, 3, 6)
    shared = {"activation": "relu", "trainable": not frozen}
    nets = [averaging(4, 4, pool=4, pool_stride=3, **shared)], [Conv2D(4, 4, **shared), AvgPool2D(4, 3)]
    found = [scores_and_gradients(layers, x, labels, backend, training) for layers in nets]
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


def test_maps_are_made_where_a_gradient_needs_them_alone(rng):
    """Neither frozen filters nor a net that is only evaluated have any: of 2000 filters they would be gigabytes."""
    x, labels = rng.normal(size=(20, 3, 9, 9)).astype("float32"), rng.integers(0, 3, 20)
    frozen, learning = (averaging(4, 2, "relu", pool=4, trainable=trains) for trains in (False, True))
    for conv in (frozen, learning):
        trainer = Trainer(Sequential([conv, Flatten(), Dense(3)]), device="cpu")
        trainer.prepare((3, 9, 9))
        trainer.predict(x)
        assert conv._maps is None
        trainer.fit(x, labels, epochs=2, batch_size=8)
    assert frozen._maps is None
    assert learning._maps.shape[2:] == (4, 8, 8)
    assert not hasattr(copy.deepcopy(learning), "_maps")


@pytest.mark.usefixtures("session")
def test_pooling_in_one_pass_is_pooling_after(backend, rng):
    x, labels = rng.normal(size=(6, 3, 11, 10)), rng.integers(0, 3, 6)
    nets = [Conv2D(4, 3, "relu", pool=2)], [Conv2D(4, 3, "relu"), MaxPool2D(2)]
    found = [scores_and_gradients(layers, x, labels, backend) for layers in nets]
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("n", [1, 4])
def test_a_short_batch_is_a_small_batch(backend, rng, n):
    x, labels = rng.normal(size=(n, 3, 9, 9)), rng.integers(0, 3, n)
    found = []
    for batch in (6, n):
        model, loss = built(
            (3, 9, 9),
            [Conv2D(4, 3, "relu", pool=2), Conv2D(3, 3, "relu", padding="same"), MaxPool2D(2)],
            backend,
            batch,
        )
        model.forward(backend.asarray(rng.normal(size=(batch, 3, 9, 9))))
        model.set_batch_size(n)
        z = model.forward(backend.asarray(x))
        loss(z, backend.asarray(labels), model.d_scores, backend.zeros(4, "float64"))
        model.backward(model.d_scores)
        found.append(np.array(backend.to_host(model.flat[1])))
    np.testing.assert_array_equal(*found)


# -- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_twin(torch, model):
    """The equal torch.nn.Sequential, with the model's weights by name."""
    modules, shape = [], model.input_shape
    activations = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}
    for layer in model.layers:
        if isinstance(layer, Conv2D):
            same = layer.kernel // 2 if layer.padding == "same" else 0
            modules.append(torch.nn.Conv2d(shape[0], layer.filters, layer.kernel, padding=same))
        elif isinstance(layer, Flatten):
            modules.append(torch.nn.Flatten())
        elif isinstance(layer, Reshape):
            modules.append(torch.nn.Unflatten(1, layer.shape))
        elif isinstance(layer, MaxPool2D):
            modules.append(torch.nn.MaxPool2d(layer.size))
        elif isinstance(layer, AvgPool2D):
            modules.append(torch.nn.AvgPool2d(layer.size, layer.stride))
        elif isinstance(layer, Dense):
            modules.append(torch.nn.Linear(shape[0], layer.units))
        if layer.activation != "identity":
            modules.append(activations[layer.activation]())
        if isinstance(layer, Conv2D) and layer.pool > 1:
            average = layer.pooling == "average"
            modules.append(
                torch.nn.AvgPool2d(layer.pool, layer.pool_stride) if average else torch.nn.MaxPool2d(layer.pool)
            )
        shape = layer.spec(shape).output
    network = torch.nn.Sequential(*modules).to(torch.tensor(next(iter(model.parameters.values()))).dtype)
    network.load_state_dict({name: torch.tensor(p) for name, p in model.parameters.items()})  # names and shapes agree
    return network


NETWORKS = {
    "the text's": lambda: [Conv2D(8, 3, "relu"), MaxPool2D(2), Flatten(), Dense(4)],
    "in one pass": lambda: [Conv2D(8, 3, "relu", pool=2), Flatten(), Dense(4)],
    "two layers": lambda: [
        Reshape((3, 14, 13)), Conv2D(6, 3, "relu", pool=2), Conv2D(7, 3, "relu", padding="same"), MaxPool2D(3),
        Flatten(), Dense(5, "sigmoid"), Dense(4),
    ],
    "averages": lambda: [
        averaging(6, 4, "relu", pool=3, pool_stride=2), AvgPool2D(2, 1), averaging(3, 2, pool=2),
        Flatten(), Dense(4),
    ],
    "5×5 and 1×1": lambda: [Conv2D(4, 5, padding="same"), Conv2D(3, 1, "sigmoid", pool=3), Flatten(), Dense(4)],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_training_agrees_with_pytorch(rng, name, device):
    torch = pytest.importorskip("torch")
    layers = NETWORKS[name]()
    x, labels = rng.normal(size=(20, 3, 14, 13)), rng.integers(0, 4, 20)
    if isinstance(layers[0], Reshape):
        x = x.reshape(20, -1)
    trainer = Trainer(Sequential(layers), optimizer=gn.SGD(0.1), device=device, dtype="float64", seed=2)
    trainer.prepare(x.shape[1:])
    network = torch_twin(torch, trainer.model)
    with torch.no_grad():
        np.testing.assert_allclose(trainer.outputs(x), network(torch.tensor(x)).numpy(), rtol=1e-10, atol=1e-12)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):
        trainer.fit(x, labels, batch_size=20)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.tensor(x)), torch.tensor(labels)).backward()
        optimiser.step()
    for parameter, other in zip(trainer.model.parameters.items(), network.state_dict().items(), strict=True):
        assert parameter[0] == other[0]
        np.testing.assert_allclose(parameter[1], other[1].numpy(), rtol=1e-9, atol=1e-10)


def test_ties_go_where_pytorch_sends_them(backend):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).integers(0, 3, (4, 3, 9, 8)).astype("float32")
    theirs = torch.tensor(x, requires_grad=True)
    pooled = torch.nn.functional.max_pool2d(theirs, 2)
    dy = np.random.default_rng(2).normal(size=pooled.shape).astype("float32")
    pooled.backward(torch.tensor(dy))
    out, place = backend.empty(dy.shape, "float32"), backend.empty(dy.shape, "uint8")
    dx = backend.empty(x.shape, "float32")
    backend.maxpool2d(backend.asarray(x), 2, out, place)
    backend.maxpool2d_backward(backend.asarray(dy), place, 2, dx)
    np.testing.assert_array_equal(backend.to_host(out), pooled.detach().numpy())
    np.testing.assert_array_equal(backend.to_host(dx), theirs.grad.numpy())


# -- names, shapes, files ---------------------------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_sequential():
    model = Sequential(NETWORKS["two layers"]())
    model.build((546,), get_backend("numpy"))
    assert {name: p.shape for name, p in model.parameters.items()} == {
        "1.weight": (6, 3, 3, 3), "1.bias": (6,), "4.weight": (7, 6, 3, 3), "4.bias": (7,),
        "8.weight": (5, 7 * 2 * 1), "8.bias": (5,), "10.weight": (4, 5), "10.bias": (4,),
    }  # fmt: skip
    assert model.output_shape == (4,)


def test_saved_networks_come_back(tmp_path, rng):
    layers = [
        Conv2D(4, 3, "relu", pool=2, padding="same"), MaxPool2D(2),
        averaging(5, 1, "relu", pool=2, pool_stride=1, trainable=False), AvgPool2D(1), Flatten(), Dense(3),
    ]  # fmt: skip
    trainer = Trainer(Sequential([Reshape((1, 8, 8)), *layers]), device="numpy")
    trainer.prepare((64,))
    x = rng.normal(size=(5, 64)).astype("float32")
    save(trainer.model, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors", "numpy")
    assert again.config() == trainer.model.config()
    np.testing.assert_array_equal(Trainer(again, device=again.backend).outputs(x), trainer.outputs(x))
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    network = torch_twin(torch, again)
    network.load_state_dict(load_file(tmp_path / "net.safetensors"))
    state = {name: torch.tensor(rng.normal(size=p.shape)).float() for name, p in network.state_dict().items()}
    save_file(state, tmp_path / "theirs.safetensors")
    load_weights(again, tmp_path / "theirs.safetensors")
    for name, parameter in again.parameters.items():
        np.testing.assert_array_equal(parameter, state[name].numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(8, 4, padding="same"), "kernel is 4 with padding='same': expected an odd one, such as 3 or 5"),
        (lambda: Conv2D(8, pooling="mean"), "pooling is 'mean': expected one of max, average"),
        (lambda: Conv2D(8, pool_stride=0), "pool_stride is 0: expected a whole number from 1"),
        (lambda: Conv2D(8, pool=3, pool_stride=2), "pool=3 and pool_stride=2: its windows stand side by side"),
        (lambda: AvgPool2D(0), "AvgPool2D's size is 0: expected a whole number ≥ 1"),
        (lambda: AvgPool2D(2, "x"), "AvgPool2D's stride is 'x': expected a whole number from 1"),
        (lambda: Conv2D(0), "Conv2D's filters is 0: expected a whole number ≥ 1"),
        (lambda: Conv2D(2.5), "filters is 2.5"),
        (lambda: Conv2D(8, True), "kernel is True"),
        (lambda: Conv2D(8, activation="tanhh"), "activation is 'tanhh': expected one of"),
        (lambda: Conv2D(8, padding="full"), "padding is 'full': expected one of valid, same"),
        (lambda: Conv2D(8, pool=16), "pool is 16: expected a whole number from 1 to 15"),
        (lambda: Conv2D(8, weight="lucky"), "unknown initial weights 'lucky'"),
        (lambda: MaxPool2D(0), "MaxPool2D's size is 0: expected a whole number from 1 to 15"),
        (lambda: Reshape(64), "shape is 64: expected whole numbers"),
        (lambda: Reshape((8, -1)), "shape is \\(8, -1\\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("shape", "layers", "message"),
    [
        ((784,), [Conv2D(8)], r"got samples of shape \(784,\): put Reshape\(\(channels, rows, columns\)\) before it"),
        ((28, 28), [Conv2D(8)], r"put Reshape\(\(1, 28, 28\)\) before it"),
        ((28, 28), [MaxPool2D()], r"MaxPool2D takes images"),
        (
            (3, 2, 9),
            [Conv2D(8, 3)],
            "images of 2×9 are smaller than the 3×3 kernel: use a smaller one, or padding='same'",
        ),
        ((3, 4, 4), [Conv2D(8, 3, pool=3)], "maps of 2×2 are smaller than the 3×3 pool"),
        ((3, 4, 4), [MaxPool2D(5)], "maps of 4×4 are smaller than the 5×5 pool"),
        ((3, 4, 4), [AvgPool2D(5, 1)], "maps of 4×4 are smaller than the 5×5 pool"),
        ((28, 28), [AvgPool2D()], r"AvgPool2D takes images"),
        ((64,), [Reshape((3, 8, 8))], r"hold 64 numbers and do not fit shape \(3, 8, 8\), which holds 192"),
        ((3, 8, 8), [Conv2D(8, weight=np.zeros((8, 3, 5, 5)))], r"\(8, 3, 5, 5\): expected \(8, 3, 3, 3\)"),
        ((3, 8, 8), [Dense(4)], "Dense takes rows of features"),
    ],
)
def test_shapes_that_do_not_fit(shape, layers, message):
    with pytest.raises(ShapeError, match=message):
        Sequential(layers).build(shape, get_backend("numpy"))


def test_averages_after_an_activation_are_no_last_layer():
    with pytest.raises(InputError, match=r"its averages too: put gn.Flatten\(\) after it"):
        Sequential([averaging(4, 2, "relu", pool=2)]).build((1, 6, 6), get_backend("numpy"))
    Sequential([averaging(4, 2, pool=2)]).build((1, 6, 6), get_backend("numpy"))


def test_settings_that_do_not_go_together_are_refused_when_they_are_set_one_by_one():
    layer = Conv2D(4, 2, pool=20, pooling="average", pool_stride=3)
    with pytest.raises(InputError, match="kernel is 2 with padding='same'"):
        layer.padding = "same"
    layer.pooling = "max"
    with pytest.raises(InputError, match="pool=20 and pool_stride=3"):
        Sequential([layer, Flatten()]).build((1, 30, 30), get_backend("numpy"))


# -- end to end -------------------------------------------------------------------------------------------------------


def digits_net():
    return Sequential([Reshape((1, 8, 8)), Conv2D(8, 3, "relu", padding="same", pool=2), Flatten(), Dense(10)])


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_digits_are_learned_and_the_same_seed_gives_the_same_bits(device):
    data, runs = gn.datasets.load("digits"), []
    for _ in range(2):
        trainer = Trainer(digits_net(), optimizer=gn.Adam(1e-2), device=device, seed=1)
        trainer.fit(data.x_train, data.y_train, epochs=8, batch_size=50)  # 1442 samples: the last batch has 42
        runs.append([p.copy() for p in trainer.model.parameters.values()])
    assert trainer.evaluate(data.x_test, data.y_test)["accuracy"] > 0.96
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("view", [lambda a: a[::2], lambda a: a[:, ::-1], np.asfortranarray])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_that_are_not_contiguous_train_as_their_copy_does(rng, view, dtype):
    x = view(rng.integers(0, 255, (60, 64)).astype(dtype))
    labels, results = rng.integers(0, 10, len(x)), []
    for data in (x, x.copy()):
        trainer = Trainer(digits_net(), optimizer=gn.SGD(1e-4), device="cpu")
        trainer.fit(data, labels, batch_size=16)
        results.append(trainer.outputs(data))
    np.testing.assert_array_equal(*results)


def test_images_may_be_given_as_images(rng):
    x, labels = rng.integers(0, 255, (40, 3, 8, 8), dtype=np.uint8), rng.integers(0, 4, 40)
    found = []
    for data, below in ((x, []), (x.reshape(40, -1), [Reshape((3, 8, 8))])):
        weights = np.random.default_rng(3).normal(size=(4, 36))
        top = Dense(4, weight=weights)
        conv = Conv2D(4, 3, "relu", pool=2, weight=np.random.default_rng(4).normal(size=(4, 3, 3, 3)))
        trainer = Trainer(Sequential([*below, conv, Flatten(), top]), device="cpu")
        trainer.fit(data, labels, batch_size=16)
        found.append(trainer.outputs(data))
    np.testing.assert_array_equal(*found)


def test_frozen_filters_stay_and_cost_no_places():
    data = gn.datasets.load("digits")
    frozen = Conv2D(8, 3, "relu", padding="same", pool=2, trainable=False)
    trainer = Trainer(Sequential([Reshape((1, 8, 8)), frozen, Flatten(), Dense(10)]), device="cpu")
    trainer.prepare((64,))
    before = trainer.model.parameters["1.weight"].copy()
    trainer.fit(data.x_train, data.y_train, epochs=2)
    np.testing.assert_array_equal(trainer.model.parameters["1.weight"], before)
    assert frozen.place is None
    assert set(trainer.model.gradients) == {"5.weight", "5.bias"}


def test_divergence_is_noticed(rng):
    x, labels = rng.normal(size=(64, 1, 8, 8)).astype("float32"), rng.integers(0, 3, 64)
    trainer = Trainer(
        Sequential([Conv2D(4, 3, "relu", pool=2), Conv2D(4, 3, "relu"), Flatten(), Dense(3)]),
        optimizer=gn.SGD(1e30), device="cpu",
    )  # fmt: skip
    with pytest.raises(gn.errors.DivergedError):
        trainer.fit(x, labels, epochs=5, batch_size=16)
