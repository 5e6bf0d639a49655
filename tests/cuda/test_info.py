"""`gpunet info`, the choice of a device and provenance: without CuPy, without a driver, with one GPU and two."""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import device, get_backend, why_no_gpu
from gpunet.backend.device import gpu_name, gpus
from gpunet.errors import DeviceError
from gpunet.experiments.provenance import Stopwatch, versions

from ..cli.runner import run
from ..experiments.schema import PROVENANCE
from .host_module import why_not
from .pretend import pretend

needs_compiler = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: gcc 12.3\n"
DRIVERS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n": "535.183.01",
    OPEN: "580.65.06",
    "": None,
}
KEYS = {
    "device", "name", "compute_capability", "multiprocessors", "memory_bytes", "free_bytes", "products", "graphs",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    """A wide terminal, nobody's data folder, a driver of a known version."""
    for name, value in (("COLUMNS", "200"), ("GPUNET_DATA", str(tmp_path / "data"))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GPUNET_TF32", raising=False)
    (tmp_path / "version").write_text(OPEN)
    monkeypatch.setattr(device, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(device, "driver_cuda", lambda: 13000)


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in in cupy's place, or take cupy away."""

    def put(module):
        if module is None:
            real = importlib.util.find_spec
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else real(name))
        else:
            monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    return put


def driverless():
    """CuPy on a machine without a driver: it imports, and fails at the first call."""
    module = pretend()

    def fail(*_):
        raise module.cuda.runtime.CUDARuntimeError(
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
        )

    module.cuda.runtime.getDeviceCount = module.cuda.runtime.getDeviceProperties = fail
    return module


def facts(capsys):
    done = run(capsys, "info", "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def shown(capsys):
    done = run(capsys, "info")
    assert (done.code, done.err) == (0, "")
    return done.out


# -- what stands in the way, and what helps -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "line"),
    [
        (13000, "pip install 'gpunet[cuda13]'"),
        (12080, "pip install 'gpunet[cuda12]'"),
        (None, "pip install 'gpunet[cuda13]' (CUDA 12 drivers: 'gpunet[cuda12]')"),
        (11040, "a driver for CUDA 12 or newer (this one runs 11.4), then pip install 'gpunet[cuda12]'"),
    ],
)
def test_without_cupy_the_line_fits_the_driver(capsys, install, monkeypatch, cuda, line):
    install(None)
    monkeypatch.setattr(device, "driver_cuda", lambda: cuda)
    reason = f"CuPy is not installed; install it with: {line}"
    assert (why_no_gpu(), gpus()) == (reason, [])
    found = facts(capsys)
    assert (found["no_gpu"], found["gpus"], found["device"][:3]) == (reason, [], "cpu")
    assert (found["driver"], found["cuda"]) == ("580.65.06", None)
    assert found["cuda_driver"] == (cuda and f"{cuda // 1000}.{cuda % 1000 // 10}")
    assert line in shown(capsys)
    with pytest.raises(DeviceError, match=r"device 'cuda' cannot be used: CuPy is not installed.*device=.cpu"):
        get_backend("cuda")


def test_without_a_driver(capsys, install):
    install(driverless())
    found = facts(capsys)
    assert "cudaErrorInsufficientDriver" in found["no_gpu"]
    assert "nvidia-smi" in found["no_gpu"]
    assert (found["gpus"], found["device"][:3], found["cuda"]) == ([], "cpu", "13.2")
    assert "no GPU because" in shown(capsys)
    assert get_backend("auto").name == "cpu"


@pytest.mark.parametrize(
    ("reason", "cuda", "words"),
    [
        ("cudaErrorInsufficientDriver: CUDA driver version …", 12080, "runs CUDA 12.8: pip install 'gpunet[cuda12]'"),
        ("cudaErrorInsufficientDriver: CUDA driver version …", None, "no NVIDIA driver is installed"),
        ("libnvrtc.so.13: cannot open shared object file", 13000, "libraries come with: pip install 'gpunet[cuda13]'"),
        ("Failed to find CUDA headers.", 12000, "libraries come with: pip install 'gpunet[cuda12]'"),
        ("cudaErrorECCUncorrectable: uncorrectable ECC error", 13000, ""),
    ],
)
def test_what_helps_follows_from_the_reason(install, monkeypatch, reason, cuda, words):
    module = install(pretend())

    def fail():
        raise RuntimeError(reason)

    module.cuda.runtime.getDeviceCount = fail
    monkeypatch.setattr(device, "driver_cuda", lambda: cuda)
    found = why_no_gpu()
    assert reason in found
    assert found.endswith(words or "nvidia-smi")


def test_a_package_that_does_not_even_import(install, monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda is of the wrong kind\\nand more')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert gpus() == []
    assert "libcuda is of the wrong kind" in why_no_gpu()


@pytest.mark.parametrize("text", DRIVERS)
def test_the_drivers_version(monkeypatch, tmp_path, text):
    (tmp_path / "version").write_text(text)
    assert device.driver_version() == DRIVERS[text]
    monkeypatch.setattr(device, "DRIVER_FILE", tmp_path / "nothing")
    assert device.driver_version() is None


def test_the_drivers_cuda_is_read_without_cupy(monkeypatch):
    monkeypatch.undo()
    found = device.driver_cuda()
    assert found is None or found >= 11000

    def library(name):
        return types.SimpleNamespace(cuDriverGetVersion=lambda out: setattr(out._obj, "value", 12080) or 0)

    monkeypatch.setattr(device.ctypes, "CDLL", library)
    assert device.spelt(device.driver_cuda()) == "12.8"


# -- GPUs -------------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("devices", [1, 2])
def test_every_gpu_is_described(capsys, install, devices):
    install(pretend(devices))
    found = facts(capsys)
    assert (found["device"], found["gpu"], found["no_gpu"]) == ("cuda:0 (cupy)", "Pretend GPU", None)
    assert (found["driver"], found["cuda_driver"], found["cuda"]) == ("580.65.06", "13.0", "13.2")
    assert [gpu["device"] for gpu in found["gpus"]] == [f"cuda:{i}" for i in range(devices)]
    for gpu in found["gpus"]:
        assert set(gpu) == KEYS
        assert (gpu["name"], gpu["compute_capability"], gpu["memory_bytes"]) == ("Pretend GPU", "9.0", 2 << 30)
        assert (gpu["products"], gpu["graphs"]) == ("cublasLt 13.10.0", "on")
    out = shown(capsys)
    for words in ("cuda:0", "Pretend GPU, compute capability 9.0", "2.0 GiB", "cublasLt 13.10.0", "580.65.06"):
        assert words in out
    assert ("cuda:1" in out) is (devices == 2)


@needs_compiler
def test_tf32_is_shown(capsys, install, monkeypatch):
    install(pretend())
    monkeypatch.setenv("GPUNET_TF32", "1")
    assert facts(capsys)["gpus"][0]["products"] == "cublasLt 13.10.0, TF32"


def test_what_is_broken_is_named_and_gone_around(capsys, install):
    install(pretend()).cublaslt.fails["cublasLtMatmul"] = 13
    (gpu,) = facts(capsys)["gpus"]
    reason = "cublasLt: cublasLtMatmul failed with CUBLAS_STATUS_EXECUTION_FAILED"
    assert gpu["products"] == f"cupy.matmul, because {reason}"
    assert gpu["graphs"] == f"off, because products run through cupy.matmul: {reason}"
    backend, out = get_backend("cuda"), np.zeros((2, 2), "float32")
    x, out = backend.asarray(np.eye(2, dtype="float32")), backend.asarray(out)
    backend.gemm(x, x, out)
    assert backend.to_host(out).tolist() == [[1, 0], [0, 1]]


@needs_compiler
def test_graphs_that_compute_something_else_are_found(install, monkeypatch):
    cp = install(pretend())
    monkeypatch.setattr(cp.cuda.Graph, "launch", lambda self, stream=None: None)
    assert gpus()[0]["graphs"].startswith("off, because a replayed step gave [[4.0, 4.0]")


@needs_compiler
def test_one_of_two_gpus_may_be_unusable(capsys, install):
    cp = install(pretend(2))
    cp.machine.taken[1] = cp.machine.total
    good, bad = facts(capsys)["gpus"]
    assert set(good) == KEYS
    assert (bad["device"], set(bad)) == ("cuda:1", {"device", "unusable"})
    assert "cannot be used: " in shown(capsys)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:2", "there is no GPU 2: this machine has 2"),
        ("cuda:99999", "expected auto"),
        ("cuda:-1", "expected auto"),
    ],
)
def test_a_gpu_that_is_not_there(install, device, words):
    install(pretend(2))
    with pytest.raises(DeviceError, match=words):
        get_backend(device)


# -- by number --------------------------------------------------------------------------------------------------------


@needs_compiler
def test_the_second_gpu_trains_and_the_first_stays_empty(install):
    cp = install(pretend(2))
    data = gn.datasets.load("digits")
    model = gn.Sequential([gn.Dense(8, "relu"), gn.Dense(10)])
    trainer = gn.Trainer(model, device="cuda:1", seed=0)
    history = trainer.fit(
        data.x_train[:60],
        data.y_train[:60],
        epochs=2,
        batch_size=25,
        validation_data=(data.x_test[:30], data.y_test[:30]),
    )
    right = gn.Trainer(gn.Sequential([gn.Dense(8, "relu"), gn.Dense(10)]), device="numpy", seed=0).fit(
        data.x_train[:60],
        data.y_train[:60],
        epochs=2,
        batch_size=25,
        validation_data=(data.x_test[:30], data.y_test[:30]),
    )
    for metric in ("train_loss", "test_accuracy", "val_accuracy"):
        if metric in history.epochs[0]:
            np.testing.assert_allclose(history[metric], right[metric], rtol=1e-5)
    assert trainer.predict(data.x_test[:5]).shape == (5,)
    assert cp.machine.taken[0] < 10_000  # the smoke test's, of GPU 1 only: nothing else went to GPU 0
    assert trainer.backend.memory()["peak"] > 32 << 20
    assert cp.cuda.runtime.getDevice() == 0


# -- provenance -------------------------------------------------------------------------------------------------------


def test_provenance_on_a_gpu(install):
    install(pretend(2))
    backend = get_backend("cuda:1")
    backend.empty(1 << 20)
    found = Stopwatch().provenance(backend)
    assert set(found) >= PROVENANCE | {"driver", "cuda_driver", "cuda", "host_peak_memory_bytes"}
    assert (found["gpu"], found["driver"], found["cuda"]) == ("Pretend GPU", "580.65.06", "13.2")
    assert 4 << 20 <= found["peak_memory_bytes"] < (4 << 20) + 4096  # and the smoke test's few numbers
    assert found["host_peak_memory_bytes"] > 10 << 20


def test_provenance_on_the_cpu(install):
    install(pretend())
    backend = get_backend("numpy")
    found = Stopwatch().provenance(backend)
    assert set(found) >= PROVENANCE
    assert "host_peak_memory_bytes" not in found
    assert (found["gpu"], gpu_name(None), gpu_name(backend)) == (None, None, None)
    assert found["peak_memory_bytes"] > 10 << 20
    assert versions()["gpu"] is None
