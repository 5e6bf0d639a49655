"""What a plain install leaves out: the extra that brings it, and the one line that says so where it is missing.

`pip install gpunet` brings NumPy, safetensors, rich and Typer. All else is imported where it is used, after `need` or
by `load`, or by a module that nothing imports before one of them was asked.
"""

from __future__ import annotations

import importlib
import importlib.util
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
    return [each for each in modules if importlib.util.find_spec(each) is None]


def need(what: str, *modules: str) -> None:
    """MissingError where one of them is not installed, naming all that `what` lacks and the extras that bring it."""
    if missing := lacking(*modules):
        raise MissingError(line(what, missing))


def load(what: str, module: str) -> Any:
    """The module, imported; MissingError where it is not installed, or is broken."""
    need(what, module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(f"{what} needs {module}, which cannot be imported: {first_line(error)}") from error


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


def absent(name: str, error: ImportError) -> type:
    """What stands for a class whose module raised this MissingError: to make one raises it; other errors are raised.

    `from gpunet import *` and `help(gpunet)` go through all names, of which a plain install has most.
    """
    if not isinstance(error, MissingError):
        raise error
    said = str(error)

    def refuse(cls: type, *args: Any, **kwargs: Any) -> Any:
        raise MissingError(said)

    return type(name, (), {"__new__": refuse, "__doc__": f"Not to be had here: {said}.", "__module__": "gpunet"})


def told(error: BaseException, what: str = "this") -> str:
    """Of an import that failed for want of a known package, the line that names the extra; "" of all other errors."""
    module = str(getattr(error, "name", "")).partition(".")[0]
    return line(what, [module]) if isinstance(error, ModuleNotFoundError) and module in KNOWN else ""
