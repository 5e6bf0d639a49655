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
from gpunet.experiments import registry
from gpunet.experiments.work import Work, load_data, order
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
    experiments: Sequence[str] = tuple(registry.EXPERIMENTS),
    quick: bool = True,
    seeds: int | None = None,
    bar: Progress | None = None,
    save: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Every experiment on every device, one after the other; `save` gets each row as it is done.

    Raises DeviceError for a device that cannot be used, InputError for fewer than two, for one named twice and for an
    experiment that does not exist, DataError where data is missing. What fails while running is a row that says so.
    """
    names = list(devices)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"devices are {', '.join(names) or '(none)'}: expected two or more different ones, say cpu,cuda"
        )
    for name in experiments:
        registry.experiment(name)
    try:
        backends = {name: get_backend(name) for name in names}
    except DeviceError as error:
        raise DeviceError(f"{str(error).removesuffix(WITHOUT)}; without a GPU compare --devices numpy,cpu") from None
    works = {name: order(name, {}, quick=quick, seeds=seeds).load() for name in experiments}
    for backend in backends.values():
        _warm_up(backend)
    rows, bar = [], bar or Progress()
    bar.start("bench devices", len(experiments) * len(names))
    for name in experiments:
        rows.append(_row(works[name], backends, bar))
        save(rows[-1])
    kinds = {name: f"{backend.name} ({backend.kernels})" for name, backend in backends.items()}
    return Report(kinds, quick, rows)


def _row(work: Work, backends: dict[str, Backend], bar: Progress) -> Row:
    name = work.experiment
    seconds: dict[str, float] = {}
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for device, backend in backends.items():
        began = time.perf_counter()
        try:
            results[device] = work.compute(backend, _Within(bar, device))
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


def _apart(results: list[Any]) -> tuple[float | None, str]:
    """The largest difference of a share between two results, and its place."""
    worst, where = None, ""
    for result in results[1:]:
        for row in result.rows:
            for metric in AGREE:
                one, other = results[0].mean(row.name, metric), result.mean(row.name, metric)
                if one is not None and other is not None and (worst is None or abs(one - other) > worst):
                    worst, where = abs(one - other), f"{metric} of {row.name}"
    return worst, where


def _warm_up(backend: Backend) -> None:
    digits = load_data("digits")
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(digits.classes)])
    gn.Trainer(model, device=backend).fit(digits.x_train[:200], digits.y_train[:200], batch_size=64)
    gn.svd(digits.x_train[:200], 8, device=backend)
