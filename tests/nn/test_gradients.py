"""Every layer and loss: analytic gradients against central differences below 1e-6, and a check of the check."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.compression.convert import ACTIVATIONS

from .gradients import check_gradients

BODIES = {
    "dense": lambda: [],
    "relu": lambda: [gn.Dense(7, "relu")],
    "sigmoid": lambda: [gn.Dense(7, "sigmoid"), gn.Dense(6, "sigmoid")],
    "identity": lambda: [gn.Dense(7)],
    "tanh": lambda: [gn.Dense(7, "tanh"), gn.Activation("tanh"), gn.LowRankDense(6, 3, "tanh")],
    "leaky_relu": lambda: [gn.Dense(7, "leaky_relu"), gn.Activation("leaky_relu"), gn.LowRankDense(6, 3, "leaky_relu")],
    "activation layers": lambda: [gn.Dense(7), gn.Activation("relu"), gn.Dense(5), gn.Activation("sigmoid")],
    "activation first": lambda: [gn.Activation("sigmoid"), gn.Dense(5, "relu")],
    "frozen below": lambda: [gn.Dense(7, "relu", trainable=False), gn.Dense(6, "sigmoid")],
    "factored": lambda: [gn.LowRankDense(7, 2, "relu"), gn.LowRankDense(6, 3, "sigmoid")],
    "factored, merged for the batch": lambda: [gn.LowRankDense(5, 5, "relu"), gn.LowRankDense(5, 5, "sigmoid")],
    "factored, frozen": lambda: [gn.Dense(7), gn.LowRankDense(6, 2, "sigmoid", trainable=False), gn.LowRankDense(5, 1)],
    "dropout": lambda: [gn.Dense(9, "relu"), gn.Dropout(0.4), gn.Dense(8, "sigmoid"), gn.Dropout(0.2)],
    "dropout first, and after factors": lambda: [gn.Dropout(0.3), gn.LowRankDense(9, 3, "relu"), gn.Dropout(0.5)],
    "gelu": lambda: [gn.GELU(), gn.Dense(7), gn.GELU(), gn.Dense(6), gn.GELU("tanh")],
    "batch norms": lambda: [gn.BatchNorm(), gn.Dense(7, "tanh"), gn.BatchNorm(0.5, 0.1), gn.LowRankDense(5, 2)],
    "batch norms, one frozen": lambda: [
        gn.Dense(7),
        gn.BatchNorm(trainable=False),
        gn.Dense(6, "tanh"),
        gn.BatchNorm(),
    ],
    "frozen between": lambda: [gn.Dense(7, "relu"), gn.Dense(6, "sigmoid", trainable=False), gn.Dense(5, "relu")],
}
HEADS = {
    "softmax_cross_entropy": lambda k: gn.Dense(k),
    "binary_cross_entropy": lambda k: gn.Dense(k, "sigmoid"),
    "squared_error": lambda k: gn.Dense(k, "sigmoid"),
    "squared_error relu": lambda k: gn.Dense(k, "relu"),
    "squared_error identity": lambda k: gn.Dense(k),
    "squared_error tanh": lambda k: gn.Dense(k, "tanh"),
    "squared_error leaky_relu": lambda k: gn.Dense(k, "leaky_relu"),
}


def build(body, head, k, backend, batch=12, features=5, seed=3):
    from gpunet.nn import losses

    model = gn.Sequential([*BODIES[body](), HEADS[head](k)])
    model.build((features,), backend, dtype="float64", seed=seed)
    model.bind(batch)
    loss = losses.NAMED[head.split()[0]](reduction="sum")
    loss.attach(backend, model.layers[-1].activation)
    return model, loss


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("k", [4, 1])
def test_gradients(backend, rng, body, head, k):
    if k == 1 and head == "softmax_cross_entropy":
        pytest.skip("softmax over one output is constant")
    model, loss = build(body, head, k, backend)
    x, labels = rng.normal(size=(12, 5)), rng.integers(0, max(2, k), 12)
    params, _, _ = model.flat
    # Kinks: biases away from 0 keep most pre-activations off ReLU's corner, where a difference proves nothing.
    backend.copy(np.array(backend.to_host(params)) + 0.1 * rng.normal(size=len(params)), params)
    assert check_gradients(model, loss, backend, x, labels, rng) < 1e-6


def test_the_check_can_fail(rng):
    class Wrong(NumpyBackend):
        def activation_backward(self, activation, y, dy, dz, bias_grad):
            super().activation_backward(activation, y, dy, dz, bias_grad)
            dz *= 1.0001

    model, loss = build("sigmoid", "squared_error", 3, Wrong())
    assert check_gradients(model, loss, Wrong(), rng.normal(size=(12, 5)), rng.integers(0, 3, 12), rng) > 1e-6


def test_inputs_are_left_alone(backend, rng):
    model, loss = build("relu", "softmax_cross_entropy", 4, backend)
    x, labels = rng.normal(size=(12, 5)), rng.integers(0, 4, 12)
    before = x.copy(), labels.copy()
    check_gradients(model, loss, backend, x, labels, rng)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("view", [lambda a: a[::2], lambda a: a[:, ::-1], np.asfortranarray, lambda a: a[:, 1:6]])
def test_non_contiguous_data_trains_as_its_copy_does(rng, view):
    wide = view(rng.normal(size=(80, 8)).astype("float32"))
    labels = rng.integers(0, 3, len(wide))
    results = []
    for x in (wide, wide.copy()):
        trainer = gn.Trainer(gn.Sequential([gn.Dense(6, "relu"), gn.Dense(3)]), optimizer=gn.SGD(0.1), device="numpy")
        trainer.fit(x, labels, epochs=2, batch_size=16)
        results.append(trainer.outputs(x))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_step_agrees_with_pytorch(rng, head, optimizer):
    torch = pytest.importorskip("torch")
    x, labels = rng.normal(size=(32, 9)).astype("float32"), rng.integers(0, 4, 32)
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(8, "sigmoid"), HEADS[head](4)])
    ours = gn.SGD(0.1, momentum=0.9) if optimizer == "sgd" else gn.Adam(1e-2)
    trainer = gn.Trainer(model, head.split()[0], ours, device="numpy", seed=4)
    trainer.prepare((9,))
    activations = {name: getattr(torch.nn, module) for name, module in ACTIVATIONS.items()}
    modules = []
    for layer in model.layers:
        modules.append(torch.nn.Linear(layer.weight.shape[1], layer.weight.shape[0]))
        with torch.no_grad():
            modules[-1].weight.copy_(torch.tensor(layer.weight))
            modules[-1].bias.copy_(torch.tensor(layer.bias))
        modules += [activations[layer.activation]()] if layer.activation != "identity" else []
    network = torch.nn.Sequential(*modules)
    theirs = (
        torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.Adam(network.parameters(), 1e-2)
    )
    target = torch.nn.functional.one_hot(torch.tensor(labels), 4).float()
    for _ in range(3):
        trainer.fit(x, labels, epochs=1, batch_size=32)
        theirs.zero_grad()
        out = network(torch.tensor(x))
        if head == "softmax_cross_entropy":
            value = torch.nn.functional.cross_entropy(out, torch.tensor(labels))
        elif head == "binary_cross_entropy":
            value = torch.nn.functional.binary_cross_entropy(out, target, reduction="sum") / 32
        else:
            value = 0.5 * ((out - target) ** 2).sum() / 32
        value.backward()
        theirs.step()
    for (name, parameter), (other_name, other) in zip(
        model.parameters.items(), network.state_dict().items(), strict=True
    ):
        assert name == other_name
        np.testing.assert_allclose(parameter, other.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_training_step_agrees_with_scikit_learn(rng, solver):
    """An oracle that is always installed: one step of MLPClassifier from the same weights, in float64."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    x, labels = rng.normal(size=(30, 6)), np.arange(30) % 3
    model = gn.Sequential([gn.Dense(5, "relu"), gn.Dense(3)])
    ours = gn.SGD(0.05) if solver == "sgd" else gn.Adam(0.05, epsilon=1e-15)  # its ε stands elsewhere
    trainer = gn.Trainer(model, optimizer=ours, device="numpy", dtype="float64")
    trainer.prepare((6,))
    network = MLPClassifier(
        (5,), solver=solver, learning_rate_init=0.05, momentum=0, alpha=0, batch_size=30, max_iter=1, epsilon=1e-15
    )
    network.nesterovs_momentum = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(x, labels)  # creates its arrays; replaced by ours below
        for place, layer in enumerate(model.layers):
            network.coefs_[place][...] = layer.weight.T
            network.intercepts_[place][...] = layer.bias
        network.warm_start = True
        network._optimizer.t, network._no_improvement_count = 0, 0
        for moments in (getattr(network._optimizer, "ms", []), getattr(network._optimizer, "vs", [])):
            for moment in moments:
                moment[...] = 0
        network.partial_fit(x, labels)
    trainer.fit(x, labels, epochs=1, batch_size=30)
    for place, layer in enumerate(model.layers):
        np.testing.assert_allclose(layer.weight.T, network.coefs_[place], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(layer.bias, network.intercepts_[place], rtol=1e-5, atol=1e-9)


def test_gradient_of_the_mean_is_that_of_the_sum_over_n(rng):
    backend = get_backend("numpy")
    x, labels = rng.normal(size=(12, 5)), rng.integers(0, 4, 12)
    found = {}
    for reduction in ("sum", "mean"):
        model = gn.Sequential([gn.Dense(4, "sigmoid")])
        model.build((5,), backend, dtype="float64")
        model.bind(12)
        loss = gn.SquaredError(reduction=reduction)
        loss.attach(backend, "sigmoid")
        loss(model.forward(x), labels, model.d_scores, backend.zeros(4, "float64"))
        model.backward(model.d_scores)
        found[reduction] = model.flat[1].copy()
    np.testing.assert_allclose(found["sum"], 12 * found["mean"], rtol=1e-12)
