"""The experiments on several devices: how long each takes, and whether they find the same.

Each experiment runs whole, as `gpunet run` does without its figures: data, settings and seeds are those of `--quick`
(embedded data, seconds), or the documents' own. Before the clock starts a small net is trained on the device, so that
compiling kernels and loading libraries is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gpunet as gn
from gpunet.backend import Backend, get_backend
from gpunet.backend.device import WITHOUT
from gpunet.errors import DeviceError, GpunetError, InputError
from gpunet.experiments import experiment, experiments
from gpunet.experiments.framework import Run, load_data
from gpunet.experiments.result import Result
from gpunet.progress import Progress

AGREE = ("test_accuracy", "train_accuracy", "converged")  # shares that two devices should agree on


@dataclass(frozen=True)
class Row:
    """One experiment: seconds by device; speed_up: of the last device over the first.

    apart: the largest difference between the devices of a share (accuracy, nets that converged), mean over seeds, and
    where it is. failed: why a device has no time.
    """

    experiment: str
    dataset: str
    seconds: dict[str, float]
    speed_up: float | None
    apart: float | None
    where: str
    failed: dict[str, str]


@dataclass(frozen=True)
class Report:
    """A comparison; devices: by the names they were asked for, and what computes on each."""

    devices: dict[str, str]
    quick: bool
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare(
    devices: Sequence[str],
    names: Sequence[str] | None = None,
    quick: bool = True,
    seeds: int | None = None,
    bar: Progress | None = None,
    save: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Every experiment on every device, one after the other; `save` gets each row as it is done.

    Raises DeviceError for a device that cannot be used, InputError for fewer than two, for one named twice and for an
    experiment that does not exist, DataError where data is missing. What fails while running is a row that says so.
    """
    if len(devices) < 2 or len(set(devices)) < len(devices):
        raise InputError(
            f"devices are {', '.join(devices) or '(none)'}: expected two or more different ones, say cpu,cuda"
        )
    chosen = [experiment(name) for name in (experiments() if names is None else names)]
    try:
        backends = {name: get_backend(name) for name in devices}
    except DeviceError as error:
        raise DeviceError(f"{str(error).removesuffix(WITHOUT)}; without a GPU compare --devices numpy,cpu") from None
    runs = [x.asked({}, quick=quick, seeds=seeds).load() for x in chosen]
    for backend in backends.values():
        _warm_up(backend)
    rows, bar = [], bar or Progress()
    bar.start("bench devices", len(runs) * len(backends))
    for run in runs:
        rows.append(_row(run, backends, bar))
        save(rows[-1])
    kinds = {name: f"{backend.name} ({backend.kernels})" for name, backend in backends.items()}
    return Report(kinds, quick, rows)


def _row(run: Run, backends: dict[str, Backend], bar: Progress) -> Row:
    name = run.experiment.name
    seconds: dict[str, float] = {}
    results: dict[str, Result] = {}
    failed: dict[str, str] = {}
    for device, backend in backends.items():
        began = time.perf_counter()
        try:
            results[device] = run.compute(backend, _Within(bar, device))
            seconds[device] = time.perf_counter() - began
        except (GpunetError, MemoryError) as error:
            failed[device] = " ".join(str(error).split())
        bar.advance(1, f"{name} on {device}")
    first, last = next(iter(backends)), list(backends)[-1]
    both = first in seconds and last in seconds
    apart, where = _apart(list(results.values()))
    dataset = next((result.dataset for result in results.values()), "")
    return Row(name, dataset, seconds, seconds[first] / seconds[last] if both else None, apart, where, failed)


class _Within(Progress):
    """The progress of one run, as notes to the progress of all."""

    def __init__(self, bar: Progress, device: str) -> None:
        self._bar, self._device, self._what = bar, device, ""

    def start(self, what: str, total: int) -> None:
        self._what = what
        self._bar.advance(0, f"{self._device}: {what}")

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._bar.advance(0, f"{self._device}: {self._what} {note}".rstrip())


def _apart(results: list[Result]) -> tuple[float | None, str]:
    """The largest difference of a share between two results, and its place."""
    worst, where = None, ""
    for result in results[1:]:
        for row in result.rows:
            for metric in AGREE:
                if results[0].has(row.name, metric) and result.has(row.name, metric):
                    apart = abs(results[0].mean(row.name, metric) - result.mean(row.name, metric))
                    if worst is None or apart > worst:
                        worst, where = apart, f"{metric} of {row.name}"
    return worst, where


def _warm_up(backend: Backend) -> None:
    digits = load_data("digits")
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(digits.classes)])
    gn.Trainer(model, device=backend).fit(digits.x_train[:200], digits.y_train[:200], batch_size=64)
    gn.svd(digits.x_train[:200], 8, device=backend)
