"""The quick runs give what they gave: names and shapes everywhere, and the same bits where the same kernels compute."""

from __future__ import annotations

import copy
import math

import pytest

from .write import CLOCK, LONG, RUNS, differences, golden, kept, result, structure, why_other_bits


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in RUNS])
def test_a_quick_run_gives_the_golden_result(name, tmp_path):
    was, now = golden(name), kept(result(name, tmp_path))
    assert differences(structure(was), structure(now)) == []
    assert list(was["rows"]) == list(now["rows"])
    if reason := why_other_bits(was):
        pytest.skip(reason)
    del was["made_with"]
    lines = differences(was, now)
    assert lines == [], "\n".join([f"{len(lines)} values differ:", *lines[:40]])


@pytest.mark.parametrize("name", RUNS)
def test_one_last_bit_is_seen_and_no_seconds_are_kept(name):
    was = golden(name)
    assert all(row[metric] is None for row in was["rows"].values() for metric in CLOCK if metric in row)
    row = next(iter(was["rows"]))
    metric = next(name for name, values in was["rows"][row].items() if values)
    now = copy.deepcopy(was)
    now["rows"][row][metric][0] = math.nextafter(now["rows"][row][metric][0], math.inf)
    (line,) = differences(was, now)
    assert line.startswith(f"/rows/{row}/{metric}[0]: ")
    assert differences(structure(was), structure(now)) == []
