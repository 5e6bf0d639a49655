"""A sweep by one worker in memory: what is drawn, what a trial may do, what comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpunet.errors import InputError, RunError
from gpunet.progress import Progress
from gpunet.rng import stream
from gpunet.sweep import Parameter, UnusableError, parse_parameter, search
from gpunet.sweep.plan import TRIAL, Spec

from .functions import BOWL, SPACE
from .tables import undisturbed, without_seconds

SCRIPTED = "tests.sweep.functions:scripted"
PLAIN = "tests.sweep.functions:plain"


def scripted(*does, **options):
    """A sweep whose n-th trial, by its parameter n, does what is written."""
    script = {str(n): what for n, what in enumerate(does)}
    space = [parse_parameter("n=" + ",".join(script))]
    table = search(SCRIPTED, {"script": script}, space, trials=len(does), stages=1, **options)
    return {row["parameters"]["n"]: row for row in sorted(table, key=lambda row: row["parameters"]["n"])}, table


# -- what is drawn --------------------------------------------------------------------------------------------------


def test_rows():
    table = search(BOWL, {}, SPACE, trials=30, stages=2)
    assert [row["number"] for row in table] == list(range(60))
    assert [row["stage"] for row in table] == [1] * 30 + [2] * 30
    for row in table:
        assert list(row) == ["number", "stage", "state", "parameters", "value", "metrics", "seconds"]
        assert list(row["parameters"]) == ["x", "y", "n", "kind"]
        assert row["seconds"] >= 0
        x = row["parameters"]["x"]
        assert row["state"] == ("pruned" if x > 1.6 else "failed" if x < -0.9 else "complete")
        if row["state"] == "complete":
            expected = -((x - 0.3) ** 2) - 0.1 * (row["parameters"]["n"] - 5) ** 2
            assert row["value"] == expected + 0.5 * (row["parameters"]["kind"] == "b")
            assert row["metrics"]["word"] == row["parameters"]["kind"]
        else:
            assert row["value"] is None
    assert {row["state"] for row in table[:30]} == {"complete", "pruned", "failed"}
    json.dumps(table)
    assert table.best["value"] == max(row["value"] for row in table if row["state"] == "complete")
    assert table.best["stage"] == 2
    assert table.ended("complete") + table.ended("pruned") + table.ended("failed") == 60


def test_the_same_seed_is_the_same_sweep():
    assert undisturbed() == without_seconds(search(BOWL, {}, SPACE, trials=12, stages=2))
    other = undisturbed(seed=1)
    assert {row["parameters"]["x"] for row in other}.isdisjoint(row["parameters"]["x"] for row in undisturbed())


def test_parameters_are_drawn_up_front_and_do_not_depend_on_results():
    down = search(BOWL, {}, SPACE, trials=12, stages=1, direction="minimize")
    assert [row["parameters"] for row in down] == [row["parameters"] for row in undisturbed()][:12]


def test_each_part_of_a_range_is_tried_once_and_each_value_equally_often():
    """5 learning rates × 20 λ, document 004: 100 trials."""
    space = [parse_parameter("eta=0.02,0.0225,0.025,0.0275,0.03"), parse_parameter("x=log:1e-6..1e-1")]
    table = search(PLAIN, {}, space, trials=100, stages=1)
    rates = [row["parameters"]["eta"] for row in table]
    assert {rate: rates.count(rate) for rate in set(rates)} == dict.fromkeys((0.02, 0.0225, 0.025, 0.0275, 0.03), 20)
    hundredths = [int(100 * space[1].place(row["parameters"]["x"])) for row in table]
    assert sorted(hundredths) == list(range(100))
    assert hundredths != sorted(hundredths)


def test_a_further_parameter_leaves_the_others_as_they_are():
    more = search(BOWL, {}, [*SPACE, parse_parameter("z=0..1")], trials=12, stages=1)
    for row, before in zip(more, undisturbed(), strict=False):
        assert {name: row["parameters"][name] for name in ("x", "y", "n", "kind")} == before["parameters"]


def test_the_second_stage_is_drawn_in_the_box_of_the_best_fifth():
    table = search(BOWL, {}, SPACE, trials=40, stages=2)
    complete = [row for row in table[:40] if row["state"] == "complete"]
    count = round(0.2 * len(complete))
    best = sorted(complete, key=lambda row: -row["value"])[:count]
    box = {parameter.name: parameter for parameter in table.spaces[1]}
    assert table.spaces[0] == tuple(SPACE)
    xs = [row["parameters"]["x"] for row in best]
    assert (box["x"].low, box["x"].high) == pytest.approx((min(xs), max(xs)))
    assert set(box["kind"].values) == {row["parameters"]["kind"] for row in best}
    for row in table[40:]:
        assert box["x"].low <= row["parameters"]["x"] <= box["x"].high
        assert row["parameters"]["kind"] in box["kind"].values
        assert row["parameters"]["n"] in range(int(box["n"].low), int(box["n"].high) + 1)


def test_few_trials_refine_around_the_best_four():
    table = search(BOWL, {}, SPACE, trials=12, stages=3)
    best = sorted((row for row in table[:12] if row["value"] is not None), key=lambda row: -row["value"])[:4]
    xs = [row["parameters"]["x"] for row in best]
    assert (table.spaces[1][0].low, table.spaces[1][0].high) == pytest.approx((min(xs), max(xs)))
    assert table.spaces[1][0].low <= table.spaces[2][0].low < table.spaces[2][0].high <= table.spaces[1][0].high


def test_minimize():
    table = search(PLAIN, {}, [parse_parameter("x=0..1")], trials=10, stages=2, direction="minimize")
    assert table.best["value"] == min(row["value"] for row in table) < 0.05


def test_a_trials_own_seed_follows_from_seed_and_number():
    for row in undisturbed(seed=3):
        if row["state"] == "complete":
            assert row["metrics"]["seed"] == stream(3, TRIAL, row["number"]).integers(2**31)


# -- what a trial may do ----------------------------------------------------------------------------------------------


def test_what_a_function_may_return():
    import numpy as np

    rows, _ = scripted(1, 2.5, {"value": 3, "accuracy": 0.5, "note": "text", "list": [1, 2], "nan": None})
    assert [row["value"] for row in rows.values()] == [1.0, 2.5, 3.0]
    assert rows[2]["metrics"] == {"accuracy": 0.5, "note": "text", "list": [1, 2], "nan": None}
    from gpunet.sweep.workers import _checked

    value, metrics = _checked({"value": np.float32(0.5), "a": np.int64(3), "b": np.inf, "c": np.nan, "d": True})
    assert (type(value), value, metrics) == (float, 0.5, {"a": 3.0, "b": "inf", "c": "nan", "d": True})


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("nan", "the function returned the value nan: expected a finite number"),
        ("text", "the function returned the value 'good': expected a finite number"),
        ("nothing", "the function returned the value None: expected a finite number"),
        ("no value", "the function returned accuracy: expected a value, too"),
        ("odd metric", "expected a number, or what JSON can hold"),
        ("raises", "KeyError: 'hidden'"),
        (True, "the function returned the value True: expected a finite number"),
    ],
)
def test_a_trial_that_fails(does, error):
    rows, table = scripted(does, 2.0)
    assert [row["state"] for row in rows.values()] == ["failed", "complete"]
    assert (rows[0]["value"], table.best["value"]) == (None, 2.0)
    (told,) = table.errors.values()
    assert error in told
    with pytest.raises(RunError, match=r"trial \d \{\"n\": 0\} failed: "):
        scripted(does, 2.0, keep_going=False)


@pytest.mark.parametrize(
    ("curve", "state"),
    [
        ([2.0, 6.0, 5.9], "complete"),
        ([2.0, 6.01], "pruned"),
        ([2.0, 6.01, 1.0], "pruned"),
        (["nan"], "pruned"),
        ([1.0, "inf"], "pruned"),
        ([0.0, 5.0], "complete"),
        ([-1.0, -0.5], "complete"),
        (["-inf"], "pruned"),
        ([], "complete"),
    ],
)
def test_the_pruner_looks_at_the_trials_own_curve_alone(curve, state):
    rows, table = scripted(curve, [100.0, 101.0], 5)
    assert rows[0]["state"] == state
    assert rows[1]["state"] == "complete"
    assert rows[1]["metrics"]["stops"] == [False, False]
    number = rows[0]["number"]
    if curve:
        assert str(list(table.curves[number].values())) == str([float(cost) for cost in curve])
        assert rows[0]["metrics"]["stops"][-1] == (state == "pruned")
    else:
        assert number not in table.curves


def test_a_loss_that_diverges_is_pruned():
    rows, table = scripted("diverges", 1)
    assert [row["state"] for row in rows.values()] == ["pruned", "complete"]
    assert table.errors == {}


def test_an_unusable_function_and_ctrl_c_end_the_sweep():
    with pytest.raises(UnusableError, match="nothing of this works here"):
        scripted("unusable", 1)
    with pytest.raises(KeyboardInterrupt):
        scripted("interrupts", 1)


# -- what comes back --------------------------------------------------------------------------------------------------


class Recorded(Progress):
    def __init__(self):
        self.said = []

    def start(self, what, total):
        self.said.append((what, total, 0, ""))

    def advance(self, parts=1, note=""):
        what, total, done, _ = self.said[-1]
        self.said.append((what, total, done + parts, note))


def test_progress_has_the_best_so_far():
    bar = Recorded()
    table = search(PLAIN, {}, [parse_parameter("x=0..1")], trials=5, stages=2, progress=bar)
    starts = [entry for entry in bar.said if entry[2] == 0]
    assert starts == [("sweep stage 1/2", 5, 0, ""), ("sweep stage 2/2", 5, 0, "")]
    best = None
    for row, (_, _, done, note) in zip(table, (entry for entry in bar.said if entry[2]), strict=True):
        best = row if best is None or row["value"] > best["value"] else best
        assert done == row["number"] % 5 + 1
        assert note == f"best {best['value']:.6g} (trial {best['number']})"


def test_importances():
    space = [parse_parameter("x=0..1"), parse_parameter("y=0..1"), parse_parameter("z=1")]
    found = search(PLAIN, {}, space, trials=40, stages=1).importances()
    assert list(found) == ["x", "y"]
    assert found["x"] > 0.95
    assert sum(found.values()) == pytest.approx(1)
    assert search(PLAIN, {}, space, trials=3, stages=1).importances() == {}
    assert search(PLAIN, {}, [*space[:1], space[2]], trials=9, stages=1).importances() == {}


def test_nothing_completes():
    space, script = [parse_parameter("n=0")], {"0": "raises"}
    told = r"of 3 trials none completed, 3 failed, the first with: KeyError: 'hidden'"
    with pytest.raises(RunError, match=f"there is nothing to draw stage 2 around: {told}"):
        search(SCRIPTED, {"script": script}, space, trials=3, stages=2)
    table = search(SCRIPTED, {"script": script}, space, trials=3, stages=1)
    with pytest.raises(RunError, match=f"there is no best trial: {told}"):
        _ = table.best
    rows = {"0": "nan", "1": "diverges"}
    with pytest.raises(RunError, match="2 pruned and 2 failed"):
        search(SCRIPTED, {"script": rows}, [parse_parameter("n=0,1")], trials=4, stages=2)


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": 0}, "workers is a whole number ≥ 1, got 0"),
        ({"workers": 1.5}, "workers"),
        ({"workers": 2}, "2 workers need a storage they share"),
        ({"trials": 0}, "trials is a whole number ≥ 1, got 0"),
        ({"stages": -1}, "stages is a whole number ≥ 1"),
        ({"stages": True}, "stages"),
        ({"seed": -1}, "seed"),
        ({"direction": "up"}, "'maximize' or 'minimize', got 'up'"),
        ({"space": []}, "no parameter"),
        ({"space": [Parameter("x", 0, 1), Parameter("x", 1, 2)]}, "the parameter x is given twice"),
        ({"settings": {"trial_seed": 1}}, "'trial_seed'"),
        ({"settings": {"x": object()}}, "what JSON can hold"),
        ({"settings": {"x": float("nan")}}, "what JSON can hold"),
        ({"settings": [1]}, "a dictionary, got list"),
        ({"function": "tests.sweep.functions.bowl"}, "malformed: expected package.module:function"),
        ({"function": "tests.sweep.functions:nix"}, "cannot be imported: .*'nix'"),
        ({"function": "no.such.module:nix"}, "cannot be imported: No module named 'no'"),
        ({"function": "tests.sweep.functions:not_callable"}, "is a int, not a function"),
    ],
)
def test_mistakes(changes, words):
    given = {"function": PLAIN, "settings": {}, "space": [Parameter("x", 0, 1)]} | changes
    with pytest.raises(InputError, match=words) as caught:
        search(given.pop("function"), given.pop("settings"), given.pop("space"), **given)
    assert "\n" not in str(caught.value)


def test_a_spec_survives_json():
    spec = Spec(BOWL, {"a": [1, {"b": None}]}, tuple(SPACE), 3, 2, 1, "minimize")
    again = Spec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert spec.difference(again.to_json()) == ""
    with pytest.raises(InputError, match="format 99"):
        Spec.from_json(spec.to_json() | {"format": 99})


@pytest.mark.slow
def test_numpys_integers_are_integers():
    plain = {"trials": 3, "stages": 1, "workers": 1, "seed": 4}
    kinds = dict(zip(plain, (np.int64, np.uint8, np.int32, np.int16), strict=True))
    tables = [
        search(SCRIPTED, {"script": {}}, [parse_parameter("n=0,1")], **asked, storage=f"{name}.db")
        for name, asked in (("plain", plain), ("numpy", {key: kinds[key](value) for key, value in plain.items()}))
    ]
    rows = [[{key: row[key] for key in ("number", "state", "value")} for row in table] for table in tables]
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]
