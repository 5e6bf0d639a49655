"""What is searched: experiments' settings and training runs, judged by samples held out from the training data."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.datasets import load
from gpunet.errors import DataError, InputError
from gpunet.experiments import experiments
from gpunet.sweep import UnusableError, parse_parameter, search, targets
from gpunet.sweep.targets import fingerprint, split

from ..experiments.made import arrays, compute, write_npz


def space(*texts):
    return [parse_parameter(text) for text in texts]


@pytest.fixture
def own(tmp_path):
    """An .npz whose test labels are all wrong: whoever looks at them is seen."""
    y_test = (arrays()["y_test"] + 1) % 3
    return str(write_npz(tmp_path / "own.npz", y_test=y_test))


# -- what is held out -------------------------------------------------------------------------------------------------


def test_the_test_set_is_not_looked_at(own):
    data, words = split(own, 0.25, 0)
    whole = load(own)
    assert words == "15 of the 60 training samples of own, held out before training; the test set is not used"
    assert (len(data.x_train), len(data.x_test)) == (45, 15)
    both = np.concatenate([data.x_train, data.x_test])
    assert {row.tobytes() for row in both} == {row.tobytes() for row in whole.x_train}
    labels = {row.tobytes(): label for row, label in zip(whole.x_train, whole.y_train, strict=True)}
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert [labels[row.tobytes()] for row in x] == list(y)
    assert np.bincount(data.y_test).tolist() == [5, 5, 5]


def test_the_seed_says_which_are_held_out(own):
    one, same, other = (split.__wrapped__(own, 0.25, seed)[0] for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)


def test_a_class_keeps_a_sample(tmp_path):
    y = np.array([0] * 40 + [1] * 19 + [2])
    data, _ = split(str(write_npz(tmp_path / "rare.npz", y_train=y)), 0.9, 0)
    assert np.bincount(data.y_train).tolist() == [4, 2, 1]
    assert np.bincount(data.y_test).tolist() == [36, 17]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_out_of_range(own, share):
    with pytest.raises(InputError, match="validation cannot be"):
        split(own, share, 0)


def test_too_few_to_hold_any_out(own):
    with pytest.raises(DataError, match=r"of 60 training samples none can be held out .* at a share of 0\.001"):
        split(own, 0.001, 0)


@pytest.mark.parametrize("name", ["xor", "linear", "xor-easy"])
def test_made_sets_have_no_test_set_of_their_own(name):
    data, words = split(name, 0.2, 0)
    assert fingerprint(data) == fingerprint(load(name))
    assert "which has no test set of its own" in words


def test_somebodys_own_mnist_is_not_the_documents(tmp_path):
    assert split(str(write_npz(tmp_path / "mnist.npz")), 0.2, 0)[0].name == "own-mnist"


# -- experiments ------------------------------------------------------------------------------------------------------


def settings_for(name, *texts, dataset, metric=None, **kwargs):
    return targets.experiment_settings(
        name, space(*texts), dataset=dataset, validation=0.25, seed=0, device="numpy", seeds=1, metric=metric, **kwargs
    )


def svd_init(own, *texts, metric=None, **kwargs):
    settings = settings_for("svd-init", *texts, dataset=own, metric=metric)
    return search(targets.EXPERIMENT, settings, space(*texts), trials=2, stages=1, **kwargs)


@pytest.mark.slow
def test_an_experiments_settings(own):
    table = svd_init(own, "learning_rate=log:1e-2..1", "epochs=2", "hidden=6", keep_going=False)
    rows = [name for name in table[0]["metrics"] if name.endswith(" validation_accuracy")]
    assert len(rows) == len(table[0]["metrics"]) == 19
    for row in table:
        assert row["state"] == "complete"
        assert row["value"] == pytest.approx(np.mean(list(row["metrics"].values())))
    # The same by hand: the experiment on what is left, its "test set" what was held out.
    first = table[0]
    data, seed = split(own, 0.25, 0)[0], table.spec.trial_seed(0)
    result = compute("svd-init", data, [seed], **first["parameters"])
    assert first["metrics"]["orth-each validation_accuracy"] == result.mean("orth-each", "test_accuracy")


def test_a_row_and_a_metric(own):
    table = svd_init(own, "learning_rate=0.1,0.2", "epochs=1", "hidden=3", metric="orth-each:train_loss")
    assert list(table[0]["metrics"]) == ["orth-each train_loss"]
    assert table[0]["value"] == table[0]["metrics"]["orth-each train_loss"]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("nix:test_accuracy", "svd-init has no row 'nix': it has random, "),
        ("nix", "no metric 'nix': it has .*test_loss"),
    ],
)
def test_a_row_or_metric_that_is_not_there(own, metric, words):
    with pytest.raises(UnusableError, match=words):
        svd_init(own, "learning_rate=0.1,0.2", "epochs=1", "hidden=3", metric=metric)


@pytest.mark.parametrize(
    ("metric", "way"),
    [
        (None, "maximize"), ("test_accuracy", "maximize"), ("orth-each:train_loss", "minimize"), ("steps", "minimize"),
        ("loss row:relative_speed", "maximize"), ("seconds_per_epoch", "minimize"), ("gradient_error", "minimize"),
    ],
)  # fmt: skip
def test_which_way_is_better(metric, way):
    assert targets.direction(metric) == way


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "lr=0..1",
            "svd-init has no setting 'lr' to search: it has hidden, variance, epochs, learning_rate",
        ),
        ("dependencies=0..1", "no setting 'dependencies'"),
        ("epochs=1..5", "epochs of svd-init is a whole number, got epochs=1..5: write epochs=int:"),
        ("epochs=1.5,2", "epochs of svd-init is a whole number"),
        ("learning_rate=fast,slow", "learning_rate of svd-init is a number"),
        ("batch_size=int:0..10", "batch_size is a whole number ≥ 1, got 0"),
    ],
)
def test_settings_that_the_experiment_does_not_have(own, text, words):
    with pytest.raises(InputError, match=words):
        settings_for("svd-init", text, dataset=own)


def test_kinds_of_settings(own):
    assert targets.searchable("svd-dnn") == {
        "task": str, "phi": float, "epochs": int, "batch_size": int, "learning_rate": float, "precision": str,
        "sweep_alpha": bool, "sweep_phi": bool, "speed": bool,
    }  # fmt: skip
    settings_for("dmn", "center=true,false", dataset="digits")
    with pytest.raises(InputError, match="center of dmn is true or false, got center=0,1"):
        settings_for("dmn", "center=0,1", dataset="digits")
    with pytest.raises(InputError, match=r"own has samples of shape \(7,\): dmn needs images"):
        settings_for("dmn", "center=true,false", dataset=own)
    assert settings_for("svd-dnn", "phi=0..1", dataset="xor")["fixed"] == {"speed": False, "task": "xor"}
    assert settings_for("svd-dnn", "phi=0..1", dataset=own)["fixed"] == {"speed": False, "task": "mnist"}


@pytest.mark.parametrize("name", sorted(experiments()))
def test_every_experiment_has_something_to_search(name):
    """What its help shows, for one."""
    (shown,) = space(experiments()[name].searched.split()[0])
    assert shown.name in targets.searchable(name)


def test_an_experiment_of_several_data_sets():
    settings = settings_for("toy", "threshold=0.1..0.4", dataset="xor-easy", metric="xor-easy:steps")
    table = search(
        targets.EXPERIMENT, settings, space("threshold=0.1..0.4", "limit=60"), trials=2, stages=1, keep_going=False
    )
    assert all(0 < row["value"] <= 60 for row in table)


# -- training ---------------------------------------------------------------------------------------------------------

OWN = {
    "hidden": 8, "layers": 1, "epochs": 3, "batch_size": 10, "optimizer": "adam", "learning_rate": 0.01,
    "momentum": 0.9, "l2": 0.0,
}  # fmt: skip


def trained(own, *texts, metric="validation_accuracy", **changes):
    kept = targets.training_settings(
        space(*texts), dataset=own, validation=0.25, seed=0, device="numpy", metric=metric, **OWN | changes
    )
    return search(targets.TRAINING, kept, space(*texts), trials=4, stages=1, keep_going=False)


def test_a_training_run(own):
    table = trained(own, "learning_rate=log:1e-3..1e-1", "hidden=int:4..16", "l2=log:1e-6..1e-1")
    for row in table:
        assert list(row["metrics"]) == [
            "validation_loss", "validation_accuracy", "train_loss", "train_accuracy",
        ]  # fmt: skip
        assert row["value"] == row["metrics"]["validation_accuracy"]
        assert list(table.curves[row["number"]]) == [0, 1, 2, 3]
    assert table.best["value"] > 0.8, "on the test set, whose labels are wrong, it would be below 0.2"


@pytest.mark.parametrize(
    ("optimizer", "own_way"),
    [("sgd", lambda gn: gn.SGD(0.05, 0.5, l2=0.01)), ("adamw", lambda gn: gn.AdamW(0.05, weight_decay=0.01))],
)
def test_a_training_run_is_repeatable_by_hand(own, optimizer, own_way):
    import gpunet as gn

    texts = "learning_rate=0.05", f"optimizer={optimizer}", *(["momentum=0.5"] if optimizer == "sgd" else [])
    table = trained(own, *texts, metric="validation_loss", l2=0.01)
    row, spec = table[2], table.spec
    data = split(own, 0.25, 0)[0]
    model = gn.Sequential([gn.Dense(8, "relu"), gn.Dense(3)])
    trainer = gn.Trainer(model, optimizer=own_way(gn), device="numpy", seed=spec.trial_seed(2))
    trainer.fit(data.x_train, data.y_train, epochs=3, batch_size=10)
    assert row["value"] == trainer.evaluate(data.x_test, data.y_test)["loss"]


def test_a_training_run_takes_its_precision(own, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "slow_bfloat16", "")
    monkeypatch.setattr(NumpyBackend, "least_bfloat16", 0)
    asked = {"metric": "train_loss", "learning_rate": 0.1}
    plain, mixed = trained(own, "hidden=8", **asked), trained(own, "hidden=8", precision="mixed", **asked)
    assert [row["value"] for row in plain] != [row["value"] for row in mixed]
    found = {row["parameters"]["precision"]: row["value"] for row in trained(own, "precision=float32,mixed", **asked)}
    assert sorted(found) == ["float32", "mixed"]
    data, _ = targets.split(own, 0.25, 0)
    for table, precision in ((plain, "float32"), (mixed, "mixed")):
        layers = [gn.Dense(8, "relu"), gn.Dense(data.classes)]
        model, seed = gn.Sequential(layers, scale=data.scale), table.spec.trial_seed(0)
        trainer = gn.Trainer(model, optimizer=gn.Adam(0.1), device="numpy", seed=seed, precision=precision)
        trainer.fit(data.x_train, data.y_train, epochs=3, batch_size=10)
        assert table[0]["value"] == trainer.evaluate(data.x_train, data.y_train)["loss"]


def test_a_sweep_in_float32_is_that_of_a_gpunet_that_knew_no_other(own):
    """So it goes on with what such a one has begun."""
    wanted = targets.training_settings(
        space("l2=0..1"), dataset=own, validation=0.25, seed=0, device="numpy", metric="train_loss", **OWN
    )
    assert wanted == targets.training_settings(
        space("l2=0..1"), dataset=own, validation=0.25, seed=0, device="numpy", metric="train_loss", **OWN,
        precision="float32",
    )  # fmt: skip
    assert targets.training_trial({"l2": 0.0}, wanted | {"trial_seed": 1}, lambda step, cost: False)["value"] > 0


def test_training_that_diverges_is_pruned_and_stops(own):
    table = trained(own, "learning_rate=1,1e30", "optimizer=sgd", epochs=50)
    wild = [row for row in table if row["parameters"]["learning_rate"] == 1e30]
    assert [row["state"] for row in wild] == ["pruned", "pruned"]
    assert all(len(table.curves[row["number"]]) < 10 for row in wild)


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        (
            "lr=0..1",
            {},
            "a training run has no setting 'lr' to search: it has learning_rate, l2, momentum, hidden",
        ),
        ("hidden=4..8", {}, "hidden of a training run is a whole number"),
        ("hidden=int:0..8", {}, "hidden cannot be 0: expected a finite number ≥ 1"),
        ("learning_rate=0..1", {}, "learning_rate cannot be 0.0: expected a finite number > 0"),
        ("momentum=0..0.9", {}, "momentum is SGD's: add --optimizer sgd"),
        ("momentum=0..1", {"optimizer": "sgd"}, "momentum cannot be 1.0"),
        ("optimizer=adam,lion", {}, "unknown optimizer 'lion': expected adam, adamw, sgd"),
        ("precision=float32,half", {}, "precision is 'half': expected one of float32, mixed, tf32"),
        ("l2=0..1", {"precision": "half"}, "precision is 'half'"),
        ("l2=0..1", {"metric": "accuracy"}, "unknown metric 'accuracy': expected one of validation_accuracy"),
        ("l2=0..1", {"learning_rate": -1.0}, "learning_rate cannot be -1.0"),
    ],
)
def test_mistakes_of_a_training_run(own, text, changes, words):
    with pytest.raises(InputError, match=words):
        trained(own, text, **changes)


# -- other machines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [targets.EXPERIMENT, targets.TRAINING])
def test_a_machine_with_other_data_fails_no_trial(own, function):
    kept = settings_for("svd-init", "epochs=1", dataset=own)
    targets.before_sweep(kept)
    with pytest.raises(DataError, match=r"own.npz: the data here is not what this sweep began with \(digest"):
        targets.before_sweep(kept | {"data": "0" * 16})
    with pytest.raises(DataError, match="no such file"):
        targets.before_sweep(kept | {"dataset": own + "x.npz"})
    with pytest.raises(DataError, match="not what this sweep began with"):
        search(function, kept | {"data": "0" * 16}, space("epochs=1"), trials=2)
    json.dumps(kept)
