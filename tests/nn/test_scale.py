"""What samples are multiplied by belongs to the model: pixels mean one thing, whatever dtype they come in."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, InputError
from gpunet.nn import samples as samples_module
from gpunet.tensorfile import KEY, read, seal

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (60, 8), dtype=np.uint8)
LABELS = np.arange(60) % 3


def made(device="numpy", **options):
    return gn.Trainer(gn.Sequential([gn.Dense(5, "relu"), gn.Dense(3)], **options), gn.SoftmaxCrossEntropy(),
                      device=device, dtype="float64")  # fmt: skip


def trained(x=PIXELS, y=LABELS, device="numpy", **options):
    trainer = made(device, **options)
    trainer.fit(x, y, epochs=2, batch_size=16)
    return trainer


def same(one, other):
    for name, value in one.model.parameters.items():
        np.testing.assert_allclose(other.backend.to_host(other.model.parameters[name]),
                                   one.backend.to_host(value), rtol=1e-12, atol=1e-14)  # fmt: skip


@pytest.mark.parametrize(
    ("x", "scale", "equal"),
    [(PIXELS, None, 1 / 255), (PIXELS, 1, 1), (PIXELS, 0.5, 0.5), (PIXELS.astype(float), None, 1),
     (PIXELS.astype(float), 1 / 255, 1 / 255), (PIXELS.astype(np.int64), None, 1), (PIXELS > 99, None, 1)],
)  # fmt: skip
def test_the_model_sees_x_times_its_scale(backend, x, scale, equal):
    found = trained(x, device=backend, scale=scale)
    same(trained(x * np.float64(equal), scale=1), found)
    assert found.model.scale == equal
    expected = trained(x * np.float64(equal), scale=1).outputs(x * np.float64(equal))
    np.testing.assert_allclose(found.outputs(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("use", ["fit", "evaluate", "outputs", "predict", "validation", "samples", "gradient_check"])
@pytest.mark.parametrize(("first", "then"), [("uint8", "float64"), ("float32", "uint8"), ("uint8", "int64")])
def test_other_dtypes_than_in_training_are_refused_until_somebody_says_what_they_are(first, then, use):
    trainer, x = trained(PIXELS.astype(first)), PIXELS.astype(then)
    uses = {
        "fit": lambda: trainer.fit(x, LABELS),
        "evaluate": lambda: trainer.evaluate(x, LABELS),
        "outputs": lambda: trainer.outputs(x),
        "predict": lambda: trainer.predict(x),
        "samples": lambda: trainer.samples(x),
        "validation": lambda: trainer.fit(PIXELS.astype(first), LABELS, validation_data=(x, LABELS)),
        "gradient_check": lambda: gn.gradient_check(trainer.model, "softmax_cross_entropy", x[:4], LABELS[:4]),
    }
    before = trainer.model.learned
    with pytest.raises(InputError, match=f"x is {then}, and the model was trained on .*set model.scale"):
        uses[use]()
    assert trainer.model.learned == before
    trainer.model.scale = 1 / 255
    if use != "validation":
        uses[use]()


def test_numbers_of_all_dtypes_but_uint8_are_the_same_numbers():
    trainer = trained(PIXELS.astype(float) / 255)
    found = trainer.outputs(PIXELS > 99)
    for dtype in ("int8", "int64", "float16", "float32", ">f8"):
        np.testing.assert_array_equal(trainer.outputs((PIXELS > 99).astype(dtype)), found)


def test_a_validation_set_of_another_kind_is_refused_before_anything_is_trained():
    trainer = made()
    with pytest.raises(InputError, match="validation data: x is float64, and the model was trained on uint8"):
        trainer.fit(PIXELS, LABELS, validation_data=(PIXELS / 255, LABELS))
    assert trainer.model.learned is None
    assert trainer.model.scale is None
    trainer.fit(PIXELS / 255, LABELS)


def test_the_accuracy_of_pixels_is_that_of_the_same_pixels():
    """Trained on floats of 0 to 255 and looked at as uint8, a model had lost what it had learned."""
    data = gn.datasets.load("digits")
    trainer = gn.Trainer(gn.Sequential([gn.Dense(10)], scale=data.scale), device="cpu")
    trainer.fit(data.x_train.astype("float32"), data.y_train, epochs=3)
    expected = trainer.evaluate(data.x_test.astype("float32"), data.y_test)
    with pytest.raises(InputError, match="uint8"):
        trainer.evaluate(data.x_test, data.y_test)
    trainer.model.scale = data.scale
    assert trainer.evaluate(data.x_test, data.y_test)["accuracy"] == pytest.approx(expected["accuracy"], abs=0.01)


@pytest.mark.parametrize("way", ["saved", "copied", "pickled", "checkpoint", "trainer copied", "trainer pickled"])
@pytest.mark.parametrize(("x", "scale"), [(PIXELS, None), (PIXELS, 0.25), (PIXELS / 255, None)])
def test_it_goes_where_the_model_goes(way, x, scale, tmp_path):
    trainer = made(scale=scale)
    trainer.fit(x, LABELS, checkpoint=tmp_path / "run")
    gn.save(trainer.model, tmp_path / "m.safetensors")
    model = {
        "saved": lambda: gn.load(tmp_path / "m.safetensors", "numpy"),
        "copied": lambda: copy.deepcopy(trainer.model),
        "pickled": lambda: pickle.loads(pickle.dumps(trainer.model)),  # noqa: S301
        "checkpoint": lambda: gn.load(tmp_path / "run" / "checkpoint.safetensors", "numpy"),
        "trainer copied": lambda: copy.deepcopy(trainer).model,
        "trainer pickled": lambda: pickle.loads(pickle.dumps(trainer)).model,  # noqa: S301
    }[way]()
    assert (model.scale, model.learned) == (trainer.model.scale, trainer.model.learned)
    assert model.scale == pytest.approx(scale or (1 / 255 if x is PIXELS else 1))
    other = gn.Trainer(model, device="numpy", dtype="float64")
    np.testing.assert_array_equal(other.outputs(x), trainer.outputs(x))
    with pytest.raises(InputError, match="and the model was trained on"):
        other.outputs(x / 255 if x is PIXELS else PIXELS)


def test_a_model_built_again_learns_anew_what_its_samples_are():
    trainer = trained(PIXELS)
    trainer.model.build((8,), trainer.backend, dtype="float64")
    assert trainer.model.scale is None
    trainer.fit(PIXELS / 255, LABELS)
    assert trainer.model.scale == 1
    said = trained(PIXELS, scale=0.5)
    said.model.build((8,), said.backend, dtype="float64")
    assert said.model.scale == 0.5


def test_a_run_is_resumed_with_the_scale_that_it_had(tmp_path):
    made(scale=0.5).fit(PIXELS, LABELS, epochs=1, checkpoint=tmp_path)
    with pytest.raises(InputError, match="scale"):
        made(scale=0.25).fit(PIXELS, LABELS, epochs=1, checkpoint=tmp_path, resume=True)


def test_files_of_before_have_no_scale_and_those_that_were_forged_are_refused(tmp_path):
    trainer, path = trained(), tmp_path / "m.safetensors"
    gn.save(trainer.model, path)
    arrays, metadata = read(path)
    told = json.loads(metadata[KEY])
    old = {name: value for name, value in told.items() if name not in ("scale", "learned")} | {"format": 2}
    path.write_bytes(seal(arrays, {KEY: json.dumps(old)}))
    assert gn.load(path, "numpy").scale is None
    for bad in (
        {"scale": "x"}, {"scale": -1}, {"scale": 1e999}, {"learned": 3},
        {"learned": "text"}, {"learned": ["x"]}, {"learned": {"x": ["uint8"]}}, {"learned": {"x": "bytes"}},
        {"learned": {"x": "uint8", "y": "both"}}, {"said": -2.0}, {"said": "1"},
    ):  # fmt: skip
        path.write_bytes(seal(arrays, {KEY: json.dumps(told | bad)}))
        with pytest.raises(DataError, match="description of the model is damaged"):
            gn.load(path, "numpy")


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf, "1", True, [1]])
def test_a_scale_that_is_no_number_above_0_is_refused(scale):
    with pytest.raises(InputError, match="scale"):
        gn.Sequential([gn.Dense(3)], scale=scale)
    model = gn.Sequential([gn.Dense(3)])
    with pytest.raises(InputError, match="scale"):
        model.scale = scale
    assert model.scale is None


def test_it_is_not_set_while_the_model_is_trained():
    class Setter(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.model.scale = 1

    with pytest.raises(InputError, match="being trained: set its scale before or afterwards"):
        made().fit(PIXELS, LABELS, callbacks=Setter())


USES = {
    "fit": lambda trainer: trainer.fit(PIXELS, LABELS),
    "samples": lambda trainer: trainer.samples(PIXELS, LABELS),
    "evaluate": lambda trainer: trainer.evaluate(PIXELS, LABELS),
    "outputs": lambda trainer: trainer.outputs(PIXELS),
    "model.outputs": lambda trainer: trainer.model.outputs(PIXELS),
}


@pytest.mark.parametrize("use", USES)
def test_pixels_are_told_of_once_and_only_where_nobody_has_said_it(use, monkeypatch):
    monkeypatch.setattr(samples_module, "_told", set())
    trained(PIXELS / 255)
    trained(scale=1 / 255)
    trainer = made()
    trainer.prepare((8,))
    with pytest.warns(UserWarning, match="x is uint8, so the model sees x / 255") as found:
        USES[use](trainer)
    assert len(found) == 1
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        USES[use](trainer)


def test_what_is_refused_teaches_the_model_nothing(tmp_path):
    trainer = gn.Trainer(gn.Sequential([gn.BatchNorm(), gn.Dense(3)]), device="numpy")
    with pytest.raises(InputError, match="batches of 1"):
        trainer.fit(PIXELS, LABELS, batch_size=1)
    trainer.fit(PIXELS, LABELS, epochs=0)
    assert (trainer.model.learned, trainer.model.scale) == (None, None)
    made().fit(PIXELS, LABELS, epochs=2, checkpoint=tmp_path)
    again = made()
    with pytest.raises(InputError, match="of another run"):
        again.fit(PIXELS / 255, LABELS, epochs=2, checkpoint=tmp_path, resume=True)
    again.fit(PIXELS, LABELS, epochs=2, checkpoint=tmp_path, resume=True)


def test_the_scale_of_a_trained_model_is_a_number_and_what_was_said_of_it_stays():
    trainer = trained()
    with pytest.raises(InputError, match=r"trained on samples times 0\.003922"):
        trainer.model.scale = None
    trainer.model.scale = 1 / 255
    for x in (PIXELS.astype(float), PIXELS, PIXELS.astype(float)):
        trainer.fit(x, LABELS, validation_data=(PIXELS, LABELS))
    np.testing.assert_allclose(trainer.outputs(PIXELS), trainer.outputs(PIXELS.astype(float)), rtol=1e-12)


def test_compressed_models_see_what_the_model_saw():
    trainer = trained(device="cpu")
    small = gn.compress(trainer.model, PIXELS[:32], rank=2)
    assert (small.scale, small.learned) == (trainer.model.scale, trainer.model.learned)
