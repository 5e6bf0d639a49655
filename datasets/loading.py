"""From a name or a path to a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.addresses import harmless
from gpunet.errors import DataError
from gpunet.files import check_path

from . import catalog

if TYPE_CHECKING:
    from .arrays import Dataset


def load(name_or_path: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load and check a data set.

    name_or_path: a name of the registry ("mnist", "digits"), a folder of IDX files, a folder of images
    (class/*.png or *.jpg, or the same in train/ and test/), or an .npz file with x_train, y_train, x_test,
    y_test. A name wins over a file of the same name: write "./mnist" for the latter. data_dir: where named data
    sets lie; by default $GPUNET_DATA or the platform's cache folder.

    Raises DataError, one line, where the data is missing, damaged or inconsistent.
    """
    given = check_path("the data set", name_or_path)
    if isinstance(name_or_path, str) and (not name_or_path or name_or_path in catalog.REGISTRY):  # "" is no folder
        return _load_named(catalog.entry(name_or_path), data_dir)
    try:
        path = given.expanduser()
    except RuntimeError as error:
        raise DataError(f"{harmless(str(given))}: {error}; expected a name of a data set, or a path") from error
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(
                f"{path}: expected an .npz file or a folder of IDX files or images, not a file of this kind"
            )
        from .npz import load_npz

        return load_npz(path)
    if isinstance(name_or_path, str) and not _looks_like_path(name_or_path):
        catalog.entry(name_or_path)  # unknown, so this raises and lists the known names
    said = harmless(str(path))
    raise DataError(f"{said}: no such file or folder; expected a folder of IDX files or of images, or an .npz file")


def _load_named(entry: catalog.Entry, data_dir: str | os.PathLike[str] | None) -> Dataset:
    if entry.embedded:
        from .embedded import SETS

        return SETS[entry.name]()
    from . import cats, cifar, idx

    readers = {
        "mnist": idx.load_mnist,
        "cifar10": cifar.load_cifar10,
        "cifar100": cifar.load_cifar100,
        "cats": cats.load_cats,
    }
    return readers[entry.name](entry.folder(data_dir))


def _load_folder(folder: Path) -> Dataset:
    """IDX files in MNIST's layout, where they are complete, or images sorted into class folders."""
    from . import disk, idx, images

    try:
        if all(idx.by_part(folder).values()) or not images.has_images(folder):
            return idx.load_idx(folder)
        return images.load_images(folder)
    except OSError as error:
        raise disk.unreadable(folder, error) from None


def _looks_like_path(text: str) -> bool:
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return any(s in text for s in separators) or bool(Path(text).suffix) or text.startswith(("~", "."))
