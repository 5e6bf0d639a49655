"""Networks to and from PyTorch: the same outputs both ways, and what is no chain of our layers is refused in a line."""

from __future__ import annotations

import copy
import sys
import warnings

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, InputError, ShapeError

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
ACTIVATIONS = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.GELU, nn.Identity, nn.Dropout]


def outputs(model, x):
    """What the model makes of x, on the CPU."""
    model.bind(len(x))
    model.set_batch_size(len(x))
    return model.activate_scores(model.forward(np.asarray(x, model.dtype).copy())).copy()


def agree(module, shape, given=None, dtype="float32", layers=None):
    """The module and what is made of it give the same, and so do both of them after another round."""
    model = gn.from_torch(module, given, device="numpy")
    if layers is not None:
        assert [type(layer).__name__ for layer in model.layers] == layers.split()
    assert model.dtype == dtype
    x = np.random.default_rng(3).standard_normal((6, *shape)).astype(dtype)
    was = {name: part.training for name, part in module.named_modules()}
    module.eval()
    with torch.no_grad():
        theirs = module(torch.from_numpy(x)).numpy()
        back = gn.to_torch(model)
        again = back(torch.from_numpy(x)).numpy()
    for name, part in module.named_modules():
        part.training = was[name]
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * np.abs(theirs).max()} if dtype == "float32" else {"rtol": 1e-11}
    np.testing.assert_allclose(outputs(model, x), theirs, **tolerance)
    np.testing.assert_allclose(again, theirs, **tolerance)
    second = gn.from_torch(back, shape if given is None else given, device="numpy")
    np.testing.assert_allclose(outputs(second, x), theirs, **tolerance)
    assert second.config() == model.config()
    return model


def random_chain(seed):
    """A chain of random parts, nested at random, as (module, shape of a sample)."""
    rng, parts = np.random.default_rng(seed), []
    images = seed % 2 == 0
    channels, rows = int(rng.integers(1, 4)), int(rng.integers(9, 14))
    shape = (channels, rows, rows) if images else (int(rng.integers(2, 30)),)
    if images:
        for _ in range(rng.integers(1, 3)):
            filters, kernel = int(rng.integers(1, 6)), int(rng.choice([1, 3]))
            padding = int(rng.choice([0, kernel // 2]))
            parts.append(nn.Conv2d(channels, filters, kernel, padding=padding, bias=bool(rng.integers(2))))
            parts += [nn.BatchNorm2d(filters)] * int(rng.integers(2))
            parts += list(rng.permutation([nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)])[: rng.integers(4)])
            channels = filters
        parts.append(nn.Flatten())
    width = nn.Sequential(*parts).eval()(torch.zeros(1, *shape)).shape[1]
    for _ in range(rng.integers(1, 4)):
        units = int(rng.integers(1, 20))
        parts.append(nn.Linear(width, units, bias=bool(rng.integers(2))))
        parts += [nn.BatchNorm1d(units)] * int(rng.integers(2))
        parts += [ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()] * int(rng.integers(2))
        width = units
    cut = int(rng.integers(len(parts) + 1))
    module = nn.Sequential(nn.Sequential(*parts[:cut]), nn.Sequential(nn.Sequential(*parts[cut:])))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for each, low in (
                (part.weight, 0.5),
                (part.running_var, 0.5),
                (part.bias, -1.0),
                (part.running_mean, -1.0),
            ):
                each.data.uniform_(low, 1.5)
    return module, shape


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_agree_both_ways(seed):
    torch.manual_seed(seed)
    module, shape = random_chain(seed)
    agree(module.double() if seed % 3 == 0 else module, shape, shape, "float64" if seed % 3 == 0 else "float32")


class Images(nn.Module):
    """Functions, methods and attributes, as people write them."""

    def __init__(self):
        super().__init__()
        self.first, self.then = nn.Conv2d(1, 4, 3, padding="same"), nn.Conv2d(4, 6, 3)
        self.norm, self.relu, self.drop = nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.head = nn.ModuleDict({"a": nn.Linear(6 * 5 * 5, 20), "b": nn.Linear(20, 3)})
        self.norm.running_mean.uniform_()

    def forward(self, x):
        x = x.view(x.size(0), 1, *x.shape[2:])
        x = self.relu(self.first(x))
        x = F.max_pool2d(x, kernel_size=2)
        x = torch.relu_(self.norm(self.then(x)))
        count = 1
        for size in x.size()[1:]:
            count *= size
        x = x.reshape(len(x), count).contiguous()
        x = F.dropout(torch.sigmoid(self.head["a"](x)), 0.2, training=self.training)
        return self.head["b"](self.drop(x))


def test_what_a_forward_runs_is_what_counts():
    model = agree(Images(), (1, 14, 14), (1, 14, 14), layers="Conv2D Conv2D Flatten Dense Dropout Dropout Dense")
    assert [(layer.activation, getattr(layer, "pool", 1)) for layer in model.layers[:2]] == [("relu", 2), ("relu", 1)]
    assert [layer.rate for layer in model.layers if isinstance(layer, gn.Dropout)] == [0.2, 0.5]


def test_names_are_those_that_a_saved_model_promises(tmp_path):
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Dropout(),
        nn.Linear(8, 3),
    )  # fmt: skip
    model = agree(module, (1, 8, 8), (1, 8, 8))
    assert list(model.parameters) == list(module.state_dict())
    assert list(gn.to_torch(model).state_dict()) == list(module.state_dict())
    gn.save(model, tmp_path / "model.safetensors")
    from safetensors.torch import load_file

    module.load_state_dict(load_file(tmp_path / "model.safetensors"))


def test_a_factored_layer_is_two_linears_and_comes_back_as_one():
    model = gn.Sequential([gn.Dense(12, "relu"), gn.LowRankDense(10, 3, "relu"), gn.Dense(4)])
    model.build((7,), gn.get_backend("numpy"), dtype="float64", seed=4)
    network = gn.to_torch(model)
    state = {name: tuple(p.shape) for name, p in network.state_dict().items()}
    assert state == {
        "0.weight": (12, 7), "0.bias": (12,), "2.0.weight": (3, 12), "2.1.weight": (10, 3), "2.1.bias": (10,),
        "4.weight": (4, 10), "4.bias": (4,),
    }  # fmt: skip
    back = agree(network, (7,), dtype="float64")
    assert back.config() == model.config()
    for name, parameter in model.parameters.items():
        np.testing.assert_array_equal(back.parameters[name], parameter)


@pytest.mark.parametrize(
    ("parts", "layers"),
    [
        ([nn.Linear(9, 4, bias=False), nn.Linear(4, 8)], "LowRankDense"),
        ([nn.Linear(9, 4, bias=False), nn.Linear(4, 8, bias=False), nn.ReLU()], "LowRankDense"),
        ([nn.Linear(9, 4), nn.Linear(4, 8)], "Dense Dense"),  # a bias between
        ([nn.Linear(9, 10, bias=False), nn.Linear(10, 12)], "Dense Dense"),  # no bottleneck
        ([nn.Linear(9, 4, bias=False), nn.ReLU(), nn.Linear(4, 8)], "Dense Dense"),
        ([nn.Linear(9, 4, bias=False), nn.Dropout(), nn.Linear(4, 8)], "Dense Dropout Dense"),
        ([nn.Linear(9, 4, bias=False), nn.Linear(4, 8).requires_grad_(False)], "Dense Dense"),
    ],
)
def test_which_linears_are_one(parts, layers):
    model = gn.from_torch(nn.Sequential(*parts), device="numpy")
    assert [type(layer).__name__ for layer in model.layers] == layers.split()
    x = np.random.default_rng(0).standard_normal((5, 9), dtype="float32")
    with torch.no_grad():
        theirs = nn.Sequential(*parts).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(outputs(model, x), theirs, atol=1e-6)


def test_shapes_both_ways():
    model = gn.Sequential(
        [
            gn.Reshape((2, 6, 6)),
            gn.Conv2D(3, 3, "sigmoid", pool=2),
            gn.Reshape((4, 3)),
            gn.Reshape((12,)),
            gn.Activation("identity"),
            gn.Dense(2, "sigmoid"),
        ]
    )
    model.build((72,), gn.get_backend("numpy"), seed=1)
    network = gn.to_torch(model)
    x = np.random.default_rng(0).standard_normal((6, 72), dtype="float32")
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), outputs(model, x), atol=1e-6)
    assert list(network.state_dict()) == list(model.parameters)
    back = gn.from_torch(network, (72,), device="numpy")
    np.testing.assert_allclose(outputs(back, x), outputs(model, x), atol=1e-6)


def test_pools_and_activations_after_a_convolution():
    conv, pool = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)
    agree(nn.Sequential(conv, pool, pool), (1, 14, 14), (1, 14, 14), layers="Conv2D MaxPool2D")
    agree(nn.Sequential(conv, pool, nn.Sigmoid(), pool), (1, 14, 14), (1, 14, 14), layers="Conv2D Activation MaxPool2D")
    even, mean = nn.Conv2d(1, 4, 4), nn.AvgPool2d(4, 3)
    agree(nn.Sequential(even, nn.ReLU(), mean, nn.Flatten()), (1, 14, 14), (1, 14, 14), layers="Conv2D Flatten")
    agree(nn.Sequential(even, mean, nn.ReLU()), (1, 14, 14), (1, 14, 14), layers="Conv2D Activation")
    agree(nn.Sequential(even, nn.ReLU(), mean), (1, 14, 14), (1, 14, 14), layers="Conv2D AvgPool2D")
    agree(nn.Sequential(mean, even), (1, 14, 14), (1, 14, 14), layers="AvgPool2D Conv2D")
    agree(nn.Sequential(conv, nn.Sigmoid(), nn.ReLU()), (1, 14, 14), (1, 14, 14), layers="Conv2D Activation")


def test_weights_that_are_computed_come_as_they_are_in_effect():
    from torch.nn.utils import parametrizations, prune

    module = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(8, 8)),
        nn.ReLU(), nn.Linear(8, 5),
    )  # fmt: skip
    prune.l1_unstructured(module[4], "weight", amount=0.5)
    module[0].parametrizations.weight.original0.data *= 3
    module(torch.ones(2, 6)).sum().backward()  # leaves weights that are no leaves
    model = agree(module, (6,))
    assert (np.asarray(model.parameters["4.weight"]) == 0).sum() == 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.utils.spectral_norm(nn.Linear(3, 3)))
    old(torch.ones(2, 4)).sum().backward()
    agree(old, (4,))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(mode):
    module = nn.utils.parametrizations.weight_norm(nn.Linear(6, 8, bias=False))
    with mode():
        assert gn.from_torch(module, device="numpy").layers[0].trainable
        assert not gn.from_torch(module.requires_grad_(False), device="numpy").layers[0].trainable
        inside = nn.Linear(6, 8)
        agree(nn.Sequential(inside), (6,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_widened_exactly(dtype):
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)).to(dtype)
    model = gn.from_torch(module, device="numpy")
    assert model.dtype == "float32"
    for name, parameter in module.state_dict().items():
        np.testing.assert_array_equal(model.parameters[name], parameter.float().numpy())


def test_a_forward_that_casts_is_run_in_float32():
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(4, 3)

        def forward(self, x):
            return self.f(x.to(torch.float32)).float()

    agree(Casts(), (4,))


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(6, 2))
    module[3].eval()
    before, modes = copy.deepcopy(module.state_dict()), [part.training for part in module.modules()]
    drawn = torch.random.get_rng_state()
    model = gn.from_torch(module, device="numpy")
    model.parameters["0.weight"][:] = 0
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_what_is_frozen_and_the_mode_come_along_both_ways():
    module = nn.Sequential(nn.Linear(4, 6).requires_grad_(False), nn.ReLU(), nn.Linear(6, 2))
    model = gn.from_torch(module, device="numpy")
    assert [layer.trainable for layer in model.layers] == [False, True]
    back = gn.to_torch(model.train())
    assert [p.requires_grad for p in back.parameters()] == [False, False, True, True]
    assert back.training
    assert not gn.to_torch(model.eval()).training


def test_shared_weights_become_two():
    shared = nn.Linear(5, 5)
    model = agree(nn.Sequential(shared, nn.ReLU(), shared), (5,))
    model.parameters["0.weight"][:] = 0
    assert np.any(model.parameters["2.weight"])


def test_weights_are_copies_on_the_way_out():
    model = gn.from_torch(nn.Linear(3, 2), device="numpy")
    network = gn.to_torch(model)
    network[0].weight.data.zero_()
    assert np.any(model.parameters["0.weight"])


def test_what_comes_from_pytorch_is_trained_and_goes_back():
    data = gn.datasets.load("digits")
    torch.manual_seed(0)
    model = gn.from_torch(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), device="cpu")
    trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="cpu", seed=0)
    trainer.fit(data.x_train, data.y_train, epochs=3, batch_size=64)
    x = trainer.model.parameters  # on the host
    with torch.no_grad():
        network = gn.to_torch(model)
        scaled = torch.from_numpy(np.asarray(data.x_test[:50], "float32") / 255)  # as the model sees bytes
        assert {name: tuple(p.shape) for name, p in x.items()} == {
            n: tuple(p.shape) for n, p in network.state_dict().items()
        }
        np.testing.assert_allclose(network(scaled).numpy(), model.outputs(data.x_test[:50]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_wrapped_modules_are_unwrapped():
    module = nn.Sequential(nn.Linear(3, 2))
    agree(nn.DataParallel(module).cpu(), (3,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own parts
        compiled = torch.compile(module)
    agree(compiled, (3,))


# -- what is refused ----------------------------------------------------------------------------------------------


def forward_of(body, *parts):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
            self.parts = nn.Sequential(*parts)

        def forward(self, x):
            return body(self, x)

    return Own()


def branches(self, x):
    h = self.fc(x)
    self.other(h)
    return F.relu(h)


def looks(self, x):
    h = self.fc(x)
    return F.relu(h) if float(h[0, 0]) > 0 else h


def passes_by(self, x):
    return self.other(F.relu(self.fc(x)).numpy() if False else torch.from_numpy(x.detach().numpy()))


def drops_always(self, x):
    return F.dropout(self.fc(x))


def of_five(self, x):
    return self.fc(x).view(5, -1)


def writes(self, x):
    h = self.fc(x)
    h[:, 0] = 0
    return h


@pytest.mark.parametrize(
    ("module", "shape", "said"),
    [
        (forward_of(lambda self, x: self.fc(x) + x), (6,), "joins two paths"),
        (forward_of(lambda self, x: torch.cat([self.fc(x), x])), (6,), "joins two paths"),
        (forward_of(branches), (6,), "taken already"),
        (forward_of(lambda self, x: self.other(self.fc(x)) * 2), (6,), "no layer that does mul"),
        (forward_of(looks), (6,), "no layer that does __getitem__"),
        (forward_of(lambda self, x: self.fc(x) if bool(x.sum()) else x), (6,), "no layer that does sum"),
        (forward_of(passes_by), (6,), "numpy is no function of a layer"),
        (forward_of(drops_always), (6,), "training=self.training"),
        (forward_of(of_five), (6,), "none of 7"),
        (forward_of(writes), (6,), "__setitem__"),
        (forward_of(lambda self, x: (self.fc(x), x)), (6,), "expected one tensor"),
        (forward_of(lambda self, x: [self.fc(x), x][1]), (6,), "something else than what it computed last"),
        (forward_of(lambda self, x: self.fc(x).view(-1, 3)), (6,), "become (10, 3)"),
        (forward_of(lambda self, x: self.fc(x).t()), (6,), "no layer that does t;"),
        (forward_of(lambda self, x: self.fc(x) + torch.randn_like(x)), (6,), "randn_like"),
        (forward_of(lambda self, x: F.linear(self.fc.weight, x)), (6,), "as its weight"),
        (forward_of(lambda self, x: 1 / 0), (6,), "division by zero"),
        (forward_of(lambda self, x, mask: x), (6,), "failed"),
        (forward_of(lambda self, x: x), (6,), "does nothing"),
        (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)), (6,), "'1' (LayerNorm) cannot be converted"),
        *(
            (kind(3, 4), (5, 3), "gpunet has no recurrent layers; what can is a chain of Linear, Conv2d,")
            for kind in (nn.LSTM, nn.GRU, nn.RNN)
        ),
        (nn.GRUCell(3, 4), (3,), "the forward of GRUCell cannot be converted: gpunet has no recurrent layers"),
        (nn.Sequential(nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 4)), (6,), "momentum cannot be 0.0"),
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)), (6,), "no running statistics"),
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1)), (6,), "leave it off"),
        (nn.Sequential(nn.Linear(6, 4), nn.SiLU()), (6,), "relu, sigmoid, tanh, leaky_relu and gelu"),
        (nn.Sequential(nn.Linear(6, 4), nn.LeakyReLU(0.2)), (6,), "slope 0.2; gpunet's has slope 0.01"),
        (nn.Sequential(nn.Linear(6, 4), nn.Dropout(1.0)), (6,), "rate cannot be 1.0"),
        (nn.Sequential(nn.LSTM(6, 4)), (6,), "'0' (LSTM)"),
        (nn.Sequential(nn.Embedding(6, 4)), (6,), "failed"),
        (nn.Conv2d(2, 4, 3, groups=2), (2, 8, 8), "groups=2"),
        (nn.Conv2d(2, 4, 3, stride=2), (2, 8, 8), "stride (2, 2)"),
        (nn.Conv2d(2, 4, 3, dilation=2), (2, 8, 8), "dilation (2, 2)"),
        (nn.Conv2d(2, 4, 4, padding=2), (2, 8, 8), "kernel (4, 4)"),
        (nn.Conv2d(2, 4, 4, padding="same"), (2, 8, 8), "kernel (4, 4)"),
        (nn.Conv2d(2, 4, (1, 3)), (2, 8, 8), "kernel (1, 3)"),
        (nn.Conv2d(2, 4, 5, padding=1), (2, 8, 8), "padding (1, 1)"),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (2, 8, 8), "padding_mode='zeros'"),
        (nn.Conv1d(2, 4, 3), (2, 8), "no layer that does conv1d"),
        (nn.ConvTranspose2d(2, 4, 3), (2, 8, 8), "no layer that does conv_transpose2d"),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout2d()), (2, 8, 8), "put a Dropout"),
        (nn.AdaptiveAvgPool2d(2), (2, 8, 8), "AvgPool2d(k, stride)"),
        (nn.AvgPool2d(3, padding=1), (2, 8, 8), "padding (1, 1)"),
        (nn.AvgPool2d((2, 3)), (2, 8, 8), "windows (2, 3)"),
        (nn.AvgPool2d(2, divisor_override=3), (2, 8, 8), "divisor_override=3"),
        (nn.AvgPool2d(3, ceil_mode=True), (2, 8, 8), "ceil_mode=True"),
        (nn.MaxPool2d(3, stride=2), (2, 8, 8), "stride (2, 2)"),
        (nn.MaxPool2d(2, padding=1), (2, 8, 8), "padding (1, 1)"),
        (nn.MaxPool2d(2, ceil_mode=True), (2, 8, 8), "ceil_mode=True"),
        (nn.MaxPool2d(16), (2, 32, 32), "from 1 to 15"),
        (nn.Linear(8, 3), (2, 8), "put a Flatten before it"),
        (nn.Linear(8, 3), (9,), "failed"),
        (nn.Sequential(nn.LazyLinear(3)), (9,), "0.weight has no shape yet"),
        (nn.Linear(8, 3, device="meta"), (8,), "meta device"),
        (nn.Linear(8, 3, dtype=torch.complex64), (8,), "expected floats"),
        (nn.ParameterList(), (8,), "failed"),
        ([1], (8,), "expected a torch.nn.Module"),
        (nn.Linear, (8,), "expected a torch.nn.Module"),
        (nn.Linear(8, 3).state_dict(), (8,), "expected a torch.nn.Module"),
    ],
)  # fmt: skip
def test_what_is_no_chain_of_ours_is_named(module, shape, said):
    with pytest.raises(InputError) as error:
        gn.from_torch(module, shape, device="numpy")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_norm_that_no_affine_layer_precedes_stays_one():
    torch.manual_seed(5)
    module = nn.Sequential(
        nn.BatchNorm2d(2, eps=1e-3), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3, momentum=0.3),
        nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2),
    ).double()  # fmt: skip
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                part.weight.data.normal_()
                part.bias.data.normal_()
    model = agree(module, (2, 6, 6), (2, 6, 6), "float64", "BatchNorm Conv2D BatchNorm Flatten Dense BatchNorm Dense")
    found = [layer for layer in model.layers if isinstance(layer, gn.BatchNorm)]
    assert [(layer.epsilon, layer.momentum, layer.trainable) for layer in found] == [
        (1e-3, 0.1, True), (1e-5, 0.3, True), (1e-5, 0.1, False),
    ]  # fmt: skip
    back = gn.to_torch(model.train())
    assert [part.training for part in back if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)] == [True, True, False]


def test_outputs_that_are_tiny_are_compared_too():
    chain = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    with torch.no_grad():
        for each in chain:
            each.weight.mul_(1e-30)
            each.bias.zero_()
    agree(chain, (6,))


def test_the_callers_random_numbers_are_left_alone():
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 3)

        def forward(self, x):
            torch.rand(3)
            return self.a(x)

    before = torch.get_rng_state()
    gn.from_torch(Drawing(), (6,))
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    Drawing()
    assert not torch.equal(after, before)
    assert torch.equal(after, torch.get_rng_state())


def test_a_hook_that_changes_outputs_is_found():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, dy):
            return 2 * dy

    module[1].register_forward_hook(lambda part, given, y: y.data.mul_(2) and None)
    with pytest.raises(InputError):
        gn.from_torch(module, device="numpy")
    with pytest.raises(InputError):
        gn.from_torch(forward_of(lambda self, x: Twice.apply(self.fc(x))), (6,), device="numpy")


def test_a_forward_that_goes_by_the_number_of_samples_is_found():
    module = forward_of(lambda self, x: self.fc(x) if len(x) == 5 else self.other(x))
    with pytest.raises(InputError, match="other outputs than the module"):
        gn.from_torch(module, (6,), device="numpy")


def test_weights_that_are_no_numbers_are_named():
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    module[1].bias.data[1] = float("nan")
    with pytest.raises(DataError, match=r"1\.bias holds NaN"):
        gn.from_torch(module, device="numpy")


def test_the_shape_of_a_sample_is_asked_for_where_it_cannot_be_told():
    with pytest.raises(InputError, match=r"one image, \(3, rows, columns\)"):
        gn.from_torch(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))[:2])
    with pytest.raises(InputError, match="input_shape is needed"):
        gn.from_torch(nn.Sequential(nn.ReLU()))
    with pytest.raises(ShapeError):
        gn.from_torch(nn.Linear(3, 2), (0,))
    with pytest.raises(InputError, match="pass input_shape"):
        gn.from_torch(forward_of(lambda self, x: self.fc(self.parts(x)), nn.Unflatten(1, (5, 5))))


def test_scripted_and_quantised_modules_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their age
        traced = torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3))
        packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 2)), {nn.Linear})
    for module, said in ((traced, "the module is a .*scripted"), (nn.Sequential(traced), "0 is a .*scripted"),
                         (packed, "0 is a Linear, quantised")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            gn.from_torch(module, (3,), device="numpy")
    module = nn.Sequential(nn.Linear(6, 4))
    module[0].weight = nn.Parameter(torch.ones(4, 6, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"0\.weight is torch.int8"):
        gn.from_torch(module, device="numpy")


def test_what_cannot_go_to_pytorch_is_named():
    class Own(gn.Dense):
        pass

    model = gn.Sequential([gn.Dense(4, "relu"), Own(3)])
    with pytest.raises(InputError, match="no weights yet"):
        gn.to_torch(model)
    model.build((5,), gn.get_backend("numpy"))
    with pytest.raises(InputError, match=r"'2' \(Own\)"):
        gn.to_torch(model)
    with pytest.raises(InputError, match=r"expected gn\.Sequential"):
        gn.to_torch(nn.Linear(3, 2))


def test_without_pytorch_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"needs PyTorch, which is not installed: pip install 'gpunet\[torch\]'"):
        gn.from_torch(None)
    with pytest.raises(InputError, match=r"needs PyTorch, which is not installed: pip install 'gpunet\[torch\]'"):
        gn.to_torch(None)
