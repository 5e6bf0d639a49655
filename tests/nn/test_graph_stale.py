"""No recording is replayed once what it was made of is gone: data, workspace, layers, optimiser, loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet as gn
from gpunet.nn import replay as graph
from gpunet.nn.callbacks import EpochTotals
from gpunet.nn.layers.base import Spec

from .recording import (
    OPTIMISERS,
    Weighted,
    another,
    another_loss,
    another_optimiser,
    attached_afresh,
    made,
    on_devices,
    replaced,
    same_bits,
    samples,
)  # fmt: skip


def other_data(trainer):
    one, other = samples(), samples(seed=9)
    for x, y in (one, other, one):
        trainer.fit(x, y, epochs=1, batch_size=16)


def other_data_kept(trainer):
    one, other = (trainer.samples(*samples(seed=seed)) for seed in (0, 9))
    for data in (one, other, one, other):
        trainer.fit(data, epochs=1, batch_size=16)


def larger_workspace(trainer):
    data = trainer.samples(*samples())
    trainer.fit(data, epochs=2, batch_size=16)
    trainer._workspace(64)
    trainer._check_end = lambda: None  # it looks at another batch
    trainer.fit(data, epochs=1, batch_size=16)
    x, order, batch = (trainer.backend.to_host(array) for array in (data.x, trainer._order, trainer._x))
    assert np.array_equal(batch[:6], x[order[-6:]])


def more_data(trainer):
    """Another number of samples: another place for their order."""
    kept = [trainer.samples(*samples(n=n)) for n in (70, 86)]
    for data in (*kept, *kept):
        trainer.fit(data, epochs=2, batch_size=16)


def room_from_another_trainer(trainer):
    """A larger workspace for the batches, in a model that has one already."""
    data = trainer.samples(*samples())
    second = gn.Trainer(trainer.model, optimizer=gn.SGD(0.3), device=trainer.backend, graphs=_word(trainer))
    second.fit(*samples(seed=5), epochs=1, batch_size=64)
    for _ in range(2):
        trainer.fit(data, epochs=2, batch_size=16)
        trainer.evaluate(*samples(n=64))


def another_tally(trainer):
    trainer.tally = EpochTotals(trainer.backend)


def fits_with(change):
    def scenario(trainer):
        data = trainer.samples(*samples())
        trainer.fit(data, epochs=2, batch_size=16)
        change(trainer)
        trainer.fit(data, epochs=2, batch_size=16)

    return scenario


def two_trainers(trainer):
    data, other = trainer.samples(*samples()), samples(seed=5)
    second = gn.Trainer(trainer.model, optimizer=gn.SGD(0.3), device=trainer.backend, graphs=_word(trainer))
    for _ in range(3):
        trainer.fit(data, epochs=2, batch_size=16)
        second.fit(*other, epochs=1, batch_size=32)  # a larger workspace, the first time


def two_trainers_and_a_replacement(trainer):
    data = trainer.samples(*samples())
    second = gn.Trainer(trainer.model, optimizer=gn.Adam(0.01), device=another(trainer.backend), graphs=_word(trainer))
    for _ in range(2):
        trainer.fit(data, epochs=2, batch_size=16)
        second.fit(*samples(), epochs=2, batch_size=16)
        name, layer = "0", trainer.model.layer("0")
        trainer.model.replace(name, gn.factorise(layer, 3) if isinstance(layer, gn.Dense) else gn.merge(layer))
    trainer.fit(data, epochs=2, batch_size=16)


def _word(trainer):
    return "off" if trainer.graphs.reason else "auto"


class Masked(gn.Activation):
    """A layer with a number of its own: which activation, by its place."""

    which = 0

    def forward(self, x):
        self.ops.activate(["relu", "sigmoid"][self.which], x, self.y)
        return self.y

    def backward(self, dy):
        if self.dx is not None:
            self.ops.activation_backward(["relu", "sigmoid"][self.which], self.y, dy, self.dx, None)
        return self.dx


class Factors(gn.SoftmaxCrossEntropy):
    """A loss with an array of its own: a factor on each of the first three gradients."""

    def attach(self, backend, activation):
        super().attach(backend, activation)
        self.weight, self.bias = backend.asarray(np.eye(3, dtype="float32") * 2), backend.asarray(np.zeros(3, "f4"))

    def __call__(self, z, labels, dz, totals):
        super().__call__(z, labels, dz, totals)
        self.ops.affine(z, self.weight, self.bias, "identity", dz)


def other_factors(trainer):
    trainer.loss.weight = trainer.backend.asarray(-np.eye(3, dtype="float32"))


class Shifted(gn.Activation):
    """A layer with arrays of its own: y = x W + b, and the gradient passed on as it is."""

    def spec(self, input_shape):
        return Spec(output=input_shape)

    def attach(self, backend, parameters, gradients):
        super().attach(backend, parameters, gradients)
        self.shift = backend.asarray(np.zeros((8, 8), "float32"))

    def forward(self, x):
        self.ops.gemm(x, self.shift, self.y)
        return self.y


def other_shift(trainer):
    trainer.model.layers[1].shift = trainer.backend.asarray(np.eye(8, dtype="float32"))


def merged_by_hand(trainer):
    layer = trainer.model.layer("0")
    trainer.model.replace("0", gn.factorise(layer, 2))
    trainer.model.replace("0", gn.merge(trainer.model.layer("0")))


# name: (scenario, options of `made`, which looks to leave out)
STALE = {
    "other data, as arrays": (other_data, {}, []),
    "other data of the same shape": (other_data_kept, {}, ["data"]),
    "a larger workspace": (larger_workspace, {}, ["objects", "held"]),
    "more data, another order's place": (more_data, {}, ["objects", "data"]),
    "the loss's reduction": (fits_with(lambda t: setattr(t.loss, "reduction", "sum")), {}, ["held"]),
    "a number of one's own loss": (
        fits_with(lambda t: setattr(t.loss, "factor", 3.0)),
        {"loss": Weighted},
        ["held"],
    ),
    "a number of one's own layer": (
        fits_with(lambda t: setattr(t.model.layers[1], "which", 1)),
        {"layers": lambda: [gn.Dense(8), Masked("relu"), gn.Dense(3)]},
        ["held"],
    ),
    "another loss": (fits_with(another_loss), {}, ["objects", "held"]),
    "optimiser attached afresh": (fits_with(attached_afresh), {}, ["objects", "held"]),
    "another optimiser": (fits_with(another_optimiser), {}, ["objects", "held"]),
    "a layer replaced": (fits_with(replaced), {}, ["objects", "held"]),
    "a layer replaced twice": (fits_with(lambda t: (replaced(t), replaced(t))), {}, ["objects", "held"]),
    "factored and merged": (fits_with(merged_by_hand), {}, ["objects", "held"]),
    "another array of one's own loss": (fits_with(other_factors), {"loss": Factors}, ["held"]),
    "another array of one's own layer": (
        fits_with(other_shift),
        {"layers": lambda: [gn.Dense(8), Shifted("relu"), gn.Dense(3)]},
        ["held"],
    ),
    "another tally": (fits_with(another_tally), {}, ["objects"]),
    "room that another trainer made": (room_from_another_trainer, {}, ["objects"]),
    "two trainers of one model": (two_trainers, {}, ["objects", "held"]),
    "two trainers, one replaces": (two_trainers_and_a_replacement, {}, ["objects", "held"]),
}


def options_of(options):
    return {name: value() if name == "loss" else value for name, value in options.items()}


@on_devices
@pytest.mark.parametrize("name", STALE)
def test_no_recording_of_what_is_gone(device, name):
    scenario, options, _ = STALE[name]
    trainers = [made(graphs, backend=device(), **options_of(options)) for graphs in ("auto", "off")]
    for trainer in trainers:
        scenario(trainer)
    assert trainers[0].backend.replayed > 5
    same_bits(*trainers)


@pytest.mark.parametrize("name", [name for name, (_, _, looks) in STALE.items() if looks])
def test_and_each_of_these_would_go_wrong_without_looking(name, monkeypatch):
    """A test that cannot fail proves nothing: without the look at objects, at what they hold, or at data it does."""
    scenario, options, looks = STALE[name]
    if "objects" in looks:
        first = []
        monkeypatch.setattr(gn.Trainer, "_step_objects", lambda trainer, order: first)
    if "held" in looks:
        monkeypatch.setattr(graph.Attributes, "stand", lambda self: True)
    if "data" in looks:
        monkeypatch.setattr(graph, "id", lambda data: 0, raising=False)
        monkeypatch.setattr(graph.weakref, "ref", lambda thing, *_: lambda: thing)
    broken, plain = made("auto", **options_of(options)), made("off", **options_of(options))
    scenario(plain)
    with pytest.raises((AssertionError, ReferenceError, ValueError)):  # noqa: PT012  # by the scenario, or the bits
        scenario(broken)
        same_bits(broken, plain)


# -- random courses of a model's life ---------------------------------------------------------------------------------

DATA = [samples(n=n, seed=seed) for seed, n in enumerate((20, 20, 33))]
ACTIONS = st.one_of(
    st.tuples(st.just("fit"), st.integers(0, 2), st.sampled_from([1, 7, 8, 20, 50]), st.integers(0, 2)),
    st.tuples(st.just("fit kept"), st.integers(0, 2), st.sampled_from([7, 8, 20]), st.integers(1, 2)),
    st.tuples(st.just("factorise or merge"), st.sampled_from(["0", "2"]), st.integers(1, 6)),
    st.tuples(st.just("evaluate"), st.integers(0, 2)),
    st.tuples(st.just("rate"), st.sampled_from([1e-3, 0.03])),
    st.tuples(st.just("attach")),
    st.tuples(st.just("reduction"), st.sampled_from(["mean", "sum"])),
    st.tuples(st.just("second trainer"), st.integers(0, 2), st.sampled_from([8, 40])),
    st.tuples(st.just("cut in mid-fit"), st.integers(0, 2), st.sampled_from([0.0, 0.3, 0.7])),
)


class Life:
    """A trainer, its data on the device, and a second trainer of its model."""

    def __init__(self, graphs, optimizer):
        self.trainer = made(graphs, optimizer)
        self.kept = [self.trainer.samples(*data) for data in DATA]
        self.second = gn.Trainer(self.trainer.model, optimizer=gn.SGD(0.1), device=self.trainer.backend, graphs=graphs)

    def act(self, what, *how):
        trainer, model = self.trainer, self.trainer.model
        if what == "fit":
            data, batch, epochs = how
            trainer.fit(*DATA[data], epochs=epochs, batch_size=batch)
        elif what == "fit kept":
            data, batch, epochs = how
            trainer.fit(self.kept[data], epochs=epochs, batch_size=batch)
        elif what == "factorise or merge":
            name, rank = how
            layer = model.layer(name)
            model.replace(name, gn.factorise(layer, rank) if isinstance(layer, gn.Dense) else gn.merge(layer))
        elif what == "evaluate":
            trainer.evaluate(*DATA[how[0]])
        elif what == "rate":
            trainer.optimizer.learning_rate = how[0]
        elif what == "attach":
            if not trainer.behind:
                attached_afresh(trainer)
        elif what == "reduction":
            trainer.loss.reduction = how[0]
        elif what == "second trainer":
            data, batch = how
            self.second.fit(*DATA[data], epochs=1, batch_size=batch)
        elif any(isinstance(layer, gn.Dense) for layer in model.layers[:-1]):
            data, pretrain = how
            cut = [layer.name for layer in model.layers[:-1] if isinstance(layer, gn.Dense)]
            callback = gn.Factorise(pretrain, 2, layers=cut, policy="always", merge=False)
            trainer.fit(*DATA[data], epochs=2, batch_size=8, callbacks=[callback])


@pytest.mark.slow
@given(st.lists(ACTIONS, min_size=2, max_size=9), st.sampled_from(sorted(OPTIMISERS)))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_course_of_events_gives_the_same_bits(actions, optimizer):
    replaying, plain = Life("auto", optimizer), Life("off", optimizer)
    for action in actions:
        for life in (replaying, plain):
            life.act(*action)
        same_bits(replaying.trainer, plain.trainer)
    assert replaying.trainer.graphs.reason == ""
