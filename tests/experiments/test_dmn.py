"""dmn: its nets, its result, its claims and settings, on small images; (slow) on the real data."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.datasets.base import Dataset
from gpunet.errors import DataError, InputError
from gpunet.experiments.dmn import Settings, run
from gpunet.experiments.dmn_claims import CLAIMS
from gpunet.experiments.dmn_dynamics import fluctuations
from gpunet.experiments.dmn_nets import Course, Images, Training, body, train_convnet, train_dmn
from gpunet.experiments.dmn_sweeps import SYMBOLS, VALUES
from gpunet.experiments.result import Metric, Result, Row
from gpunet.layers.fitted import Thresholds
from gpunet.progress import Progress

from .schema import check_document

CPU = get_backend("numpy")
SHORT = Settings(widths=((0.9,), (0.9, 0.9)), epochs=2, long=2, sweeps=False, dynamics=False)


def pictures(name="own", shape=(8, 8), classes=3, train=90, test=30):
    """Images with a bright bar, whose direction is the class."""
    rng = np.random.default_rng(4)
    made = {}
    for split, n in (("train", train), ("test", test)):
        y = np.arange(n) % classes
        x = rng.integers(0, 60, (n, *shape), dtype=np.uint8)
        planes = x.reshape(n, -1, *shape[-2:])
        for i in range(n):
            place = rng.integers(1, min(shape[-2:]) - 1)
            if y[i] == 0:
                planes[i, :, place, :] += 150
            elif y[i] == 1:
                planes[i, :, :, place] += 150
            else:
                planes[i, :, np.arange(min(shape[-2:])), np.arange(min(shape[-2:]))] += 150
        made[split] = x.reshape(n, -1), y.astype(np.int64)
    return Dataset(name, *made["train"], *made["test"], shape, classes, "made")


def result(data=None, settings=SHORT, seeds=(0,)):
    made = run(data or pictures(), settings, list(seeds), device="numpy")
    check_document(made.to_json())
    return made


@pytest.fixture(scope="module")
def two_seeds():
    return result(seeds=(0, 1))


def test_rows_are_linear_and_pairs_of_the_same_filters(two_seeds):
    names = [row.name for row in two_seeds.rows]
    assert names[0] == "linear"
    assert names[1].replace("dmn", "convnet") == names[2]
    assert names[3].replace("dmn", "convnet") == names[4]
    assert names[3].count("+") == 1
    for name in names[1:]:
        filters = [two_seeds.mean(name, f"filters_{i + 1}") for i in range(name.count("+") + 1)]
        assert "+".join(f"{f:.0f}" for f in filters) == name.split()[1]
    assert set(two_seeds.settings["shares"]) == {names[1], names[3]}


def test_the_same_seed_gives_the_same_bits(two_seeds):
    again = result(seeds=(0, 1)).to_json()
    first = two_seeds.to_json()
    for key in ("settings", "rows", "curves"):
        assert again[key] == first[key]
    one = result(seeds=(1,))
    for row in one.rows:
        for name, metric in row.metrics.items():
            if row.name.split()[0] != "convnet":
                assert metric.values == two_seeds.row(row.name).metrics[name].values[1:]


def test_everything_learns_what_is_easy():
    made = result(settings=dataclasses.replace(SHORT, epochs=40, long=1, batch_size=8))
    for row in made.rows[1:3]:  # of 8×8 images a second layer sees 3×3 maps, which is too little
        assert row.metrics["test_accuracy"].mean > 0.8, row.name
    assert made.mean("linear", "test_accuracy") > 0.45
    assert made.mean(made.rows[1].name, "ridge_test_accuracy") > 0.8


def test_curves_and_times_have_an_entry_an_epoch(two_seeds):
    for row in two_seeds.rows:
        epochs = 4 if row.name.startswith("convnet") else 2
        assert {len(run) for run in two_seeds.curves[row.name]["test_accuracy"]} == {epochs}
        for times in two_seeds.timings[row.name]:
            assert len(times["seconds"]) == len(times["per_epoch"]) == epochs
            assert times["seconds"] == sorted(times["seconds"])
            assert ("fit" in times) == row.name.startswith("dmn")


def test_a_convnet_trained_longer_passes_the_equal_epochs_on_the_way(two_seeds):
    name = next(row.name for row in two_seeds.rows if row.name.startswith("convnet"))
    accuracies = two_seeds.curves[name]["test_accuracy"]
    assert two_seeds.values(name, "test_accuracy") == [run[1] for run in accuracies]
    assert two_seeds.values(name, "test_accuracy_long") == [run[3] for run in accuracies]


def test_sweeps_and_dynamics(rng):
    settings = dataclasses.replace(SHORT, widths=((0.9,),), epochs=1, sweeps=True, dynamics=True, sweep_samples=60)
    made = result(settings=settings)
    for setting, symbol in SYMBOLS.items():
        rows = [row for row in made.rows if row.name.startswith(f"{symbol}=")]
        assert [row.name for row in rows] == [f"{symbol}={value:g}" for value in VALUES[setting]]
        filters = [row.metrics["filters_1"].mean for row in rows]
        if setting != "fraction":
            assert filters == sorted(filters)
    assert made.settings["sweep_training_samples"] == 60
    early = [made.mean("convergence", f"early_rate_{i}") for i in (1, 2, 3, 4)]
    assert sum(early) == pytest.approx(0, abs=1e-6)
    assert np.shape(made.curves["convergence"]["detrended_rate"])[2] == 4


def test_independent_samples_fluctuate_as_one_over_n():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6400, 16)).astype("float32")
    images = Images("own", x, np.zeros(6400, np.int64), x, np.zeros(6400, np.int64), (1, 4, 4), 2)
    made = Result("dmn", "own", "cpu", {}, [0, 1])
    fluctuations(made, images, [0, 1])
    assert made.mean("fluctuations", "slope") == pytest.approx(-1, abs=0.12)
    early, late = made.mean("fluctuations", "deviation_early"), made.mean("fluctuations", "deviation_late")
    assert early == pytest.approx(late, rel=0.4)


@pytest.mark.parametrize("closed_form", [True, False])
def test_a_dmn_is_the_model_of_its_fitted_layers_and_its_head(closed_form):
    images = Images.of(pictures())
    outcome = train_dmn(images, [Thresholds(0.9)], Training(2, 16, 1e-2), 0, CPU, Progress(), closed_form)
    assert (outcome.ridge_accuracy is not None) == closed_form
    layers = body(images.shape, [1])
    layers[1].fit(images.x_train.reshape(-1, *images.shape), images.y_train, variance=0.9)
    model = gn.Sequential([*layers, gn.Flatten(), gn.Dense(3)])
    trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="numpy")
    trainer.prepare((64,))
    head = gn.Sequential([gn.Dense(3)])
    body_alone = gn.Sequential([*map(copy.copy, layers), gn.Flatten()])
    features = gn.Trainer(body_alone, "squared_error", device="numpy").outputs(images.x_train)
    alone = gn.Trainer(head, optimizer=gn.Adam(1e-2), device="numpy")
    alone.fit(features, images.y_train, epochs=2, batch_size=16)
    assert outcome.train_accuracy == pytest.approx(alone.evaluate(features, images.y_train)["accuracy"])


def test_images_of_any_shape():
    assert Images.of(pictures(shape=(8, 9))).shape == (1, 8, 9)
    assert Images.of(pictures(shape=(3, 8, 9))).shape == (3, 8, 9)
    data = pictures(shape=(3, 8, 9))
    turned = data.x_train.reshape(-1, 3, 8, 9).transpose(0, 2, 3, 1).reshape(len(data.x_train), -1)
    last = dataclasses.replace(
        data,
        x_train=turned,
        x_test=data.x_test.reshape(-1, 3, 8, 9).transpose(0, 2, 3, 1).reshape(30, -1),
        shape=(8, 9, 3),
    )
    np.testing.assert_array_equal(Images.of(last).x_train, data.x_train)
    for shape in ((64,), (2, 32), (1, 2, 32), (2, 2, 4, 4)):
        with pytest.raises(DataError, match="dmn needs images of at least 3×3"):
            Images.of(dataclasses.replace(pictures(), shape=shape))


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_body_fits_images_of_any_size(shape, depth):
    model = gn.Sequential([*body(shape, [4] * depth), gn.Flatten(), gn.Dense(2)])
    model.build(shape, CPU)
    model.bind(2)
    assert model.forward(np.zeros((2, *shape), "float32")).shape == (2, 2)


def test_time_to_an_accuracy():
    course = Course(1.0, [0.5, 0.5, 0.5], [3.0, 2.0, 1.0], [0.2, 0.6, 0.5])
    assert course.at() == [1.5, 2.0, 2.5]
    assert course.time_to(0.55) == 2.0
    assert course.time_to(0.1) == 1.5
    assert course.time_to(0.7) is None


# -- claims ----------------------------------------------------------------------------------------------------------


def verdicts(made, dataset):
    from gpunet.experiments.claims import judge

    made.dataset = dataset
    return {claim.id: claim for claim in judge(CLAIMS, made)}


def report(gains, seeds=2, **settings):
    """A result whose DMNs are better than their ConvNets by `gains`, by filter counts."""
    made = Result("dmn", "cifar10", "cpu", {"epochs": 2, **settings}, list(range(seeds)))
    for name, gain in gains.items():
        made.rows.append(Row(f"dmn {name}", {"test_accuracy": Metric([0.5 + gain] * seeds)}))
        convnet = {"test_accuracy": Metric([0.5] * seeds), "test_accuracy_long": Metric([0.52] * seeds)}
        made.rows.append(Row(f"convnet {name}", convnet))
        made.timings[f"dmn {name}"] = [{"fit": 1.0}] * seeds
        made.timings[f"convnet {name}"] = [{"per_epoch": [2.0, 2.0, 50.0]}] * seeds
    return made


def test_verdicts_on_accuracy():
    found = verdicts(report({"8": 0.01, "8+30": 0.06}), "cifar10")
    assert found["cifar10-1-layer"].verdict == "reproduced"
    assert found["cifar10-2-layers"].verdict == "reproduced"
    assert "8+30: +6.0 points, +4.0 when the ConvNet trains longer" in found["cifar10-2-layers"].measured
    assert found["mnist-within-1-percent"].verdict == "not tested"
    found = verdicts(report({"8": -0.001, "8+30": 0.04}), "cifar10")
    assert found["cifar10-1-layer"].verdict == found["cifar10-2-layers"].verdict == "not reproduced"
    assert verdicts(report({"8": -0.009, "4": 0.03}), "mnist")["mnist-within-1-percent"].verdict == "reproduced"
    assert verdicts(report({"8": -0.02, "4": 0.03}), "mnist")["mnist-within-1-percent"].verdict == "not reproduced"
    assert verdicts(report({"8+3": 0.02}), "cifar100")["cifar100-2-layers"].verdict == "not reproduced"
    assert verdicts(report({"8+3": -0.009}), "cifar100")["cifar100-2-layers"].verdict == "reproduced"
    assert verdicts(report({}), "cifar10")["cifar10-1-layer"].verdict == "not tested"


def test_verdicts_on_cost():
    found = verdicts(report({"8": 0.0}), "cifar10")["cheaper-cifar10"]
    assert found.verdict == "reproduced"  # one second against two epochs of two
    assert "8: 0.25×" in found.measured
    made = report({"8": 0.0})
    made.timings["dmn 8"] = [{"fit": 1.4}] * 2
    assert verdicts(made, "cifar10")["cheaper-cifar10"].verdict == "not reproduced"


def test_verdicts_on_sweeps_and_dynamics():
    made = report({})
    for value, accuracy in ((0.5, 0.9), (0.8, 0.95), (1.0, 0.94)):
        made.row(f"T_PC={value:g}").add(test_accuracy=accuracy)
        made.row(f"T_v={value:g}").add(test_accuracy=accuracy)
    for value, accuracy in ((0.1, 0.9), (0.3, 0.949), (0.4, 0.951), (1.0, 0.95)):
        made.row(f"T_frac={value:g}").add(test_accuracy=accuracy)
    made.row("convergence").add(early_rate_1=0.3, early_rate_2=0.1, early_rate_3=-0.1, early_rate_4=-0.3)
    made.row("fluctuations").add(slope=-0.95)
    found = verdicts(made, "mnist")
    expected = {"t-pc-peak": True, "t-pc-one-hurts": True, "t-v-peak": False, "t-frac": True, "lower-first-mnist": True,
                "fluctuations": True}  # fmt: skip
    assert {k: found[k].verdict == "reproduced" for k in expected} == expected
    made.row("T_PC=1").metrics["test_accuracy"] = Metric([0.949])
    made.row("convergence").metrics["early_rate_1"] = Metric([-0.3])
    made.row("fluctuations").metrics["slope"] = Metric([-0.5])
    found = verdicts(made, "mnist")
    assert {found[k].verdict for k in ("t-pc-one-hurts", "lower-first-mnist", "fluctuations")} == {"not reproduced"}


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ((1.2,),)}, "variance cannot be 1.2: expected a finite number > 0 and ≤ 1"),
        ({"widths": ((0.9, 0.0),)}, "variance cannot be 0"),
        ({"widths": ((),)}, "names 0 layers: expected T_v of one to three"),
        ({"correlation": 1.5}, "correlation cannot be 1.5"),
        ({"correlation": 0.0}, "correlation cannot be 0"),
        ({"fraction": 0.0}, "fraction cannot be 0"),
        ({"fraction": 2.0}, "fraction cannot be 2"),
        ({"epochs": 0}, "epochs is a whole number ≥ 1, got 0"),
        ({"long": 0}, "long is a whole number"),
        ({"learning_rate": -1.0}, "learning_rate cannot be -1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


# -- the real data ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist_is_within_a_point_of_the_convnet(real_data):
    images = Images.of(gn.datasets.load("mnist", data_dir=real_data))
    backend, training = get_backend("cpu"), Training(epochs=3)
    dmn = train_dmn(images, [Thresholds(0.98, 0.9, 0.4)], training, 0, backend, Progress())
    convnet = train_convnet(images, dmn.filters, training, 0, backend, Progress())
    assert dmn.course.test_accuracy[-1] > 0.96
    assert dmn.course.test_accuracy[-1] >= convnet.course.test_accuracy[-1] - 0.015
    assert dmn.ridge_accuracy is not None
    assert dmn.ridge_accuracy > 0.95
