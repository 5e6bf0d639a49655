"""`gpunet bench svd` on a small made matrix."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gpunet.bench import svd as bench
from gpunet.cli.bench import app
from gpunet.errors import InputError


def test_report_is_checked_against_the_reference():
    report = bench.compare((60, 900), 5, ["numpy", "sklearn"], rounds=2)
    rows = {row.name: row for row in report.rows}
    assert set(rows) == {"gpunet", "gpunet, one side", "numpy", "sklearn"}
    for row in rows.values():
        assert row.seconds > 0
        assert row.angle < 1e-3
        assert row.energy_loss < 1e-6


def test_a_missing_rival_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    report = bench.compare((20, 30), 2, ["torch"], rounds=1)
    assert report.rows[-1].skipped == "torch is not installed; pip install torch"


def test_command_prints_json_and_a_table():
    result = CliRunner().invoke(app, ["svd", "--shape", "40x30", "--k", "3", "--against", "numpy", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["shape"] == [40, 30]
    assert [row["name"] for row in report["rows"]] == ["gpunet", "gpunet, one side", "numpy"]
    result = CliRunner().invoke(app, ["svd", "--shape", "40x30", "--k", "3", "--against", ""])
    assert "40×30, k = 3, cpu" in result.output


def test_mistakes():
    with pytest.raises(InputError, match="unknown rival 'matlab'"):
        bench.compare((20, 30), 2, ["matlab"])
    result = CliRunner().invoke(app, ["svd", "--shape", "big"])
    assert isinstance(result.exception, InputError)


def test_more_triples_than_the_matrix_has():
    for k in (0, 41):
        with pytest.raises(InputError, match="expected 1 to 40, the shorter side of 40×200"):
            bench.compare((40, 200), k, [], "cpu", 1)
