"""dmn: its nets, its result, its claims and settings, on small images; (slow) on the real data."""

from __future__ import annotations

import copy
import dataclasses
import math
from operator import le

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.datasets.arrays import Dataset
from gpunet.errors import DataError, DivergedError, InputError
from gpunet.experiments.claims import judge
from gpunet.experiments.dmn import Settings, x
from gpunet.experiments.dmn.body import SWEPT
from gpunet.experiments.dmn.dynamics import fluctuations
from gpunet.experiments.dmn.extract import fit_stack
from gpunet.experiments.dmn.nets import KERNEL, body, filters, train_convnet, train_dmn
from gpunet.experiments.dmn.rivals import MAPS, OPTIMIZERS, PIXELS, _convnet, dmn_row, fitted, standardised
from gpunet.experiments.dmn.tables import AFTER, PAIRS, elapsed, reaching, rivals
from gpunet.experiments.framework import Run
from gpunet.experiments.images import as_images
from gpunet.experiments.result import Metric, Result, Row
from gpunet.spectral.fitted import Thresholds

from .made import begun, compute
from .schema import check_document

CPU = get_backend("numpy")
SHORT = {"widths": ((0.9,), (0.9, 0.9)), "epochs": 2, "long": 2, "sweeps": False, "dynamics": False}


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


def result(data=None, seeds=(0,), **settings):
    made = compute("dmn", data or pictures(), list(seeds), **SHORT | settings)
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
    assert two_seeds.notes["shares"] == {names[1]: [[0.9]], names[3]: [[0.9, 0.9]]}


def test_the_class_pca_of_every_layer_is_told(two_seeds):
    for name, runs in two_seeds.notes["svd"].items():
        layers = range(name.count("+") + 1)
        assert [len(found) for found in runs] == [len(layers)] * 2
        for i in layers:
            assert [sum(found[i]["filters"].values()) for found in runs] == two_seeds.values(name, f"filters_{i + 1}")
        for each in (each for found in runs for each in found):
            assert each["route"] == "gram"
            assert 0 < each["residual"] < 1e-5
            assert all(0 <= each["filters"][label] <= each["ranks"][label] for label in (0, 1, 2))
        without = [[label for label, kept in each["filters"].items() if not kept] for each in runs[0]]
        assert two_seeds.notes["classes_without_filter"][name] == without


def test_widths_that_give_the_same_filters_are_trained_once():
    made = result(widths=((0.9,), (0.9,)), epochs=1, long=1)
    assert len(made.names) == 3
    assert made.notes["shares"] == {made.names[1]: [[0.9], [0.9]]}


def test_the_same_seed_gives_the_same_bits(two_seeds):
    again = result(seeds=(0, 1)).to_json()
    first = two_seeds.to_json()
    for key in ("settings", "rows", "notes"):
        assert again[key] == first[key]
    for name, curves in first["curves"].items():
        assert all(again["curves"][name][key] == curves[key] for key in ("test_accuracy", "train_loss"))
    one = result(seeds=(1,))
    for row in one.rows:
        for name, metric in row.metrics.items():
            if row.name.split()[0] != "convnet":
                assert metric.values == two_seeds.row(row.name).metrics[name].values[1:]


@pytest.mark.slow
def test_everything_learns_what_is_easy():
    made = result(epochs=40, long=1, batch_size=8)
    for row in made.rows[1:3]:  # of 8×8 images a second layer sees 3×3 maps, which is too little
        assert row.metrics["test_accuracy"].mean > 0.8, row.name
    assert made.mean("linear", "test_accuracy") > 0.45
    assert made.mean(made.rows[1].name, "ridge_test_accuracy") > 0.8


def test_curves_and_times_have_an_entry_an_epoch(two_seeds):
    for name in two_seeds.names:
        epochs = 4 if name.startswith("convnet") else 2
        for curve in ("test_accuracy", "train_loss", "seconds"):
            assert [len(run) for run in two_seeds.curves[name][curve]] == [epochs] * 2
        fitted = {"fit", "extract", "ridge"} if name.startswith("dmn") else set()
        assert set(two_seeds.timings[name]) == {"epoch"} | fitted
        assert all(len(values) == 2 for values in two_seeds.timings[name].values())


def test_a_convnet_trained_longer_passes_the_equal_epochs_on_the_way(two_seeds):
    name = next(row.name for row in two_seeds.rows if row.name.startswith("convnet"))
    accuracies = two_seeds.curves[name]["test_accuracy"]
    assert two_seeds.values(name, "test_accuracy") == [run[1] for run in accuracies]
    assert two_seeds.values(name, "test_accuracy_long") == [run[3] for run in accuracies]


@pytest.mark.slow
def test_sweeps_and_dynamics(rng):
    made = result(widths=((0.9,),), epochs=1, sweeps=True, dynamics=True, sweep_samples=60)
    for symbol, (setting, values) in SWEPT.items():
        rows = [name for name in made.names if name.startswith(f"{symbol}=")]
        assert rows == [f"{symbol}={value:g}" for value in values]
        assert set(rows) <= set(made.notes["svd"])
        filters = [made.mean(row, "filters_1") for row in rows]
        if setting != "fraction":
            assert filters == sorted(filters)
    assert made.notes["sweep_training_samples"] == 60
    early = [made.mean("convergence", f"early_rate_{i}") for i in (1, 2, 3, 4)]
    assert sum(early) == pytest.approx(0, abs=1e-6)
    assert np.shape(made.curves["convergence"]["detrended_rate"])[2] == 4


def test_independent_samples_fluctuate_as_one_over_n():
    rng = np.random.default_rng(3)
    samples, labels = rng.normal(size=(6400, 16)).astype("float32"), np.zeros(6400, np.int64)
    images = Dataset("own", samples, labels, samples, labels, (1, 4, 4), 2, "made")
    run = Run(x, images, Settings(), [0, 1])
    made = run.result = Result("dmn", "own", "cpu", {}, [0, 1])
    fluctuations(run)
    assert made.mean("fluctuations", "slope") == pytest.approx(-1, abs=0.12)
    early, late = made.mean("fluctuations", "deviation_early"), made.mean("fluctuations", "deviation_late")
    assert early == pytest.approx(late, rel=0.4)


@pytest.mark.parametrize("closed_form", [True, False])
def test_a_dmn_is_the_model_of_its_fitted_layers_and_its_head(closed_form):
    images = as_images(pictures(), "dmn", KERNEL)
    run = begun("dmn", images, CPU, epochs=2, batch_size=16, learning_rate=1e-2, head_decay=1.0)
    made = train_dmn(run, [Thresholds(0.9)], 0, closed_form)
    assert ("ridge_test_accuracy" in made.metrics) == closed_form
    layers = body(images.shape, [1])
    gn.fit_class_pca(layers[1], images.x_train.reshape(-1, *images.shape), images.y_train, variance=0.9)
    model = gn.Sequential([*layers, gn.Flatten(), gn.Dense(3)])
    trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="numpy")
    trainer.prepare((64,))
    head = gn.Sequential([gn.Dense(3)])
    body_alone = gn.Sequential([*map(copy.copy, layers), gn.Flatten()])
    features = gn.Trainer(body_alone, "squared_error", device="numpy").outputs(images.x_train)
    alone = gn.Trainer(head, optimizer=gn.Adam(1e-2), device="numpy")
    alone.fit(features, images.y_train, epochs=2, batch_size=16)
    assert made.metrics["train_accuracy"] == pytest.approx(alone.evaluate(features, images.y_train)["accuracy"])


def test_images_of_any_shape():
    assert as_images(pictures(shape=(8, 9)), "dmn", KERNEL).shape == (1, 8, 9)
    assert as_images(pictures(shape=(3, 8, 9)), "dmn", KERNEL).shape == (3, 8, 9)
    data = pictures(shape=(3, 8, 9))
    turned = data.x_train.reshape(-1, 3, 8, 9).transpose(0, 2, 3, 1).reshape(len(data.x_train), -1)
    last = dataclasses.replace(
        data,
        x_train=turned,
        x_test=data.x_test.reshape(-1, 3, 8, 9).transpose(0, 2, 3, 1).reshape(30, -1),
        shape=(8, 9, 3),
    )
    np.testing.assert_array_equal(as_images(last, "dmn", KERNEL).x_train, data.x_train)
    for shape in ((64,), (2, 32), (1, 2, 32), (2, 2, 4, 4)):
        with pytest.raises(DataError, match="dmn needs images of at least 3×3"):
            as_images(dataclasses.replace(pictures(), shape=shape), "dmn", KERNEL)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_body_fits_images_of_any_size(shape, depth):
    model = gn.Sequential([*body(shape, [4] * depth), gn.Flatten(), gn.Dense(2)])
    model.build(shape, CPU)
    model.bind(2)
    assert model.forward(np.zeros((2, *shape), "float32")).shape == (2, 2)


def test_time_to_an_accuracy():
    made = Result("dmn", "own", "cpu", {}, [0, 1])
    made.curves = {
        "dmn 4": {"seconds": [[0.5, 0.5, 0.5]] * 2, "test_accuracy": [[0.2, 0.6, 0.5], [0.4, 0.7, 0.9]]},
        "convnet 4": {"seconds": [[2.0, 4.0, 4.0]] * 2, "test_accuracy": [[0.2, 0.5, 0.6], [0.3, 0.5, 0.8]]},
    }
    made.timings = {"dmn 4": {"fit": [0.75, 0.75], "extract": [0.25, 0.5]}}
    assert elapsed(made, "dmn 4") == [[1.5, 2.0, 2.5], [1.75, 2.25, 2.75]]
    assert elapsed(made, "convnet 4")[0] == [2.0, 6.0, 10.0]
    assert reaching(made, "dmn 4") == "2.375"  # the first seed's 0.5 after two epochs, the second's 0.9 after three
    assert reaching(made, "convnet 4") == "6.000 (1 of 2 seeds)"
    made.curves["convnet 4"]["test_accuracy"] = [[0.1] * 3] * 2
    assert reaching(made, "convnet 4") == "never"
    assert reaching(made, "linear") == "–"


# -- rivals ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_all_rivals():
    return result(pictures(shape=(3, 12, 12)), seeds=(0, 1), rivals=3)


@pytest.mark.slow
def test_every_rival_has_a_row(with_all_rivals):
    made, width = with_all_rivals, with_all_rivals.notes["rivals"]
    convnets = [f"rival convnet {width} {name} {pixels}" for pixels in PIXELS for name in OPTIMIZERS]
    dmns = [
        dmn_row(width, maps, name, pixels) for maps, every in MAPS.items() for pixels in every for name in OPTIMIZERS
    ]
    assert [name for name in made.names if name.startswith("rival")] == convnets + dmns
    assert made.names[4] == f"convnet {width}"
    for row in convnets + dmns:
        for metric, epoch in zip(AFTER, (2, 3), strict=True):
            assert made.values(row, metric) == [run[epoch - 1] for run in made.curves[row]["test_accuracy"]]
    # Adam at its usual rate on scaled pixels is the net that all runs have, as long as both train.
    ours, rival = (made.curves[row]["train_loss"] for row in (f"convnet {width}", f"rival convnet {width} Adam scaled"))
    assert [run[:3] for run in ours] == rival


def test_rivals_have_the_filters_of_the_last_net(with_all_rivals):
    made = with_all_rivals
    width = made.notes["rivals"]
    for i in (1, 2):
        counts = made.values(f"dmn {width}", f"filters_{i}")
        for row in (name for name in made.names if name.startswith("rival")):
            found = made.values(row, f"filters_{i}")
            if "both signs" in row:
                assert found == [2 * (count // 2) for count in counts], row
            else:
                assert found == counts if "standardised" not in row else all(map(le, found, counts)), row


def test_raw_pixels_are_those_of_the_file():
    images = as_images(pictures(), "dmn", KERNEL)
    floats = dataclasses.replace(images, x_train=images.x_train.astype("f4"), x_test=images.x_test.astype("f4"))
    losses = {}
    for pixels, data in (("raw", images), ("scaled", images), ("scaled", floats)):
        found = _convnet(begun("dmn", data, CPU, epochs=1, rivals=2), {0: [4]}, "SGD", pixels, 0)
        losses[pixels, data.x_train.dtype.kind] = found.curves["train_loss"][0]
    assert losses["raw", "u"] == losses["scaled", "f"] > 10 * losses["scaled", "u"]


def test_a_rival_that_diverges_has_no_numbers_from_there_on():
    images = as_images(pictures(), "dmn", KERNEL)
    run = begun("dmn", images, CPU, epochs=1)
    known = {"total": 3, "scale": 1e20, "optimizer": gn.SGD(1e20)}
    found = train_convnet(run, [3], 0, **known, diverges=True)
    assert [len(curve) for curve in found.curves.values()] == [3, 3, 3]
    assert math.isnan(found.metrics["test_accuracy_long"])
    with pytest.raises(DivergedError):
        train_convnet(run, [3], 0, **known)


def weights(layers):
    return [layer.start["weight"] for layer in layers if isinstance(layer, gn.Conv2D)]


def test_both_signs_of_half_the_vectors():
    images = as_images(pictures(shape=(3, 12, 12)), "dmn", KERNEL)
    thresholds = [Thresholds(0.99, most=5), Thresholds(0.99, most=8)]
    one, both = (weights(fitted(maps, images, thresholds, CPU, 0)[1]) for maps in ("relu", "both signs"))
    assert [len(weight) for weight in one] == [5, 8]
    assert [len(weight) for weight in both] == [4, 8]
    for weight in both:
        half = len(weight) // 2
        np.testing.assert_array_equal(weight[:half], -weight[half:])
    kept = {vector.tobytes() for vector in one[0]}
    assert all(vector.tobytes() in kept for vector in both[0][:2])  # the first layer sees the same pixels
    assert both[1].shape[1] == 4  # and the second both signs' maps
    dense = gn.Dense(1, "relu")
    fit_stack([dense], images.x_train, images.y_train, [Thresholds(0.9, most=3)], CPU, both_signs=True)
    assert dense.units == 6
    np.testing.assert_array_equal(dense.start["weight"][:3], -dense.start["weight"][3:])


def test_the_largest_element_of_each_vector_is_positive(two_seeds):
    assert two_seeds.notes["signs"] == "of each vector the largest element is positive"
    images = as_images(pictures(shape=(3, 12, 12)), "dmn", KERNEL)
    for weight in weights(fitted("relu", images, [Thresholds(0.99), Thresholds(0.99)], CPU, 0)[1]):
        flat = weight.reshape(len(weight), -1)
        assert np.all(flat.max(axis=1) >= (1 - 1e-3) * np.abs(flat).max(axis=1))


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 11, 13), (1, 3, 3)])
def test_standardised_maps_are_those_of_a_plain_loop(shape, monkeypatch):
    monkeypatch.setattr("gpunet.experiments.dmn.rivals.BLOCK", 7)
    images = as_images(pictures(shape=shape), "dmn", KERNEL)
    images.x_train[0] = 7  # an image whose maps are constant
    _, (_, layer) = fitted("standardised", images, [Thresholds(0.99, most=4)], CPU, 0)
    found = standardised([gn.Reshape(shape), layer], images.x_train, CPU)
    x, (weight,) = images.x_train[:20].reshape(-1, *shape) / 255, weights([layer])
    rows, columns = (side - 2 for side in shape[1:])
    for image, got in zip(x, found, strict=False):
        expected = []
        for w in weight:
            z = np.array([[(w * image[:, i : i + 3, j : j + 3]).sum() for j in range(columns)] for i in range(rows)])
            z = (z - z.mean()) / z.std() if z.std() > 1e-9 else 0 * z
            if min(rows, columns) > 1:
                z = z[: rows // 2 * 2, : columns // 2 * 2]
                z = np.maximum.reduce([z[i::2, j::2] for i in (0, 1) for j in (0, 1)])
            expected.append(z.ravel())
        np.testing.assert_allclose(got, np.concatenate(expected), atol=2e-4)


# -- claims ----------------------------------------------------------------------------------------------------------


def verdicts(made, dataset):
    made.dataset = dataset
    return {claim.id: claim for claim in judge(x, made)}


def report(gains, seeds=3):
    """A result whose DMNs are better than their ConvNets by `gains`, by filter counts: one number, or one a seed."""
    made = Result("dmn", "cifar10", "cpu", {"epochs": 2}, list(range(seeds)))
    for name, gain in gains.items():
        own = gain if isinstance(gain, list) else [gain] * seeds
        made.rows.append(Row(f"dmn {name}", {"test_accuracy": Metric([0.5 + each for each in own])}))
        convnet = {"test_accuracy": Metric([0.5] * seeds), "test_accuracy_long": Metric([0.52] * seeds)}
        made.rows.append(Row(f"convnet {name}", convnet))
        made.timings[f"dmn {name}"] = {"fit": [1.0] * seeds}
        made.curves[f"convnet {name}"] = {"seconds": [[2.0, 2.0, 50.0]] * seeds}
    return made


def test_verdicts_on_accuracy():
    found = verdicts(report({"8": 0.01, "8+30": 0.06}), "cifar10")
    assert found["1-layer-cifar10"].verdict == "reproduced"
    assert "8: +1.00 points, -1.00 points when the ConvNet trains longer" in found["1-layer-cifar10"].measured
    assert set(found) == {"1-layer-cifar10", "cifar10-2-layers", "lower-first-cifar10", "cheaper-cifar10"}
    assert verdicts(report({"8": -0.001}), "cifar10")["1-layer-cifar10"].verdict == "not reproduced"
    assert verdicts(report({"8+3": 0.02}), "cifar100")["cifar100-2-layers"].verdict == "not reproduced"
    assert verdicts(report({"8+3": -0.02}), "cifar100")["cifar100-2-layers"].verdict == "not reproduced"
    assert verdicts(report({"8+3": -0.009}), "cifar100")["cifar100-2-layers"].verdict == "reproduced"
    found = verdicts(report({}), "cifar10")["1-layer-cifar10"]
    assert (found.verdict, found.note) == ("not tested", "this run trained no net of 1 layers in both ways")


def with_rivals(gains=None, net="8+30", seeds=3, **by_word):
    """A result whose DMNs are no better than their rivals, but for `gains` by (row of a DMN, metric), all seeds."""
    made = report({net: 0.0}, seeds)
    made.settings |= {"rivals": 50, "epochs": 5}
    made.notes["rivals"] = net
    for pair in PAIRS:
        for row in pair.rows(made):
            gained = gains(pair) if gains and row.startswith("rival dmn") else (0.0, 0.0)
            made.row(row).metrics |= {
                metric: Metric(
                    [0.5 + gain + 1e-4 * (seed if row.startswith("rival dmn") else 0) for seed in range(seeds)]
                )
                for metric, gain in zip(AFTER, gained, strict=True)
            }
    return made


def two_layers(made):
    return verdicts(made, "cifar10")["cifar10-2-layers"]


def test_two_layers_are_judged_by_plain_sgd_on_both_sides_after_all_epochs():
    def sgd(early, late):
        return lambda pair: (early, late) if pair == ("relu", "scaled", "SGD", "SGD") else (0.02, 0.02)

    found = two_layers(with_rivals(sgd(0.0, 0.06)))
    assert found.verdict == "reproduced"
    assert "SGD / SGD +0.01 points and +6.01 points; RMSprop / RMSprop +2.01 points and" in found.measured
    assert found.note.startswith("SGD / SGD after 50 counts")
    assert found.note.endswith("5 points or more, after 5: none; after 50: SGD / SGD (relu, scaled)")
    found = two_layers(with_rivals(sgd(0.07, 0.04)))
    assert found.verdict == "not reproduced"
    assert found.note.endswith("after 5: SGD / SGD (relu, scaled); after 50: none")
    assert two_layers(with_rivals(sgd(0.0, 0.06), seeds=1)).verdict == "inconclusive"


def test_other_pairs_are_named_and_do_not_decide():
    found = two_layers(with_rivals(lambda pair: (0.0, 0.06 if pair.maps == "standardised" else 0.0)))
    assert found.verdict == "not reproduced"
    assert found.note.count("(standardised, scaled)") == 4
    assert "(relu" not in found.note


def test_two_layers_without_their_rivals_are_not_tested():
    found = two_layers(report({"8": 0.01, "8+30": 0.06}))
    assert (found.verdict, found.note) == ("not tested", "this run trained no rivals: give --rivals 50")
    found = two_layers(with_rivals(net="8"))
    assert (found.verdict, found.note) == ("not tested", "this run's rivals have 8 filters: expected 2 layers")
    made = with_rivals()
    made.row("rival convnet 8+30 SGD raw").metrics["test_accuracy_long"] = Metric([0.5, math.nan, 0.5])
    assert two_layers(made).verdict == "not reproduced"
    assert next(row for row in rivals(made).rows if row[0] == "SGD / SGD (relu, raw)")[-1] == "–"
    made.row("rival convnet 8+30 SGD scaled").metrics["test_accuracy_long"] = Metric([0.5, math.nan, 0.5])
    assert two_layers(made).verdict == "not tested"


def test_differences_within_noise_are_none():
    """Nets are averaged, seeds are what is drawn."""
    assert verdicts(report({"8": [0.02, -0.01, 0.01]}), "cifar10")["1-layer-cifar10"].verdict == "inconclusive"
    paired = report({"8": [0.03, -0.01, 0.01], "9": [-0.01, 0.03, 0.02]})
    assert verdicts(paired, "cifar10")["1-layer-cifar10"].verdict == "reproduced"
    assert verdicts(report({"8": 0.02}, seeds=1), "cifar10")["1-layer-cifar10"].verdict == "inconclusive"
    assert verdicts(report({"8+9": [0.02, -0.02, 0.0]}), "cifar100")["cifar100-2-layers"].verdict == "inconclusive"


def test_almost_all_cases_are_a_share_of_nets_and_seeds():
    def within(*gains):
        made = report(dict(zip(("4", "8", "4+3", "8+3"), gains, strict=False)))
        return verdicts(made, "mnist")["mnist-within-1-percent"]

    assert within(-0.009, 0.03, -0.005, 0.0).verdict == "reproduced"  # all twelve
    assert "holds for 12 of 12 nets and seeds" in within(-0.009, 0.03, -0.005, 0.0).note
    assert within(-0.009, 0.03).verdict == "inconclusive"  # all of six are too few
    assert within(-0.009, 0.03, -0.005, [0.0, 0.0, -0.02]).verdict == "inconclusive"
    assert within(-0.02, 0.03, -0.02, -0.02).verdict == "not reproduced"


def test_verdicts_on_cost():
    found = verdicts(report({"8": 0.0}), "cifar10")["cheaper-cifar10"]
    assert found.verdict == "reproduced"  # one second against two epochs of two
    assert "8: 0.25×" in found.measured
    made = report({"8": 0.0, "9": 0.0})
    made.timings["dmn 8"] = {"fit": [1.4] * 3}
    assert verdicts(made, "cifar10")["cheaper-cifar10"].verdict == "not reproduced"
    del made.timings["dmn 9"]
    found = verdicts(made, "cifar10")["cheaper-cifar10"]
    assert (found.verdict, found.note) == ("not tested", "this run did not time fit of dmn 9")


def swept(seeds=3):
    """A run of sweeps and dynamics that finds what the document does, but for T_v."""
    made = report({}, seeds)
    for seed in range(seeds):
        noise = 1e-4 * seed
        for value, accuracy in ((0.5, 0.9), (0.8, 0.95), (1.0, 0.94)):
            made.row(f"T_PC={value:g}").add(test_accuracy=accuracy + noise)
        for value, accuracy in ((0.8, 0.95), (0.98, 0.94), (1.0, 0.93)):
            made.row(f"T_v={value:g}").add(test_accuracy=accuracy + noise)
        for value, accuracy in ((0.1, 0.9), (0.3, 0.949), (0.4, 0.951), (1.0, 0.95)):
            made.row(f"T_frac={value:g}").add(test_accuracy=accuracy + noise)
        made.row("convergence").add(early_rate_1=0.3, early_rate_2=0.1, early_rate_3=-0.1, early_rate_4=-0.3 + noise)
        made.row("fluctuations").add(slope=-0.95 + noise)
    return made


def test_verdicts_on_sweeps_and_dynamics():
    expected = {"t-pc-peak": "reproduced", "t-pc-one-hurts": "reproduced", "t-v-peak": "not reproduced",
                "t-frac": "reproduced", "lower-first-mnist": "reproduced", "fluctuations": "reproduced"}  # fmt: skip
    found = verdicts(swept(), "mnist")
    assert {name: found[name].verdict for name in expected} == expected
    assert found["t-pc-peak"].measured.startswith("test accuracy is best at 0.8 (0.5: 90.01%")
    alone = verdicts(swept(1), "mnist")
    assert {alone[name].verdict for name in expected} == {"inconclusive"}
    other = verdicts(swept(), "own")
    assert {other[name].verdict for name in ("t-pc-peak", "fluctuations", "lower-first")} == {"reproduced"}
    assert all(claim.here for claim in other.values() if claim.verdict != "not tested")


@pytest.mark.parametrize(
    ("id_", "row", "metric", "value"),
    [
        ("t-pc-peak", "T_PC=1", "test_accuracy", 0.96),
        ("t-v-peak", "T_v=0.8", "test_accuracy", 0.95),
        ("t-pc-one-hurts", "T_PC=1", "test_accuracy", 0.949),
        ("t-frac", "T_frac=0.4", "test_accuracy", 0.94),
        ("t-frac", "T_frac=1", "test_accuracy", 0.96),
        ("lower-first-mnist", "convergence", "early_rate_1", -0.3),
        ("lower-first-mnist", "convergence", "early_rate_4", 0.35),
        ("fluctuations", "fluctuations", "slope", -0.5),
        ("fluctuations", "fluctuations", "slope", -1.5),
    ],
)
def test_each_shape_can_fail(id_, row, metric, value):
    made = swept()
    made.row(row).metrics[metric] = Metric([value + 1e-4 * seed for seed in range(3)])
    assert verdicts(made, "mnist")[id_].verdict == "not reproduced"


def test_what_was_not_swept_is_not_tested():
    found = verdicts(report({}), "mnist")
    assert {claim.verdict for claim in found.values()} == {"not tested"}
    assert found["t-pc-peak"].note == found["t-pc-one-hurts"].note == "this run swept no T_PC"
    assert found["t-frac"].note == "this run did not measure test accuracy of T_frac=0.3"


def test_a_number_of_points_is_the_documents_own():
    found = verdicts(report({"8": 0.01, "8+30": 0.06}), "own")
    assert found["1-layer"].verdict == "reproduced"
    assert found["1-layer"].here
    assert found["cifar10-2-layers"].verdict == "not tested"
    assert found["cifar10-2-layers"].note == "not applicable: the document speaks of cifar10"


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rivals": -1}, "rivals is a whole number ≥ 0, got -1"),
        ({"rivals": 5, "epochs": 5}, "rivals is 5: expected 0, or more epochs than all nets' 5"),
        ({"widths": ((1.2,),)}, "widths cannot be 1.2: expected a finite number > 0 and ≤ 1"),
        ({"widths": ((0.9, 0.0),)}, "widths cannot be 0"),
        ({"widths": ((),)}, "names 0 layers: expected T_v of one to three"),
        ({"widths": ()}, "widths is empty: expected at least one"),
        ({"correlation": 1.5}, "correlation cannot be 1.5"),
        ({"correlation": 0.0}, "correlation cannot be 0"),
        ({"fraction": 0.0}, "fraction cannot be 0"),
        ({"fraction": 2.0}, "fraction cannot be 2"),
        ({"epochs": 0}, "epochs is a whole number ≥ 1, got 0"),
        ({"long": 0}, "long is a whole number"),
        ({"learning_rate": -1.0}, "learning_rate cannot be -1"),
        ({"head_decay": 1.5}, "head_decay cannot be 1.5"),
        ({"center": 1}, "center is 1: expected True or False"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_images_that_are_all_alike():
    own = Dataset("own", np.full((60, 64), 7, np.uint8), np.arange(60) % 2, np.full((9, 64), 7, np.uint8),
                  np.arange(9) % 2, (8, 8), 2, "here")  # fmt: skip
    settings = Settings(epochs=1, widths=((0.9,),), sweeps=False, dynamics=False)
    with pytest.raises(InputError, match=r"^own: the maps of all images are alike: .*Scale them$"):
        Run(x, own, settings, [0]).compute("cpu")


# -- the real data ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist_is_within_a_point_of_the_convnet(real_data):
    images = as_images(gn.datasets.load("mnist", data_dir=real_data), "dmn", KERNEL)
    run = begun("dmn", images, get_backend("cpu"), epochs=3, long=1, head_decay=1.0)
    dmn = train_dmn(run, [Thresholds(0.98, 0.9, 0.4)], 0)
    convnet = train_convnet(run, filters(dmn), 0)
    assert dmn.curves["test_accuracy"][-1] > 0.96
    assert dmn.curves["test_accuracy"][-1] >= convnet.curves["test_accuracy"][-1] - 0.015
    assert dmn.metrics["ridge_test_accuracy"] > 0.95
