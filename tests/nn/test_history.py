"""The history of a fit, as a dictionary."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import InputError

EPOCHS = [{"train_loss": 1.0, "seconds": 2.0}, {"train_loss": 0.5, "seconds": 1.0, "looked": 3.0}]


@pytest.fixture
def history():
    return gn.History([dict(epoch) for epoch in EPOCHS])


def test_it_is_a_dictionary_of_lists_of_one_length(history):
    assert list(history) == ["train_loss", "seconds", "looked"] == list(history.keys())
    assert len(history) == 3
    assert "looked" in history
    assert "validation_loss" not in history
    assert [] not in history
    assert history["train_loss"] == [1.0, 0.5] == history.get("train_loss")
    assert history.get("validation_loss") is None
    assert history.get("validation_loss", 0) == 0
    assert dict(history).keys() == {**history}.keys() == {name for name, _ in history.items()}
    assert {len(values) for values in history.values()} == {2}
    assert math.isnan(history["looked"][0])
    assert history["looked"][1] == 3.0


def test_what_writes_dictionaries_writes_it(history):
    assert json.loads(json.dumps(history)).keys() == history.keys()
    assert json.loads(json.dumps(gn.History([{"a": 1.0}]))) == {"a": [1.0]}


def test_epochs_are_rows_of_a_frame(history):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(history)
    assert list(frame.columns) == list(history)
    assert frame["train_loss"].tolist() == [1.0, 0.5]
    assert frame["looked"].isna().tolist() == [True, False]


def test_it_follows_its_epochs(history):
    history.epochs.append({"train_loss": 0.25, "seconds": 1.0})
    assert history["train_loss"] == [1.0, 0.5, 0.25]
    history.epochs[-1]["late"] = 1.0
    assert list(history)[-1] == "late"
    assert json.loads(json.dumps(history))["late"][-1] == 1.0
    for name in history:
        assert len(history[name]) == 3
    history.epochs.clear()
    assert dict(history) == {}
    assert len(history) == 0
    assert not history


def test_an_unknown_name_is_told_with_those_there_are(history):
    with pytest.raises(InputError, match="the history has no 'loss': it has train_loss, seconds, looked"):
        history["loss"]
    with pytest.raises(InputError, match="the history has no 3"):
        history[3]
    assert gn.History()["train_loss"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(a=[1.0]),
        lambda h: h.__setitem__("a", [1.0]),
        lambda h: h.__delitem__("seconds"),
        lambda h: h.pop("seconds"),
        lambda h: h.popitem(),
        lambda h: h.clear(),
        lambda h: h.setdefault("a", []),
        lambda h: h.__ior__({}),
    ],
)
def test_it_is_read_not_set(history, change):
    with pytest.raises(InputError, match="a history is read, not set"):
        change(history)
    assert history == gn.History(EPOCHS)


def test_many_epochs():
    """More than a list of settings may hold: it is a fit that ran for as long."""
    history = gn.History([{"loss": 1.0}] * 150_000)
    assert len(history.copy()["loss"]) == 150_000


@pytest.mark.parametrize("wrong", [3, "ab", [3], [None], {"a": 1.0}])
def test_what_is_no_list_of_epochs(wrong):
    with pytest.raises(InputError, match=r"epochs is .*: expected a list of entries"):
        gn.History(wrong)


def test_copies(history):
    for same in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history)), history.copy()):  # noqa: S301
        assert type(same) is gn.History
        assert same.epochs == history.epochs == EPOCHS
        assert same == history
    own = history.copy()
    own.epochs[0]["train_loss"] = 9.0
    assert history["train_loss"] == [1.0, 0.5]
    assert own != history
    assert gn.History([{"a": 1.0}]) == {"a": [1.0]}


def test_how_it_is_shown(history):
    assert repr(history) == "<History of 2 epochs, the last: train_loss 0.5, seconds 1, looked 3>"
    assert repr(gn.History()) == "<History of 0 epochs>"
    html = history._repr_html_()
    assert html.count("<tr>") == 3
    assert ">0.5<" in html
    many = gn.History([{"loss": 1000.0 + epoch} for epoch in range(500)])._repr_html_()
    assert many.count("<tr>") == 1 + 20 + 1
    assert all(f">{epoch}<" in many for epoch in (1, 5, "…", 486, 500))
    assert ">485<" not in many
    assert "<b>" not in gn.History([{"<b>": 1.0}])._repr_html_()


def test_a_callback_reads_the_epoch_that_ends():
    seen = []

    class Look(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            logs["extra"] = float(epoch)
            seen.append((trainer.history["extra"], dict(trainer.history)["train_loss"][-1] == logs["train_loss"]))

    trainer = gn.Trainer(gn.Sequential([gn.Dense(2)]), device="cpu")
    kept = trainer.fit(np.eye(4), [0, 1, 0, 1], epochs=2, callbacks=Look())
    assert seen == [([0.0], True), ([0.0, 1.0], True)]
    assert kept == trainer.history
    assert kept is not trainer.history
    assert set(kept) == {"train_loss", "train_accuracy", "seconds", "extra"}
