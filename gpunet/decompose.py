"""The principal components of a file of any size: what `gpunet pca` computes, and what it leaves behind.

    {"format": 1, "file", "labels", "shape": [samples, features], "dtype", "settings": {…},
     "parts": [{"class": INTEGER or null, "name" of a class that has one, "count",
                "explained_variance": […], "explained_variance_ratio": […],
                "certificate": {"sigma": [[low, high], …], "sine", "complete", "beyond"}}, …],
     "residual", "route", "seconds": {"sums", "components"}, "megabytes", "megabytes_per_second", "provenance": {…}}

in result.json, a number that is not finite being null; and the arrays of `arrays` in components.safetensors and .npz.
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.addresses import harmless
from gpunet.backend import get_backend
from gpunet.backend.blas import one_thread
from gpunet.checks import check_whole
from gpunet.errors import InputError, first_line
from gpunet.experiments.provenance import Stopwatch
from gpunet.extras import need
from gpunet.files import write_or_keep
from gpunet.interrupts import contextmanager
from gpunet.limits import plain
from gpunet.linalg import ClassPCA, gram
from gpunet.linalg.classes import check_labels
from gpunet.linalg.device import is_gpu
from gpunet.linalg.executors import end_processes
from gpunet.linalg.pca import PCA
from gpunet.linalg.sources import open_path
from gpunet.progress import Progress

USUAL = 100  # components, or as many as there are
CONNECT = 10.0  # seconds that a scheduler has to answer
ARRAYS = ("components.safetensors", "components.npz")


@dataclass(frozen=True)
class Settings:
    """What is asked of a file."""

    k: int | None = None
    center: bool = False
    reproducible: bool = False
    workers: int = 1
    scheduler: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Found:
    """Components of a file's samples, or of those of each class, and how long they took."""

    file: str
    labels: str | None
    shape: tuple[int, int]
    dtype: str
    settings: Settings
    pca: PCA | ClassPCA
    seconds: dict[str, float]
    megabytes: float
    provenance: dict[str, Any]
    names: tuple[str, ...] = ()

    @property
    def speed(self) -> float:
        """Megabytes a second that were read and summed."""
        return self.megabytes / max(1e-9, self.seconds["sums"])

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The spectrum and the certificate of all samples, or of each class."""
        found, names = self.pca, ("sigma", "sine", "complete", "beyond")
        spectra = ("explained_variance", "explained_variance_ratio")
        if isinstance(found, PCA):
            proof = {name: getattr(found.certificate, name) for name in names}
            return [
                {"class": None, "count": found.count, "certificate": proof} | {s: getattr(found, s) for s in spectra}
            ]
        parts = []
        for c, (label, rank) in enumerate(zip(found.classes, found.ranks, strict=True)):
            proof = {name: getattr(found.certificate, name)[c] for name in names}
            own = {each: getattr(found, each)[c, :rank] for each in spectra}
            name = {"name": self.names[label]} if self.names else {}
            parts.append({"class": int(label), **name, "count": found.counts[c], "certificate": proof} | own)
        return parts

    def text(self) -> str:
        """`result.json`."""
        document = {
            "format": 1, "file": self.file, "labels": self.labels, "shape": self.shape, "dtype": self.dtype,
            "settings": asdict(self.settings), "parts": self.parts, "residual": self.pca.residual,
            "route": self.pca.route, "seconds": self.seconds, "megabytes": self.megabytes,
            "megabytes_per_second": self.speed, "provenance": self.provenance,
        }  # fmt: skip
        return json.dumps(plain(document), indent=1, ensure_ascii=False).encode(errors="replace").decode() + "\n"

    def arrays(self) -> dict[str, Any]:
        """components (k, features) or (classes, k, features) and what belongs to them, as `PCA` and `ClassPCA` say."""
        names = ["components", "explained_variance", "explained_variance_ratio", "mean"]
        names += [] if isinstance(self.pca, PCA) else ["classes", "counts", "ranks"]
        proof = self.pca.certificate
        found = {name: getattr(self.pca, name) for name in names}
        found |= {name: getattr(proof, name) for name in ("sigma", "sine", "complete", "beyond")}
        found["center"] = self.settings.center  # whether the mean, which is given anyway, was subtracted
        if isinstance(self.pca, PCA):
            found["count"] = self.pca.count
        return {name: np.ascontiguousarray(each) for name, each in found.items()}

    def write_arrays(self, folder: Path) -> None:
        """Both files, each whole or not at all; OutputError says where they are kept where the folder is gone."""
        from safetensors.numpy import save

        arrays, buffer = self.arrays(), io.BytesIO()
        np.savez(buffer, **arrays)
        for name, content in zip(ARRAYS, (save(arrays), buffer.getvalue()), strict=True):
            write_or_keep(folder / name, content)


def decompose(file: str, labels: str | None, settings: Settings, bar: Progress) -> Found:
    """Sum up a file, here or by workers, and decompose what was summed.

    Raises InputError, DataError and RunError as `gn.gram` does, InputError for a scheduler that does not answer.
    """
    watch, source = Stopwatch(), open_path(file, "FILE")
    backend = get_backend(settings.device)
    names, given = _named(labels)
    classes = None if given is None else check_labels(given, source)
    least = source.shape[0] if classes is None else int(np.unique(classes, return_counts=True)[1].min())
    most = min(least - settings.center, source.shape[1])
    k = min(USUAL, max(1, most)) if settings.k is None else check_whole("--k", settings.k, most=max(1, most))
    with executor_of(settings) as executor:
        began = time.perf_counter()
        sums = gram(
            source, classes, center=settings.center, reproducible=settings.reproducible, executor=executor,
            device=backend.name if is_gpu(backend) else None, progress=bar,
        )  # fmt: skip
        summed = time.perf_counter()
    found = sums.components(k)
    seconds = {"sums": summed - began, "components": time.perf_counter() - summed}
    told = Settings(**asdict(settings) | {"k": k, "device": backend.name})
    return Found(
        file, labels, source.shape, str(source.dtype), told, found, seconds, source.nbytes / 1e6,
        watch.provenance(backend), names,
    )  # fmt: skip


def _named(labels: str | None) -> tuple[tuple[str, ...], Any]:
    """Labels of text in an .npy file as their names and numbers; of other labels no names, and what was given.

    Whole floats are the numbers that they are.
    """
    from gpunet.datasets.labels import distinct
    from gpunet.datasets.npz import read_npy

    if labels is None or not (labels.endswith(".npy") and os.path.isfile(labels)):
        return (), labels
    array = read_npy(Path(labels), text=True)
    if array.dtype.kind not in "USf":
        return (), labels
    names, numbers = distinct(array, labels)
    return (tuple(names), numbers) if array.dtype.kind != "f" else ((), np.array(names, np.int64)[numbers])


# -- who sums ---------------------------------------------------------------------------------------------------------


@contextmanager
def executor_of(settings: Settings) -> Iterator[Executor | None]:
    """None for this process alone, or so many processes on this machine, or a Dask cluster's workers."""
    if settings.scheduler is not None and settings.workers > 1:
        raise InputError(
            "--workers and --scheduler are both given: a scheduler has workers of its own; give one of them"
        )
    if settings.scheduler is not None:
        with _cluster(settings.scheduler) as executor:
            yield executor
    elif settings.workers > 1:
        with ProcessPoolExecutor(settings.workers, Spawned(), begin_worker) as executor:
            try:
                yield executor
            except BaseException:  # nobody wants what they compute
                hook, threading.excepthook = threading.excepthook, lambda _: None  # of futures that were cancelled
                try:
                    end_processes(executor)
                    executor.shutdown()
                finally:
                    threading.excepthook = hook
                raise
    else:
        yield None


class Spawned(multiprocessing.context.SpawnContext):
    """Processes begin anew: of threads that hold a lock a fork would keep it for ever."""

    class Process(multiprocessing.context.SpawnProcess):
        """It begins with the signals blocked that are when it is started: Ctrl-C finds it deaf from the first."""

        def start(self) -> None:
            """As any does, with Ctrl-C blocked meanwhile; one that comes is heard after it."""
            if not hasattr(signal, "pthread_sigmask"):
                return super().start()
            was = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, was)


def begin_worker() -> None:
    """A worker process on this machine: one thread for products, since there are others; gone when we are.

    Ctrl-C reaches all processes of a terminal: we hear it, and tell them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not os.environ.get("OPENBLAS_NUM_THREADS"):
        one_thread()
    if parent := multiprocessing.parent_process():
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    need("--scheduler", "distributed")
    before = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)  # what goes wrong is told once, by us
        client = _client(address)
        try:
            yield client.get_executor()
        finally:
            client.close(timeout=2)
    finally:
        logging.disable(before)


def _client(address: str) -> Any:
    from distributed import Client

    try:
        if not re.fullmatch(r"([a-z]+://)?[^/\s]+:\d{1,5}", address):  # of which Dask would say much more than a line
            raise ValueError("that is no address")
        return Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {harmless(address)} ({first_line(error)}): expected an address such as "
            "tcp://HOST:8786, where `dask scheduler` runs"
        ) from None
