"""Tensors of files, shards, mappings and modules: what stands there, a tensor at a time, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gpunet as gn
from gpunet import tensorfile
from gpunet.compression.tensors import Tensors, write
from gpunet.errors import DataError, InputError, OutputError
from gpunet.tensorfile import Entry

from ..hostile.disk import filled

KINDS = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint32", "bool", "complex64"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def arrays():
    rng = np.random.default_rng(0)
    found = {f"layer.{kind}.weight": (10 * rng.normal(size=(3, 5))).astype(kind) for kind in KINDS[:-2]}
    found |= {"b": rng.normal(size=4) > 0, "none": np.zeros((0, 3), "float32"), "one": np.float32(2.5).reshape(())}
    return found | {"bf": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16)}


def entries(tensors, **made):
    return [Entry(n, str(a.dtype), a.shape, made.get(n, lambda a=a: a)) for n, a in tensors.items()]


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def refused(source, *words, kind=DataError):
    with pytest.raises(kind) as caught:
        Tensors.open(source)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), caught.value


# -- reading ----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_with_the_same_bits_and_by_the_library_itself():
    wanted = arrays()
    write(Path("a.safetensors"), entries(wanted), {"format": "pt"})
    found = Tensors.open("a.safetensors")
    assert found.metadata == {"format": "pt"}
    assert set(found.names) == set(wanted)
    for name, array in wanted.items():
        assert (found.shape(name), found.dtype(name)) == (array.shape, array.dtype.name)
        assert same(found.read(name), array)
        found.read(name)[...] = 0  # it is the caller's own
        assert same(found.read(name), array)
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch

    theirs = load_torch("a.safetensors")
    assert theirs["bf"].dtype == torch.bfloat16
    assert np.array_equal(theirs["bf"].float().numpy(), wanted["bf"].astype("float32"))
    assert np.array_equal(theirs["layer.float32.weight"].numpy(), wanted["layer.float32.weight"])


def test_every_dtype_of_safetensors_is_known_and_float8_is_read():
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    x = torch.arange(-8.0, 8.0).reshape(4, 4)
    names = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "bfloat16", "float16"]
    kinds = {name: x.to(getattr(torch, name)) for name in names}
    save_torch(kinds, "k.safetensors")
    stored, held = Tensors.open("k.safetensors"), Tensors.open(kinds)
    for name in names:
        assert stored.dtype(name) == held.dtype(name) == name
        assert same(stored.read(name), held.read(name))
        assert np.array_equal(stored.read(name).astype("float32"), kinds[name].float().numpy())


@pytest.mark.slow
def test_memory_is_that_of_one_tensor(tmp_path):
    write(Path("big.safetensors"), [Entry(f"t{i}", "float32", (2048, 2048), lambda: np.ones((2048, 2048), "f4"))
                                    for i in range(20)])  # fmt: skip
    code = """
import resource, sys
from gpunet.compression.tensors import Tensors
found = Tensors.open('big.safetensors')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in found.names:
    assert found.read(name)[0, 0] == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 2.5 * 16 * 1024  # of 16 MB each, 320 MB in all; KB


def test_names_that_there_are_none_of_are_told_with_those_near():
    found = Tensors.open({"model.layers.0.mlp.up.weight": np.zeros(2), "model.embed.weight": np.zeros(3)})
    for ask in (found.read, found.shape, found.dtype, found.entry):
        with pytest.raises(DataError, match=r"no tensor 'model.layers.0.mlp.uq.weight': near to it are model\.layers"):
            ask("model.layers.0.mlp.uq.weight")


def test_mappings_and_modules():
    held = Tensors.open({"a": [1.0] and np.arange(3.0)[::-1]})
    assert same(held.read("a"), np.arange(3.0)[::-1].copy())
    for bad in ({"a": 3}, {1: np.zeros(2)}, 7, None, b"x", [1], {"a": None}):
        refused(bad, "expected", kind=InputError)
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
    found = Tensors.open(net)
    assert list(found.names) == list(net.state_dict())
    assert found.dtype("0.weight") == "bfloat16"
    assert np.array_equal(found.read("0.weight").astype("f4"), net[0].weight.detach().float().numpy())
    assert found.read("1.num_batches_tracked").shape == ()
    view = {"t": torch.arange(6.0).reshape(2, 3).T}
    assert np.array_equal(Tensors.open(view).read("t"), view["t"].numpy())


def test_what_git_lfs_left_in_place_is_told():
    lines = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 5\n"
    Path("m.safetensors").write_text(lines)
    refused("m.safetensors", "pointer of git-lfs", "git lfs pull")
    sharded()
    Path("shards/model-00002-of-00003.safetensors").write_text(lines)
    refused("shards", "model-00002-of-00003.safetensors", "git lfs pull")


# -- shards -----------------------------------------------------------------------------------------------------------


def sharded(folder="shards", size=200):
    wanted = {f"l.{i}.weight": np.full((4, 5), i, "float32") for i in range(6)}
    return wanted, write(Path(folder), entries(wanted), {"format": "pt"}, size)


def test_shards_are_those_of_hugging_face():
    wanted, paths = sharded()
    names = sorted(os.listdir("shards"))
    assert names == sorted(path.name for path in paths)
    assert names[0] == "model-00001-of-00003.safetensors"
    index = json.loads(paths[0].read_text())
    assert index["metadata"] == {"total_size": 480}
    for name, file in index["weight_map"].items():
        assert same(load_file(f"shards/{file}")[name], wanted[name])
    for source in ("shards", paths[0], str(paths[0])):
        found = Tensors.open(source)
        assert all(same(found.read(name), array) for name, array in wanted.items())
        assert found.metadata == {"format": "pt"}
        assert set(found.names) == set(wanted)


def test_a_folder_with_one_file_is_that_file():
    Path("one").mkdir()
    save_file({"w": np.ones(3, "f4")}, "one/adapter.safetensors")
    assert list(Tensors.open("one").names) == ["w"]
    save_file({"w": np.ones(3, "f4")}, "one/other.safetensors")
    refused("one", "adapter.safetensors, other.safetensors", "name one")
    Path("none").mkdir()
    refused("none", "no .safetensors file")


def test_a_damaged_index_is_told():
    _, paths = sharded()
    whole = json.loads(paths[0].read_text())
    for change, *words in (
        ({"weight_map": {"x": "../secret.safetensors"}}, "no name of a safetensors file beside it"),
        ({"weight_map": {"x": "/etc/passwd"}}, "no name"),
        ({"weight_map": {"x": 7}}, "no index of shards"),
        ({"weight_map": {}}, "no tensors"),
        ({"weight_map": None}, "no index of shards"),
        ({}, "no index of shards"),
        ({"weight_map": whole["weight_map"] | {"more": "model-00001-of-00003.safetensors"}}, "no more"),
        ({"weight_map": {"x": "absent.safetensors"}}, "there is no file", "absent"),
    ):
        paths[0].write_text(json.dumps(change))
        refused("shards", *words)
    paths[0].write_text("[" * 100_000)
    refused("shards", "no index of shards")
    paths[0].write_text(json.dumps(whole))
    save_file({"l.0.weight": np.ones(3, "f4"), "l.4.weight": np.ones(3, "f4"), "l.5.weight": np.ones(3, "f4")},
              "shards/model-00003-of-00003.safetensors")  # fmt: skip
    refused("shards", "l.0.weight is in", "expected once")


# -- what is no such file ---------------------------------------------------------------------------------------------


def test_a_pickle_is_refused_with_the_lines_that_convert_it(monkeypatch):
    Path("m.bin").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile("zipped.safetensors", "w") as file:  # as of torch.save
        file.writestr("zipped/data.pkl", pickle.dumps({}))
    Path("plain.safetensors").write_bytes(pickle.dumps([1]))
    Path("hf").mkdir()
    Path("hf/pytorch_model.bin").write_bytes(b"PK\x03\x04")
    Path("hf/config.json").write_text("{}")
    monkeypatch.setattr(pickle, "load", pytest.fail)
    for source in ("m.bin", "zipped.safetensors", "plain.safetensors", "hf"):
        refused(source, "is a pickle", "weights_only=True", "safetensors.torch.save_file")


def test_a_file_of_another_kind_is_told_what_it_is(monkeypatch):
    w = np.arange(6.0).reshape(2, 3)
    np.savez("w.npz", w=w, fortran=np.asfortranarray(w))
    for read in (Tensors.open, gn.load):
        with pytest.raises(DataError, match=r"'w.npz' is a zip of NumPy's arrays \(.npz\): expected a") as caught:
            read("w.npz")
    lines = str(caught.value).partition("one with: ")[2].split("; ")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
    made = Tensors.open("w.safetensors")
    assert [made.read(name).tolist() for name in ("w", "fortran")] == [w.tolist(), w.tolist()]
    with zipfile.ZipFile("z.zip", "w") as file:
        file.writestr("a.txt", "a")
    Path("cut.npz").write_bytes(Path("w.npz").read_bytes()[:100])
    Path("r.py").write_text("print(12345)\n")
    said = {"z.zip": "a zip archive", "cut.npz": "a damaged zip archive", "r.py": "of another kind"}
    for source, kind in said.items():
        refused(source, f"'{source}' is not a readable safetensors file, but {kind}: expected a .safetensors file")
        with pytest.raises(DataError, match=f"but {kind}: expected a model saved as safetensors$"):
            gn.load(source)


def test_the_door_for_models_tells_of_pickles_and_takes_any_name():
    torch = pytest.importorskip("torch")
    for new in (True, False):
        torch.save({"w": torch.ones(2)}, "m.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(DataError, match=r"is a pickle, which can run any code.*weights_only=True.*'m.safetensors'"):
            gn.load("m.pt")
    model = gn.Sequential([gn.Dense(3)])
    model.build((4,), gn.get_backend("numpy"))
    gn.save(model, "mine.pt")
    assert gn.load("mine.pt", device="numpy").input_shape == (4,)


@pytest.mark.parametrize("size", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_looks_like_a_pickle_is_none(size):
    text = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    Path("w.safetensors").write_bytes(size.to_bytes(8, "little") + text.ljust(size) + bytes(4))
    assert Tensors.open("w.safetensors").read("w").tolist() == [0.0]


@pytest.mark.slow
def test_the_lines_that_convert_it_do():
    torch = pytest.importorskip("torch")
    w = torch.arange(6.0).reshape(2, 3)
    torch.save({"w": w, "again": w, "view": w[:1]}, "m.pt")
    with pytest.raises(DataError) as caught:
        Tensors.open("m.pt")
    lines = str(caught.value).partition("in Python: ")[2].split("; ")
    assert len(lines) == 3
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
    found = Tensors.open("m.safetensors")
    assert np.array_equal(found.read("again"), w.numpy())


def test_what_is_missing_or_damaged_is_told(monkeypatch):
    refused("absent.safetensors", "there is no file 'absent.safetensors'")
    refused("absent.safetensors.index.json", "there is no file")
    save_file({"w": np.ones(30, "f4")}, "w.safetensors")
    content = Path("w.safetensors").read_bytes()
    for bad in (content[:-1], content + b"x", content[:20], b"", b"\xff" * 200, content.replace(b"F32", b"F99")):
        Path("bad.safetensors").write_bytes(bad)
        refused("bad.safetensors", "not a readable safetensors file")
    monkeypatch.setenv("GPUNET_UNPACKED", "80")
    refused("w.safetensors", "header", "longer than 10")


def test_a_digest_of_ours_is_held_to():
    model = gn.Sequential([gn.Dense(3)])
    model.build((4,), gn.get_backend("cpu"))
    gn.save(model, "m.safetensors")
    assert set(Tensors.open("m.safetensors").names) == {"0.weight", "0.bias"}
    content = bytearray(Path("m.safetensors").read_bytes())
    content[-1] ^= 1
    Path("m.safetensors").write_bytes(content)
    refused("m.safetensors", "does not match its digest")


def test_a_file_that_changes_while_it_is_read_is_told():
    save_file({"w": np.ones(30, "f4")}, "w.safetensors")
    found = Tensors.open("w.safetensors")
    save_file({"w": np.zeros(30, "f4")}, "v.safetensors")
    os.replace("v.safetensors", "w.safetensors")
    with pytest.raises(DataError, match="was changed while"):
        found.read("w")
    os.remove("w.safetensors")
    with pytest.raises(DataError, match="cannot be read any more"):
        found.read("w")


@pytest.mark.parametrize(
    ("names", "module", "kind"),
    [
        (("m.qweight", "m.scales", "m.qzeros"), "m", "GPTQ"),
        (("m.weight", "m.SCB"), "m", "bitsandbytes"),
        (("m.weight", "m.weight.absmax", "m.weight.quant_map", "m.weight.quant_state.bitsandbytes__nf4"), "m", "4-bit"),
        (("m.weight_packed", "m.weight_scale"), "m", "compressed-tensors"),
        (("a.m.weight", "a.m.weight_scale_inv"), "a.m", "float8"),
    ],
)
def test_quantised_weights_are_recognised(names, module, kind):
    found = Tensors.open({name: np.zeros((2, 2), "uint8") for name in names} | {"n.weight": np.zeros((2, 2))})
    assert list(found.quantised()) == [module]
    assert kind in found.quantised()[module]


def test_small_floats_are_quantised():
    found = Tensors.open({"m.weight": np.zeros((2, 2), ml_dtypes.float8_e4m3fn), "n.weight": np.zeros((2, 2))})
    assert found.quantised() == {"m": "float8_e4m3fn"}


# -- writing ----------------------------------------------------------------------------------------------------------


def test_bits_of_any_dtype_are_passed_on():
    tensors = {"packed": {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 8]}}
    text = json.dumps(tensors).encode()
    Path("f4.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(8)))
    found = Tensors.open("f4.safetensors")
    assert found.dtype("packed") == "F4"
    assert found.quantised() == {"": "F4"}
    with pytest.raises(DataError, match="stored as F4"):
        found.read("packed")
    write(Path("again.safetensors"), [*entries({"w": np.ones(3, "f4")}), found.entry("packed")], {})
    again = Tensors.open("again.safetensors")
    assert (again.dtype("packed"), again.shape("packed")) == ("F4", (4, 4))
    assert again.entry("packed").make().tobytes() == bytes(range(8))


def test_an_error_on_the_way_leaves_nothing_and_what_stood_there(monkeypatch):
    save_file({"old": np.ones(3, "f4")}, "w.safetensors")

    def fail():
        raise RuntimeError("no more")

    tensors = {"a": np.ones(3, "f4"), "b": np.ones(3, "f4")}
    for path, shards in ((Path("w.safetensors"), 0), (Path("folder"), 12)):
        with pytest.raises(RuntimeError, match="no more"):
            write(path, entries(tensors, b=fail), {}, shards)
    assert not Path("folder").exists()
    assert list(load_file("w.safetensors")) == ["old"]
    full = filled(monkeypatch)
    full.append(Path.cwd())
    for path, shards in ((Path("w.safetensors"), 0), (Path("folder"), 12)):
        with pytest.raises(OutputError, match="No space left"):
            write(path, entries(tensors), {}, shards)
    full.clear()
    assert list(load_file("w.safetensors")) == ["old"]
    assert sorted(p.name for p in Path().rglob("*")) == ["w.safetensors"]


def test_a_disk_without_room_is_told_before_anything_is_made(monkeypatch):
    usage, usage_of = type("Usage", (), {"free": 11}), tensorfile.shutil.disk_usage
    monkeypatch.setattr(tensorfile.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="12 bytes are needed"):
        write(Path("w.safetensors"), entries({"a": np.ones(3, "f4")}, a=pytest.fail), {})
    monkeypatch.setattr(tensorfile.shutil, "disk_usage", usage_of)
    with pytest.raises(OutputError, match="there is no folder 'absent'"):
        write(Path("absent/w.safetensors"), entries({"a": np.ones(3, "f4")}), {})


def test_a_folder_that_holds_a_checkpoint_is_left_alone():
    sharded()
    with pytest.raises(OutputError, match="already: choose another folder"):
        sharded()
    Path("link.safetensors").symlink_to("elsewhere")
    with pytest.raises(OutputError, match="symbolic link"):
        write(Path("link.safetensors"), entries({"a": np.ones(3, "f4")}), {})


@pytest.mark.slow
def test_writing_takes_memory_for_one_tensor(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = [Entry(f"t{i}", "float32", (1024, 1024), lambda: np.ones((1024, 1024), "f4")) for i in range(60)]
    write(Path("big.safetensors"), many, {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # of 240 MB; KB
