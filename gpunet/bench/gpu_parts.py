"""The parts of benchmarks/gpu_check.sh, each to be run in a process of its own.

A part takes a `Setup` and returns {"data": where from, "figures": {…}, "targets": [`target`, …]}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from gpunet.backend.device import gpus
from gpunet.bench import devices, gpu_data, gpu_entries, gpu_parts_train, gpu_svd
from gpunet.bench.gpu_setup import Document, Setup, target
from gpunet.experiments.provenance import versions
from gpunet.experiments.registry import EXPERIMENTS


def machine(setup: Setup) -> Document:
    """The device and what runs on it: to be looked at first."""
    backend = setup.backend
    figures = {"device": backend.name, "records": backend.records, **backend.memory(), **versions(backend)}
    return {"data": "", "figures": figures | {"gpus": gpus()}, "targets": []}


def whole(setup: Setup) -> Document:
    """784×60000, top 100."""
    where, x, _ = gpu_data.pictures("mnist", setup.size(60_000, 400), setup.size(784, 60))
    problem = gpu_svd.whole(setup.backend, x, setup.size(100, 10))
    return _decompose(setup, where, problem, ("over torch.linalg.svd", 20.0))


def classes(setup: Setup) -> Document:
    """The same images' ten classes, top 10 of each."""
    where, x, y = gpu_data.pictures("mnist", setup.size(60_000, 400), setup.size(784, 60))
    problem = gpu_svd.classes(setup.backend, x, y, setup.size(10, 3))
    return _decompose(setup, where, problem, ("over ten torch.linalg.svd", 5.0))


def stack(setup: Setup) -> Document:
    """100×3072×500, top 50 of each."""
    shape = (3, 60, 20) if setup.small else (100, 3072, 500)
    return _decompose(setup, "made", gpu_svd.stack(setup.backend, shape, setup.size(50, 5)))


def square(setup: Setup) -> Document:
    """4096×4096 to rank 256."""
    return _decompose(setup, "made", gpu_svd.square(setup.backend, setup.size(4096, 64), setup.size(256, 8)))


def _decompose(setup: Setup, data: str, problem: gpu_svd.Problem, bound: tuple[str, float] | None = None) -> Document:
    found: Document = {"data": data, "figures": {}, "targets": []}
    found["figures"] = gpu_entries.measure(*problem, setup.rounds, lambda rows: setup.save(found | {"figures": rows}))
    for name, row in found["figures"].items():
        if name.startswith("gpunet"):
            found["targets"].append(
                target(f"{name}: energy missed beyond the best", row["energy_missed"], 1e-6, at_least=False)
            )
    if bound:
        ours, theirs = (found["figures"].get(name, {}).get("seconds") for name in ("gpunet", "torch.linalg.svd"))
        found["targets"].append(target(bound[0], theirs / ours if ours and theirs else None, bound[1]))
    return found


def experiments(setup: Setup) -> Document:
    """Every experiment's quick run, CPU against this device."""
    found: Document = {"data": "embedded", "figures": {"rows": []}, "targets": []}

    def save(row: devices.Row) -> None:
        found["figures"]["rows"].append(asdict(row))
        setup.save(found)

    on_gpu = setup.backend.name.startswith("cuda")
    pair = ["cpu", setup.backend.name] if on_gpu else ["numpy", "cpu"]
    report = devices.compare(pair, ["toy"] if setup.small else list(EXPERIMENTS), save=save)
    failed = sum(len(row.failed) for row in report.rows)
    return found | {
        "figures": report.as_dict(),
        "targets": [target("experiments that failed", failed, 0, at_least=False)],
    }


PARTS: dict[str, Callable[[Setup], Document]] = {
    "machine": machine,
    **{f"train-{batch}": partial(gpu_parts_train.training, batch=batch) for batch in gpu_parts_train.BATCHES},
    "svd-dnn": gpu_parts_train.svd_dnn,
    "svd-whole": whole,
    "svd-classes": classes,
    "conv": gpu_parts_train.convolution,
    "train-tf32": gpu_parts_train.in_tf32,
    "svd-stack": stack,
    "svd-square": square,
    "devices": experiments,
}
# Seconds after which a part is stopped.
LIMITS = {
    "machine": 60, "train-64": 90, "train-256": 60, "train-2048": 60, "svd-dnn": 40, "svd-whole": 50,
    "svd-classes": 40, "conv": 50, "train-tf32": 75, "svd-stack": 60, "svd-square": 60, "devices": 120,
}  # fmt: skip
