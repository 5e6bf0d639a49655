"""Whether a measured run was slower: the verdict, from times that are made up."""

from __future__ import annotations

import json
import runpy
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.bench import payoff_grid as grid
from gpunet.spectral.factorise import Conversion
from gpunet.timing import Times

CASE = grid.Case((32, 24), 4, 8)
DENSE = [1.00, 1.02, 0.98, 1.01, 1.00, 1.30, 0.99, 1.00]
AGAIN = [1.01, 1.00, 0.99, 1.00, 1.02, 1.25, 1.00, 0.98]


def judged(own, converted=True):
    done = Conversion("0", CASE.shape, CASE.rank, converted, "because")
    return grid.outcome(CASE, done, 0.1, Times({"dense": DENSE, "again": AGAIN, "measured": list(own)}))


def test_slower_is_slower_than_both_dense_nets_in_three_rounds_of_four():
    worst = np.maximum(DENSE, AGAIN)
    assert not judged(DENSE).fails
    assert not judged(np.minimum(DENSE, AGAIN)).fails
    found = judged(1.05 * worst)
    assert found.fails
    assert found.slower == 1
    assert 1.04 < found.ratio < 1.08
    assert found.quartiles[0] <= found.ratio <= found.quartiles[1]
    for faster_rounds, fails in ((2, True), (3, False)):
        own = 1.05 * worst
        own[:faster_rounds] = 0.5
        assert judged(own).fails == fails
    between = (np.array(DENSE) + np.array(AGAIN)) / 2  # slower than the one, faster than the other
    assert judged(between).slower == 0
    assert judged(DENSE).noise == pytest.approx(1.0, abs=0.01)
    own = 0.9 * worst  # one round disturbed by a neighbour is no verdict
    own[0] = 50
    assert not judged(own).fails


def test_only_what_fails_twice_counts_and_equal_nets_show_false_alarms():
    slow, fine = judged(2 * np.array(DENSE)), judged(0.5 * np.array(DENSE))
    same, odd = judged(DENSE, converted=False), judged(2 * np.array(DENSE), converted=False)
    verdict = grid.judge([slow, slow, fine, same, odd], [slow, fine, odd])
    assert (verdict.factored, verdict.left_dense) == (3, 2)
    assert verdict.slower == [slow]
    assert verdict.false_alarms == [odd]
    assert verdict.ratios["0"] == fine.ratio
    assert verdict.ratios["50"] == verdict.ratios["100"] == slow.ratio
    assert grid.judge([same], []).ratios == {}


def test_all_are_measured_and_the_failed_ones_again_as_the_policy_chose(monkeypatch):
    asked = []

    def measure(case, backend, rounds, convert=None):
        asked.append((case.rank, rounds, convert))
        slow = case.rank == 1 or (case.rank == 2 and convert is None)
        return replace(judged((2 if slow else 0.5) * np.array(DENSE), converted=case.rank < 3), case=case)

    monkeypatch.setattr(grid, "measure", measure)
    outcomes, verdict = grid.run([grid.Case((9, 9), rank, 4) for rank in (1, 2, 3)], None, 5)
    assert asked == [(1, 5, None), (2, 5, None), (3, 5, None), (1, 20, True), (2, 20, True)]
    assert (len(outcomes), len(verdict.slower), verdict.false_alarms) == (3, 1, [])


@pytest.mark.parametrize(("payoff", "convert", "kind"), [
    ((0.5, 0.6), None, "LowRankDense"), ((0.9, 1.0), None, "Dense"),  # the upper quartile decides
    ((0.9, 1.0), True, "LowRankDense"), ((0.5, 0.6), False, "Dense"),
])  # fmt: skip
def test_what_is_timed_is_what_was_decided(monkeypatch, payoff, convert, kind):
    monkeypatch.setattr("gpunet.spectral.factorise.payoff", lambda *a, **k: payoff)
    monkeypatch.setattr(grid, "LEAST", 0)
    kinds = []
    training = grid.training
    monkeypatch.setattr(
        grid, "training", lambda t, *a: kinds.append(type(t.model.layers[0]).__name__) or training(t, *a)
    )

    def interleave(runs, rounds, pause):
        for contestant in runs.values():
            contestant()
        return Times({"dense": [2.0] * rounds, "again": [4.0] * rounds, "measured": [1.5] * rounds})

    monkeypatch.setattr(grid, "interleave", interleave)
    found = grid.measure(CASE, get_backend("numpy"), 3, convert)
    assert kinds[-3:] == ["Dense", "Dense", kind]
    assert found.converted == (kind == "LowRankDense")
    assert (found.ratio, found.quartiles, found.noise, found.slower) == (0.5, (0.5, 0.5), 2.0, 0.0)


def test_the_upper_quartile_decides_by_the_clock(monkeypatch):
    """A gain that is not there in a quarter of the rounds is left alone."""
    for seconds, converted in (([0.5, 0.6, 0.7, 0.8], True), ([0.5, 0.6, 1.3, 1.4], False), ([1.1] * 4, False)):
        monkeypatch.setattr(
            "gpunet.spectral.factorise.interleave",
            lambda runs, rounds, pause, own=seconds: Times({"dense": [1.0] * 4, "factored": own}),
        )
        monkeypatch.setattr("gpunet.spectral.factorise._repeats", lambda step, backend: 1)
        trainer = gn.Trainer(gn.Sequential([gn.Dense(24, "relu"), gn.Dense(2)]), device="numpy")
        cut = gn.Factorise(0, 4, policy="measured", merge=False)
        with pytest.warns(UserWarning, match="left dense") if not converted else nullcontext():
            trainer.fit(np.ones((8, 32), "float32"), np.zeros(8, int), batch_size=8, callbacks=[cut])
        assert cut.conversions[0].converted == converted


def test_the_grid_reaches_beyond_break_even():
    found = list(grid.cases())
    assert len(found) == len(set(found))
    assert {case.batch for case in found} == {1, 16, 64, 512, 2048}
    for out, inner in grid.SHAPES:
        ranks = {case.rank for case in found if case.shape == (out, inner)}
        assert min(ranks) < 0.2 * out * inner / (out + inner)
        assert max(ranks) == min(round(1.25 * out * inner / (out + inner)), out, inner)


def test_the_benchmark_adds_to_its_record(monkeypatch, tmp_path, capsys):
    script = Path(__file__).parents[2] / "benchmarks" / "lowrank.py"
    for name, value in (("SHAPES", ((16, 12),)), ("SHARES", (0.5, 1.25)), ("BATCHES", (1, 9)), ("LEAST", 0)):
        monkeypatch.setattr(grid, name, value)
    record = tmp_path / "results" / "made.json"
    record.parent.mkdir()
    record.write_text('{"sections": {"train": {"cases": 1}}}')
    arguments = ["lowrank.py", "--grid", "--every", "3", "--rounds", "1", "--device", "numpy", "--json", str(record)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(script), run_name="__main__")
    out = capsys.readouterr().out
    assert "slower than dense, of " in out
    assert "false alarms" in out
    sections = json.loads(record.read_text(), parse_constant=pytest.fail)["sections"]
    assert set(sections) == {"train", "lowrank-grid"}
    assert sections["train"] == {"cases": 1}
    made = sections["lowrank-grid"]
    assert made["rounds"] == 1
    assert {"git", "numpy", "threads"} <= set(made["provenance"])
    assert [(tuple(c["case"]["shape"]), c["case"]["rank"], c["case"]["batch"]) for c in made["cases"]] == [
        ((16, 12), 3, 1), ((16, 12), 9, 9),
    ]  # fmt: skip
