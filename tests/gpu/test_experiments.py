"""`gpunet run EXPERIMENT --device cuda --quick`: every experiment, the same figures as on the CPU."""

from __future__ import annotations

import json

import pytest

from gpunet.experiments import experiments

from ..cli.runner import run

# Sums are rounded in another order, so that some of 355 test samples fall on the other side; the toy nets train
# chaotically, and a net of three has another accuracy after 60 steps.
SHARE = {"svd-init": 0.02, "svd-dnn": 0.03, "dmn": 0.05, "toy": 0.1, "cifar-mlp": 0.05, "patches": 0.03}
SHORT = {
    "svd-init": ("--epochs", 1, "--hidden", 8),
    "svd-dnn": ("--epochs", 1, "--no-speed", "--alpha", 0.5),
    "dmn": ("--epochs", 1, "--no-sweeps", "--no-dynamics", "--variance", "0.5"),
    "toy": ("--seeds", 3, "--limit", 60),
    "cifar-mlp": ("--epochs", 1, "--part", "final", "--hidden", 8),
    "patches": ("--patches", 8, "--grid", 2),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "gpu", [pytest.param("pretend", marks=pytest.mark.slow), pytest.param("real", marks=pytest.mark.gpu)], indirect=True
)
@pytest.mark.parametrize("experiment", experiments())
def test_the_quick_run(gpu, capsys, tmp_path, experiment):
    if not gpu.real and experiment == "dmn":
        pytest.skip("its convolutions take minutes on the pretend GPU; tests/nn runs such nets there")
    found = {}
    for device in ("cuda", "cpu"):
        options = () if gpu.real else SHORT[experiment]
        out = tmp_path / device
        done = run(capsys, "run", experiment, "--quick", "--device", device, "--out", out, *options)
        assert (done.code, done.said()) == (0, [])
        found[device] = json.loads((out / "result.json").read_text())
    assert found["cuda"]["device"].startswith("cuda:0")
    assert found["cuda"]["provenance"]["gpu"]
    assert found["cuda"]["provenance"]["peak_memory_bytes"] > 0
    rows = {device: {row["name"]: row["metrics"] for row in result["rows"]} for device, result in found.items()}
    assert rows["cuda"].keys() == rows["cpu"].keys()
    compared = 0
    for name, metrics in rows["cpu"].items():
        for metric in ("train_accuracy", "test_accuracy"):
            if metric in metrics:
                assert rows["cuda"][name][metric]["mean"] == pytest.approx(
                    metrics[metric]["mean"], abs=SHARE[experiment]
                ), name
                compared += 1
    assert compared
