"""A folder of somebody's own data: IDX files in MNIST's layout, or images sorted into class folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpunet.errors import DataError

from .base import Dataset
from .convert import from_arrays
from .entries import RemoteFile
from .idx import read_idx
from .images import has_images, load_images

# Which part of the data set a file is, told by its name.
PARTS = {
    "x_train": "*train*images*",
    "y_train": "*train*labels*",
    "x_test": "*t10k*images* or *test*images*",
    "y_test": "*t10k*labels* or *test*labels*",
}


def load_folder(folder: str | Path) -> Dataset:
    """Load a folder with four IDX files, packed with gzip or not, or one of images, as `images.load_images` says.

    The names of IDX files say which is which: `*train*images*`, `*train*labels*`, and `*t10k*` or `*test*` for the
    test set. Samples may have any shape, and there may be any number of classes, numbered from 0. A complete set of
    IDX files comes first. Raises DataError.
    """
    folder = Path(folder)
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and _is_candidate(path.name))
        found = _by_part(files)
        images = not all(found.values()) and has_images(folder)
        folders = sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
    if images:
        return load_images(folder)
    parts = _complete(folder, found, [path.name for path in files] + folders)
    return load_parts(folder.resolve().name, {part: (path, None) for part, path in parts.items()}, folder)


def load_parts(name: str, parts: Mapping[str, tuple[Path, RemoteFile | None]], folder: Path) -> Dataset:
    """Read the four files and make a data set of them; `parts` has the keys of PARTS, and which known file each is."""
    labels = {part: read_idx(*parts[part]) for part in ("y_train", "y_test")}
    images = {part: read_idx(*parts[part]) for part in ("x_train", "x_test")}
    return from_arrays(name, **images, **labels, source=str(folder))


def _by_part(files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for path in files:
        part = part_of(path.name)
        if part:
            found[part].append(path)
    return found


def _complete(folder: Path, found: dict[str, list[Path]], names: list[str]) -> dict[str, Path]:
    """The four files of a folder by part; DataError lists what is missing and what was found."""
    missing = [PARTS[part] for part, paths in found.items() if not paths]
    here = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    if len(missing) == len(PARTS):
        raise DataError(
            f"{folder}: not a complete set of IDX files ({', '.join(missing)}), nor class folders of images "
            f"(CLASS/*.png or *.jpg, or the same in train/ and test/); found {here or 'no files'}"
        )
    if missing:
        raise DataError(
            f"{folder}: not a complete set of IDX files: missing {', '.join(missing)}; found {here or 'no files'}"
        )
    return {part: _one(part, paths, folder) for part, paths in found.items()}


def part_of(name: str) -> str | None:
    """The part of the data set that a file of this name is; None if it is none of the four."""
    name = name.lower()
    kind = "x" if "images" in name else "y" if "labels" in name else None
    split = "train" if "train" in name else "test" if "t10k" in name or "test" in name else None
    return f"{kind}_{split}" if kind and split else None


def _is_candidate(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def _one(part: str, paths: list[Path], folder: Path) -> Path:
    """The only file of a part. Packed and unpacked, it counts as one, and the packed file is taken."""
    if len({path.name.removesuffix(".gz") for path in paths}) > 1:
        raise DataError(
            f"{folder}: several files could be {PARTS[part]}: {', '.join(path.name for path in paths)}; "
            "give a folder with one data set"
        )
    return max(paths, key=lambda path: path.suffix == ".gz")
