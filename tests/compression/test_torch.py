"""`gn.compress` of PyTorch's modules."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, InputError

torch = pytest.importorskip("torch")
nn = torch.nn


class Net(nn.Module):
    """Names of one's own, functional activations, images."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            [nn.Conv2d(16, 24, 3, padding="same", dilation=2), nn.Conv2d(24, 24, 1, bias=False)]
        )
        self.head = nn.ModuleDict({"fc": nn.Linear(24 * 16, 40), "out": nn.Linear(40, 5)})
        self.to(dtype)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head["out"](torch.relu(self.head["fc"](x.flatten(1))))


@pytest.fixture
def images():
    return torch.tensor(np.random.default_rng(0).standard_normal((48, 3, 8, 8)), dtype=torch.float32)


def names(small) -> dict[str, int | None]:
    return {layer["name"]: layer["rank"] for layer in small.compression["layers"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_plain_pytorch_comes_back(images, dtype):
    net = Net(dtype).train()
    before = copy.deepcopy(net.state_dict())
    small = gn.compress(net, images, budget=0.5)
    assert type(small) is Net
    assert small.training
    assert all(p.dtype == dtype for p in small.parameters())
    assert {type(m).__module__.partition(".")[0] for m in small.modules()} <= {"torch", __name__.partition(".")[0]}
    assert small.compression["parameters"] == [sum(p.numel() for p in m.parameters()) for m in (net, small)]
    cut = {name for name, rank in names(small).items() if rank}
    assert cut
    for name in cut:
        two = small.get_submodule(name)
        assert type(two) is nn.Sequential
        assert [type(m) for m in two] in ([nn.Linear] * 2, [nn.Conv2d] * 2)
        assert two[0].bias is None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    small(images.to(dtype)).float().sum().backward()  # it trains


def test_nearly_all_ranks_are_nearly_the_network(images):
    """Layers that lose nothing to their rank: outputs equal to 1e-5."""
    net = Net()
    with torch.no_grad():
        for layer in (net.blocks[0], net.head["fc"]):  # of rank 3, 7 with what stands in their weights
            w = layer.weight.reshape(len(layer.weight), -1)
            u, s, vt = torch.linalg.svd(w, full_matrices=False)
            layer.weight.copy_(((u[:, :3] * s[:3]) @ vt[:3]).reshape(layer.weight.shape))
    for data in (images, None):
        small = gn.compress(net, data, rank=3, layers=["blocks.0", "head.fc"])
        assert names(small)["blocks.0"] == names(small)["head.fc"] == 3
        with torch.no_grad():
            off = (small(images) - net(images)).abs().max() / net(images).abs().max()
        assert off < 1e-5


@pytest.mark.parametrize("kind", ["array", "numpy", "pair", "loader", "tuples", "dicts"])
def test_data_of_every_kind(images, kind):
    net = Net()
    y = torch.zeros(len(images))
    data = {
        "array": images, "numpy": images.numpy().astype(np.float64), "pair": (images, y),
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, y), 16),
        "tuples": [(images[:20], y[:20]), (images[20:], y[20:])], "dicts": [{"x": images[:20]}, {"x": images[20:]}],
    }[kind]  # fmt: skip
    small, wanted = gn.compress(net, data, budget=0.4), gn.compress(net, images, budget=0.4)
    assert names(small) == names(wanted)
    assert small.compression["samples"] == len(images)
    for (_, a), (_, b) in zip(small.state_dict().items(), wanted.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_generator_is_read_once(images):
    small = gn.compress(Net(), (each for each in images.split(16)), budget=0.4)
    assert small.compression["samples"] == len(images)


@pytest.mark.slow
def test_saved_and_loaded_without_gpunet(images, tmp_path):
    """The whole module by torch.save, in a process that has no gpunet."""
    net = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5))
    x = torch.randn(64, 30)
    small = gn.compress(net, x, budget=0.4)
    torch.save(small, tmp_path / "small.pt")
    torch.save((x, small(x).detach()), tmp_path / "said.pt")
    code = (
        "import sys; sys.modules['gpunet'] = None; import torch; "
        f"m = torch.load({str(tmp_path / 'small.pt')!r}, weights_only=False); "
        f"x, y = torch.load({str(tmp_path / 'said.pt')!r}); torch.testing.assert_close(m(x), y)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_layer_itself(images):
    net = nn.Linear(30, 20)
    small = gn.compress(net, torch.randn(64, 30), rank=4)
    assert type(small) is nn.Sequential
    assert [tuple(p.shape) for p in small.parameters()] == [(4, 30), (20, 4), (20,)]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc, self.out = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
        self.out.weight = self.embed.weight
        self.again = self.fc2 = nn.Linear(16, 16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        self.hooked = nn.Linear(16, 16)
        self.hooked.register_forward_hook(lambda *_: None)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.encoder(self.attend(x, x, x)[0]) + self.hooked(self.normed(x))
        return self.out(self.frozen(self.fc(self.again(self.fc2(x)))))


def test_what_cannot_be_cut_is_said_and_kept():
    net = Tied().eval()
    tokens = torch.randint(0, 50, (8, 10))
    small = gn.compress(net, tokens, rank=3)
    said = {layer["name"]: layer["why"] for layer in small.compression["layers"]}
    assert {name for name, rank in names(small).items() if rank} == {"fc", "frozen"}
    assert "shared" in said["out"]
    assert "several places" in said["again"]
    assert "several places" in said["fc2"]
    assert "NonDynamicallyQuantizableLinear" in said["attend.out_proj"]
    assert "TransformerEncoderLayer" in said["encoder.linear1"]
    assert "Parametrized" in said["normed"]
    assert "hooks" in said["hooked"]
    assert "groups" in said["grouped"]
    assert not any(p.requires_grad for p in small.frozen.parameters())
    assert small(tokens).shape == net(tokens).shape
    with pytest.raises(InputError, match="the layer 'out' cannot be cut: its weight is shared"):
        gn.compress(net, tokens, rank=3, layers="out")


def test_a_layer_that_no_data_came_to_is_kept(images):
    net = Net()
    net.spare = nn.Linear(9, 9)
    small = gn.compress(net, images, budget=0.5)
    assert names(small)["spare"] is None


def test_a_language_model_in_three_dimensions():
    net = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16, bias=False))
    small = gn.compress(net, torch.randint(0, 50, (20, 7)), budget=0.5)
    fc = next(layer for layer in small.compression["layers"] if layer["name"] == "1")
    assert fc["multiplications"][0] == 7 * 16 * 32
    assert small(torch.randint(0, 50, (2, 7))).shape == (2, 7, 16)


def test_promises(images):
    net = Net()
    x, y = images, net(images).argmax(1)
    small = gn.compress(net, x, max_drop=0.2, evaluate=(x, y))
    assert small.compression["metric"][0] == 1.0
    assert small.compression["metric"][1] >= 0.8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": torch.ones(8, 3, 8)}, "the model cannot be run on the data"),
        ({"data": torch.ones(8, 4, 8, 8)}, "the model cannot be run on the data"),
        ({"data": [torch.ones(8, 3, 8, 8) * float("nan")] * 2}, "what the calibration data gives the layer 'stem'"),
        ({"data": [{"pixels": torch.ones(8, 3, 8, 8)}]}, "the model cannot be run on the data"),
        ({"data": 5}, "data is 5"),
        ({"data": ["a"]}, "a batch is 'a'"),
        ({"data": []}, "data has 0 samples"),
        ({"data": None, "layers": "stm"}, "no layer is called 'stm': there are 'stem', …"),
    ],
)
def test_what_cannot_be_is_a_line(given, said):
    with pytest.raises(InputError, match=said):
        gn.compress(Net(), given.pop("data"), budget=0.5, **given)


def test_weights_that_are_none_are_a_line():
    net = Net()
    with torch.no_grad():
        net.stem.weight[0, 0, 0, 1] = float("nan")
    with pytest.raises(DataError, match=r"the weight of 'stem' holds nan at \[0, 1\]"):
        gn.compress(net, budget=0.5)
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(30, 30))
    with pytest.raises(
        InputError, match="no layer can be cut: '0': its weight has no numbers: it is on the meta device"
    ):
        gn.compress(empty, budget=0.5)
    with pytest.raises(InputError, match="the model has none with a weight"):
        gn.compress(nn.ReLU(), budget=0.5)


def flags(net):
    return [m.training for m in net.modules()]


def test_nothing_else_changes(images):
    """Random numbers, training flags, buffers, hooks: also of norms that change as they are read, and in evaluate."""
    net = nn.Sequential(
        nn.Flatten(), nn.utils.spectral_norm(nn.Linear(192, 64)), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 64),
        nn.ReLU(), nn.Linear(64, 5),
    ).train()  # fmt: skip
    net[2].eval()
    before, modes = copy.deepcopy(net.state_dict()), flags(net)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    seen = []

    def evaluate(model):
        seen.append(any(flags(model)))
        return -float(model(images).square().mean())

    small = gn.compress(net, images, max_drop=1e6, evaluate=evaluate)
    assert torch.equal(torch.rand(3), expected)
    assert not any(seen)
    assert flags(net) == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in (net[4], net[6], *small[2:].modules()))
    assert type(net[4]) is nn.Linear


class Reads(nn.Module):
    """As transformers' T5 and ViT do: a dtype from a layer's weight, and a layer by a keyword."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(20, 40), nn.Linear(40, 40), nn.Linear(40, 4)

    def forward(self, x):
        x = torch.relu(self.a(x.to(self.a.weight.dtype)))
        return self.c(input=torch.relu(self.b(x)))


def test_a_weight_that_is_read_elsewhere_is_kept():
    net, x = Reads(), torch.randn(50, 20)
    small = gn.compress(net, x, rank=3)
    assert {name for name, rank in names(small).items() if rank} == {"b", "c"}
    assert small(x).shape == (50, 4)
    said = {layer["name"]: layer["why"] for layer in small.compression["layers"]}
    assert "reads its weight" in said["a"]


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(20, 20)
        self.also = [self.a]

    def forward(self, x):
        return self.also[0](x)


def test_what_the_cut_would_not_reach_is_refused():
    with pytest.raises(InputError, match="runs the layer 'a' by another way than its name"):
        gn.compress(Hidden(), torch.randn(30, 20), rank=3)
    net = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    net[0].forward = lambda x: x
    small = gn.compress(net, torch.randn(30, 20), rank=3)
    assert names(small) == {"0": None, "1": 3}


def test_a_frozen_weight_s_bias_is_trained_on():
    net = nn.Sequential(nn.Linear(20, 20))
    net[0].weight.requires_grad_(False)
    small = gn.compress(net, rank=3)
    assert [p.requires_grad for p in small.parameters()] == [False, False, True]


@pytest.mark.parametrize(
    ("net", "y", "said"),
    [
        (nn.Linear(20, 1), np.zeros(50, int), r"outputs have shape \(50, 1\): .* give evaluate a function"),
        (nn.Linear(20, 4), np.array(["1"] * 50), "expected integer class numbers"),
        (nn.Linear(20, 4), np.eye(4)[np.zeros(50, int)], "of one-hot rows take"),
        (nn.Linear(20, 4), -np.ones(50, int), "label"),
        (nn.Linear(20, 4), None, r"expected \(x, y\) of one length"),
    ],
)
def test_scores_and_labels_that_say_nothing_are_refused(net, y, said):
    x = torch.randn(50, 20)
    with pytest.raises(InputError, match=said):
        gn.compress(nn.Sequential(nn.Linear(20, 20), net), x, max_drop=0.5, evaluate=(x, y), layers="1")


def test_layers_without_numbers_are_kept():
    net = nn.Sequential(nn.Linear(20, 20), nn.LazyLinear(5))
    small = gn.compress(net, rank=3)
    assert "run a batch through it first" in small.compression["layers"][-1]["why"] or len(names(small)) == 1
    net = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20, dtype=torch.complex64))
    assert names(gn.compress(net, rank=3))["0"] == 3
    kept = gn.compress(nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20)), rank=3, layers="!1")
    assert names(kept) == {"0": 3, "1": None}
    with torch.no_grad():
        kept[1].weight[0, 0] = float("nan")  # what stays whole may hold anything
    again = nn.Sequential(nn.Linear(20, 20), kept[1])
    assert names(gn.compress(again, rank=3, layers="0")) == {"0": 3, "1": None}


def test_large_means_are_bounded_with_the_bias_as_it_is_stored():
    """The bias takes over the mean, and is rounded to bfloat16: the bound includes that."""
    torch.manual_seed(0)
    net = nn.Linear(32, 48).to(torch.bfloat16)
    x = torch.randn(200, 32) + 1000
    x = x.to(torch.bfloat16)
    small = gn.compress(net, x, rank=4)
    said = small.compression["layers"][0]
    w = [p.detach().double() for p in (net.weight, net.bias, small[0].weight, small[1].weight, small[1].bias)]
    y = x.double() @ w[0].T + w[1]
    off = y - (x.double() @ w[2].T @ w[3].T + w[4])
    true = float(off.norm() / (y - y.mean(0)).norm())
    assert true <= said["output_error"]


def test_of_many_tokens_those_that_were_summed_are_told():
    small = gn.compress(nn.Linear(8, 16), torch.randn(300, 100, 8), rank=2)
    assert small.compression["layers"][0]["seen"] == pytest.approx(16384 / 30000)
