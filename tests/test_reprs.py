"""Every public object shows itself in words: no address, no array written out."""

import copy
import inspect
import json
import math
import pickle

import numpy as np
import pytest

import gpunet as gn
from gpunet.experiments.result import Metric, Result, Row
from gpunet.linalg import StreamingClassGram
from gpunet.nn.losses import Loss
from gpunet.nn.samples import Samples
from gpunet.reprs import as_call, columns, table_html
from gpunet.spectral.ridge import Ridge
from tests.hostile.calls import objects, right, targets_by_class

LAYERS = [
    gn.Dense(16, "relu"),
    gn.Dense(10),
    gn.Dense(3, "sigmoid", trainable=False),
    gn.LowRankDense(10, 4, "relu"),
    gn.LowRankDense(10, 4, trainable=False),
    gn.Conv2D(8),
    gn.Conv2D(8, 5, "relu", pool=2, padding="same"),
    gn.Conv2D(8, activation="sigmoid"),
    gn.MaxPool2D(),
    gn.MaxPool2D(3),
    gn.AvgPool2D(),
    gn.AvgPool2D(3, 2),
    gn.Conv2D(8, 6, "relu", pool=14, pooling="average", pool_stride=13),
    gn.Flatten(),
    gn.Reshape((1, 8, 8)),
    gn.Activation("relu"),
    gn.Dropout(0.25),
]
OTHERS = [
    gn.SGD(0.1),
    gn.SGD(0.1, momentum=0.9, l2=1e-4),
    gn.Adam(),
    gn.Adam(1e-2, beta2=0.99),
    gn.SoftmaxCrossEntropy(),
    gn.SquaredError("sum"),
    gn.ExponentialDecay(0.9),
    gn.StepDecay(0.5, 10),
    gn.CyclicalRate(0.1, 0.2, 30, halve=True),
    gn.CosineDecay(),
    gn.EarlyStopping("train_loss", restore_best=False),
    gn.DivergenceGuard(4.0),
    gn.Factorise(0.2, gn.Energy(0.9), layers=["0"], state="carry"),
    gn.Factorise("auto"),
    gn.FixedRank(3),
    gn.ScaledStableRank(),
]


def said(thing):
    return eval(repr(thing), {name: getattr(gn, name) for name in gn.__all__})  # noqa: S307  # our own words


def test_no_public_class_is_shown_by_its_address():
    for name, kind in objects():
        if inspect.isclass(kind) and not issubclass(kind, BaseException):
            assert kind.__repr__ is not object.__repr__, name


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_what_a_layer_says_makes_it_again(layer):
    again = said(layer)
    assert type(again) is type(layer)
    assert again.config() == layer.config()
    assert repr(again) == repr(layer)


def test_so_does_what_every_other_layer_says():
    own = [kind for kind in gn.Layer.kinds.values() if kind.__module__.startswith("gpunet.nn.layers")]
    for kind in own:
        layer = right(targets_by_class()[kind])
        assert said(layer).config() == layer.config()


@pytest.mark.parametrize("thing", OTHERS, ids=repr)
def test_what_other_settings_say_makes_them_again(thing):
    again = said(thing)
    assert type(again) is type(thing)
    assert repr(again) == repr(thing)
    kept = "_settings" if isinstance(thing, gn.Optimizer) else "config" if isinstance(thing, gn.Callback) else None
    if kept == "config":
        assert again.config() == thing.config()
    elif kept:
        assert again.settings == thing.settings
    elif isinstance(thing, Loss):
        assert again.reduction == thing.reduction
    else:
        assert again == thing


def test_layers_are_shown_as_one_types_them():
    assert repr(gn.Dense(16, "relu")) == "Dense(16, 'relu')"
    assert repr(gn.Conv2D(8, 3, "relu", pool=2)) == "Conv2D(8, 3, 'relu', pool=2)"
    assert repr(gn.Conv2D(8)) == "Conv2D(8)"
    assert repr(gn.AvgPool2D(14, 13)) == "AvgPool2D(14, 13)"
    assert repr(gn.Dropout()) == "Dropout(0.5)"
    assert repr(gn.Reshape([4, 4])) == "Reshape((4, 4))"


def test_a_layer_shows_the_same_once_it_has_weights():
    layer = gn.Dense(16, "relu", weight="he_normal")
    before = repr(layer)
    gn.Sequential([layer]).build((5,), gn.get_backend("cpu"))
    assert repr(layer) == before


def test_parts_of_ones_own_are_shown_without_a_word_from_them():
    class Scale(gn.Layer):
        def __init__(self, factor, weight=None):
            self.factor, self.weight = factor, weight

    class Watch(gn.Callback):
        def __init__(self, every, *others, deep=False, **more):
            self.every, self.hidden = every, others

    class Odd(gn.SquaredError):
        def __init__(self):
            super().__init__()

    assert repr(Scale(2.0, np.ones(3))) == "Scale(2.0)"
    assert repr(Watch(3, 4)) == "Watch(every=3)"
    assert repr(Odd()) == "Odd()"
    assert "ndarray of shape (1000,), float64" in repr(Watch(np.ones(1000)))


def test_a_model_and_a_trainer():
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(10)])
    assert repr(model) == "Sequential(\n  (0): Dense(16, 'relu')\n  (2): Dense(10)\n)"
    trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="cpu")
    assert repr(trainer) == (
        "Trainer(\n  model=Sequential(\n    (0): Dense(16, 'relu')\n    (2): Dense(10)\n  ),\n"
        "  loss=SoftmaxCrossEntropy(),\n  optimizer=Adam(learning_rate=0.01),\n  device='cpu',\n  dtype='float32',\n"
        "  seed=0,\n  epoch=0,\n)"
    )
    loss = gn.SquaredError()
    gn.Trainer(model, loss, device="cpu").__repr__()
    with pytest.raises(gn.errors.InputError, match="works on a copy"):
        loss.reduction = "sum"  # showing a trainer hands its loss to nobody
    with pytest.raises(gn.errors.InputError, match=r"Sequential\( \(0\): Dense\(16, 'relu'\)") as caught:
        gn.Dense(model)
    assert str(caught.value).isprintable()


def test_data_and_results_show_sizes_not_numbers():
    x, y = np.arange(60.0).reshape(12, 5), np.arange(12) % 3
    small = [
        Samples.of(gn.get_backend("cpu"), x, y, 3),
        gn.StreamingGram(center=True).update(x),
        StreamingClassGram().update(x, y),
        gn.svd(x),
        gn.svd(x, 2, compute="left"),
        gn.svd(np.stack([x, x])),
        gn.svd(x, 0),
        gn.svd(x).certificate,
        gn.class_pca(x, y, 2),
        gn.class_pca(x, y, 2).certificate,
        gn.gram(x).components(2),
        gn.datasets.load("digits"),
        gn.get_backend("cpu"),
        gn.experiments.experiment("toy"),
        gn.Trainer(gn.Sequential([gn.Dense(3)]), device="cpu").graphs,
        gn.fit_class_pca(gn.Dense(3), x, y, variance=0.9),
        Ridge(np.eye(3, 5), np.zeros(3), 0.1),
        gn.optim.Range(x[0], x[0], {"first": x[0]}, x[0], 3),
        gn.layers.Parameter((3,), gn.init.zeros),
        gn.lora.extract({"a.weight": np.eye(4)}, {"a.weight": np.eye(4) + x[:4, :4]}, 2).pairs["a"],
    ]
    for thing in small:
        shown = repr(thing)
        assert "array(" not in shown
        assert " at 0x" not in shown
        assert "\n" not in shown
        assert len(shown) < 200, shown
    assert repr(small[0]) == "<Samples: (12, 5), float64, labels up to 2, on cpu>"
    assert repr(small[1]) == "<StreamingGram: 12 samples of 5 features, centred>"
    assert "u (12, 5), s (5,), vt (5, 5)" in repr(small[3])
    assert "vt None" in repr(small[4])


def test_a_gradient_check_is_a_table():
    model = gn.Sequential([gn.Dense(3)])
    table = gn.gradient_check(model, "squared_error", np.eye(4, 5), [0, 1, 2, 0])
    assert repr(table) == str(table)
    assert [line.split()[0] for line in repr(table).splitlines()] == ["parameter", "0.weight", "0.bias"]
    assert table._repr_html_().count("<tr>") == 3


def test_a_result_in_a_notebook_says_its_certificate_once_that_is_there():
    found = gn.svd(np.arange(12.0).reshape(4, 3), 2)
    assert "computed when it is read" in found._repr_html_()
    assert "none was missed" in repr(found.certificate)
    assert "none was missed" in found._repr_html_()


def test_what_compressing_did_is_a_dict_that_shows_itself():
    x = np.random.default_rng(0).standard_normal((60, 8))
    model = gn.Sequential([gn.Dense(30, "relu"), gn.Dense(3)])
    gn.Trainer(model, device="cpu").prepare((8,))
    told = gn.compress(model, x, rank=2).compression
    lines = repr(told).splitlines()
    assert lines[0].split()[:3] == ["layer", "weight", "rank"]
    assert lines[1].split()[:5] == ["0", "30×8", "2", "240", "76"]
    assert lines[3].startswith(f"Parameters {30 * 9 + 31 * 3} → ")
    assert told._repr_html_().count("<tr>") == 3
    assert json.loads(json.dumps(told)) == told
    for plain in (pickle.loads(pickle.dumps(told)), copy.deepcopy(told)):  # noqa: S301
        assert type(plain) is dict
        assert plain == told


def test_an_experiments_result_is_a_table_of_its_metrics():
    rows = [Row("a", {"accuracy": Metric([0.5, 0.6])}), Row("<b>", {"steps": Metric([5.0, math.nan])})]
    result = Result("toy", "xor", "cpu", {}, [0, 1], rows)
    assert repr(result).splitlines() == [
        "toy      accuracy      steps",
        "a    0.55 ± 0.071",
        "<b>                nan ± nan",
        "toy on xor, 2 seeds, mean ± deviation, on cpu",
    ]
    assert "&lt;b&gt;" in result._repr_html_()
    assert repr(Result("toy", "xor", "cpu", {}, [3])) == "toy\ntoy on xor, seed 3, on cpu"


def test_tables():
    assert columns(("name", "n"), [("a", "10"), ("long name", "2")]) == "name        n\na          10\nlong name   2"
    html = table_html(("a", "<b>"), [("x & y", "1")], "of <i>")
    assert "<i>" not in html
    assert "&lt;b&gt;" in html
    assert "x &amp; y" in html


def test_a_call_says_what_is_between():
    class Made:
        def __init__(self, a, b=1, c=2, *, d=3):
            pass

    assert as_call(Made(1), {"a": 1, "b": 1, "c": 2, "d": 3}) == "Made(a=1)"
    assert as_call(Made(1), {"a": 1, "b": 1, "c": 5, "d": 4}, bare=True) == "Made(1, 1, 5, d=4)"
    assert as_call(Made(1), {"a": 1, "b": 1, "c": 5, "d": 4}) == "Made(a=1, c=5, d=4)"
    assert as_call(Made(1), {"b": np.ones(3)}) == "Made(b=ndarray of shape (3,), float64)"
    assert as_call(Made(1), {}) == "Made()"
