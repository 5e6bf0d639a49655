"""Data sets: loading, checking, fetching.

    >>> import gpunet.datasets
    >>> digits = gpunet.datasets.load("digits")        # a name of the registry …
    >>> digits.x_train.shape, digits.shape, digits.classes
    ((1442, 64), (8, 8), 10)

… or a path: `load("my-set.npz")`, `load("folder/of/idx/files")`, `load("folder/of/class/folders")`.
To read on: `catalog` says what there is, `fetching` gets it, `loading` calls the reader of its format, which makes
`arrays` of it. Importing this package is cheap: NumPy and the readers are imported when something is loaded, so that
`gpunet --help` need not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .catalog import REGISTRY, Entry, RemoteFile, data_dir, dataset_dir, entry, names
from .loading import load

if TYPE_CHECKING:
    from .arrays import Dataset, validate
    from .cifar import IncompleteDataWarning, load_cifar10_batches
    from .disk import Status, status
    from .embedded import linear
    from .fetching import fetch

__all__ = [
    "REGISTRY",
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
    "Dataset": "arrays",
    "IncompleteDataWarning": "cifar",
    "Status": "disk",
    "fetch": "fetching",
    "linear": "embedded",
    "load_cifar10_batches": "cifar",
    "status": "disk",
    "validate": "arrays",
}


if not TYPE_CHECKING:  # to a type checker every name would exist

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
