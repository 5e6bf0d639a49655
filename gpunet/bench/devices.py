"""The experiments on several devices: how long each takes, and whether they find the same.

Each experiment runs whole, as `gpunet run` does without its figures: data, settings and seeds are those of `--quick`
(embedded data, seconds), or the documents' own. Before the clock starts a small net is trained on the device, so that
compiling kernels and loading libraries is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import gpunet as gn
from gpunet.backend import Backend, get_backend
from gpunet.backend.device import WITHOUT
from gpunet.bench.results import Case, Entry, Section, provenance
from gpunet.errors import DeviceError, GpunetError, InputError
from gpunet.experiments import experiment, experiments
from gpunet.experiments.framework import Run, load_data
from gpunet.experiments.result import Result
from gpunet.progress import Progress

AGREE = ("test_accuracy", "train_accuracy", "converged")  # shares that two devices should agree on


def compare(
    devices: Sequence[str],
    names: Sequence[str] | None = None,
    quick: bool = True,
    seeds: int | None = None,
    bar: Progress | None = None,
    save: Callable[[str, Case], None] = lambda name, case: None,
) -> Section:
    """Every experiment on every device, one after the other: a case each, of which `save` is told as it is done.

    A case notes "dataset", and how far the devices are "apart" at most in a share (accuracy, nets that converged), mean
    over seeds, and "where". Raises DeviceError for a device that cannot be used, InputError for fewer than two, for one
    named twice and for an experiment that does not exist, DataError where data is missing. What fails while running is
    an entry that says so.
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
    kinds = {name: f"{backend.name} ({backend.kernels})" for name, backend in backends.items()}
    found, bar = Section(provenance(), notes={"devices": kinds, "quick": quick}), bar or Progress()
    bar.start("bench devices", len(runs) * len(backends))
    for run in runs:
        name = run.experiment.name
        found.cases[name] = _case(run, backends, bar)
        save(name, found.cases[name])
    return found


def _case(run: Run, backends: dict[str, Backend], bar: Progress) -> Case:
    case, results = Case(notes={"dataset": "", "apart": None, "where": ""}), list[Result]()
    for device, backend in backends.items():
        entry = case.entries[device] = Entry("other" if case.entries else "rival")  # the first is the one to beat
        began = time.perf_counter()
        try:
            results.append(run.compute(backend, _Within(bar, device)))
            entry.seconds = [time.perf_counter() - began]
        except (GpunetError, MemoryError) as error:
            entry.failed = " ".join(str(error).split())
        bar.advance(1, f"{run.experiment.name} on {device}")
    if results:
        case.notes["dataset"] = results[0].dataset
        case.notes["apart"], case.notes["where"] = apart(results)
    return case


class _Within(Progress):
    """The progress of one run, as notes to the progress of all."""

    def __init__(self, bar: Progress, device: str) -> None:
        self._bar, self._device, self._what = bar, device, ""

    def start(self, what: str, total: int) -> None:
        self._what = what
        self._bar.advance(0, f"{self._device}: {what}")

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._bar.advance(0, f"{self._device}: {self._what} {note}".rstrip())


def apart(results: Sequence[Result]) -> tuple[float | None, str]:
    """The largest difference of a share between the first result and another, and its place."""
    differences = [
        (abs(results[0].mean(row.name, metric) - other.mean(row.name, metric)), f"{metric} of {row.name}")
        for other in results[1:]
        for row in other.rows
        for metric in AGREE
        if results[0].has(row.name, metric) and other.has(row.name, metric)
    ]
    return max(differences, key=lambda each: each[0], default=(None, ""))


def _warm_up(backend: Backend) -> None:
    digits = load_data("digits")
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(digits.classes)], scale=digits.scale)
    gn.Trainer(model, device=backend).fit(digits.x_train[:200], digits.y_train[:200], batch_size=64)
    gn.svd(digits.x_train[:200], 8, device=backend)
