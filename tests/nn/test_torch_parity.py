"""Outputs and gradients of every layer beside PyTorch's, in float64 to 1e-12: `gn.to_torch` makes the twin."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.nn import losses

torch = pytest.importorskip("torch")

CLOSE = 1e-12  # of the largest number of an array
# shape of a sample, layers below the classifier
BODIES = {
    "tanh": ((7,), lambda: [gn.Dense(9, "tanh"), gn.Activation("tanh"), gn.LowRankDense(8, 3, "tanh")]),
    "leaky_relu": ((7,), lambda: [gn.Dense(9, "leaky_relu"), gn.Activation("leaky_relu")]),
    "images": (
        (2, 9, 8),
        lambda: [gn.Conv2D(4, 3, "tanh", pool=2, padding="same"), gn.Conv2D(3, 3, "leaky_relu"), gn.Flatten()],
    ),
    "gelu": ((7,), lambda: [gn.GELU(), gn.Dense(9), gn.GELU(), gn.LowRankDense(8, 3), gn.GELU("tanh")]),
    "gelu of images": (
        (2, 9, 8),
        lambda: [gn.Conv2D(4, 3, pool=2), gn.GELU("tanh"), gn.Conv2D(3, 3), gn.GELU(), gn.Flatten()],
    ),
    "averages": (
        (2, 11, 10),
        lambda: [
            gn.Conv2D(6, 4, "relu", pool=4, pooling="average", pool_stride=3), gn.AvgPool2D(2, 1),
            gn.Flatten(),
        ],
    ),
    "averages of frozen filters": (
        (2, 11, 10),
        lambda: [
            gn.Conv2D(6, 2, "relu", pool=3, pooling="average", trainable=False), gn.AvgPool2D(2), gn.Flatten(),
        ],
    ),
    "norms": ((7,), lambda: [gn.BatchNorm(), gn.Dense(9, "relu"), gn.BatchNorm(0.3, 1e-2), gn.Activation("tanh")]),
    "norms of images": (
        (2, 9, 8),
        lambda: [
            gn.BatchNorm(), gn.Conv2D(4, 3), gn.BatchNorm(0.2), gn.Activation("relu"), gn.MaxPool2D(2),
            gn.BatchNorm(trainable=False), gn.Flatten(), gn.BatchNorm(epsilon=0.1),
        ],
    ),
}  # fmt: skip


def close(found, want):
    want = np.asarray(want)
    np.testing.assert_allclose(found, want, rtol=0, atol=CLOSE * max(1.0, np.abs(want).max(initial=0)))


def built(shape, layers, n, device="numpy"):
    """A model with its loss, biases that are not zero, on `device`."""
    backend = get_backend(device)
    model = gn.Sequential([*layers, gn.Dense(5)])
    model.build(shape, backend, dtype="float64", seed=3)
    model.bind(n)
    params, _, _ = model.flat
    generator = np.random.default_rng(4)
    params += 0.1 * generator.normal(size=len(params))
    for name, value in model.parameters.items():
        if "running" in name:
            value += 0.3 * generator.random(value.shape)
    loss = losses.SoftmaxCrossEntropy()
    loss.attach(backend, "identity")
    return model, loss


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients(rng, body, device, training):
    shape, layers = BODIES[body]
    model, loss = built(shape, layers(), 12, device)
    model.train(training)
    network = gn.to_torch(model)
    assert network.training == training
    x, labels = rng.normal(size=(12, *shape)) * 2, rng.integers(0, 5, 12)
    scores = np.array(model.forward(x))
    theirs = network(torch.tensor(x))
    close(scores, theirs.detach().numpy())
    loss(scores, labels, model.d_scores, np.zeros(4))
    model.backward(model.d_scores)
    torch.nn.functional.cross_entropy(theirs, torch.tensor(labels)).backward()
    learnt = ((name, parameter.grad) for name, parameter in network.named_parameters() if parameter.requires_grad)
    wanted = {name: gradient.numpy() for name, gradient in learnt}
    factored = {".right": ".0.weight", ".left": ".1.weight", ".bias": ".1.bias"}
    for name, gradient in model.gradients.items():
        inner = next((name.replace(a, b) for a, b in factored.items() if name.replace(a, b) in wanted), name)
        close(gradient, wanted.pop(name if name in wanted else inner))
    assert not wanted
    state = network.state_dict()
    for name, value in model.parameters.items():
        if "running" in name:
            close(value, state[name].numpy())


def test_twenty_steps_of_adamw(rng):
    """PyTorch decays what it is given: weights in a group of their own."""
    x, labels = rng.normal(size=(40, 7)), rng.integers(0, 5, 40)
    ours = gn.AdamW(0.01, weight_decay=0.3, beta1=0.8, beta2=0.99, epsilon=1e-6)
    trainer = gn.Trainer(
        gn.Sequential([gn.Dense(9, "tanh"), gn.Dense(5)]), optimizer=ours, device="cpu", dtype="float64"
    )
    trainer.prepare((7,))
    network = gn.to_torch(trainer.model)
    named = dict(network.named_parameters())
    groups = [
        {"params": [p for name, p in named.items() if "weight" in name], "weight_decay": 0.3},
        {"params": [p for name, p in named.items() if "bias" in name], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, 0.01, (0.8, 0.99), 1e-6)
    for step in range(20):
        if step == 10:
            ours.learning_rate = theirs.param_groups[0]["lr"] = theirs.param_groups[1]["lr"] = 0.02
        trainer.fit(x, labels, batch_size=40, shuffle=False)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.tensor(x)), torch.tensor(labels)).backward()
        theirs.step()
    for name, parameter in trainer.model.parameters.items():
        close(parameter, named[name].detach().numpy())
