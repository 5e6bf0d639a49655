"""A folder of images: one sub-folder a class, with or without train/ and test/ above them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import DataError
from gpunet.extras import need
from gpunet.interrupts import contextmanager

from .arrays import Dataset, validate
from .disk import BAD_FILE, check_fits, reason
from .labels import LONGEST, TEST_EVERY, in_order, listed, named, shorter

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
KINDS = "PNG, JPEG or WebP"
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
Images = dict[str, list[Path]]  # the images of each class, sorted by name


def load_images(folder: Path, resize: int | None = None) -> Dataset:
    """Load a folder of PNG, JPEG and WebP images, all of one size, or made so.

    `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png`: then, of each class, in the order of the file names,
    every fifth image is in the test set. Classes are numbered in the order of their names; other files, hidden
    ones and folders further down are left out. x: (n, features) uint8 as stored (no rotation from EXIF, transparency
    dropped), shape (height, width) where all images are grey, else (3, height, width), planes first.

    resize: rows and columns of all images, which are first turned as EXIF says they were taken; then the shorter side
    is made so long, smoothly, and of the longer one the middle is taken. Images that are smaller are made larger.

    Raises DataError for images that cannot be read or differ in size, and for classes without images; OSError for
    folders that cannot be read.
    """
    need(f"reading the images of {folder}", "PIL.Image")
    (train, test), fifth = _splits(folder)
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
    every = [path for split in files for path, _ in split]
    shape, notes = _shape(folder, every, resize)
    if fifth:
        notes.append(f"{len(files[1]):,} of {len(every):,} images are the test set, every fifth of each class")
    (x_train, y_train), (x_test, y_test) = (_read(split, shape, resize) for split in files)
    name = folder.resolve().name
    return validate(
        Dataset(name, x_train, y_train, x_test, y_test, shape, len(classes), str(folder), classes, tuple(notes))
    )


def has_images(folder: Path) -> bool:
    """Whether there is an image where `load_images` looks for some; OSError where the folder cannot be read."""
    return any(_images(sub) or any(_images(below) for below in _folders(sub)) for sub in _folders(folder))


def _splits(folder: Path) -> tuple[tuple[Images, Images], bool]:
    """Training and test images by class, classes in the order of their names; whether we have split them."""
    below = {sub.name.lower(): sub for sub in _folders(folder)}
    halves = {split: below[split] for split in ("train", "test") if split in below and _folders(below[split])}
    if not halves:
        if set(below) == {"train", "test"}:
            raise DataError(f"{folder}: train/ and test/ have no class folders in them; expected train/CLASS/*.png")
        return _every_fifth(_classes(folder)), True
    if len(halves) == 1:
        there, other = ("train", "test") if "train" in halves else ("test", "train")
        raise DataError(f"{folder}: {there}/ has class folders but {other}/ is missing or has none; make both")
    train, test = _classes(halves["train"]), _classes(halves["test"])
    unknown = [name for name in test if name not in train]
    if unknown:
        raise DataError(f"{halves['test']}: {listed(unknown)} not among the classes of train/: {listed(list(train))}")
    return (train, test), False


def _classes(folder: Path) -> Images:
    found: Images = {}
    for sub in _folders(folder):
        name = named(sub.name)
        if name in found:
            raise DataError(
                f"{folder}: two folders are called {shorter(name)} but for Unicode's forms or spaces; join them"
            )
        if not name or len(name) > LONGEST:
            raise DataError(f"{sub}: expected the name of a class, of at most {LONGEST} characters")
        found[name] = _images(sub)
        if not found[name]:
            raise DataError(f"{sub}: a class without images; expected {', '.join(SUFFIXES)} files in it")
    return {name: found[name] for name in in_order(found)}


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


def _shape(folder: Path, paths: Sequence[Path], resize: int | None) -> tuple[tuple[int, ...], list[str]]:
    """The shape of a sample, from the headers of all images; what the whole set needs is held against the memory.

    And what is to be said of it.
    """
    with _opened(paths[0]) as image:
        width, height = image.size
    colour, stored, smaller = False, 0, 0
    for path in paths:
        with _opened(path) as image:
            if image.mode not in GREY + COLOUR:
                raise DataError(f"{path}: its pixels are {image.mode!r} to Pillow; expected 8 bits of grey or colour")
            if resize is None and image.size != (width, height):
                raise DataError(
                    f"{folder}: images of different sizes: {paths[0].relative_to(folder)} is {width}×{height} but "
                    f"{path.relative_to(folder)} is {image.width}×{image.height}; make them of one size, or give "
                    "resize (--resize 64) to have it done"
                )
            smaller += resize is not None and min(image.size) < resize
            colour = colour or image.mode in COLOUR
            image.verify()  # the checksums of a PNG, which decoding does not look at
            stored += path.stat().st_size
    side = (height, width) if resize is None else (resize, resize)
    shape = (3, *side) if colour else side
    what = f"{folder}: {len(paths):,} images of {side[1]}×{side[0]}"
    check_fits(len(paths) * math.prod(shape), what, stored if resize is None else None)
    if resize is None:
        return shape, []
    more = f"; {smaller:,} smaller ones are made larger" if smaller else ""
    return shape, [f"images are made {resize}×{resize}: the shorter side, and the middle of the longer one{more}"]


def _read(
    files: Sequence[tuple[Path, int]], shape: tuple[int, ...], resize: int | None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    x = np.empty((len(files), *shape), np.uint8)
    mode = "L" if len(shape) == 2 else "RGB"
    for row, (path, _) in enumerate(files):
        with _opened(path) as image:
            pixels = np.asarray(image.convert(mode) if resize is None else _resized(image, mode, resize))
            x[row] = pixels if len(shape) == 2 else pixels.transpose(2, 0, 1)
    return x.reshape(len(files), -1), np.array([label for _, label in files], np.int64)


def _resized(image: PIL.Image.Image, mode: str, side: int) -> PIL.Image.Image:
    import PIL.Image
    import PIL.ImageOps

    image.draft(None, (2 * side, 2 * side))  # of a JPEG no more is unpacked than is needed
    upright = PIL.ImageOps.exif_transpose(image) or image
    return PIL.ImageOps.fit(upright.convert(mode), (side, side), PIL.Image.Resampling.BICUBIC)


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    """The image, of which only the header is read so far; what Pillow raises for it becomes a DataError."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=FORMATS) as image:
                yield image
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        limit = f"{PIL.Image.MAX_IMAGE_PIXELS:,} pixels" if PIL.Image.MAX_IMAGE_PIXELS else "Pillow allows"
        raise DataError(f"{path}: an image of more than {limit}; make it smaller") from None
    except DataError:
        raise
    except PIL.UnidentifiedImageError:
        raise DataError(f"{path}: not a {KINDS} image, or a damaged one; remove or replace it") from None
    except BAD_FILE as error:
        raise DataError(f"{path}: cannot be read as an image ({reason(error)}); remove or replace it") from None
