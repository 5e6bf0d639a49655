"""Help answers quickly because it imports little, and teaches by example; `gpunet info`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gpunet import backend
from gpunet.backend import why_no_gpu, why_no_numba
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.cli.help import UNSAID

from .runner import run, script

HEAVY = (
    "numpy",
    "scipy",
    "matplotlib",
    "sklearn",
    "h5py",
    "numba",
    "cupy",
    "pooch",
    "safetensors",
    "torch",
    "zarr",
    "dask",
    "distributed",
)
HELPS = [["--help"], ["run", "--help"], ["run", "svd-init", "--help"], ["run", "svd-dnn", "--help"],
         ["run", "dmn", "--help"], ["run", "toy", "--help"], ["run", "cifar-mlp", "--help"],
         ["data", "--help"], ["data", "fetch", "--help"],
         ["bench", "scaling", "--help"], ["pca", "--help"], ["compress", "--help"], ["info", "--help"],
         [], ["run"], ["data"],
         ["run", "svd-init", "--nonsense"], ["nonsense"]]  # fmt: skip


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from gpunet.cli import execute; execute(sys.argv[1:]); "
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ("gpunet run svd-init --dataset digits", "run", "data", "info", "--debug")),
        (["run", "--help"], ("svd-init", "singular vectors")),
        (
            ["run", "svd-init", "--help"],
            ("--dataset", "--device", "--seeds", "--seed", "--epochs", "--out", "--quick", "--json", "--hidden",
             "--learning-rate", "--batch-size", "--dependency", "my.npz", "x_train", "IDX", "cuda:N", "our choice",
             "runs/EXPERIMENT-DATASET"),
        ),
        (
            ["run", "svd-dnn", "--help"],
            ("--task", "xor|cats|mnist", "--phi", "--alpha", "--meaning", "dimension", "break-even", "--sweep-alpha",
             "--sweep-phi", "--no-speed", "my.npz", "Tables 1 to 3"),
        ),
        (
            ["run", "toy", "--help"],
            ("--hidden", "3,3", "--learning-rate", "--threshold", "--limit", "--dataset", "Figure 4", "my.npz"),
        ),
        (
            ["run", "cifar-mlp", "--help"],
            ("--part", "gradient|rates|search|final|better|full", "--full", "--hidden", "--learning-rate", "--trials",
             "--batch-size", "my.npz", "CIFAR-10"),
        ),
        (
            ["run", "dmn", "--help"],
            ("--variance", "T_V", "--correlation", "T_PC", "--fraction", "T_frac", "--center", "--no-sweeps", "FOLDER"),
        ),
        (["data", "--help"], ("list", "fetch", "verify", "path", "GPUNET_DATA", "*train*images*", "x_train")),
    ],
)  # fmt: skip
def test_help_teaches(capsys, arguments, words):
    done = run(capsys, *arguments)
    assert (done.code, done.err) == (0, "")
    for word in words:
        assert word in done.out, word


@pytest.mark.parametrize("arguments", [[], ["run"], ["data"]])
def test_a_group_alone_shows_its_help_and_no_error(capsys, arguments):
    alone = run(capsys, *arguments)
    assert alone.err == ""
    assert alone.out.strip() == run(capsys, *arguments, "--help").out.strip()


def test_help_of_the_installed_command():
    done = script("--help")
    assert (done.code, done.err) == (0, "")
    assert "gpunet run svd-init --dataset digits" in done.out


def test_info_as_json(capsys, tmp_path):
    done = run(capsys, "info", "--json")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert {
        "device",
        "gpunet",
        "python",
        "numpy",
        "cupy",
        "blas",
        "cpu",
        "gpu",
        "git",
        "no_gpu",
        "no_numba",
    } <= set(facts)
    assert facts["data"] == str(tmp_path / "data")
    assert (facts["no_gpu"], facts["no_numba"]) == (why_no_gpu(), why_no_numba())


def test_info_keeps_the_brackets_of_install_lines(capsys, monkeypatch):
    """Rich would take [cuda13] for a colour."""
    reason = "CuPy is not installed; install it with: pip install 'gpunet[cuda13]' (CUDA 12 drivers: 'gpunet[cuda12]')"
    monkeypatch.setattr(backend, "why_no_gpu", lambda: reason)
    monkeypatch.setattr(backend, "why_no_numba", lambda: "install it with: pip install 'gpunet[fast]'")
    done = run(capsys, "info")
    assert (done.code, done.err) == (0, "")
    for word in ("'gpunet[cuda13]'", "'gpunet[cuda12]'", "'gpunet[fast]'", "no GPU because", "data folder"):
        assert word in done.out
    assert json.loads(run(capsys, "info", "--json").out)["no_gpu"] == reason


@pytest.mark.parametrize(
    ("why", "library", "told"),
    [
        ("", "oneDNN 3.9.1", "faster than float32, by oneDNN 3.9.1"),
        ("", "", "faster than float32"),
        ("pip install 'gpunet[fast]'", "", "no faster than float32: pip install 'gpunet[fast]'"),
    ],
)
def test_info_says_whether_bfloat16_is_fast_and_why_not(capsys, monkeypatch, why, library, told):
    monkeypatch.setattr(backend, "get_backend", lambda device: NumpyBackend())
    monkeypatch.setattr(NumpyBackend, "slow_bfloat16", why)
    monkeypatch.setattr(NumpyBackend, "mixes_with", library)
    assert json.loads(run(capsys, "info", "--json").out)["bfloat16"] == told
    (line,) = [line for line in run(capsys, "info").out.splitlines() if line.startswith("bfloat16")]
    assert line.split(maxsplit=1)[1].rstrip() == told


@pytest.mark.slow
def test_a_python_without_docstrings_says_what_is_left_out():
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "gpunet", "-h"], capture_output=True, text=True, timeout=60, check=True
    )
    told = " ".join(done.stdout.split())
    assert " ".join(UNSAID.split()) in told
    assert "Run one experiment and write its results" in told
    assert " ".join(UNSAID.split()) not in " ".join(script("-h").out.split())
