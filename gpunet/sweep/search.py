"""Search hyper-parameters, coarse to fine, by as many workers as like."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gpunet.addresses import public
from gpunet.checks import is_whole
from gpunet.errors import InputError, RunError, StorageLostError, shown
from gpunet.interrupts import undivided
from gpunet.progress import Progress
from gpunet.sweep.plan import Function, Spec, plain_settings, prepare
from gpunet.sweep.show import Display, Table
from gpunet.sweep.space import Parameter
from gpunet.sweep.storage import LOST, file_of, opened, storage_url, understood
from gpunet.sweep.study import SweepStudy
from gpunet.sweep.workers import one_thread, pool, work


def search(
    function: str,
    settings: dict[str, Any],
    space: list[Parameter],
    *,
    trials: int = 100,
    stages: int = 2,
    seed: int = 0,
    workers: int = 1,
    storage: str | None = None,
    direction: str = "maximize",
    progress: Progress | None = None,
    keep_going: bool = True,
) -> Table:
    """Try the parameters of `space`: `trials` of them in each of `stages` stages, each stage finer than the last.

    function: "package.module:name" of a function(parameters, settings, report) that returns the value, or a dictionary
    with "value" and other metrics. parameters: one of a name each; settings: those given here (what JSON can hold), and
    "trial_seed", the trial's own seed; report(step, cost): records the trial's curve, and is True when the trial should
    stop: a cost that is not finite, or above three times the first. A trial that should have stopped is pruned, as is
    one that raises DivergedError; one that raises anything else, or returns no finite value, has failed, and the others
    go on (not keep_going: its error is raised instead). Its module may have a function `before_sweep(settings)`, called
    by every worker first.

    The trials are a function of space, trials, stages and seed, whatever workers there are: a stage's parameters are
    drawn from the seed, those of a finer one in the smallest box that holds the best fifth (at least four) of the
    trials before it.

    storage: None keeps the trials in memory (workers=1). A URL of Optuna's (sqlite:///file.db, postgresql://…,
    mysql://…, journal:///file.log), or a path, keeps them there: killed at any moment, the same call goes on where it
    stopped, and `join` lets other machines take part; a trial that a killed worker ran is run again when nothing has
    been heard of it for a minute. workers: processes on this machine; with 1 this process itself. Where there may be
    several, each has one thread for matrix products, so that any number gives the same table.

    Raises InputError for settings out of range, and for a storage that cannot be reached or holds another sweep;
    RunError where no trial of a stage completed that the next could be drawn around; StorageLostError, which has the
    table of the trials that were finished, where the storage is deleted, or cannot be read any more.
    """
    _check_workers(workers, storage)
    spec = Spec(function, plain_settings(settings), tuple(space), trials, stages, seed, direction)
    found = prepare(function, spec.settings)
    url = storage and storage_url(storage)
    with opened(url) as held:
        study = SweepStudy.start(held, spec, f"the storage '{public(url)}'" if url else "the memory")
        return run(study, found, url, workers, progress, keep_going)


def join(
    storage: str, *, workers: int = 1, progress: Progress | None = None, keep_going: bool = True, only: str = ""
) -> Table:
    """Take part in the sweep that lies in `storage`, until all its trials are finished; returns the same table.

    only: refuse a sweep whose function has another name than one that begins so: the storage names the function.
    """
    _check_workers(workers, storage)
    url = storage_url(storage)
    with opened(url, new=False) as held:
        study = SweepStudy.join(held, f"the storage '{public(url)}'")
        if not study.spec.function.startswith(only):
            raise InputError(f"the sweep there runs {study.spec.function!r}: expected a function of {only.rstrip('.')}")
        found = prepare(study.spec.function, study.spec.settings)
        return run(study, found, url, workers, progress, keep_going)


def _check_workers(workers: int, storage: str | None) -> None:
    if not is_whole(workers):
        raise InputError(f"workers is a whole number ≥ 1, got {shown(workers)}")
    if storage is None and workers > 1:
        raise InputError(f"{workers} workers need a storage they share, say storage='sqlite:///sweep.db'")


def run(
    study: SweepStudy, function: Function, url: str | None, workers: int = 1, progress: Progress | None = None,
    keep_going: bool = True,
) -> Table:  # fmt: skip
    """The sweep from where it is to its end."""
    display = Display(study.spec, progress or Progress())
    path = file_of(url) if url else None
    file = path if path and path.exists() else None  # a URL's query may tell the driver another place
    try:
        with understood(study.where):
            with undivided():
                ended = not study.look().stage
            if workers == 1 or ended:
                with one_thread() if url else nullcontext():  # in memory there is nobody else whom it has to agree with
                    work(study, function, keep_going, display.show)
            else:
                assert url
                pool(study, url, workers, keep_going, display.show)
            return study.last
    except (*LOST, RunError) as error:
        if url is None or not _gone(study, file):
            raise
        table = study.last
        told = f"the storage '{public(url)}' is gone, with {len(table)} finished trials"
        raise StorageLostError(f"{told}; the same command begins anew", table) from error


def _gone(study: SweepStudy, file: Path | None) -> bool:
    """Whether nothing can be read from the storage any more."""
    try:
        study.look()
    except LOST:
        return True
    return file is not None and not file.exists()  # which may still be open, and readable so long
