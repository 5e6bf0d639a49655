"""From a name or a path to a data set."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.addresses import harmless
from gpunet.errors import DataError, shown
from gpunet.files import check_path

from . import catalog

if TYPE_CHECKING:
    from .arrays import Dataset

LARGEST = 4096  # rows and columns that images are made to have
EXPECTED = (
    "a folder of images (CLASS/*.png, *.jpg or *.webp), a table (*.csv, *.tsv), an .npz, an .npy with y.npy beside it, "
    "or a folder of IDX files"
)


def load(
    name_or_path: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None,
    label: str | int | os.PathLike[str] | None = None, resize: int | None = None, standardize: bool = False,
) -> Dataset:  # fmt: skip
    """Load and check a data set.

    name_or_path: a name of the registry ("mnist", "digits"), or a path:

    - of a folder of images, class/*.png, *.jpg or *.webp, or the same in train/ and test/; folders name the classes;
    - of a table, *.csv or *.tsv, or of a folder with train.csv and test.csv;
    - of an .npz file with x_train, y_train, x_test, y_test, or with X and y;
    - of an .npy file with the samples, or a folder of .npy files of the names that an .npz has;
    - of a folder of IDX files.

    A name wins over a file of the same name: write "./mnist" for the latter. Where nobody has split the samples, every
    fifth of each class is in the test set. Labels are whole numbers, bools or words; they are numbered from 0 in their
    order, `Dataset.names` has what they were, and `Dataset.notes` says so, as it says all that was decided here.

    An empty label is missing, and so is na, n/a, nan, null, none or ? where fewer than five samples have it; where more
    do, it is the name of a class, as a folder's name always is.

    data_dir: where named data sets lie; by default $GPUNET_DATA or the platform's cache folder. label: of a table the
    label's column, by its name or its number from 1 (by default one called label, class or target, else the last); of
    an .npy file the file with the labels (by default y.npy beside it). resize: rows and columns that images of a folder
    are made to have. standardize: of every feature its mean is subtracted, and it is divided by its deviation, both of
    the training samples.

    Raises DataError, one line, where the data is missing, damaged or inconsistent, or an option is not for it.
    """
    from gpunet.checks import check_flag, check_text, check_whole, is_whole  # they bring NumPy

    given, standardize = check_path("the data set", name_or_path), check_flag("standardize", standardize)
    if resize is not None:
        resize = check_whole("resize", resize, most=LARGEST)
    if label is not None:
        label = str(label) if is_whole(label, 1) else label
        label = os.fspath(label) if isinstance(label, os.PathLike) else check_text("label", label)
        if not label:
            raise DataError("label is empty: expected a column's name or number from 1, or of an .npy a file")
    if isinstance(name_or_path, str) and (not name_or_path or name_or_path in catalog.REGISTRY):  # "" is no folder
        found = _load_named(_entry(name_or_path), data_dir)
        _check_taken(name_or_path, label, resize)
    else:
        found = _load_path(given, name_or_path, label, resize)
    return _standardized(found) if standardize else found


def _load_path(given: Path, name_or_path: str | os.PathLike[str], label: str | None, resize: int | None) -> Dataset:
    path = _at_home(given, "a name of a data set, or a path")
    if path.is_dir():
        return _load_folder(path, label, resize)
    if path.is_file():
        return _load_file(path, label, resize)
    if isinstance(name_or_path, str) and not _looks_like_path(name_or_path):
        _entry(name_or_path)  # unknown, so this raises and lists the known names
    raise DataError(f"{harmless(str(path))}: no such file or folder; expected {EXPECTED}")


def _entry(name: str) -> catalog.Entry:
    """Of that name; DataError, which says that a path would do as well, where there is none."""
    try:
        return catalog.entry(name)
    except DataError as error:
        raise DataError(
            f"{error}; or give a path to a folder of IDX files, a folder of images (class/*.png), a table (.csv), or "
            "an .npz"
        ) from None


def _at_home(given: Path, expected: str) -> Path:
    """The path, ~ being the user's folder."""
    try:
        return given.expanduser()
    except RuntimeError as error:
        raise DataError(f"{harmless(str(given))}: {error}; expected {expected}") from error


def _load_file(path: Path, label: str | None, resize: int | None) -> Dataset:
    from . import npz, table

    kind = path.suffix.lower()
    if kind in table.SUFFIXES:
        _check_taken(str(path), None, resize)
        return table.load_table(path, label)
    if kind == ".npy":
        _check_taken(str(path), None, resize)
        labels = path.with_name("y.npy") if label is None else _labels_file(label)
        if not labels.is_file() or labels == path:
            wrong = "the samples' own file" if labels == path else "not a file" if labels.exists() else "no such file"
            raise DataError(
                f"{harmless(str(labels))}: {wrong}, which should hold the labels of {path.name}; name it with "
                "label (--label y.npy)"
            )
        return npz.load_npy({"x": path, "y": labels}, path)
    if kind != ".npz":
        raise DataError(f"{path}: not a kind of file that is read here; expected {EXPECTED}")
    _check_taken(str(path), label, resize)
    return npz.load_npz(path)


def _labels_file(label: str) -> Path:
    return _at_home(check_path("label", label), "an .npy file with the labels")


def _check_taken(what: str, label: str | None, resize: int | None) -> None:
    """DataError for an option that this data has no use for: it was given in the belief that it has."""
    if label is not None:
        raise DataError(
            f"{harmless(what)}: label is {shown(label)}: only a table has a column, or an .npy a file, of labels"
        )
    if resize is not None:
        raise DataError(f"{harmless(what)}: resize is {resize}: only images of a folder are made of another size")


def _standardized(data: Dataset) -> Dataset:
    """With features of mean 0 and deviation 1, float32; a feature that is always the same becomes 0."""
    from .arrays import scaled_by, validate

    note = "every feature less its mean, over its deviation"
    x_train, x_test = scaled_by(data.x_train, data.x_test)
    return validate(replace(data, x_train=x_train, x_test=x_test, notes=(*data.notes, note)))


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


def _load_folder(folder: Path, label: str | None, resize: int | None) -> Dataset:
    """IDX files in MNIST's layout, .npy files or tables, where they are complete, or images in class folders."""
    from . import disk, idx, images, npz, table

    try:
        files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        complete, arrays = all(idx.by_part(folder).values()), npz.npy_parts(files)
        tables = {path.stem.lower(): path for path in files.values() if path.suffix.lower() in table.SUFFIXES}
        if not complete and not arrays and {"train", "test"} <= tables.keys():
            _check_taken(str(folder), None, resize)
            return table.load_table(tables["train"], label, tables["test"])
        if not complete and not arrays and images.has_images(folder):
            _check_taken(str(folder), label, None)
            return images.load_images(folder, resize)
        _check_taken(str(folder), label, resize)
        if arrays and not complete:
            return npz.load_npy({part: files[name] for part, name in arrays.items()}, folder)
        return idx.load_idx(folder)
    except OSError as error:
        raise disk.unreadable(folder, error) from None


def _looks_like_path(text: str) -> bool:
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return any(s in text for s in separators) or bool(Path(text).suffix) or text.startswith(("~", "."))
