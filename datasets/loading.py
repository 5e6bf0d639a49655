"""From a name or a path to a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.addresses import harmless
from gpunet.errors import DataError
from gpunet.files import check_path

from . import registry
from .location import data_dir as data_folder

if TYPE_CHECKING:
    from .base import Dataset


def load(name_or_path: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load and check a data set.

    name_or_path: a name of the registry ("mnist", "digits"), a folder of IDX files, a folder of images
    (class/*.png or *.jpg, or the same in train/ and test/), or an .npz file with x_train, y_train, x_test,
    y_test. A name wins over a file of the same name: write "./mnist" for the latter. data_dir: where named data
    sets lie; by default $GPUNET_DATA or the platform's cache folder.

    Raises DataError, one line, where the data is missing, damaged or inconsistent.
    """
    given = check_path("the data set", name_or_path)
    if isinstance(name_or_path, str) and (not name_or_path or name_or_path in registry.REGISTRY):  # "" is no folder
        found = registry.entry(name_or_path)
        return found.load(data_folder(data_dir) / found.name)

    try:
        path = given.expanduser()
    except RuntimeError as error:
        raise DataError(f"{harmless(str(given))}: {error}; expected a name of a data set, or a path") from error
    if path.is_dir():
        from .folder import load_folder

        return load_folder(path)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(
                f"{path}: expected an .npz file or a folder of IDX files or images, not a file of this kind"
            )
        from .npz import load_npz

        return load_npz(path)
    if isinstance(name_or_path, str) and not _looks_like_path(name_or_path):
        registry.entry(name_or_path)  # unknown, so this raises and lists the known names
    said = harmless(str(path))
    raise DataError(f"{said}: no such file or folder; expected a folder of IDX files or of images, or an .npz file")


def dataset_dir(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a named data set, which need not exist; DataError if it is unknown or embedded."""
    found = registry.entry(name)
    if found.embedded:
        raise DataError(f"{name} is embedded in a package and has no folder; it is always there")
    return data_folder(data_dir) / found.name


def _looks_like_path(text: str) -> bool:
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return any(s in text for s in separators) or bool(Path(text).suffix) or text.startswith(("~", "."))
