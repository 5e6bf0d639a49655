"""Memory, several GPUs, and what a user is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import DeviceError, GpunetError, MemoryFullError
from gpunet.experiments.provenance import Stopwatch

from ..cli.runner import run

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
    assert "cuda:0" in message
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
