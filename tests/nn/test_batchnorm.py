"""Batch normalisation in models: its running statistics belong to the model, and no optimiser touches them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, DivergedError, InputError

from .recording import both, on_devices, same_bits, samples


def layers():
    return [gn.Dense(12, "relu"), gn.BatchNorm(), gn.Dense(10), gn.BatchNorm(0.3), gn.Activation("tanh"), gn.Dense(3)]


def images():
    return [
        gn.Reshape((1, 8, 8)), gn.BatchNorm(), gn.Conv2D(4, 3), gn.BatchNorm(), gn.Activation("relu"), gn.MaxPool2D(2),
        gn.Flatten(), gn.Dense(8), gn.GELU(), gn.Dense(3),
    ]  # fmt: skip


def trained(made=layers, epochs=2, optimizer=None, features=6, **options):
    trainer = gn.Trainer(gn.Sequential(made()), optimizer=optimizer or gn.Adam(0.02), device="numpy", **options)
    trainer.fit(*samples(features=features), epochs=epochs, batch_size=16)
    return trainer


def running(model):
    return {name: np.array(value) for name, value in model.parameters.items() if "running" in name}


def test_names_gradients_and_the_optimiser():
    trainer = trained(optimizer=gn.Adam(0.02, l2=0.1))
    model = trainer.model
    assert list(model.parameters) == [
        "0.weight", "0.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var", "3.weight", "3.bias",
        "4.weight", "4.bias", "4.running_mean", "4.running_var", "6.weight", "6.bias",
    ]  # fmt: skip
    assert not [name for name in model.gradients if "running" in name]
    assert len(trainer.optimizer.state["first"]) == len(model.flat[0]) == model.trained_layout.size
    places, _, decayed = model.trained_layout.places, *model.flat[1:]
    assert {name for name, place in places.items() if place.start < decayed} == {"0.weight", "3.weight", "6.weight"}


def test_training_follows_the_batches_and_evaluation_does_not(rng):
    trainer = trained()
    before = running(trainer.model)
    assert all((value != start).any() for value, start in zip(before.values(), (0, 1, 0, 1), strict=True))
    x, y = samples()
    first = trainer.outputs(x)
    trainer.evaluate(x, y)
    np.testing.assert_allclose(trainer.outputs(x[:1]), first[:1], rtol=1e-5)  # nothing depends on its neighbours
    assert all((value == before[name]).all() for name, value in running(trainer.model).items())
    layer = trainer.model.layers[1]
    lower = np.maximum(x @ trainer.model.layers[0].weight.T + trainer.model.layers[0].bias, 0)
    trainer.outputs(x)
    want = (lower - layer.running_mean) / np.sqrt(layer.running_var + 1e-5) * layer.weight + layer.bias
    np.testing.assert_allclose(layer.y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@on_devices
@pytest.mark.parametrize("made", [layers, images])
def test_recorded_steps_are_the_same_bit_for_bit(device, made):
    x, y = samples(n=70, features=64 if made is images else 6)

    def scenario(trainer):
        trainer.fit(x, y, epochs=3, batch_size=16, validation_data=(x, y), callbacks=[gn.StepDecay(0.5, 2)])
        trainer.fit(x, y, epochs=2, batch_size=35)

    both(scenario, device, layers=made)


@pytest.mark.parametrize("take", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])  # noqa: S301
def test_copies_take_the_running_statistics_along(take):
    trainer, (x, y) = trained(), samples()
    other = take(trainer)
    np.testing.assert_array_equal(trainer.outputs(x), other.outputs(x))
    for each in (trainer, other):
        each.fit(x, y, epochs=2, batch_size=16)
    same_bits(trainer, other)
    alone = take(trainer.model)
    assert all((value == running(alone)[name]).all() for name, value in running(trainer.model).items())


def test_saved_loaded_and_resumed(tmp_path):
    x, y = samples()
    trainer = trained()
    gn.save(trainer.model, tmp_path / "model.safetensors")
    again = gn.load(tmp_path / "model.safetensors", device="numpy")
    assert again.config() == trainer.model.config()
    for name, value in trainer.model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], value)

    class KilledError(Exception):
        pass

    class Kill(gn.Callback):
        after = 2

        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == self.after:
                raise KilledError

    whole = gn.Trainer(gn.Sequential(layers()), optimizer=gn.AdamW(0.02), device="numpy")
    options = {"epochs": 6, "batch_size": 16}
    whole.fit(x, y, **options)
    parts = gn.Trainer(gn.Sequential(layers()), optimizer=gn.AdamW(0.02), device="numpy")
    with pytest.raises(KilledError):
        parts.fit(x, y, callbacks=[Kill()], checkpoint=tmp_path / "run", checkpoint_every=0.4, **options)
    resumed = gn.Trainer(gn.Sequential(layers()), optimizer=gn.AdamW(0.02), device="numpy")
    Kill.after = None
    resumed.fit(x, y, callbacks=[Kill()], checkpoint=tmp_path / "run", checkpoint_every=0.4, resume=True, **options)
    same_bits(whole, resumed)


def test_weights_of_a_pytorch_file(tmp_path, rng):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    network = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
    )
    x = rng.normal(2, 3, size=(20, 6)).astype("float32")
    network(torch.tensor(x))
    save_file(network.state_dict(), tmp_path / "theirs.safetensors")
    model = gn.Sequential([gn.Dense(5), gn.BatchNorm(), gn.Activation("relu"), gn.Dense(3)])
    trainer = gn.Trainer(model, device="numpy")
    trainer.prepare((6,))
    gn.load_weights(model, tmp_path / "theirs.safetensors")
    with torch.no_grad():
        np.testing.assert_allclose(trainer.outputs(x), network.eval()(torch.tensor(x)).numpy(), rtol=1e-4, atol=1e-5)
    gn.save(model, tmp_path / "ours.safetensors")
    assert not network.load_state_dict(load_file(tmp_path / "ours.safetensors")).missing_keys
    state = network.state_dict()
    save_file(state | {"7.num_batches_tracked": torch.tensor(3)}, tmp_path / "more.safetensors")
    with pytest.raises(DataError, match=r"unknown 7\.num_batches_tracked"):
        gn.load_weights(model, tmp_path / "more.safetensors")


def test_other_layers_may_be_replaced_and_frozen_in_mid_training():
    trainer, (x, y) = trained(), samples()
    before = running(trainer.model)
    trainer.model.replace("0", gn.factorise(trainer.model.layer("0"), rank=4), state="carry-both")
    trainer.model.layer("2").trainable = False
    assert all((value == before[name]).all() for name, value in running(trainer.model).items())
    trainer.fit(x, y, epochs=2, batch_size=16)
    after = running(trainer.model)
    frozen = {name: value for name, value in after.items() if name.startswith("2.")}
    assert all((value == before[name]).all() for name, value in frozen.items())
    assert all((value != before[name]).any() for name, value in after.items() if name not in frozen)
    trainer.model.replace("4", gn.BatchNorm(0.5))
    assert running(trainer.model)["4.running_var"].tolist() == [1] * 10
    trainer.fit(x, y, batch_size=16)


@pytest.mark.parametrize(
    ("n", "batch", "better"), [(33, 16, 15), (65, 64, 63), (3, 2, 3), (9, 1, 3), (1001, 1000, 999)]
)
def test_a_last_batch_of_one_row_is_refused_before_anything_is_trained(n, batch, better):
    trainer = gn.Trainer(gn.Sequential(layers()), device="numpy")
    x, y = samples(n=n)
    with pytest.raises(
        InputError, match=rf"{n} samples in batches of {batch} leave a last one of 1.* batch_size={better}$"
    ):
        trainer.fit(x, y, batch_size=batch)
    assert trainer.epoch == 0
    trainer.fit(x, y, batch_size=better)
    for layer in trainer.model.layers:
        if isinstance(layer, gn.BatchNorm):
            layer.trainable = False
    trainer.fit(x, y, batch_size=batch)


def test_one_row_alone():
    trainer = gn.Trainer(gn.Sequential(layers()), device="numpy")
    x, y = samples(n=1)
    with pytest.raises(InputError, match="give it more samples"):
        trainer.fit(x, y)
    assert trainer.outputs(x).shape == (1, 3)
    trainer.model.train()
    with pytest.raises(InputError, match=r"'2' \(BatchNorm\) normalises a batch of 1 row in training mode"):
        trainer.model.forward(x)
    alone = gn.Trainer(gn.Sequential(images()), device="numpy")
    alone.fit(*samples(n=33, features=64), batch_size=16)  # of an image, a channel has numbers enough


@pytest.mark.parametrize(
    "settings", [{"momentum": 0}, {"momentum": 1.1}, {"momentum": float("nan")}, {"epsilon": 0}, {"epsilon": "small"}]
)
def test_bad_settings(settings):
    with pytest.raises(InputError, match="BatchNorm's"):
        gn.BatchNorm(**settings)


def test_running_statistics_are_set_as_parameters_are():
    layer = gn.BatchNorm()
    layer.running_var = np.full(6, 4.0)
    model = gn.Sequential([layer, gn.Dense(2)])
    gn.Trainer(model, device="numpy").prepare((6,))
    assert model.parameters["0.running_var"].tolist() == [4] * 6
    layer.running_mean = np.arange(6.0)
    assert model.parameters["0.running_mean"].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError):
        layer.running_mean = np.full(6, np.nan)


def test_statistics_beyond_float32_are_divergence(tmp_path):
    x, y = samples()
    trainer = gn.Trainer(gn.Sequential([gn.BatchNorm(), gn.Dense(3)]), device="numpy")
    with pytest.raises(DivergedError):
        trainer.fit(x * np.float32(1e25), y, checkpoint=tmp_path / "run")


def test_a_compressed_model_has_them():
    trainer, (x, _) = trained(), samples()
    small = gn.compress(trainer.model, x, rank=3)
    assert isinstance(small.layers[0], gn.LowRankDense)
    for name, value in running(trainer.model).items():
        np.testing.assert_array_equal(small.parameters[name], value)
    assert trainer.model.parameter_count() - trainer.model.parameter_count(trained=True) == 2 * (12 + 10)
