"""Models, arenas, initial weights, saved files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import DataError, InputError, OutputError, ShapeError
from gpunet.nn import init, serialize
from gpunet.nn.memory import ALIGN, Arena, Layout
from gpunet.nn.serialize import load_weights
from gpunet.rng import stream
from gpunet.tensorfile import seal

from ..hostile.disk import filled


def built(layers, features=5, **options):
    model = gn.Sequential(layers)
    model.build((features,), get_backend("numpy"), **options)
    return model


# -- arenas ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=8))
def test_views_are_aligned_and_do_not_overlap(shapes):
    arena = Arena(get_backend("numpy"), Layout({str(i): shape for i, shape in enumerate(shapes)}), "float32")
    for i, view in enumerate(arena.views.values()):
        assert view.shape == shapes[i]
        assert arena.layout.places[str(i)].start % ALIGN == 0
        view[...] = i + 1
    for i, view in enumerate(arena.views.values()):
        assert (view == i + 1).all()
    assert arena.flat.size == arena.layout.size
    assert arena.flat.any() == any(np.prod(shape) for shape in shapes)


def test_parameters_lie_in_three_parts():
    model = built([gn.Dense(4, "relu", trainable=False), gn.Dense(3, "sigmoid"), gn.Activation("relu"), gn.Dense(2)])
    assert list(model._store.layout.shapes) == [
        "2.weight", "5.weight", "2.bias", "5.bias", "0.weight", "0.bias",
    ]  # fmt: skip
    params, grads, decayed = model.flat
    assert len(params) == len(grads) == 16 + 16 + 16 + 16
    assert decayed == 32
    params[:decayed] = 7
    assert (model.parameters["2.weight"] == 7).all()
    assert not (model.parameters["2.bias"] == 7).any()


def test_names_are_those_of_the_equal_torch_sequential():
    torch = pytest.importorskip("torch")
    model = built([gn.Dense(4, "relu"), gn.Dense(3), gn.Activation("sigmoid"), gn.Dense(2)])
    nn = torch.nn
    equal = nn.Sequential(
        nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)
    )  # fmt: skip
    assert {n: p.shape for n, p in model.parameters.items()} == {
        n: tuple(p.shape) for n, p in equal.state_dict().items()
    }
    assert list(model.parameters) == list(equal.state_dict())


def test_workspace_can_grow_and_shrink(rng):
    model = built([gn.Dense(6, "relu"), gn.Dense(3)])
    x = rng.normal(size=(50, 5)).astype("float32")
    want = np.maximum(x @ model.layers[0].weight.T, 0) @ model.layers[1].weight.T
    model.bind(20)
    for n in (20, 3, 20, 1):
        model.set_batch_size(n)
        np.testing.assert_allclose(model.forward(x[:n]), want[:n], rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="does not fit a workspace bound for 20"):
        model.set_batch_size(21)
    model.bind(50)
    np.testing.assert_allclose(model.forward(x), want, rtol=1e-5, atol=1e-6)


# -- initial weights --------------------------------------------------------------------------------------------------

SHAPE = (200, 300)
STD = {
    "normal": 1.0,
    "uniform_sigmoid": 4 * np.sqrt(6 / 500) / np.sqrt(3),
    "glorot_uniform": np.sqrt(2 / 500),
    "glorot_normal": np.sqrt(2 / 500),
    "he_normal": np.sqrt(2 / 300),
}


@pytest.mark.parametrize("name", STD)
def test_random_initial_weights_have_their_deviation(name):
    drawn = init.NAMED[name](SHAPE, stream(0, 0))
    assert drawn.std() == pytest.approx(STD[name], rel=0.02)
    assert abs(drawn.mean()) < 4 * STD[name] / np.sqrt(drawn.size)
    if "uniform" in name:
        assert abs(drawn).max() <= STD[name] * np.sqrt(3)
        assert abs(drawn).max() > 0.99 * STD[name] * np.sqrt(3)


def test_fans_of_filter_banks():
    assert init.he_normal((8, 4, 3, 3), stream(0, 0)).std() == pytest.approx(np.sqrt(2 / 36), rel=0.2)
    assert abs(init.glorot_uniform((64, 4, 3, 3), stream(0, 0))).max() <= np.sqrt(6 / (36 + 576))


def test_streams_are_independent_and_repeatable():
    draws = {(s, p, i): tuple(stream(s, p, i).integers(0, 2**40, 4)) for s in (0, 1) for p in (0, 1) for i in (0, 1)}
    assert len(set(draws.values())) == 8
    assert tuple(stream(1, 0, 1).integers(0, 2**40, 4)) == draws[1, 0, 1]
    for bad in (-1, 1.5, "0", None, True):
        with pytest.raises(InputError, match="a seed is an integer"):
            stream(bad, 0)


def test_initial_weights_given_as_arrays():
    weight = np.arange(10.0).reshape(2, 5)
    model = built([gn.Dense(2, weight=weight, bias=[1, 2])])
    np.testing.assert_array_equal(model.parameters["0.weight"], weight)
    np.testing.assert_array_equal(model.parameters["0.bias"], [1, 2])
    with pytest.raises(ShapeError, match=r"has shape \(2, 5\): expected \(3, 5\)"):
        built([gn.Dense(3, weight=weight)])


# -- saved models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_model_comes_back(tmp_path, rng, dtype):
    model = built([gn.Dense(4, "relu"), gn.Activation("sigmoid"), gn.Dense(2, trainable=False)], dtype=dtype, seed=3)
    gn.save(model, tmp_path / "model.safetensors")
    again = gn.load(tmp_path / "model.safetensors", device="numpy")
    assert again.config() == model.config()
    for name, parameter in model.parameters.items():
        np.testing.assert_array_equal(parameter, again.parameters[name])
    x = rng.normal(size=(9, 5))
    trainers = [gn.Trainer(m, device="numpy", dtype=dtype) for m in (model, again)]
    np.testing.assert_array_equal(*(t.outputs(x) for t in trainers))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_files_go_to_pytorch_and_back(tmp_path, rng):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    model = built([gn.Dense(4, "relu"), gn.Dense(2)])
    gn.save(model, tmp_path / "ours")
    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    network.load_state_dict(load_file(tmp_path / "ours"))
    x = rng.normal(size=(3, 5)).astype("float32")
    learner = gn.Trainer(model, device="numpy")
    np.testing.assert_allclose(network(torch.tensor(x)).detach(), learner.outputs(x), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        network[2].bias.fill_(3.0)
    save_file(network.state_dict(), tmp_path / "theirs")
    load_weights(model, tmp_path / "theirs")
    np.testing.assert_allclose(network(torch.tensor(x)).detach(), learner.outputs(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="no gpunet model"):
        gn.load(tmp_path / "theirs")


def test_files_that_do_not_fit(tmp_path):
    model = built([gn.Dense(4, "relu"), gn.Dense(2)])
    before = model.flat[0].copy()
    for other, message in [
        ([gn.Dense(4), gn.Dense(2)], "missing 2.bias, 2.weight; unknown 1.bias, 1.weight"),
        ([gn.Dense(3, "relu"), gn.Dense(2)], r"0.weight has shape \(3, 5\), the model's has \(4, 5\)"),
    ]:
        gn.save(built(other), tmp_path / "file")
        with pytest.raises(InputError, match=message):
            load_weights(model, tmp_path / "file")
    np.testing.assert_array_equal(model.flat[0], before)


def test_damaged_files(tmp_path):
    path = tmp_path / "model.safetensors"
    gn.save(built([gn.Dense(4)]), path)
    good = path.read_bytes()
    for size in (0, 4, 8, 50, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(DataError, match="not a readable safetensors file"):
            gn.load(path)
    path.write_bytes(b"\xff" * 16 + good)
    with pytest.raises(DataError, match="not a readable"):
        gn.load(path)
    with pytest.raises(DataError, match="there is no file"):
        gn.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"format": 99}, "has format 99"),
        (lambda d: {"format": 2}, "damaged"),
        (lambda d: d | {"layers": [{"layer": "Trainer"}]}, "unknown layer"),
        (lambda d: d | {"layers": [{"layer": "Dense", "units": 4, "hack": 1}]}, "does not fit this version"),
        (lambda d: d | {"layers": [{"layer": "Dense", "units": -4}]}, "whole number of units"),
        (lambda d: d | {"input_shape": ["a"]}, "damaged"),
        (lambda d: d | {"input_shape": [6]}, "shape"),
    ],
)
def test_tampered_descriptions(tmp_path, change, message):
    path = tmp_path / "model"
    model = built([gn.Dense(4)])
    gn.save(model, path)
    arrays, metadata = serialize.read(path)
    path.write_bytes(seal(arrays, {"gpunet": json.dumps(change(json.loads(metadata["gpunet"])))}))
    with pytest.raises(InputError, match=message):
        gn.load(path)


@pytest.mark.slow
def test_a_file_of_which_one_bit_was_changed_is_refused_at_every_door(tmp_path, rng):
    model, other = built([gn.Dense(4)]), built([gn.Dense(4)], seed=1)
    saved, point = tmp_path / "model", tmp_path / "checkpoint.safetensors"
    gn.save(model, saved)
    gn.Trainer(other, device="numpy").fit(rng.normal(size=(9, 5)), np.arange(9) % 4, checkpoint=tmp_path)
    before = other.flat[0].copy()
    for path in (saved, point):
        content = path.read_bytes()
        gn.load(path, device="numpy")
        for place in [*range(0, len(content), 11), len(content) - 1]:
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
            for door in (gn.load, lambda path: gn.load_weights(other, path)):
                with pytest.raises(DataError):
                    door(path)
        path.write_bytes(content)
    np.testing.assert_array_equal(other.flat[0], before)
    gn.load_weights(model, point)
    np.testing.assert_array_equal(model.flat[0], before)


def test_a_file_without_its_digest_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    gn.save(built([gn.Dense(4)]), tmp_path / "model")
    _, metadata = serialize.read(tmp_path / "model")
    save_file(load_file(tmp_path / "model"), tmp_path / "model", metadata={"gpunet": metadata["gpunet"]})
    with pytest.raises(DataError, match="does not match its digest"):
        gn.load(tmp_path / "model")


def test_a_model_is_kept_where_it_cannot_be_saved(tmp_path, monkeypatch):
    full, model = filled(monkeypatch), built([gn.Dense(4)])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    gn.save(model, tmp_path / "new" / "folder" / "model")
    whole = (tmp_path / "new" / "folder" / "model").read_bytes()
    full.append(tmp_path / "new")
    kept = tmp_path / "temporary" / "folder-kept" / "model"
    with pytest.raises(OutputError, match=rf"model': No space left on device; it is kept as '{kept}'$"):
        gn.save(built([gn.Dense(3)]), tmp_path / "new" / "folder" / "model")
    assert gn.load(kept, device="cpu").parameters["0.weight"].shape == (3, 5)
    assert (tmp_path / "new" / "folder" / "model").read_bytes() == whole


def test_a_model_is_not_saved_over_what_is_no_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (tmp_path / "link", tmp_path, "/dev/full"):
        with pytest.raises(OutputError, match=r"neither followed nor replaced; .*another place$"):
            gn.save(built([gn.Dense(4)]), path)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_saving_before_building():
    with pytest.raises(InputError, match="no weights yet"):
        gn.save(gn.Sequential([gn.Dense(3)]), "nowhere")
