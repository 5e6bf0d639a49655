"""Memory, several GPUs, and what a user is told."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import DataError, DeviceError, GpunetError, MemoryFullError
from gpunet.experiments.provenance import Stopwatch
from gpunet.linalg import StreamingGram
from gpunet.linalg.device import device_of
from gpunet.linalg.patches import PatchDensities
from gpunet.spectral.ridge import Moments

from ..cli.runner import run
from .stand_in import install

HUGE = (1 << 22, 1 << 20)  # 16 TiB of float32


@pytest.mark.parametrize("ask", [
    lambda backend: backend.empty(HUGE),
    lambda backend: backend.zeros(HUGE),
    lambda backend: gn.Sequential([gn.Dense(1 << 22), gn.Dense(1 << 20)]).build((4,), backend),
])  # fmt: skip
def test_out_of_memory_is_one_line(gpu, ask):
    backend = gpu.backend()
    with pytest.raises(GpunetError) as error:
        ask(backend)
    message = str(error.value)
    assert isinstance(error.value, MemoryFullError)
    assert "\n" not in message
    assert backend.name in message
    assert "GiB" in message
    np.testing.assert_array_equal(backend.to_host(backend.zeros(3)), np.zeros(3))  # and the device still works


def test_peak_memory_is_reported(gpu):
    backend, watch = gpu.backend(), Stopwatch()
    before = watch.provenance(backend)["peak_memory_bytes"]
    held = backend.zeros(before // 4 + (1 << 20))
    peak = watch.provenance(backend)["peak_memory_bytes"]
    assert peak >= held.nbytes
    assert peak > before
    assert peak <= backend.memory()["total"]


def test_the_second_gpu(gpu):
    if gpu.count < 2:
        pytest.skip("this machine has one GPU")
    x, y = np.random.default_rng(0).random((70, 12), dtype=np.float32), np.arange(70) % 3
    outputs = []
    for device in ("cuda:0", "cuda:1"):
        trainer = gn.Trainer(gn.Sequential([gn.Dense(8, "relu"), gn.Dense(3)]), device=device)
        trainer.fit(x, y, epochs=3, batch_size=32)
        assert trainer.backend.name == device
        assert trainer.graphs.reason == ""
        assert f"cuda:{trainer.model.flat[0].device.id}" == device
        outputs.append(trainer.outputs(x))
    np.testing.assert_array_equal(*outputs)


def test_a_gpu_that_is_not_there(gpu):
    with pytest.raises(DeviceError, match=f"there is no GPU {gpu.count}"):
        get_backend(f"cuda:{gpu.count}")


def test_auto_is_the_gpu(gpu):
    assert get_backend("auto").name == "cuda:0"


def test_products_and_graphs_work(gpu):
    """Nothing had to fall back: cublasLt multiplies, and steps are recorded."""
    backend = gpu.backend()
    assert backend.records
    assert type(backend.products).__name__ == "CublasLt"


def test_info_names_it(gpu, capsys):
    done = run(capsys, "info", "--json")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert facts["no_gpu"] is None
    assert facts["device"].startswith("cuda:0")
    assert facts["gpu"]


def test_data_that_lies_on_the_device_already(gpu):
    backend = gpu.backend()
    x, y = np.random.default_rng(1).random((60, 7), dtype=np.float32), np.arange(60) % 2
    losses = []
    for place in (np.asarray, backend.asarray):
        trainer = gn.Trainer(gn.Sequential([gn.Dense(2)]), device=backend)
        losses.append(trainer.fit(place(x), y, epochs=2, batch_size=16)["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("index", [0, 1])
def test_samples_may_lie_on_any_gpu(gpu, kind, index):
    """Targets and weights, too; what is not finite is named wherever it lies."""
    if gpu.count <= index:
        pytest.skip("this machine has one GPU")
    backend, there = gpu.backend(), get_backend(f"cuda:{index}")
    rng = np.random.default_rng(1)
    x, y, weights = rng.integers(0, 9, (60, 7)).astype(kind), rng.random((60, 2), dtype=np.float32), rng.random(60)
    losses = []
    for place in (np.asarray, there.asarray):
        model = gn.Sequential([gn.Dense(2, weight=place(rng.random((2, 7)) * 0 + 0.1))], scale=1)
        trainer = gn.Trainer(model, gn.SquaredError(), device=backend)
        history = trainer.fit(place(x), place(y), epochs=2, batch_size=16, sample_weight=place(weights))
        losses.append(history["train_loss"])
        assert trainer.samples(place(x), place(y)).spaced(10).x.device.id == trainer.model.flat[0].device.id
    assert losses[0] == losses[1]
    if kind != "uint8":
        x[3, 4] = np.nan
        with pytest.raises(DataError, match="row 3, feature 4"):
            trainer.samples(there.asarray(x), y)
        y[5, 1] = np.nan
        with pytest.raises(DataError, match=r"at \[5, 1\]"):
            trainer.samples(np.nan_to_num(x), there.asarray(y))


def test_work_lies_on_the_gpu_of_the_data(gpu):
    """What is read of sums, heads computed from features and whether weights are finite: none lands elsewhere."""
    backend, rng = gpu.backend(), np.random.default_rng(0)
    x, y = rng.integers(0, 255, (90, 5)).astype("uint8"), np.arange(90) % 3
    for kind in ("uint8", "float64"):
        sums = [StreamingGram(center=True).update(place(x.astype(kind))) for place in (np.asarray, backend.asarray)]
        for here, there in zip(
            *((each.gram(), each.mean, each.components().explained_variance) for each in sums), strict=True
        ):
            np.testing.assert_allclose(there, here, rtol=1e-10)
        densities = PatchDensities(backend, 1, 0)
        densities.update(backend.asarray(x.astype(kind).reshape(-1, 5, 1, 1)), y)
        scale = 255 if kind == "uint8" else 1
        np.testing.assert_allclose(densities.density(1)[1] * scale, x[y == 1].mean(0), rtol=1e-10)
    equations = Moments(5, 3, backend).update(backend.asarray(x.astype("float32")), y).equations()
    assert {each.device.id for each in (equations.matrix, equations.right, equations.mean)} == {backend.index}


def test_each_stand_in_finds_its_own_gpus(gpu, monkeypatch):
    if gpu.real:
        pytest.skip("there is one cupy")
    assert device_of(gpu.backend().zeros(3)).cp is sys.modules["cupy"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)
        other = install(patch.setattr)
        assert device_of(gpu.backend().zeros(3)).cp is other
    assert device_of(gpu.backend().zeros(3)).cp is sys.modules["cupy"]
