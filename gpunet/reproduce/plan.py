"""What `gpunet reproduce` runs, and what a run is asked to do: a finished one is kept while that stays the same."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from gpunet.backend import Backend
from gpunet.errors import InputError
from gpunet.experiments import experiments
from gpunet.experiments.framework import RunRequest
from gpunet.fingerprint import difference, digest
from gpunet.limits import plain


def plan(quick: bool, seeds: int | None = None) -> list[RunRequest]:
    """All runs in the order of the papers, of so many seeds or their own; never of fewer where they train as one."""
    jobs = ((x, job) for x in experiments().values() for job in (x.quick if quick else x.full) if job.also is not None)
    return [
        x.asked(job.also or {}, job=job, seeds=max(seeds or 0, job.seeds) if job.together else seeds) for x, job in jobs
    ]


def select(runs: Sequence[RunRequest], only: Sequence[str]) -> list[RunRequest]:
    """The runs of some experiments, or runs by their own names; InputError naming those there are."""
    names = [run.folder for run in runs]
    for word in only:
        if word not in {*experiments(), *names}:
            raise InputError(
                f"--only is '{word}': expected an experiment ({', '.join(experiments())}) or one run "
                f"({', '.join(names)})"
            )
    return [run for run in runs if not only or run.experiment.name in only or run.folder in only]


def run_spec(request: RunRequest, backend: Backend) -> dict[str, Any]:
    """What a run is asked to do, its data aside, as JSON; two that agree give the same result, times aside."""
    found: dict[str, Any] = plain({
        "experiment": request.experiment.name, "settings": asdict(request.settings), "seeds": request.seeds,
        "device": f"{backend.name} {backend.kernels}", "code": code(request.experiment.package),
    })  # fmt: skip
    return found


def changed(now: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """What of a run is asked for otherwise than before, in words; "" where nothing is. Only what `now` names counts."""
    for part in ("data", "code"):  # digests tell a reader nothing
        if part in now and now[part] != held.get(part):
            return f"its {part} changed"
    return difference("", dict(now), {part: held.get(part) for part in now})


def fingerprint(data: Any) -> str:
    """Sixteen hexadecimal digits that stand for every array, name and number of one data set, or of several."""
    parts: list[Any] = []
    for name, value in _walk("", data):
        array = isinstance(value, np.ndarray)
        parts += [name, *((f"{value.dtype.str}{value.shape}", value) if array else (repr(value),))]
    return digest(*parts)


def _walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        for each in fields(value):
            if each.name not in ("source", "notes"):  # the same data may lie elsewhere, in another kind of file
                yield from _walk(f"{name}.{each.name}", getattr(value, each.name))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _walk(f"{name}.{place}", item)
    else:
        yield name, value


# -- the code that measures -------------------------------------------------------------------------------------------

# What judges, shows and runs is not of it. Nor is what reads data, which is looked at itself; papers may make some.
ROOMS_APART = ("gpunet.bench", "gpunet.cli", "gpunet.report", "gpunet.reproduce")
FILES_APART = ("claims", "tables", "figures")
DATA = "gpunet.datasets"
KERNELS = "gpunet.backend.cupy_backend"


@functools.cache
def code(package: str) -> str:
    """The version of what is running, and sixteen hexadecimal digits for the files that measure a paper."""
    files = sorted(sources(package, folders(package)).items())
    found = digest(*(part for name, path in files for part in (f"{name}\0", path.read_bytes())))
    return f"{gpunet.__version__} {found}"


def folders(package: str) -> dict[str, Path]:
    """Where the packages lie that are looked through, the inner before the outer."""
    found = (importlib.import_module(name) for name in (package, DATA, "gpunet"))
    return {module.__name__: Path(str(module.__file__)).parent for module in found}


def sources(package: str, folders: Mapping[str, Path]) -> dict[str, Path]:
    """The file of each module that a paper's body imports, or what it imports does, whenever that is; and the kernels.

    package: the paper's; folders: see there. Found without importing: what is named counts, also in a function that is
    not called, so that there may be more than a run needs, and none that it needs is missing.
    """
    found: dict[str, Path] = {}
    ahead = {f"{package}.body"}
    while ahead:
        name = ahead.pop()
        path, parent = _file(name, folders), name.rpartition(".")[0]
        apart = name.startswith(ROOMS_APART) or name.rpartition(".")[2] in FILES_APART
        if path is None or apart or name in found:
            continue
        found[name] = path
        inside = name if path.name == "__init__.py" else parent
        named = _named(path.read_bytes(), inside, path.name)
        if (stub := path.with_suffix(".pyi")).is_file():  # where a package says where its names live
            found[f"{name}.pyi"] = stub
            named |= _named(stub.read_bytes(), inside, path.name)
        of_paper = name.startswith((package, DATA))
        ahead |= {parent, *(each for each in named if of_paper or not each.startswith(DATA))}
    if KERNELS in found:
        found |= {path.name: path for path in (found[KERNELS].parent / "cuda").glob("*.cu*")}
    return found


def _file(module: str, folders: Mapping[str, Path]) -> Path | None:
    for package, folder in folders.items():
        if f"{module}.".startswith(f"{package}.") and all(map(str.isidentifier, module.split("."))):
            stem = folder.joinpath(*module.removeprefix(package).split(".")[1:])
            return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)
    return None


@functools.cache
def _named(code: bytes, package: str, file: str) -> frozenset[str]:
    """What a file of a package may import: dotted names, of which only some are modules.

    Also what is imported when it is used: `gn.linalg`, the modules in a package's tables of names, "gpunet.x:function".
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("gn", "gpunet"):
            found.add(f"gpunet.{node.attr}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value.partition(":")[0], *([f"{package}.{node.value}"] if file == "__init__.py" else [])}
    return frozenset(found)
