"""Data sets: loading, checking, fetching.

    >>> import gpunet.datasets
    >>> digits = gpunet.datasets.load("digits")        # a name of the registry …
    >>> digits.x_train.shape, digits.shape, digits.classes
    ((1442, 64), (8, 8), 10)

… or a path: `load("my-set.npz")`, `load("folder/of/idx/files")`, `load("folder/of/class/folders")`.
Importing this package is cheap: NumPy and the readers are imported when something is loaded, so that
`gpunet --help` need not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .entries import Archive, Entry, RemoteFile
from .loading import dataset_dir, load
from .location import data_dir
from .registry import REGISTRY, entry, names

if TYPE_CHECKING:
    from .base import Dataset, validate
    from .cifar import IncompleteDataWarning, load_cifar10_batches
    from .fetching import fetch
    from .made import linear
    from .verify import Status, status

__all__ = [
    "REGISTRY",
    "Archive",
    "Dataset",
    "Entry",
    "IncompleteDataWarning",
    "RemoteFile",
    "Status",
    "data_dir",
    "dataset_dir",
    "entry",
    "fetch",
    "linear",
    "load",
    "load_cifar10_batches",
    "names",
    "status",
    "validate",
]

_LAZY = {
    "Dataset": "base",
    "IncompleteDataWarning": "cifar",
    "Status": "verify",
    "fetch": "fetching",
    "linear": "made",
    "load_cifar10_batches": "cifar",
    "status": "verify",
    "validate": "base",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
