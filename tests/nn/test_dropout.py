"""Dropout, and the mode of training that it needs: masks, their seeds, and what looks at a model in between."""

from __future__ import annotations

import copy
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest

import gpunet as gn
from gpunet import rng as seeds
from gpunet.backend import get_backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import InputError
from gpunet.nn.callbacks import Callback

from .recording import both, made, on_devices, same_bits, samples

SIGMAS = 5


def net():
    return [gn.Dense(12, "relu"), gn.Dropout(0.4), gn.Dense(10, "relu"), gn.Dropout(0.5), gn.Dense(3)]


def alone(backend, shape, rate=0.5, dtype="float32", seed=0, layers=1):
    """A model of Dropout layers, in training mode."""
    model = gn.Sequential([gn.Dropout(rate) for _ in range(layers)])
    model.build(shape[1:], backend, dtype=dtype, seed=seed)
    model.bind(shape[0])
    return model.train()


def masks(backend, passes, *, shape=(300, 400), seed=0, layers=1, rate=0.5):
    """Of each pass, of each layer, which places it keeps."""
    model = alone(backend, shape, rate, seed=seed, layers=layers)
    x, found = backend.asarray(np.ones(shape, "float32")), []
    for _ in range(passes):
        model.forward(x)
        found.append([])
        for layer in model.layers:
            layer.ops.dropout(x, rate, layer.draw, layer.y)
            found[-1].append(backend.to_host(layer.y) != 0)
    return np.array(found)


class Look(Callback):
    """Calls a function before each of the steps."""

    def __init__(self, look, steps=(1, 2, 6, 9)):
        self.look, self.at = look, steps

    def steps(self, total):
        return self.at

    def on_step(self, trainer, step):
        self.look(trainer)


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_drops_at_its_rate_and_scales_the_rest(rate, dtype):
    shape = (500, 400)
    model = alone(NumpyBackend(), shape, rate, dtype)
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for _ in range(3):
        y = model.forward(x)
        kept = y != 0
        assert abs((~kept).sum() - rate * x.size) < SIGMAS * np.sqrt(rate * (1 - rate) * x.size)
        np.testing.assert_array_equal(y[kept], (x * np.dtype(dtype).type(1 / (1 - rate)))[kept])
        assert abs(kept.mean(axis=0) - (1 - rate)).max() < SIGMAS * np.sqrt(rate * (1 - rate) / len(x))


def test_masks_of_layers_passes_epochs_and_seeds_are_independent():
    backend = NumpyBackend()
    found = [*masks(backend, 4, layers=3).reshape(12, -1), *masks(backend, 2, seed=1, layers=3).reshape(6, -1)]
    for epoch in (1, 2):
        model = alone(backend, (300, 400))
        model._begin_draws(0, epoch)
        found.append(model.forward(np.ones((300, 400), "float32")).ravel() != 0)
    signs = np.array(found) * 2.0 - 1
    size = signs.shape[1]
    together = signs @ signs.T / size
    assert abs(together - np.eye(len(signs))).max() < SIGMAS / np.sqrt(size)
    for lag in [*range(1, 66), 400, 401, 32768]:  # neighbours in a word, in a row, in a column, of two blocks
        assert abs((signs[:, lag:] * signs[:, :-lag]).mean(axis=1)).max() < SIGMAS / np.sqrt(size - lag), lag


@pytest.mark.usefixtures("session")
def test_masks_are_the_same_on_every_backend(backend):
    shape = (7, 5, 9)  # an odd number of elements
    found = masks(backend, 3, shape=shape, seed=4, layers=2, rate=0.3)
    np.testing.assert_array_equal(found, masks(NumpyBackend(), 3, shape=shape, seed=4, layers=2, rate=0.3))
    assert 0.6 < found.mean() < 0.8


def test_a_batch_that_is_shorter_has_the_masks_of_its_rows():
    backend, x = NumpyBackend(), np.ones((8, 11), "float32")
    whole, short = alone(backend, x.shape), alone(backend, x.shape)
    short.set_batch_size(3)
    np.testing.assert_array_equal(short.forward(x[:3]), whole.forward(x)[:3])


@pytest.mark.usefixtures("session")
def test_the_gradient_takes_the_mask_of_its_pass(backend, rng):
    model = gn.Sequential([gn.Dense(20), gn.Dropout(0.5), gn.Dropout(0.25)])
    model.build((6,), backend, seed=2)
    model.bind(9)
    x, dy = (backend.asarray(rng.normal(size=shape).astype("float32")) for shape in ((9, 6), (9, 20)))
    for _ in range(2):
        z = backend.to_host(model.train().forward(x)).copy()
        kept = z != 0
        slopes = np.array(backend.to_host(dy))
        model.backward(dy)
        np.testing.assert_allclose(
            backend.to_host(model.gradients["0.bias"]), (slopes * kept / 0.5 / 0.75).sum(axis=0), rtol=1e-5, atol=1e-5
        )
        dy = backend.asarray(slopes)


class Off(gn.Dropout):
    """Its derivative is off by 1e-4."""

    def backward(self, dy):
        dx = super().backward(dy)
        if dx is not None:
            dx *= 1.0001
        return dx


class Forgetful(gn.Dropout):
    """Its derivative takes another mask."""

    def backward(self, dy):
        self.ops.redraw(self.draw.reshape(1, 2))
        return super().backward(dy)


@pytest.mark.parametrize("kind", [Off, Forgetful])
def test_a_wrong_derivative_is_found(kind, rng):
    x, labels = rng.normal(size=(12, 5)), rng.integers(0, 3, 12)
    for layers, right in ((gn.Dropout(0.4), True), (kind(0.4), False)):
        model = gn.Sequential([gn.Dense(8, "sigmoid"), layers, gn.Dense(3)])
        table = gn.gradient_check(model, "softmax_cross_entropy", x, labels)
        assert (table.relative_error < 1e-6) == right
        assert not model.training


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("session")
def test_a_model_predicts_without_noise_until_it_is_told_to_train(backend, rng):
    model = gn.Sequential(net())
    model.build((6,), backend)
    model.bind(9)
    x = backend.asarray(rng.normal(size=(9, 6)).astype("float32"))
    quiet = np.array(backend.to_host(model.forward(x)))
    np.testing.assert_array_equal(backend.to_host(model.forward(x)), quiet)
    assert not model.training
    assert model.train() is model
    assert model.training
    assert all(layer.training for layer in model.layers)
    noisy = [np.array(backend.to_host(model.forward(x))) for _ in range(2)]
    assert not np.array_equal(*noisy)
    assert model.eval() is model
    assert not any(layer.training for layer in model.layers)
    np.testing.assert_array_equal(backend.to_host(model.forward(x)), quiet)
    model.layers[1].training = True  # this one alone: a sample of the posterior, say
    noisy = [np.array(backend.to_host(model.forward(x))) for _ in range(2)]
    assert not np.array_equal(*noisy)


def test_evaluation_hands_its_input_on(backend):
    layer = gn.Sequential([gn.Dense(4), gn.Dropout(), gn.Dense(3)]).layers[1]
    x = backend.zeros((2, 4))
    assert layer.forward(x) is x


def test_gradients_of_evaluation_mode_pass_it_by(rng):
    x, labels = rng.normal(size=(9, 6)).astype("float32"), np.arange(9) % 3
    found = []
    for layers in ([gn.Dense(8), gn.Dropout(), gn.Dense(3)], [gn.Dense(8), gn.Activation("identity"), gn.Dense(3)]):
        model = gn.Sequential(layers)
        model.build((6,), NumpyBackend())
        model.bind(9)
        loss = gn.SoftmaxCrossEntropy()
        loss.attach(model.backend, "identity")
        loss(model.forward(x), labels, model.d_scores, np.zeros(4))
        model.backward(model.d_scores)
        found.append(model.flat[1].copy())
    np.testing.assert_array_equal(*found)


def test_backward_belongs_to_a_forward_pass_of_the_same_mode():
    model = alone(NumpyBackend(), (3, 4))
    x = np.ones((3, 4), "float32")
    model.forward(x)
    model.backward(x.copy())
    model.eval()
    with pytest.raises(InputError, match="call forward first"):
        model.backward(x.copy())


@pytest.mark.parametrize("wrong", [0, 1, "yes", None])
def test_a_mode_is_true_or_false(wrong):
    with pytest.raises(InputError, match="mode"):
        gn.Sequential(net()).train(wrong)
    with pytest.raises(InputError, match=r"call model\.train\(\) or model\.eval\(\)"):
        gn.Sequential(net()).training = True


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, np.nan, np.inf, "0.5", None, True])
def test_a_rate_is_below_one(rate):
    with pytest.raises(InputError, match="Dropout's rate cannot be"):
        gn.Dropout(rate)


class Modes(Callback):
    """What modes the model has when callbacks have their turns."""

    def __init__(self):
        self.seen = set()

    def steps(self, total):
        return range(total)

    def on_step(self, trainer, step):
        self.seen.add(trainer.model.training)


def test_a_fit_trains_in_training_mode_and_leaves_in_evaluation_mode():
    trainer, modes = made("off", layers=net), Modes()
    x, y = samples()
    trainer.model.train()
    trainer.fit(x, y, epochs=2, batch_size=16, validation_data=(x, y), callbacks=modes)
    assert modes.seen == {True}
    assert not trainer.model.training
    first = trainer.outputs(x)
    np.testing.assert_array_equal(first, trainer.outputs(x))
    trainer.model.train()
    np.testing.assert_array_equal(first, trainer.outputs(x))
    assert trainer.model.training, "looking leaves the mode as it was"
    assert trainer.evaluate(x, y) == trainer.evaluate(x, y)


def test_also_where_it_fails():
    trainer = made("off", layers=net)

    def fail(trainer):
        trainer.model.layers[1].training = False
        raise KeyError("no")

    with pytest.raises(KeyError):
        trainer.fit(*samples(), callbacks=Look(fail))
    assert not trainer.model.training
    trainer.model.layers[1].training = True  # this one alone
    with pytest.raises(KeyError), trainer.model.evaluating():
        fail(trainer)
    assert [layer.training for layer in trainer.model.layers] == [False, True, False, False, False]


# -- training ---------------------------------------------------------------------------------------------------------


def test_a_fit_is_the_loop_by_hand():
    """The masks of a model's own are those of its seed's first epoch: a loop without a trainer makes the same bits."""
    x, y = samples()
    trainer = made("off", "sgd", backend=NumpyBackend(), layers=net, seed=5)
    trainer.fit(x, y, batch_size=16, shuffle=False)
    model, ops = gn.Sequential(net()), NumpyBackend()
    model.build(x.shape[1:], ops, seed=5)
    model.bind(16)
    loss, totals = gn.SoftmaxCrossEntropy(), np.zeros(4)
    loss.attach(ops, "identity")
    model.train()
    for start in range(0, 70, 16):
        rows = slice(start, start + 16)
        model.set_batch_size(len(x[rows]))
        loss(model.forward(x[rows]), y[rows], model.d_scores, totals)
        model.backward(model.d_scores)
        params, grads, _ = model.flat
        params -= np.float32(0.05) * grads
    for name, value in trainer.model.parameters.items():
        np.testing.assert_allclose(model.parameters[name], value, rtol=0, atol=1e-7)


def evaluating(trainer):
    x, y = samples(n=150, seed=1)
    trainer.evaluate(x, y)
    trainer.outputs(x[:7])


def training_by_hand(trainer):
    """Forward passes, which draw, and a mode that is left as it should not be."""
    model, x = trainer.model, trainer.backend.asarray(samples()[0][:5])
    model.set_batch_size(5)
    for _ in range(3):
        model.train().forward(x)
    model.eval()


@on_devices
def test_replayed_steps_draw_as_steps_do(device):
    x, y = samples()
    replaying = both(lambda trainer: trainer.fit(x, y, epochs=3, batch_size=16), device, layers=net)
    assert replaying.backend.replayed == 15 - 2
    draws = replaying.backend.to_host(replaying.model._draws)
    assert (draws[:, 1] == 5).all(), "steps of an epoch"
    np.testing.assert_array_equal(draws[:, 0], seeds.stream(0, seeds.MASKS, 2).integers(2**63, size=5))


@on_devices
@pytest.mark.parametrize("look", [lambda trainer: None, evaluating, training_by_hand])
def test_looking_in_mid_epoch_changes_no_bit_and_drops_no_recording(device, look):
    x, y = samples()
    undisturbed = made(backend=device(), layers=net)
    undisturbed.fit(x, y, epochs=3, batch_size=16)

    def scenario(trainer):
        trainer.prepare((6,))
        trainer._workspace(150)
        trainer.fit(x, y, epochs=3, batch_size=16, callbacks=Look(look))

    replaying = both(scenario, device, layers=net)
    assert replaying.backend.replayed == undisturbed.backend.replayed == 15 - 2
    same_bits(replaying, undisturbed)


@on_devices
def test_a_step_by_hand_is_in_training_mode_whoever_has_looked(device):
    x, y = samples()
    order = np.arange(64) % 70

    def scenario(trainer):
        data = trainer.samples(x, y)
        trainer._workspace(64)
        place, step = trainer.upload_order(order), trainer.stepper()
        with trainer.backend.session():
            for turn in range(6):
                trainer.tally.reset()
                for _ in range(4):
                    step(data, place, 16)
                assert trainer.model.training
                trainer.model.eval() if turn % 2 else trainer.evaluate(data)
        assert (trainer.backend.to_host(trainer.model._draws)[:, 1] == 24).all()

    both(scenario, device, layers=net)


@on_devices
def test_layers_that_know_the_mode_are_recorded_in_training_mode(device):
    class Noisier(gn.Activation):
        """Another function while training."""

        def forward(self, x):
            self.ops.activate("sigmoid" if self.training else "relu", x, self.y)
            return self.y

        def backward(self, dy):
            if self.dx is not None:
                self.ops.activation_backward("sigmoid" if self.training else "relu", self.y, dy, self.dx, None)
            return self.dx

    x, y = samples()

    def scenario(trainer):
        trainer.fit(x, y, epochs=3, batch_size=16, validation_data=(x, y), callbacks=Look(evaluating))

    both(scenario, device, layers=lambda: [gn.Dense(8), Noisier("relu"), gn.Dense(3)])


def test_a_rate_that_is_replaced_in_mid_training_goes_on_in_its_place():
    x, y = samples()

    def replace(trainer):
        trainer.model.replace("2", gn.Dropout(0.1))
        assert trainer.model.layers[1].training

    def scenario(trainer):
        trainer.fit(x, y, epochs=3, batch_size=16, callbacks=Look(replace, [7]))

    trainer = both(scenario, layers=net)
    assert trainer.model.layers[1].rate == 0.1


@pytest.mark.parametrize("cut", [gn.Factorise(0.5, 3), gn.Factorise(0.4, {"0": 2}, merge=False)])
def test_factoring_beside_it(cut):
    x, y = samples()
    both(lambda trainer: trainer.fit(x, y, epochs=4, batch_size=16, callbacks=copy.deepcopy(cut)), layers=net)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_step_allocates_nothing(device):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 100)).astype("float32"), np.arange(2000) % 5
    layers = [gn.Dropout(0.2), gn.Dense(128, "relu"), gn.Dropout(), gn.Dense(5)]
    trainer = gn.Trainer(gn.Sequential(layers), optimizer=gn.SGD(0.1), device=device)
    data = trainer.samples(x, y)
    trainer._workspace(1000)
    order = trainer.upload_order(np.arange(2000))

    def epoch():
        trainer.tally.reset()
        for _ in range(2):
            trainer.step(data, order, 1000)

    with trainer.backend.session():
        for _ in range(20):
            epoch()
        tracemalloc.start()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            epoch()
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert now - start < 10_000
    assert peak - start < 40_000


# -- saved, copied ----------------------------------------------------------------------------------------------------


def test_it_is_saved_and_takes_one_place_as_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    trainer = made("off", backend=NumpyBackend(), layers=net)
    x, y = samples()
    trainer.fit(x, y)
    gn.save(trainer.model, tmp_path / "model")
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Dropout(0.4), torch.nn.Linear(12, 10), torch.nn.ReLU(),
        torch.nn.Dropout(0.5), torch.nn.Linear(10, 3),
    )  # fmt: skip
    network.load_state_dict(load_file(tmp_path / "model"))
    with torch.no_grad():
        theirs = network.eval()(torch.tensor(x)).numpy()
    np.testing.assert_allclose(trainer.outputs(x), theirs, rtol=1e-5, atol=1e-5)
    loaded = gn.load(tmp_path / "model", device="numpy")
    assert [layer.rate for layer in loaded.layers if isinstance(layer, gn.Dropout)] == [0.4, 0.5]
    assert not loaded.training
    loaded.bind(70)
    np.testing.assert_allclose(loaded.forward(x), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])  # noqa: S301
def test_copies_go_on_alike(how):
    x, y = samples()
    trainer = made("off", layers=net, backend=NumpyBackend())
    trainer.fit(x, y, epochs=2, batch_size=16)
    copied = how(trainer)
    for each in (trainer, copied):
        each.fit(x, y, epochs=2, batch_size=16)
    same_bits(trainer, copied)
    trainer.model.train()
    layer = gn.Sequential([how(trainer.model.layers[1])]).layers[0]
    assert not layer.training, "which is the new model's"
    layer = how(trainer.model.layers[1])
    assert (layer.rate, layer.owner, hasattr(layer, "draw")) == (0.4, None, False)


def test_it_may_come_last_and_alone():
    x, y = samples()
    trainer = made("off", layers=lambda: [gn.Dense(3), gn.Dropout(0.2)], backend=get_backend("cpu"))
    loss = [trainer.fit(x, y, epochs=10, batch_size=16)["train_loss"][i] for i in (0, -1)]
    assert loss[1] < loss[0]
    params = trainer.model.parameters
    np.testing.assert_allclose(trainer.outputs(x), x @ params["0.weight"].T + params["0.bias"], rtol=1e-5, atol=1e-5)
    for seed, mode in itertools.product((0, 1), (True, False)):
        model = alone(NumpyBackend(), x.shape, seed=seed).train(mode)
        before = x.copy()
        model.activate_scores(model.forward(x))
        np.testing.assert_array_equal(x, before)
