"""Whether a measured run was slower: the verdict, from times that are made up."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.bench import payoff, record
from gpunet.bench.results import Section, read_sections
from gpunet.progress import Progress
from gpunet.spectral.factorise import Conversion
from gpunet.timing import Times

NET = payoff.Net((32, 24), 4, 8)
DENSE = [1.00, 1.02, 0.98, 1.01, 1.00, 1.30, 0.99, 1.00]
AGAIN = [1.01, 1.00, 0.99, 1.00, 1.02, 1.25, 1.00, 0.98]


def judged(own, converted=True):
    done = Conversion("0", NET.shape, NET.rank, converted, "because")
    return payoff.entry(done, 0.1, Times({"dense": DENSE, "again": AGAIN, "measured": list(own)}))


def test_slower_is_slower_than_both_dense_nets_in_three_rounds_of_four():
    worst = np.maximum(DENSE, AGAIN)
    assert not payoff.fails(judged(DENSE))
    assert not payoff.fails(judged(np.minimum(DENSE, AGAIN)))
    found = judged(1.05 * worst)
    assert payoff.fails(found)
    assert found.notes["slower"] == 1
    ratio, low, high = found.over["dense"]
    assert 1.04 < ratio < 1.08
    assert low <= ratio <= high
    for faster_rounds, fails in ((2, True), (3, False)):
        own = 1.05 * worst
        own[:faster_rounds] = 0.5
        assert payoff.fails(judged(own)) == fails
    between = (np.array(DENSE) + np.array(AGAIN)) / 2  # slower than the one, faster than the other
    assert judged(between).notes["slower"] == 0
    assert judged(DENSE).notes["noise"] == pytest.approx(1.0, abs=0.01)
    own = 0.9 * worst  # one round disturbed by a neighbour is no verdict
    own[0] = 50
    assert not payoff.fails(judged(own))


def test_only_what_fails_twice_counts_and_equal_nets_show_false_alarms():
    slow, fine, same, odd = (
        judged(factor * np.array(DENSE), converted)
        for factor, converted in ((2, True), (0.5, True), (1, False), (2, False))
    )
    once = judged(2 * np.array(DENSE))
    slow.notes["fails"] = odd.notes["fails"] = True
    once.notes["fails"] = False
    verdict = payoff.verdict([slow, once, fine, same, odd])
    assert (verdict["factored"], verdict["left_dense"]) == (3, 2)
    assert (verdict["slower"], verdict["false_alarms"]) == (1, 1)
    assert verdict["ratios"]["0"] == fine.over["dense"][0]
    assert verdict["ratios"]["50"] == verdict["ratios"]["100"] == slow.over["dense"][0]
    assert payoff.verdict([same])["ratios"] == {}


def test_all_are_measured_and_the_failed_ones_again_as_the_policy_chose(monkeypatch):
    asked = []

    def look(net, backend, rounds, convert=None):
        asked.append((net.rank, rounds, convert))
        slow = net.rank == 1 or (net.rank == 2 and convert is None)
        return judged((2 if slow else 0.5) * np.array(DENSE), converted=net.rank < 3)

    monkeypatch.setattr(payoff, "look", look)
    section = Section({})
    payoff.measure(section, [payoff.Net((9, 9), rank, 4) for rank in (1, 2, 3)], None, 5, Progress(), lambda: None)
    assert asked == [(1, 5, None), (1, 20, True), (2, 5, None), (2, 20, True), (3, 5, None)]
    verdict = section.notes["verdict"]
    assert (len(section.cases), verdict["slower"], verdict["false_alarms"]) == (3, 1, 0)


@pytest.mark.parametrize(("pays", "convert", "kind"), [
    ((0.5, 0.6), None, "LowRankDense"), ((0.9, 1.0), None, "Dense"),  # the upper quartile decides
    ((0.9, 1.0), True, "LowRankDense"), ((0.5, 0.6), False, "Dense"),
])  # fmt: skip
def test_what_is_timed_is_what_was_decided(monkeypatch, pays, convert, kind):
    monkeypatch.setattr("gpunet.spectral.factorise.payoff", lambda *a, **k: pays)
    monkeypatch.setattr(payoff, "LEAST", 0)
    kinds = []
    stepping = payoff.stepping
    monkeypatch.setattr(
        payoff, "stepping", lambda t, *a: kinds.append(type(t.model.layers[0]).__name__) or stepping(t, *a)
    )

    def interleave(runs, rounds, pause):
        for contestant in runs.values():
            contestant()
        return Times({"dense": [2.0] * rounds, "again": [4.0] * rounds, "measured": [1.5] * rounds})

    monkeypatch.setattr(payoff, "interleave", interleave)
    found = payoff.look(NET, get_backend("numpy"), 3, convert)
    assert kinds[-3:] == ["Dense", "Dense", kind]
    assert found.notes["converted"] == (kind == "LowRankDense")
    assert (found.over["dense"], found.notes["noise"], found.notes["slower"]) == ([0.5, 0.5, 0.5], 2.0, 0.0)


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
    found = list(payoff.nets())
    assert len(found) == len(set(found))
    assert {case.batch for case in found} == {1, 16, 64, 512, 2048}
    for out, inner in payoff.SHAPES:
        ranks = {case.rank for case in found if case.shape == (out, inner)}
        assert min(ranks) < 0.2 * out * inner / (out + inner)
        assert max(ranks) == min(round(1.25 * out * inner / (out + inner)), out, inner)


def test_the_benchmark_adds_to_its_record(monkeypatch, tmp_path):
    for name, value in (("SHAPES", ((16, 12),)), ("SHARES", (0.5, 1.25)), ("BATCHES", (1, 9)), ("LEAST", 0)):
        monkeypatch.setattr(payoff, name, value)
    monkeypatch.setattr(record, "EVERY", 3)
    path = tmp_path / "results" / "made.json"
    path.parent.mkdir()
    path.write_text('{"sections": {"train": {"provenance": {}, "notes": {"kept": 1}}}}')
    assert record.record(path, ["payoff"], "numpy", 1) == []
    json.loads(path.read_text(), parse_constant=pytest.fail)
    sections = read_sections(path)
    assert set(sections) == {"train", "payoff"}
    assert sections["train"].notes == {"kept": 1}
    made = sections["payoff"]
    assert made.rounds == 1
    assert {"git", "numpy", "threads"} <= set(made.provenance)
    assert list(made.cases) == ["16×12, rank 3, batch 1", "16×12, rank 9, batch 9"]
    assert made.notes["verdict"]["factored"] + made.notes["verdict"]["left_dense"] == 2
