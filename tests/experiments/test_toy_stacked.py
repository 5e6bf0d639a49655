"""Stacked nets against the document's formulas in plain loops; every net's bits are its own."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

import gpunet as gn
from gpunet.datasets import linear
from gpunet.errors import DivergedError
from gpunet.experiments.toy import stack as stacked
from gpunet.experiments.toy.stack import draw_weights, gradients, marks, sigmoid_outputs, train

SIZES = [(2, 3, 3, 1), (2, 1), (3, 4, 1), (2, 1, 3, 1), (2, 5, 4, 3, 2, 1)]
DOCUMENT = {"learning_rate": 0.8, "threshold": 0.04}
EXACT = DOCUMENT | {"dtype": "float64"}


def data(features=2, samples=21, nets=None, seed=7):
    """Points and labels of two classes, for all nets or each net its own."""
    rng = np.random.default_rng(seed)
    x = rng.random((samples, features) if nets is None else (nets, samples, features))
    return x, (x[..., 0] > x[..., -1]).astype(int) if features > 1 else (x[..., 0] > 0.5).astype(int)


def xor_easy():
    made = gn.datasets.load("xor-easy")
    return made.x_train, made.y_train


def points(seeds):
    """The document's linear data, each seed's own."""
    drawn = [linear(seed=seed) for seed in seeds]
    return np.stack([d.x_train for d in drawn]), np.stack([d.y_train for d in drawn])


def pick(x, labels, nets):
    return (x[nets], labels[nets]) if x.ndim == 3 else (x, labels)


# -- an oracle that shares nothing with the code: the document's equations, a sample and a unit at a time ------------


def loop_forward(weights, sample):
    """Values of every layer; weights as lists of rows (out, in)."""
    values = [list(map(float, sample))]
    for weight in weights:
        z = [math.fsum(w * v for w, v in zip(row, values[-1], strict=True)) for row in weight]
        values.append([1 / (1 + math.exp(-each)) for each in z])
    return values


def loop_train(weights, x, labels, rate, threshold, limit):
    """(steps, weights, mean loss, largest loss) of one net, equations 2 and 3 of document 003 as they stand."""
    weights = [[list(map(float, row)) for row in w] for w in weights]
    for step in range(limit + 1):
        passes = [loop_forward(weights, sample) for sample in x]
        losses = [0.5 * (values[-1][0] - t) ** 2 for values, t in zip(passes, labels, strict=True)]
        if all(loss < threshold for loss in losses) or step == limit:
            return step, weights, math.fsum(losses) / len(losses), max(losses)
        sums = [[[0.0] * len(row) for row in w] for w in weights]
        for values, t in zip(passes, labels, strict=True):
            into = [values[-1][0] - float(t)]  # ∂L/∂y
            for layer in reversed(range(len(weights))):
                y, z = values[layer + 1], values[layer]
                inner = [d * s * (1 - s) for d, s in zip(into, y, strict=True)]
                for j, row in enumerate(sums[layer]):
                    for i in range(len(row)):
                        row[i] += inner[j] * z[i]
                into = [math.fsum(inner[j] * weights[layer][j][i] for j in range(len(inner))) for i in range(len(z))]
        weights = [
            [[w - rate * g for w, g in zip(row, add, strict=True)] for row, add in zip(weight, total, strict=True)]
            for weight, total in zip(weights, sums, strict=True)
        ]
    raise AssertionError


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own data"])
def test_every_net_is_what_a_plain_loop_makes_of_it(sizes, own):
    weights = draw_weights(sizes, range(3), "glorot_uniform")
    x, labels = data(sizes[0], 9, 3 if own else None)
    made = train(weights, x, labels, limit=60, **EXACT)
    for net in range(3):
        mine = [w[net].tolist() for w in weights]
        steps, final, loss, largest = loop_train(mine, *pick(x, labels, net), 0.8, 0.04, 60)
        assert made.steps[net] == steps
        for got, expected in zip(made.weights, final, strict=True):
            np.testing.assert_allclose(got[net], expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose((made.loss[net], made.largest_loss[net]), (loss, largest), rtol=1e-10)


def test_xor_easy_stops_at_the_loops_step():
    """The document's setting to its end: thousands of operations a step, the same step."""
    x, labels = xor_easy()
    weights = draw_weights((2, 3, 3, 1), [4, 9])
    made = train(weights, x, labels, limit=300, **EXACT)
    for net in range(2):
        steps, final, loss, _ = loop_train([w[net] for w in weights], x, labels, 0.8, 0.04, 300)
        assert (made.steps[net], bool(made.converged[net])) == (steps, steps < 300)
        np.testing.assert_allclose(made.loss[net], loss, rtol=1e-8)
        np.testing.assert_allclose(made.weights[0][net], final[0], rtol=1e-7)
    assert made.converged.any()


def test_float32_is_float64_rounded():
    """For as long as rounding has not been amplified; both take the same starting weights."""
    x, labels = xor_easy()
    weights = draw_weights((2, 3, 3, 1), range(10))
    single, double = (train(weights, x, labels, limit=5, **DOCUMENT, dtype=d) for d in ("float32", "float64"))
    for a, b in zip(single.weights, double.weights, strict=True):
        assert (a.dtype, b.dtype) == ("float32", "float64")
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(single.course[0], double.course[0], rtol=1e-5)
    assert (single.weights[0] != double.weights[0]).all()


# -- the gradient ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own data"])
def test_gradients_against_central_differences(sizes, own):
    weights = draw_weights(sizes, range(4), "glorot_uniform")
    x, labels = data(sizes[0], 12, 4 if own else None)
    found = gradients(weights, x, labels)

    def losses():
        return 0.5 * ((sigmoid_outputs(weights, x) - labels) ** 2).sum(axis=1)

    for weight, gradient in zip(weights, found, strict=True):
        scale = np.abs(gradient).max(axis=(1, 2))
        assert (scale > 1e-6).all()  # something is there to be compared
        for place in np.ndindex(weight.shape[1:]):
            entry, kept, step = (slice(None), *place), weight[(slice(None), *place)].copy(), 1e-5
            weight[entry] = kept + step
            high = losses()
            weight[entry] = kept - step
            slope = (high - losses()) / (2 * step)
            weight[entry] = kept
            assert (np.abs(gradient[entry] - slope) <= 1e-6 * scale).all()  # the differences round at 3e-11


def test_the_gradient_is_a_sum_over_samples():
    weights, (x, labels) = draw_weights((2, 3, 1), [0, 1]), data()
    once, twice = gradients(weights, x, labels), gradients(weights, np.tile(x, (2, 1)), np.tile(labels, 2))
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(b, 2 * a, rtol=1e-12)


# -- a net's bits are its own ------------------------------------------------------------------------------------------


def same_bits(a, b, net, of):
    """Net `net` of a and net `of` of b."""
    for name in ("steps", "converged", "loss", "largest_loss", "accuracy"):
        assert getattr(a, name)[net] == getattr(b, name)[of], name
    assert all((u[net] == v[of]).all() for u, v in zip(a.weights, b.weights, strict=True))
    assert (a.course[:, net] == b.course[:, of]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["linear", "xor-easy", "odd"])
@pytest.mark.parametrize("bytes_", [pytest.param(1, marks=pytest.mark.slow), 40_000, 150_000, 1 << 20])
def test_neighbours_and_blocks_change_no_bit(monkeypatch, kind, bytes_, dtype):
    """All at once and in blocks of any width, in another order, and alone; they finish at many different steps."""
    nets, settings = 30, DOCUMENT | {"dtype": dtype}
    sizes, (x, labels) = (2, 3, 3, 1), points(range(nets)) if kind == "linear" else xor_easy()
    if kind == "odd":
        sizes, (x, labels) = (3, 5, 2, 1), data(3, 13)
    weights = draw_weights(sizes, range(nets))
    together = train(weights, x, labels, limit=400, **settings)
    assert 4 < together.converged.sum() < nets
    assert len(set(together.steps)) > 4
    monkeypatch.setattr(stacked, "BLOCK_BYTES", bytes_)
    order = np.random.default_rng(1).permutation(nets)
    shuffled = train([w[order] for w in weights], *pick(x, labels, order), limit=400, **settings)
    for place, net in enumerate(order):
        same_bits(shuffled, together, place, net)
    for net in (0, 11, 29):
        one = slice(net, net + 1)
        same_bits(train([w[one] for w in weights], *pick(x, labels, one), limit=400, **settings), together, 0, net)


def test_the_bits_do_not_depend_on_when_others_finish():
    """Beside nets that stop at once, at the limit, or are all like it."""
    x, labels = xor_easy()
    weights = draw_weights((2, 3, 3, 1), range(40))
    alone = train([w[7:8] for w in weights], x, labels, limit=500, **DOCUMENT)
    done = train(weights, x, labels, limit=500, **DOCUMENT)
    there = int(np.flatnonzero(done.converged)[0])
    for neighbours in ([w[there : there + 1] for w in done.weights], [np.zeros((1, *w.shape[1:])) for w in weights],
                       [w[7:8] for w in weights]):  # fmt: skip
        mixed = [np.concatenate([*[n] * 5, w[7:8], *[n] * 3]) for n, w in zip(neighbours, weights, strict=True)]
        same_bits(train(mixed, x, labels, limit=500, **DOCUMENT), alone, 5, 0)


def test_shared_data_are_each_nets_own_repeated():
    x, labels = xor_easy()
    weights = draw_weights((2, 3, 3, 1), range(6))
    shared = train(weights, x, labels, limit=200, **DOCUMENT)
    own = train(weights, np.stack([x] * 6), np.stack([labels] * 6), limit=200, **DOCUMENT)
    for net in range(6):
        same_bits(own, shared, net, net)


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_net_stops_at_the_first_step_at_which_every_sample_is_below_the_threshold():
    x, labels = xor_easy()
    weights = draw_weights((2, 3, 3, 1), range(12))
    made = train(weights, x, labels, limit=600, **EXACT)
    worst = 0.5 * ((sigmoid_outputs(made.weights, x) - labels) ** 2).max(axis=1)
    np.testing.assert_allclose(made.largest_loss, worst, rtol=1e-9)
    np.testing.assert_array_equal(made.largest_loss < 0.04, made.converged)
    assert (made.steps[~made.converged] == 600).all()
    net = int(np.flatnonzero(made.converged)[0])
    first, one = int(made.steps[net]), [w[net : net + 1] for w in weights]
    short = train(one, x, labels, limit=first - 1, **EXACT)
    exact = train(one, x, labels, limit=first, **EXACT)
    assert (short.converged[0], short.steps[0]) == (False, first - 1)
    assert (exact.converged[0], exact.steps[0]) == (True, first)
    again = train([w[net : net + 1] for w in made.weights], x, labels, limit=5, **EXACT)
    assert (again.converged[0], again.steps[0]) == (True, 0)


def test_losses_and_accuracy_where_a_net_stopped():
    x, labels = points(range(10))
    made = train(draw_weights((2, 3, 3, 1), range(10)), x, labels, limit=600, **EXACT)
    y = sigmoid_outputs(made.weights, x)
    np.testing.assert_allclose(made.loss, (0.5 * (y - labels) ** 2).mean(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(made.accuracy, ((y > 0.5) == labels).mean(axis=1))
    assert (made.accuracy[made.converged] == 1).all()
    assert made.converged.any()
    assert not made.converged.all()


@pytest.mark.slow
def test_the_course_is_the_loss_after_so_many_steps():
    x, labels = xor_easy()
    weights = draw_weights((2, 3, 3, 1), range(8))
    made = train(weights, x, labels, limit=900, **EXACT)
    assert made.course.shape == (len(made.marks), 8)
    for place, mark in enumerate(made.marks):
        if mark:
            until = train(weights, x, labels, limit=int(mark), **EXACT)
            np.testing.assert_array_equal(made.course[place], until.loss)
        else:
            before = 0.5 * (sigmoid_outputs(weights, x) - labels) ** 2
            np.testing.assert_allclose(made.course[0], before.mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11, 999, 1000, 10_000, 123_456])
def test_marks(limit):
    found = marks(limit)
    assert (found[0], found[-1]) == (0, limit)
    assert (np.diff(found) > 0).all()
    assert len(found) <= 14 * max(1, math.log10(limit)) + 3
    if limit >= 1000:
        assert len(found) > 8 * math.log10(limit)


def test_marks_are_told_with_the_nets_that_are_left():
    told = []
    x, labels = xor_easy()
    made = train(draw_weights((2, 3, 3, 1), range(9)), x, labels, limit=300, **DOCUMENT,
                 on_mark=lambda *given: told.append(given))  # fmt: skip
    assert [step for step, _ in told] == made.marks.tolist()[:-1], "at the last nobody is on the way"
    for step, live in told:
        assert live == (made.steps > step).sum() > 0


def test_zero_weights_say_one_class_of_all_samples():
    """The units of a layer stay equal; without biases the last z has the sign of one weight."""
    x, labels = points(range(5))
    made = train(draw_weights((2, 3, 3, 1), range(5), "zeros"), x, labels, limit=2000, **DOCUMENT)
    for weight in made.weights[:-1]:
        np.testing.assert_allclose(weight, np.broadcast_to(weight[:, :1], weight.shape), rtol=1e-4)  # but for rounding
    said = sigmoid_outputs(made.weights, x) > 0.5
    assert (said == said[:, :1]).all()
    assert not made.converged.any()


def test_weights_are_those_of_a_sequential_model():
    """The same seed means the same start as with `Trainer`, but for the biases."""
    model = gn.Sequential([gn.Dense(n, "sigmoid", weight="uniform_sigmoid") for n in (3, 3, 1)])
    model.build((2,), gn.get_backend("numpy"), dtype="float64", seed=5)
    for layer, weight in zip(model.layers, draw_weights((2, 3, 3, 1), [4, 5]), strict=True):
        np.testing.assert_array_equal(layer.weight, weight[1])


# -- manners -----------------------------------------------------------------------------------------------------------


def test_arguments_are_left_as_they_are():
    weights, (x, labels) = draw_weights((2, 3, 1), range(4)), data(nets=4)
    before = [a.copy() for a in (*weights, x, labels)]
    for array in (*weights, x, labels):
        array.setflags(write=False)
    train(weights, x, labels, limit=40, **DOCUMENT)
    gradients(weights, x, labels)
    for array, kept in zip((*weights, x, labels), before, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own data"])
def test_a_step_allocates_nothing(own):
    x, labels = points(range(64)) if own else data(samples=100)
    stack = stacked.Stack(gn.get_backend("numpy"), draw_weights((2, 3, 3, 1), range(64)), x, labels, "float32")
    (block,) = stack.blocks
    block.forward()
    block.descend(0.1)
    tracemalloc.start()
    for _ in range(5):
        block.forward()
        block.look(1e-9)
        block.descend(0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096  # the smallest activation would take 25,600 bytes


def test_a_loss_that_is_not_finite_is_named():
    x, labels = points(range(10))
    with pytest.raises(DivergedError, match=r"by step \d+, at learning rate 1e\+308: lower the learning rate"):
        train(draw_weights((2, 3, 3, 1), range(10)), x, labels, learning_rate=1e308, threshold=0.01, limit=50)
