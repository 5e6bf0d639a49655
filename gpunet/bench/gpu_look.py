"""The first look at a GPU: whether the libraries do as is assumed, what a step's graph holds, and where its time goes.

Each function is a section of the stage `look`: it needs none of the others, and what it finds is saved as it comes.
"""

from __future__ import annotations

import collections
import importlib.util
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend, cusolver
from gpunet.backend.device import cuda_versions, gpu_facts, gpus
from gpunet.bench import gpu_data, gpu_train, torch_rival
from gpunet.bench.gpu_race import Contestant
from gpunet.bench.gpu_setup import Document, Setup, target
from gpunet.bench.train import Case
from gpunet.errors import RunError
from gpunet.experiments.provenance import versions as packages
from gpunet.nn.replay import AT_ONCE

WIDTHS, SMALL = (784, 512, 256, 10), (60, 16, 8, 10)
BATCHES = (64, 256, 2048)
SAMPLES = 20_000  # are enough for a look
REPEATS = 5  # timed calls, of which the median counts
NO_TORCH = "PyTorch is not installed"
# A node as cudaGraphDebugDotPrint writes it: its name in front of a bracket at the start of a line.
NODE = re.compile(r'^"graph_\d+_node_\d+"\s*\[', re.MULTILINE)
KIND = re.compile(r"\b(KERNEL|MEMCPY|MEMSET|[A-Z][A-Z_]{3,})\b")
KERNEL = re.compile(r"(\w+)\\?<\\?<\\?<")


def versions(setup: Setup) -> Document:
    """The device and what runs on it: to be looked at first."""
    backend = setup.backend
    figures = {"device": backend.name, "records": backend.records, **backend.memory(), **packages(backend)}
    return _found(figures | cuda_versions() | {"nvrtc": _nvrtc(setup), "gpus": gpus()})


def facts(setup: Setup) -> Document:
    """What products and graphs run through; RunError where they fell back, which no later figure would say."""
    if not setup.on_gpu:
        return _found({"device": setup.backend.name})
    figures = gpu_facts(setup.backend)
    setup.save(_found(figures))
    if figures["graphs"] != "on" or not figures["products"].startswith("cublasLt"):
        raise RunError(f"products: {figures['products']}; graphs: {figures['graphs']}: all times would be of that")
    return _found(figures)


def relu(setup: Setup) -> Document:
    """Whether the ReLU of cublasLt's epilogue leaves NaN as it is: where not, it is a kernel of its own."""
    products: Any = getattr(setup.backend, "products", None)
    if products is None:
        return _found({"device": setup.backend.name})
    with setup.backend.session():
        return _found({f"{name} keeps NaN": products.keeps_nan(np.dtype(name)) for name in ("float32", "float64")})


def batched(setup: Setup) -> Document:
    """cuSOLVER's calls over a stack, ours by ctypes, against NumPy; None where they are not to be had."""
    if not setup.on_gpu:
        return _found({})
    backend, rng = setup.backend, np.random.default_rng(0)
    root, tall = rng.normal(size=(4, 80, 80)), rng.normal(size=(3, 300, 20)).astype(np.float32)
    grams = root @ root.swapaxes(1, 2)
    figures: dict[str, float | None] = {"syev_batched": None}
    with backend.session():
        if eigen := cusolver.syev_batched(backend.asarray(grams)):
            w, v = (backend.to_host(part) for part in eigen)
            figures["syev_batched"] = float(np.abs(grams @ v - v * w[:, None, :]).max() / np.abs(w).max())
        setup.save(_found(figures))
        s = backend.to_host(cusolver.gesvda(backend.asarray(tall), 5)[1])
    right = np.linalg.svd(tall, compute_uv=False)[:, :5]
    figures["gesvda"] = float(np.abs(s - right).max() / right.max())
    bounds = {"syev_batched": 1e-12, "gesvda": 1e-5}
    checked = [target(f"{name}: error", value, bounds[name], at_least=False)
               for name, value in figures.items() if value is not None]  # fmt: skip
    return _found(figures, checked)


def step(setup: Setup, batch: int) -> Document:
    """Microseconds of a training step, recorded, with branches and operation by operation; what the recordings hold."""
    figures: dict[str, Any] = {"recordings": []}
    names = ("graph", "forked", "eager") if setup.backend.records else ("eager",)
    for name in names:
        backend = gpu_train.forking(setup.backend) if name == "forked" else setup.backend
        makers, data = _nets(setup, batch, backend)
        contestant = makers("off" if name == "eager" else "auto")
        contestant.run(3 * AT_ONCE[0])
        for size, steps, recording in contestant.keeps.graphs.recordings:
            dot = recording.dot()
            setup.draw(f"{name}, batch {size}, {steps} to a launch", dot)
            row = {"name": name, "batch": size, "steps_per_launch": steps, **nodes(dot)}
            figures["recordings"].append(row)
            setup.save(_found(figures, data=data))
            row["microseconds_per_step"] = _launches(backend, recording, setup.size(500, 3)) / steps
        steps = setup.size(200 if name == "eager" else 2000, 20)
        figures[name] = {"microseconds_per_step": _microseconds(contestant.run, steps)}
        setup.save(_found(figures, data=data))
    return _found(figures, data=data)


def torch_eager(setup: Setup) -> Document:
    """PyTorch's step, operation by operation, with its fused Adam."""
    if importlib.util.find_spec("torch") is None:
        return _found({"not measured": NO_TORCH})
    torch_rival.tf32(False)
    figures, data = {}, ""
    for batch in BATCHES:
        data, case, x, y = mnist_case(setup, batch, SAMPLES)
        order = gpu_train.order_of(x)
        scaled, place = (x / np.float32(255)).astype(np.float32), torch_rival.place(setup.backend.name)
        made = gpu_train.in_torch(gpu_train.torch_network(case), scaled, y, order, case.batch, place)
        made.run(setup.size(50, 2))
        figures[f"batch {batch}"] = {"torch": {"microseconds_per_step": _microseconds(made.run, setup.size(500, 2))}}
        setup.save(_found(figures, data=data))
    return _found(figures, data=data)


def kernels(setup: Setup) -> Document:
    """Microseconds of every kernel inside the replayed graphs, by PyTorch's profiler, which hears all of CUDA."""
    if importlib.util.find_spec("torch") is None:
        return _found({"not measured": NO_TORCH})
    import torch
    from torch.profiler import ProfilerActivity, profile

    if setup.on_gpu and torch.cuda.is_available():
        torch.zeros(1, device="cuda")  # the profiler listens where PyTorch computes
    figures, data, turns = {}, "", setup.size(50, 2)
    for batch in BATCHES:
        makers, data = _nets(setup, batch, setup.backend)
        made = makers("auto" if setup.backend.records else "off")
        made.run(5)
        with profile(activities=[ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU]) as seen:
            made.run(turns)
        figures[f"batch {batch}"] = _rows(seen.key_averages(), turns)
        setup.save(_found(figures, data=data))
    return _found(figures, data=data)


def _rows(averages: Any, turns: int) -> list[dict[str, Any]]:
    """The profiler's events that took the device time, the longest first."""
    rows = [{"kernel": each.key, "calls": each.count / turns, "microseconds": _device_time(each) / turns}
            for each in averages if _device_time(each)]  # fmt: skip
    return sorted(rows, key=lambda row: -row["microseconds"])[:40]


def _device_time(event: Any) -> float:
    """PyTorch before 2.4 calls it by CUDA's name."""
    return float(getattr(event, "self_device_time_total", 0) or getattr(event, "self_cuda_time_total", 0))


def svd(setup: Setup) -> Document:
    """The top 100 of 784×60000: route, what was rejected before it, residual, and seconds of each of three calls."""
    data, x, _ = gpu_data.pictures("mnist", setup.size(60_000, 400), setup.size(784, 60))
    a = setup.backend.asarray(np.ascontiguousarray(x.T).astype(np.float32) / np.float32(255))
    figures: dict[str, Any] = {"seconds": []}
    for _ in range(3):
        began = time.perf_counter()
        found = gn.svd(a, setup.size(100, 10), device=setup.backend)
        setup.backend.synchronize()
        figures["seconds"].append(time.perf_counter() - began)
        figures |= {"route": found.route, "rejected": list(found.rejected), "residual": found.residual}
        setup.save(_found(figures, data=data))
    return _found(figures, [target("residual", found.residual, found.tol, at_least=False)], data)


def nodes(dot: str) -> dict[str, Any]:
    """{"nodes": kernels, copies and fills of a graph's dot text, "kernels": how often each kernel of them}."""
    bodies = NODE.split(dot)[1:]
    kinds = [found[1] if (found := KIND.search(body)) else "" for body in bodies]
    named = [found[1] if (found := KERNEL.search(body)) else "?"
             for kind, body in zip(kinds, bodies, strict=True) if kind == "KERNEL"]  # fmt: skip
    counted = collections.Counter(named)
    return {
        "nodes": sum(kind in ("KERNEL", "MEMCPY", "MEMSET") for kind in kinds),
        "copies_and_fills": sum(kind in ("MEMCPY", "MEMSET") for kind in kinds),
        "kernels": dict(counted.most_common()),
    }


def _nvrtc(setup: Setup) -> str | None:
    nvrtc: Any = getattr(getattr(getattr(setup.backend, "cp", None), "cuda", None), "nvrtc", None)
    return ".".join(map(str, nvrtc.getVersion())) if nvrtc else None


def mnist_case(setup: Setup, batch: int, samples: int) -> tuple[str, Case, Any, Any]:
    """(where the data is from, the net's steps on whole batches, x uint8, labels)."""
    widths = SMALL if setup.small else WIDTHS
    where, x, y = gpu_data.pictures("mnist", setup.size(samples, 200), widths[0])
    return where, Case(f"mnist-{batch}", widths, setup.size(batch, 20), 1, len(x)), x, y


def _nets(setup: Setup, batch: int, backend: Backend) -> tuple[Callable[[str], Contestant], str]:
    """(contestant by "auto" or "off", where the data is from)."""
    data, case, x, y = mnist_case(setup, batch, SAMPLES)
    order, net = gpu_train.order_of(x), partial(gpu_train.layers, case)
    return lambda graphs: gpu_train.ours(net, backend, x, y, order, case.batch, graphs), data


def _microseconds(run: Callable[[int], None], steps: int) -> float:
    """Of a step: the median of timed calls, each of which waits for the device."""
    run(steps)
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run(steps)
        taken.append((time.perf_counter() - began) / steps)
    return 1e6 * float(np.median(taken))


def _launches(backend: Backend, recording: Callable[[], None], count: int) -> float:
    """Microseconds of a launch; beyond the end of the order its steps take the last rows."""

    def run(launches: int) -> None:
        with backend.session():
            for _ in range(launches):
                recording()
            backend.synchronize()

    return _microseconds(run, count)


def _found(figures: Document, targets: list[Document] | None = None, data: str = "") -> Document:
    return {"data": data, "figures": figures, "targets": targets or []}
