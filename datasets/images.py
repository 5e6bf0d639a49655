"""A folder of images: one sub-folder a class, with or without train/ and test/ above them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import DataError

from .arrays import Dataset, validate
from .disk import BAD_FILE, check_fits, reason

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg")
TEST_EVERY = 5
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
Images = dict[str, list[Path]]  # the images of each class, sorted by name


def load_images(folder: Path) -> Dataset:
    """Load a folder of PNG and JPEG images, all of one size.

    `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png`: then, of each class, in the order of the file names,
    every fifth image is in the test set. Classes are numbered in the order of their names; other files, hidden
    ones and folders further down are left out. x: (n, features) uint8 as stored (no rotation from EXIF, transparency
    dropped), shape (height, width) where all images are grey, else (3, height, width), planes first.

    Raises DataError for images that cannot be read or differ in size, and for classes without images; OSError for
    folders that cannot be read.
    """
    train, test = _splits(folder)
    classes = tuple(train)
    if len(classes) < 2:
        raise DataError(f"{folder}: only one class, {classes[0]}/; at least two sub-folders with images are needed")
    numbered = list(enumerate(classes))
    files = [[(path, label) for label, name in numbered for path in split.get(name, [])] for split in (train, test)]
    if not files[1]:
        raise DataError(
            f"{folder}: no test images: every fifth image of a class is one, and no class has five; add images, or "
            "make the folders train/CLASS/ and test/CLASS/"
        )
    shape = _shape(folder, [path for split in files for path, _ in split])
    (x_train, y_train), (x_test, y_test) = (_read(split, shape) for split in files)
    name = folder.resolve().name
    return validate(Dataset(name, x_train, y_train, x_test, y_test, shape, len(classes), str(folder)))


def has_images(folder: Path) -> bool:
    """Whether there is an image where `load_images` looks for some; OSError where the folder cannot be read."""
    return any(_images(sub) or any(_images(below) for below in _folders(sub)) for sub in _folders(folder))


def _splits(folder: Path) -> tuple[Images, Images]:
    """Training and test images by class, the classes of both in the order of their names."""
    below = {sub.name.lower(): sub for sub in _folders(folder)}
    halves = {split: below[split] for split in ("train", "test") if split in below and _folders(below[split])}
    if not halves:
        if set(below) == {"train", "test"}:
            raise DataError(f"{folder}: train/ and test/ have no class folders in them; expected train/CLASS/*.png")
        return _every_fifth(_classes(folder))
    if len(halves) == 1:
        there, other = ("train", "test") if "train" in halves else ("test", "train")
        raise DataError(f"{folder}: {there}/ has class folders but {other}/ is missing or has none; make both")
    train, test = _classes(halves["train"]), _classes(halves["test"])
    unknown = [name for name in test if name not in train]
    if unknown:
        raise DataError(f"{halves['test']}: {', '.join(unknown)} not among the classes of train/: {', '.join(train)}")
    return train, test


def _classes(folder: Path) -> Images:
    found = {sub.name: _images(sub) for sub in _folders(folder)}
    for name, paths in found.items():
        if not paths:
            raise DataError(f"{folder / name}: a class without images; expected {', '.join(SUFFIXES)} files in it")
    return found


def _every_fifth(classes: Images) -> tuple[Images, Images]:
    train, test = {}, {}
    for name, paths in classes.items():
        test[name] = paths[TEST_EVERY - 1 :: TEST_EVERY]
        train[name] = [path for place, path in enumerate(paths, 1) if place % TEST_EVERY]
    return train, test


def _folders(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."), key=lambda p: p.name)


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    return sorted((path for path in found if path.is_file()), key=lambda path: path.name)


def _shape(folder: Path, paths: Sequence[Path]) -> tuple[int, ...]:
    """The shape of a sample, from the headers of all images; what the whole set needs is held against the memory."""
    with _opened(paths[0]) as image:
        width, height = image.size
    colour, stored = False, 0
    for path in paths:
        with _opened(path) as image:
            if image.mode not in GREY + COLOUR:
                raise DataError(f"{path}: its pixels are {image.mode!r} to Pillow; expected 8 bits of grey or colour")
            if image.size != (width, height):
                raise DataError(
                    f"{folder}: images of different sizes: {paths[0].relative_to(folder)} is {width}×{height} but "
                    f"{path.relative_to(folder)} is {image.width}×{image.height}; make them of one size"
                )
            colour = colour or image.mode in COLOUR
            image.verify()  # the checksums of a PNG, which decoding does not look at
            stored += path.stat().st_size
    shape = (3, height, width) if colour else (height, width)
    check_fits(len(paths) * math.prod(shape), f"{folder}: {len(paths):,} images of {width}×{height}", stored)
    return shape


def _read(files: Sequence[tuple[Path, int]], shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    x = np.empty((len(files), *shape), np.uint8)
    for row, (path, _) in enumerate(files):
        with _opened(path) as image:
            if len(shape) == 2:
                x[row] = np.asarray(image.convert("L"))
            else:
                x[row] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return x.reshape(len(files), -1), np.array([label for _, label in files], np.int64)


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    """The image, of which only the header is read so far; what Pillow raises for it becomes a DataError."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=("PNG", "JPEG")) as image:
                yield image
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        limit = f"{PIL.Image.MAX_IMAGE_PIXELS:,} pixels" if PIL.Image.MAX_IMAGE_PIXELS else "Pillow allows"
        raise DataError(f"{path}: an image of more than {limit}; make it smaller") from None
    except DataError:
        raise
    except PIL.UnidentifiedImageError:
        raise DataError(f"{path}: not a PNG or JPEG image, or a damaged one; remove or replace it") from None
    except BAD_FILE as error:
        raise DataError(f"{path}: cannot be read as an image ({reason(error)}); remove or replace it") from None
