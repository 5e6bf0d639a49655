"""What README shows, measured anew: each question's section of a file of results, saved case by case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gpunet.backend import Backend, get_backend
from gpunet.backend.blas import threads
from gpunet.bench import payoff, routes, svd, train
from gpunet.bench.harness import agree, filled, missing, race
from gpunet.bench.results import Case, Section, failures, provenance, read_sections
from gpunet.bench.rivals import Way
from gpunet.errors import InputError
from gpunet.extras import optional
from gpunet.files import writable_folder
from gpunet.nn.trainer import Precision
from gpunet.progress import Progress

Save = Callable[[], object]
EVERY = 4  # of the payoff's grid each fourth net alone


def training(
    cases: Mapping[str, train.Case], section: Section, backend: Backend, rounds: int, bar: Progress, save: Save = bool,
    *, compiled: bool = False, precisions: Sequence[Precision] | None = None, what: str = "training",
) -> list[str]:  # fmt: skip
    """Fill in a case for each net; why some take no part. compiled: torch.compile, too, on a GPU."""
    bar.start(what, len(cases))
    reasons: list[str] = []
    ways = train.DENSE | {"torch.compile": Way(compiled=True)}
    for name, case in cases.items():
        section.data = case.data()[0]
        first = 0 if not case.trains else 1 if case.whole else train.FIRST
        cpu = backend.name == "cpu"
        everybody = train.contenders(case, backend, ways if compiled and not cpu else None, precisions)
        entries = race(everybody, rounds, pieces=case.steps if cpu else 0, first=first)
        agree(entries, "first_loss" if case.trains else "mean_feature")
        counts = train.counted(case) if "ranks" in case.notes else {}
        section.cases[name] = Case(entries, case.notes | counts)
        reasons += missing(everybody)
        save()
        bar.advance(1, name)
    return list(dict.fromkeys(reasons))


def decompositions(
    problems: Iterable[svd.Problem], section: Section, backend: Backend, rounds: int, bar: Progress, save: Save = bool
) -> list[str]:
    """Fill in a case for each problem; why some take no part."""
    reasons: list[str] = []
    bar.start("decompositions", svd.PROBLEMS)
    for problem in problems:
        everybody = svd.contenders(problem, backend)
        found = race(everybody, rounds, pieces=problem.pieces)
        svd.check(found)
        section.cases[problem.name] = Case(found, {"gap": problem.gap})
        reasons += missing(everybody)
        save()
        bar.advance(1, problem.name)
    return list(dict.fromkeys(reasons))


Fill = Callable[[Section, Backend, int, Progress, Save], object]
QUESTIONS: dict[str, Fill] = {
    "train": lambda *about: training(train.CASES, *about),
    "epoch": lambda *about: training(train.EPOCHS, *about),
    "lowrank": lambda *about: training(train.FACTORED, *about),
    "conv": lambda *about: training(train.CONV, *about),
    "svd": lambda *about: decompositions(svd.problems(), *about),
    "svd-grid": lambda section, backend, rounds, bar, save: routes.fill(section, bar, save),
    "payoff": lambda section, backend, rounds, bar, save: payoff.measure(
        section, list(payoff.nets())[::EVERY], backend, rounds, bar, save
    ),
}
SHOWN = ("train", "epoch", "lowrank", "conv", "svd")  # in README


def record(
    path: Path,
    names: Sequence[str] = SHOWN,
    device: str | Backend = "cpu",
    rounds: int = 9,
    bar: Progress | None = None,
) -> list[str]:
    """Measure each question and write its section, keeping the file's others; the failures, a line each.

    PyTorch gets as many threads as our products. Raises InputError for a question that there is not, and where the file
    is there and is no file of results; OutputError where it cannot be written.
    """
    for name in names:
        if name not in QUESTIONS:
            raise InputError(f"unknown question {name!r}: expected some of {', '.join(QUESTIONS)}")
    writable_folder(path.parent, path.name, hint="")
    read_sections(path) if path.exists() else {}
    backend, failed = get_backend(device), list[str]()
    with_as_many_threads()
    for name in names:
        section = Section(provenance(backend), rounds=rounds)
        part = partial(QUESTIONS[name], section, backend, rounds, bar or Progress())
        if not filled(path, name, section, part, log=False):
            failed.append(f"{name} failed: {section.why}")
        failed += failures(section, f"{name}: ")
    return failed


def with_as_many_threads() -> None:
    """PyTorch's, as many as our products have."""
    if (torch := optional("torch")) is None:
        return
    torch.set_num_threads(threads() or torch.get_num_threads())
