"""Small data sets to run svd-init on, and what its result must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpunet.datasets.arrays import from_arrays
from gpunet.experiments import experiment
from gpunet.experiments.framework import Run
from gpunet.experiments.result import Result
from gpunet.progress import Progress

from .schema import check_document, parse

KINDS = ("random", "orth-whole", "orth-each", "scale-whole", "scale-each")
SWEEP = ("orth-each dep=0", "orth-each dep=0.02", "orth-each dep=0.05", "orth-each dep=0.1")
ROWS = [*KINDS, *(f"{kind} frozen" for kind in KINDS), *(f"{kind} norm held" for kind in KINDS), *SWEEP]
FIGURES = ("curves.png", "dependency.png", "further.png", "table1.png")
METRICS = {
    "train_loss", "train_accuracy", "test_loss", "test_accuracy", "dependency_initial", "dependency_final",
    "weight_mean_over_std", "hidden_square_independent", "hidden_square_linear", "hidden_square_measured",
}  # fmt: skip
BY_THE_CLOCK = {"svd-each-costs-same", "frozen-is-cheaper"}  # claims whose finding is a time


def arrays(
    dtype: str = "float32", classes: int = 3, features: int = 7, train: int = 60, test: int = 30
) -> dict[str, Any]:
    """Clusters, one a class; uint8 or floats."""
    rng = np.random.Generator(np.random.Philox(5))
    centres = rng.normal(size=(classes, features))
    made: dict[str, Any] = {}
    for split, n in (("train", train), ("test", test)):
        y = np.arange(n) % classes
        x = centres[y] + 0.5 * rng.normal(size=(n, features))
        made[f"x_{split}"] = np.clip(128 + 40 * x, 0, 255).astype("uint8") if dtype == "uint8" else x.astype(dtype)
        made[f"y_{split}"] = y
    return made


def dataset(name: str = "own", **kwargs: Any) -> Any:
    return from_arrays(name, **arrays(**kwargs), source=f"{name}.npz")


def compute(
    name: str, data: Any, seeds: list[int], device: Any = "numpy", progress: Any = None, **settings: Any
) -> Any:
    """The result of an experiment on data that is loaded already."""
    x = experiment(name)
    return Run(x, data, x.Settings(**settings), seeds).compute(device, progress)


def begun(name: str, data: Any, device: Any, **settings: Any) -> Any:
    """A run of an experiment with seed 0, as its body is handed it."""
    x = experiment(name)
    run = Run(x, data, x.Settings(**settings), [0])
    run.result = Result(name, data.name, device.name, {}, run.seeds)
    run.backend, run.bar = device, Progress()
    return run


def write_npz(path: Path, dtype: str = "float32", **changes: Any) -> Path:
    np.savez(path, **(arrays(dtype) | changes))
    return path


def read_result(text: str) -> dict[str, Any]:
    """Parse strictly and hold against the schema, and against what svd-init promises."""
    result = parse(text)
    check_result(result)
    return result


def check_result(result: dict[str, Any]) -> None:
    check_document(result)
    seeds = len(result["seeds"])
    assert [row["name"] for row in result["rows"]] == ROWS
    assert all(set(row["metrics"]) == METRICS for row in result["rows"])
    _check_curves(result["curves"], seeds, result["settings"]["epochs"])
    _check_timings(result["timings"], seeds)


def _check_curves(curves: dict[str, Any], seeds: int, epochs: int) -> None:
    assert sorted(curves) == sorted(ROWS)
    for curve in curves.values():
        assert set(curve) == {"train_loss", "test_accuracy", "dependency_epoch", "dependency"}
        assert all(len(runs) == seeds for runs in curve.values())
        assert all(len(run) == epochs for name in ("train_loss", "test_accuracy") for run in curve[name])
        for at, ratio in zip(curve["dependency_epoch"], curve["dependency"], strict=True):
            assert len(at) == len(ratio) > epochs
            assert at == sorted(at)
            assert (at[0], at[-1]) == (0, epochs)
            assert all(type(r) is float for r in ratio)


def _check_timings(timings: dict[str, Any], seeds: int) -> None:
    assert set(timings) == {"whole", "each", *ROWS}
    assert timings["whole"]["svd"][0] > 0 < timings["each"]["svd"][0]
    assert all(len(timings[row]["epoch"]) == seeds and min(timings[row]["epoch"]) > 0 for row in ROWS)


def repeatable(result: dict[str, Any]) -> dict[str, Any]:
    """What the same seed must give again, bit for bit: all but times and provenance."""
    return {key: value for key, value in result.items() if key not in ("timings", "provenance")}
