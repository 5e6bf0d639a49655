"""Checkpoints cut to low rank: names by the rule, errors as LAPACK has them, all else as it was; what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gpunet as gn
from gpunet.compression import checkpoint
from gpunet.compression.checkpoint import compress_file, plan_text
from gpunet.compression.tensors import Tensors, write
from gpunet.errors import DataError, InputError, OutputError
from gpunet.linalg import Energy, FixedRank
from gpunet.report.compression import write as write_page
from gpunet.tensorfile import Entry

from ..hostile.disk import filled


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def falling(rng, *shape, power=1.0):
    """A weight whose singular values fall, as trained ones' do."""
    u, s, vt = np.linalg.svd(rng.normal(size=(shape[0], int(np.prod(shape[1:])))), full_matrices=False)
    return ((u * np.arange(1, len(s) + 1.0) ** -power) @ vt).reshape(shape)


def network(dtype="float32"):
    rng = np.random.default_rng(0)
    made = {
        "embed.weight": rng.normal(size=(50, 24)),
        "conv.weight": falling(rng, 20, 6, 3, 3), "conv.bias": rng.normal(size=20),
        "deep.conv.weight": rng.normal(size=(12, 1, 3, 3)),
        "blocks.0.up.weight": falling(rng, 64, 24), "blocks.0.up.bias": rng.normal(size=64),
        "blocks.0.down.weight": falling(rng, 24, 64, power=2.0),
        "blocks.0.norm.weight": rng.normal(size=24), "blocks.0.norm.bias": rng.normal(size=24),
        "lm_head.weight": falling(rng, 50, 24), "tiny.weight": rng.normal(size=(1, 3)),
    }  # fmt: skip
    return {name: array.astype(dtype) for name, array in made.items()} | {"step": np.array(7)}


def stored(path="m.safetensors", tensors=None, metadata=None, **options):
    tensors = network(**options) if tensors is None else tensors
    write(Path(path), [Entry(n, str(a.dtype), a.shape, lambda a=a: a) for n, a in tensors.items()], metadata)
    return tensors


def read(path):
    found = Tensors.open(path)
    return {name: found.read(name) for name in found.names}


def product(made, module):
    """The weight that the two factors are, in float64."""
    first, second = (made[f"{module}.{i}.weight"].astype("f8") for i in (0, 1))
    return second.reshape(len(second), -1) @ first.reshape(len(first), -1)


def refused(*words, kind=InputError, source="m.safetensors", out="s.safetensors", **options):
    before = sorted(Path().rglob("*"))
    with pytest.raises(kind) as caught:
        compress_file(source, out, **{"budget": 0.5, **options})
    assert str(caught.value).isprintable()
    for word in words:
        assert word in str(caught.value), caught.value
    assert sorted(Path().rglob("*")) == before


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_factors_are_the_best_and_all_else_is_as_it_was(dtype):
    was = stored(dtype=dtype, metadata={"format": "pt"})
    made = compress_file("m.safetensors", "s.safetensors", rule=FixedRank(5))
    now = read("s.safetensors")
    assert Tensors.open("s.safetensors").metadata == {"format": "pt"}
    cut = {"conv", "blocks.0.up", "blocks.0.down"}
    gone = {f"{m}.weight" for m in cut} | {"conv.bias", "blocks.0.up.bias"}
    new = {f"{m}.{i}.weight" for m in cut for i in (0, 1)} | {"conv.1.bias", "blocks.0.up.1.bias"}
    assert set(now) == (set(was) - gone) | new
    assert now["conv.0.weight"].shape == (5, 6, 3, 3)
    assert now["conv.1.weight"].shape == (20, 5, 1, 1)
    assert now["blocks.0.up.0.weight"].shape == (5, 24)
    assert now["blocks.0.up.1.weight"].shape == (64, 5)
    for name, other in (("conv.1.bias", "conv.bias"), *((n, n) for n in set(now) - new)):
        assert now[name].tobytes() == was[other].tobytes()
        assert now[name].dtype == was[other].dtype
    eps = float(ml_dtypes.finfo(was["conv.weight"].dtype).eps)
    for layer in made.said["layers"]:
        if layer["name"] in cut:
            assert {now[name].dtype for name in layer["factors"]} == {was["conv.weight"].dtype}
            assert {n: list(s) for n, s in layer["factors"].items()} == {
                n: list(now[n].shape) for n in layer["factors"]
            }
            w = was[layer["tensor"]].astype("f8").reshape(len(was[layer["tensor"]]), -1)
            s = np.linalg.svd(w, compute_uv=False)
            best = np.linalg.norm(s[5:]) / np.linalg.norm(s)
            error = np.linalg.norm(w - product(now, layer["name"])) / np.linalg.norm(w)
            assert layer["least"] <= best * (1 + 1e-12)
            assert layer["least"] == pytest.approx(best, rel=1e-3, abs=1e-5)
            assert error <= layer["weight_error"] <= 1.01 * error + 1e-9
            assert error <= best + 5 * eps
            low, high = layer["sigma_at_rank"]
            assert low <= s[4] <= high


def test_one_budget_holds_for_all_and_goes_where_it_helps_most():
    was = stored()
    made = compress_file("m.safetensors", "s.safetensors", budget=0.3)
    layers = {each["name"]: each for each in made.said["layers"]}
    chosen = ["conv", "blocks.0.up", "blocks.0.down"]
    assert sum(layers[m]["parameters"][1] for m in chosen) <= 0.3 * sum(was[f"{m}.weight"].size for m in chosen)
    assert layers["blocks.0.down"]["rank"] < layers["blocks.0.up"]["rank"]  # its singular values fall faster
    assert [layers[m]["rank"] for m in ("embed", "deep.conv", "lm_head", "tiny")] == [None] * 4
    assert "embedding by its name" in layers["embed"]["why"]
    assert "groups" in layers["deep.conv"]["why"]
    assert layers["lm_head"]["why"] == "it is the output layer, left out unless it is named"
    assert made.said["chosen"] == [sum(layers[m]["parameters"][i] for m in chosen) for i in (0, 1)]
    assert json.loads(made.plan.read_text()) == json.loads(json.dumps(made.said))
    now = read("s.safetensors")
    assert made.said["parameters"] == [sum(a.size for a in each.values()) for each in (was, now)]
    assert made.said["bytes"] == [sum(a.nbytes for a in each.values()) for each in (was, now)]


def test_what_does_not_fit_in_memory_is_read_anew(monkeypatch):
    stored()
    compress_file("m.safetensors", "one.safetensors", budget=0.3)
    monkeypatch.setattr(checkpoint, "KEPT", 0)
    compress_file("m.safetensors", "two.safetensors", budget=0.3)
    one, two = read("one.safetensors"), read("two.safetensors")
    assert one.keys() == two.keys()
    for module in ("conv", "blocks.0.up", "blocks.0.down"):
        np.testing.assert_allclose(product(one, module), product(two, module), atol=1e-5)


def test_shards_come_out_as_shards(monkeypatch):
    was = network()
    write(Path("in"), [Entry(n, str(a.dtype), a.shape, lambda a=a: a) for n, a in was.items()], {"format": "pt"}, 5000)
    stored()
    compress_file("m.safetensors", "s.safetensors", budget=0.4)
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 5000)
    made = compress_file("in", "out", budget=0.4)
    assert made.path == Path("out/model.safetensors.index.json")
    assert made.plan == Path("out/compression.json")
    assert len(list(Path("out").glob("*.safetensors"))) > 1
    one, two = read("s.safetensors"), read("out")
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_a_weight_that_is_stored_across_becomes_two_linears():
    rng = np.random.default_rng(1)
    was = {"h.attn.weight": falling(rng, 16, 48), "h.attn.bias": np.ones(48),
           "h.proj.weight": falling(rng, 16, 16), "h.proj.bias": np.ones(16)}  # fmt: skip
    stored(tensors=was)
    made = compress_file("m.safetensors", "s.safetensors", rule=FixedRank(4))
    now = read("s.safetensors")
    assert [each["kind"] for each in made.said["layers"]] == ["transposed"] * 2
    for module, width in (("h.attn", 48), ("h.proj", 16)):
        first, second = now[f"{module}.0.weight"], now[f"{module}.1.weight"]
        assert (first.shape, second.shape) == ((4, 16), (width, 4))
        u, s, vt = np.linalg.svd(was[f"{module}.weight"])
        np.testing.assert_allclose((second @ first).T, (u[:, :4] * s[:4]) @ vt[:4], atol=1e-12)


def test_a_network_of_one_weight():
    stored(tensors={"weight": falling(np.random.default_rng(0), 30, 20), "bias": np.ones(30)})
    compress_file("m.safetensors", "s.safetensors", rule=FixedRank(3))
    assert set(read("s.safetensors")) == {"0.weight", "1.weight", "1.bias"}


def test_names_patterns_and_what_they_leave_out():
    stored()

    def cut(*layers, **options):
        made = compress_file("m.safetensors", "s.safetensors", rule=FixedRank(3), layers=layers, **options)
        return [each["name"] for each in made.said["layers"] if each["rank"]]

    assert cut("blocks.*") == ["blocks.0.up", "blocks.0.down"]
    assert cut("conv.weight") == ["conv"]
    assert cut("lm_head", "conv") == ["conv", "lm_head"]
    assert cut("!conv") == ["blocks.0.up", "blocks.0.down"]
    assert cut("blocks.*", "!*.up") == ["blocks.0.down"]
    assert cut("*") == ["conv", "blocks.0.up", "blocks.0.down", "lm_head"]


def test_what_pytorchs_attention_reads_itself_is_kept():
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    net = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
    net = torch.nn.ModuleDict({"encoder": net, "attention": torch.nn.MultiheadAttention(32, 4)})
    net["last"] = torch.nn.Linear(32, 32)
    save_torch({name: each.clone() for name, each in net.state_dict().items()}, "m.safetensors")
    layers = ["*", "!encoder.layers.1.*"]  # whose weights begin as those of layers.0
    made = compress_file("m.safetensors", "s.safetensors", rule=FixedRank(4), layers=layers)
    assert [each["name"] for each in made.said["layers"] if each["rank"]] == ["last"]
    whys = {each["name"]: each["why"] for each in made.said["layers"]}
    assert "MultiheadAttention" in whys["attention.out_proj"]
    assert "MultiheadAttention" in whys["encoder.layers.0.linear2"]


def test_rules_choose_each_rank_and_what_would_not_shrink_stays():
    was = stored()
    made = compress_file("m.safetensors", "s.safetensors", rule=Energy(0.9))
    for each in made.said["layers"]:
        if each["rank"]:
            s = np.linalg.svd(was[each["tensor"]].reshape(each["shape"][0], -1).astype("f8"), compute_uv=False)
            shares = np.cumsum(s**2) / np.sum(s**2)
            assert each["rank"] == int(np.argmax(shares >= 0.9)) + 1
            assert each["weight_error"] ** 2 <= 0.1 + 1e-6
    made = compress_file("m.safetensors", "s.safetensors", rule=FixedRank(17))
    whys = {each["name"]: (each["rank"], each["why"]) for each in made.said["layers"]}
    assert whys["blocks.0.up"] == (17, "cut")
    assert whys["conv"] == (None, "it is no smaller at the rule's rank")


def test_a_model_of_ours_is_no_longer_one():
    model = gn.Sequential([gn.Dense(30, "relu"), gn.Dense(4)])
    model.build((40,), gn.get_backend("cpu"))
    gn.save(model, "m.safetensors")
    compress_file("m.safetensors", "s.safetensors", rule=FixedRank(6))
    assert Tensors.open("s.safetensors").metadata == {}
    assert {"0.0.weight", "0.1.weight", "0.1.bias"} < set(read("s.safetensors"))


# -- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_lines_of_the_page_load_it_in_pytorch(dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1, dilation=1)
            self.norm = torch.nn.BatchNorm2d(16)
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(64, 64), torch.nn.Linear(64, 64, bias=False)])
            self.head = torch.nn.Linear(64, 10)

        def forward(self, x):
            x = self.norm(self.conv(x)).relu().mean(1).flatten(1)
            for block in self.blocks:
                x = block(x).relu()
            return self.head(x)

    torch.manual_seed(0)
    net = Net().to(getattr(torch, dtype)).eval()
    save_torch(net.state_dict(), "model.safetensors")
    made = compress_file("model.safetensors", "small.safetensors", rule=FixedRank(9))
    page = (Path(gn.__file__).parents[1] / "docs" / "compress.md").read_text()
    code = page.partition("<!-- loading -->\n```py\n")[2].partition("```")[0]
    assert len(code.splitlines()) <= 24
    fresh, x = Net().to(getattr(torch, dtype)).eval(), torch.randn(5, 3, 16, 16).to(getattr(torch, dtype))
    lines: dict = {}
    exec(compile(code, "docs/compress.md", "exec"), lines)  # our own text
    small = lines["load_small"](fresh, lines["load_file"]("small.safetensors"), made.said["layers"])
    assert type(small.conv) is torch.nn.Sequential
    now = read("small.safetensors")
    wanted = Net().to(getattr(torch, dtype)).eval()
    state = net.state_dict()
    for each in made.said["layers"]:
        if each["rank"]:
            w = product(now, each["name"]).reshape(each["shape"])
            state[each["tensor"]] = torch.from_numpy(w).to(getattr(torch, dtype))
    wanted.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(small(x), wanted(x), atol=1e-5 if dtype == "float32" else 0.05, rtol=1e-2)
    assert not [p for p in small.parameters() if p.is_meta]


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be():
    stored()
    refused("cannot be cut", "embedding", layers=["embed"])
    refused("blocks.0.upp", "fit no weight", "near to it are", "blocks.0.up.weight", layers=["blocks.0.upp"])
    refused("no weight to cut", "not chosen", layers=["!*"])
    refused("a budget of 0.001 cannot be met", "give a budget of at least 0.0", budget=0.001)
    refused("stay whole", budget=None, rule=FixedRank(500))
    refused("ends in .safetensors", out="s.bin")
    Path("folder").mkdir()
    Path("m.safetensors").rename("folder/model.safetensors")
    refused("ends in .safetensors; 'folder' holds one file, model.safetensors, and not", source="folder", out="small")
    Path("folder/model.safetensors").rename("m.safetensors")
    Path("folder").rmdir()
    refused("is what is read", out="m.safetensors")
    refused("no folder", out="absent/s.safetensors", kind=OutputError)
    Path("s.json").symlink_to("elsewhere")
    refused("symbolic link", kind=OutputError)


def test_tied_weights_are_told():
    was = network()
    stored(tensors=was | {"blocks.1.up.weight": was["blocks.0.up.weight"]})
    refused(
        "blocks.0.up.weight and blocks.1.up.weight", "tied", "with --layers '!blocks.0.up.weight' --layers '!blocks.1"
    )
    stored(tensors=was | {"lm_head.weight": was["embed.weight"]})
    compress_file("m.safetensors", "fine.safetensors", budget=0.5)  # neither is cut
    refused("embed.weight and lm_head.weight", "tied", "--layers '!lm_head.weight'", layers=["*"])
    stored(
        tensors={"a.weight": np.zeros((9, 9), "f4"), "b.weight": np.zeros((9, 9), "f4"), "c.weight": was["conv.weight"]}
    )
    compress_file("m.safetensors", "zeros.safetensors", budget=0.5)  # two weights that are zero are two


def test_a_plan_has_no_numbers_that_json_has_not():
    said = {"bytes": [3, float("inf")], "layers": [{"name": "l", "least": float("nan"), "rank": 2, "took": 0.5}]}
    wanted = {"bytes": [3, None], "layers": [{"name": "l", "least": None, "rank": 2, "took": 0.5}]}
    assert json.loads(plan_text(said)) == wanted


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_weights_of_extreme_size_are_cut_as_others_are(size):
    was = {f"l.{i}.weight": size * falling(np.random.default_rng(i), 30, 20) for i in range(2)}
    stored(tensors=was)
    made = compress_file("m.safetensors", "s.safetensors", rule=FixedRank(3))
    for each in made.said["layers"]:
        s = np.linalg.svd(was[each["tensor"]], compute_uv=False)
        assert each["weight_error"] == pytest.approx(np.linalg.norm(s[3:]) / np.linalg.norm(s), rel=1e-6)
    write_page(made.said, Path("s.html"), "extreme")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_told(bad):
    was = network()
    was["blocks.0.up.weight"][3, 4] = bad
    stored(tensors=was)
    refused("blocks.0.up.weight", str(bad), "[3, 4]", kind=DataError)
    compress_file("m.safetensors", "fine.safetensors", budget=0.5, layers=["!blocks.0.up"])


def test_quantised_weights_are_told():
    was = network()
    stored(tensors=was | {"q.weight": np.ones((8, 8), "int8"), "q.SCB": np.ones(8, "f4")})
    refused("quantised", "q (8-bit integers, of bitsandbytes)", kind=DataError)
    compress_file("m.safetensors", "fine.safetensors", budget=0.5, layers=["blocks.*"])
    stored(tensors={"l.0.qweight": np.ones((8, 8), "int32"), "l.0.scales": np.ones(8, "f2")})
    refused("quantised", "l.0 (packed integers", kind=DataError)
    refused("quantised", kind=DataError, layers=["l.*"])
    stored(tensors={"f.weight": np.ones((8, 8), ml_dtypes.float8_e4m3fn)})
    refused("quantised", "float8_e4m3fn", kind=DataError)
    stored(tensors={"i.weight": np.ones((8, 8), "int32")})
    refused("i.weight", "int32", "expected floats")
    stored(tensors={"b": np.ones(8, "f4")})
    refused("no weight to cut", "2 or 4 axes")


def test_names_that_are_taken_are_told():
    stored(tensors=network() | {"conv.0.weight": np.ones(3, "f4")})
    refused("has a tensor conv.0.weight already")


def test_a_full_disk_leaves_nothing(monkeypatch):
    stored()
    write(Path("in"), [Entry(n, str(a.dtype), a.shape, lambda a=a: a) for n, a in network().items()], None, 1)
    full = filled(monkeypatch)
    full.append(Path.cwd())
    refused("No space left", kind=OutputError)
    full.append(Path("out").absolute())
    refused("No space left", kind=OutputError, source="in", out="out")


def test_an_interruption_leaves_nothing(monkeypatch):
    stored()
    save_file({"old": np.ones(3, "f4")}, "s.safetensors")
    monkeypatch.setattr(checkpoint.Weight, "proof", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        compress_file("m.safetensors", "s.safetensors", budget=0.5)
    assert list(load_file("s.safetensors")) == ["old"]
    assert sorted(os.listdir()) == ["m.safetensors", "s.safetensors"]
