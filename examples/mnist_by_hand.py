"""A network trained without Trainer, model or layers: every operation of a step in the open, on any device.

    python examples/mnist_by_hand.py mnist

y = W₂ relu(W₁x + b₁) + b₂, softmax cross-entropy, Adam. Each operation writes into arrays that its caller owns, and
what changes from step to step (the place in the epoch, the count of steps) lies in small arrays on the device. So no
step allocates or waits, and a GPU can record one and replay it: that is what `gn.Trainer` adds, besides checks.
"""

import math
import sys

import numpy as np

import gpunet as gn
from gpunet.backend.base import BETA1, BETA2, CORRECT, EPSILON, LEARNING_RATE, LOSS_SUM, N_SCALARS, N_TOTALS, SAMPLES


def train(name: str = "digits", *, hidden=128, epochs=5, batch=64, rate=1e-3, seed=0, device="auto") -> float:
    """The accuracy on the test set, a share of 1; prints a line an epoch."""
    data, ops, rng = gn.datasets.load(name), gn.get_backend(device), np.random.default_rng(seed)
    learning, testing = (
        (ops.asarray(x.reshape(len(x), -1)), ops.asarray(y), 1 / 255 if x.dtype == np.uint8 else 1.0)
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test))
    )  # uint8 stays what it is: batches are divided by 255 as they are gathered

    # All parameters are views of one flat array, their gradients of another: the optimiser is one pass over both.
    inner, outer = learning[0].shape[1], data.classes
    shapes = [(hidden, inner), (hidden,), (outer, hidden), (outer,)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat, grads, first, second = (ops.zeros(int(ends[-1])) for _ in range(4))
    (w1, b1, w2, b2), (dw1, db1, dw2, db2) = (
        [part.reshape(shape) for part, shape in zip(np.split(array, ends[:-1]), shapes, strict=True)]
        for array in (flat, grads)
    )
    for weight in (w1, w2):
        bound = math.sqrt(6 / sum(weight.shape))  # Glorot & Bengio 2010
        ops.copy(rng.uniform(-bound, bound, weight.shape), weight)

    clock = np.zeros((1, N_SCALARS))  # Adam's settings, and its count of steps
    clock[0, [LEARNING_RATE, BETA1, BETA2, EPSILON]] = rate, 0.9, 0.999, 1e-8
    clock = ops.asarray(clock)
    workspace = [ops.empty((batch, width)) for width in (inner, hidden, hidden, outer, outer)]
    labels, cursor = ops.empty(batch, "int64"), ops.zeros(1, "int64")
    order, totals = ops.empty(max(len(learning[0]), len(testing[0])), "int64"), ops.zeros(N_TOTALS, "float64")

    def step(n, samples, targets, scale, learn):
        """The loss of the next n samples of `order`, and where it learns the update of the parameters."""
        (x, h, dh, z, dz), y = (each[:n] for each in workspace), labels[:n]
        ops.take_batch(samples, targets, order, cursor, scale, x, y, clock if learn else None)
        ops.affine(x, w1, b1, "relu", h)
        ops.affine(h, w2, b2, "identity", z)
        ops.softmax_cross_entropy(z, y, 1 / n, dz, totals)  # dz = ∂L/∂z = (softmax(z) − onehot)/n
        if learn:
            ops.activation_backward("identity", z, dz, dz, db2)  # ∂L/∂b₂ = Σ dz
            ops.gemm(dz, h, dw2, transpose_a=True)  # ∂L/∂W₂ = dzᵀ h
            ops.gemm(dz, w2, dh)  # ∂L/∂h = dz W₂
            ops.activation_backward("relu", h, dh, dh, db1)  # through relu, and ∂L/∂b₁ = Σ dh
            ops.gemm(dh, x, dw1, transpose_a=True)  # ∂L/∂W₁ = dhᵀ x
            ops.adam(flat, grads, first, second, clock[0], 0)  # no parameter carries an L2 term

    def one_pass(rows, samples, learn):
        """Means of loss and correct answers over the samples, in that order."""
        ops.copy(rows, order[: len(rows)])
        ops.copy(0, cursor)
        ops.copy(0, totals)
        with ops.session():
            for start in range(0, len(rows), batch):
                step(min(batch, len(rows) - start), *samples, learn)
        found = ops.to_host(totals)  # nothing has waited for the device before
        return found[LOSS_SUM] / found[SAMPLES], found[CORRECT] / found[SAMPLES]

    for epoch in range(1, epochs + 1):
        loss, accuracy = one_pass(rng.permutation(len(learning[0])), learning, learn=True)
        print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.2%} while learning")
    accuracy = float(one_pass(np.arange(len(testing[0])), testing, learn=False)[1])
    print(f"test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    print(__doc__) if {"-h", "--help"} & {*sys.argv} else train(*sys.argv[1:2])
