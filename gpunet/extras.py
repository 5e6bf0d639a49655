"""What a plain install leaves out: the extra that brings it, and the one line that says so where it is missing.

`pip install gpunet` brings NumPy, safetensors, rich and Typer. All else is imported where it is used, after `need` or
by `load` or `optional`, or by a module that nothing imports before one of them was asked. A package that is there but
cannot be imported is told as well, by the same, and how to mend it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import traceback
from collections.abc import Iterable
from typing import Any

from gpunet.errors import MissingError, first_line

# By the name that is imported: what it is called, and the extras that bring it, the likeliest first.
KNOWN = {
    "sklearn": ("scikit-learn", "data"), "pooch": ("pooch", "data"), "requests": ("requests", "data"),
    "h5py": ("h5py", "data"), "PIL": ("Pillow", "data"), "platformdirs": ("platformdirs", "data"),
    "matplotlib": ("matplotlib", "report"), "jinja2": ("Jinja2", "report"), "msgspec": ("msgspec", "report sweep"),
    "optuna": ("Optuna", "sweep"), "sqlalchemy": ("SQLAlchemy", "sweep"),
    "numba": ("numba", "fast"), "numkong": ("NumKong", "fast"), "scipy": ("SciPy", "fast data report"),
    "threadpoolctl": ("threadpoolctl", "fast sweep"),
    "torch": ("PyTorch", "torch"), "ml_dtypes": ("ml_dtypes", "data torch"),
    "onnx": ("onnx", "onnx"), "onnxruntime": ("onnxruntime", "onnx"),
    "dask": ("Dask", "dask"), "distributed": ("Dask", "dask"), "zarr": ("Zarr", "dask"),
    "pg8000": ("pg8000", "postgres"),
}  # fmt: skip
EXTRAS = [*dict.fromkeys(extra for _, extras in KNOWN.values() for extra in extras.split()), "cuda12", "cuda13"]


def install(*extras: str) -> str:
    """The command that installs these extras."""
    return f"pip install 'gpunet[{','.join(sorted(extras, key=EXTRAS.index))}]'"


def how(module: str) -> str:
    """The command that brings a module; of one that no extra brings, its own name."""
    return install(KNOWN[module][1].split()[0]) if module in KNOWN else f"pip install {module}"


def lacking(*modules: str) -> list[str]:
    """Those of them that are not installed; none of them is imported."""
    return [each for each in modules if not _there(each)]


def _there(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # an empty module that somebody put in its place, as tools that read docstrings do
        return False
    # A folder of that name, without __init__.py, is a package of nowhere.
    return spec is not None and not (spec.origin is None and spec.submodule_search_locations is not None)


def need(what: str, *modules: str) -> None:
    """Import them; MissingError where one is not installed, naming all that `what` lacks, or cannot be imported."""
    if missing := lacking(*(each.partition(".")[0] for each in modules)):
        raise MissingError(line(what, missing))
    for module in modules:
        try:
            importlib.import_module(module)
        except MemoryError:
            raise
        except Exception as error:  # ImportError, OSError for a shared library, ValueError for another NumPy's, …
            raise MissingError(told(error, what) or _broken(what, module, error)) from error


def load(what: str, module: str) -> Any:
    """The module, imported; MissingError where it is not installed, or is broken."""
    need(what, module)
    return importlib.import_module(module)


def optional(module: str) -> Any:
    """The module where it is installed and can be imported, else None: for what goes without it as well."""
    try:
        return load("this", module)
    except MissingError:
        return None


def line(what: str, missing: Iterable[str]) -> str:
    """What is missing and how to get it."""
    missing = list(missing)
    names = list(dict.fromkeys(KNOWN[each][0] for each in missing))
    extras: list[str] = []
    for brought_by in sorted((KNOWN[each][1].split() for each in missing), key=len):  # where there is no choice, first
        if not set(brought_by) & set(extras):
            extras.append(brought_by[0])
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{what} needs {listed}, which {'is' if len(names) == 1 else 'are'} not installed: {install(*extras)}"


def absent(name: str, error: Exception) -> type:
    """What stands for a class whose module could not be imported for want of a package; other errors are raised.

    To make one, or to use what it would have, raises MissingError; the same name and error give the same class.
    `from gpunet import *` and `help(gpunet)` go through all names, of which a plain install has most.
    """
    said = str(error) if isinstance(error, MissingError) else told(error, name)
    if not said:
        raise error
    return _absent(name, said)


@functools.cache
def _absent(name: str, said: str) -> type:
    def refuse(cls: type, *args: Any, **kwargs: Any) -> Any:
        raise MissingError(said)

    def lack(cls: type, attribute: str) -> Any:
        if attribute.startswith("_"):  # of those that look at any class: help(), copy, inspect
            raise AttributeError(attribute)
        raise MissingError(said)

    kind = type("Absent", (type,), {"__getattr__": lack})
    body = {"__new__": refuse, "__doc__": f"Not to be had here: {said}.", "__module__": "gpunet"}
    stand_in: type = kind(name, (), body)
    return stand_in


def told(error: BaseException, what: str = "this") -> str:
    """Of an error of importing a known package, which is missing or broken, what to do; "" of all other errors.

    It is the package that the error names; else, for whatever was raised while one was being imported, the last such.
    """
    named = str(error.name).partition(".")[0] if isinstance(error, ImportError) else ""
    if isinstance(error, ModuleNotFoundError) and named in KNOWN and lacking(named):
        return line(what, [named])
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    roots = [named, *(str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames)]
    known = [root for root in roots if root in KNOWN]
    return _broken(what, known[-1], error) if known else ""


def _broken(what: str, module: str, error: BaseException) -> str:
    root = module.partition(".")[0]
    name = KNOWN[root][0] if root in KNOWN else root
    said, again = first_line(error).rstrip("."), "pip install --force-reinstall"
    package = {"sklearn": "scikit-learn", "PIL": "Pillow"}.get(root, root)  # as pip knows it
    return f"{what} needs {name}, which cannot be imported: {said}; reinstall it: {again} {package}"
