"""A folder of IDX files: MNIST's own layout, or anyone's data in the same format."""

from __future__ import annotations

from pathlib import Path

from gpunet.errors import DataError

from .base import Dataset
from .convert import from_arrays
from .idx import read_idx

# Which part of the data set a file is, told by its name.
PARTS = {
    "x_train": "*train*images*",
    "y_train": "*train*labels*",
    "x_test": "*t10k*images* or *test*images*",
    "y_test": "*t10k*labels* or *test*labels*",
}


def load_folder(folder: str | Path) -> Dataset:
    """Load a folder with four IDX files, packed with gzip or not.

    Their names say which is which: `*train*images*`, `*train*labels*`, and `*t10k*` or `*test*` for the test
    set. Samples may have any shape, and there may be any number of classes, numbered from 0. Raises
    DataError.
    """
    folder = Path(folder)
    return load_parts(folder.resolve().name, find_parts(folder), folder)


def load_parts(name: str, parts: dict[str, Path], folder: Path) -> Dataset:
    """Read the four files and make a data set of them; `parts` has the keys of PARTS."""
    labels = {part: read_idx(parts[part]) for part in ("y_train", "y_test")}
    images = {part: read_idx(parts[part]) for part in ("x_train", "x_test")}
    return from_arrays(name, **images, **labels, source=str(folder))


def find_parts(folder: Path) -> dict[str, Path]:
    """The four files of a folder by part; DataError lists what is missing and what was found."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and _is_candidate(path.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for path in files:
        part = part_of(path.name)
        if part:
            found[part].append(path)
    missing = [f"{PARTS[part]}" for part, paths in found.items() if not paths]
    if missing:
        here = ", ".join(path.name for path in files[:8]) + (", …" if len(files) > 8 else "")
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
