from __future__ import annotations

import contextlib
import io
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest

from gpunet.datasets import disk, load
from gpunet.errors import DataError, InputError

from .idx_writer import small_arrays, write_folder

Image = pytest.importorskip("PIL.Image")


def pixels(seed: int, shape: tuple[int, ...] = (5, 4, 3)) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, image: np.ndarray, mode: str | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(image)
    (made.convert(mode) if mode else made).save(path, **options)
    return path


def fill(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 6, seed: int = 0) -> np.ndarray:
    """Images 0.png, 1.png, … of every class; returns them, (classes, count, height, width, colour)."""
    made = [[pixels(seed + 100 * c + i) for i in range(count)] for c in range(len(classes))]
    for name, images in zip(classes, made, strict=True):
        for i, image in enumerate(images):
            save(folder / name / f"{i}.png", image)
    return np.array(made)


def fails(folder: Path, *words: str) -> str:
    with pytest.raises(DataError) as error:
        load(folder)
    text = str(error.value)
    assert "\n" not in text
    for word in (str(folder), *words):
        assert word in text, text
    return text


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def test_train_and_test_folders(tmp_path):
    train = fill(tmp_path / "mine" / "train", ("b", "a"), 3)
    test = fill(tmp_path / "mine" / "test", ("b", "a"), 2, seed=50)
    data = load(tmp_path / "mine")
    assert (data.name, data.shape, data.classes, data.source) == ("mine", (3, 5, 4), 2, str(tmp_path / "mine"))
    assert (data.x_train.dtype, data.x_train.flags.c_contiguous) == (np.uint8, True)
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1], "classes in the order of their names"
    assert data.y_test.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(data.x_train, planes(np.concatenate([train[1], train[0]])))
    np.testing.assert_array_equal(data.x_test, planes(np.concatenate([test[1], test[0]])))


def test_class_folders_alone_give_every_fifth_image_of_a_class_to_the_test_set(tmp_path):
    images = fill(tmp_path, ("cat", "dog", "emu"), 11)
    save(tmp_path / "emu" / "zz.png", pixels(999))
    data = load(tmp_path)
    # In the order of the names: 0, 1, 10, 2, 3, 4, …
    order = sorted(range(11), key=str)
    test = [order[4], order[9]]
    assert data.y_test.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(data.x_test, planes(np.concatenate([each[test] for each in images])))
    kept = [i for i in order if i not in test]
    assert len(data.x_train) == 9 + 9 + 10
    np.testing.assert_array_equal(data.x_train[:9], planes(images[0][kept]))


def test_grey_images_have_no_planes_and_one_in_colour_gives_planes_to_all(tmp_path):
    grey = [pixels(i, (5, 4)) for i in range(10)]
    for i, image in enumerate(grey):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", image)
    data = load(tmp_path)
    assert (data.shape, data.features) == ((5, 4), 20)
    np.testing.assert_array_equal(data.x_train[0], grey[0].ravel())
    save(tmp_path / "b" / "z.png", pixels(99))
    data = load(tmp_path)
    assert data.shape == (3, 5, 4)
    np.testing.assert_array_equal(data.x_train[0].reshape(3, 20), [grey[0].ravel()] * 3)
    np.testing.assert_array_equal(data.x_train[-1], planes(pixels(99)[None])[0])


@pytest.mark.parametrize(
    ("mode", "shape", "options"),
    [
        ("L", (5, 4), {}),
        ("LA", (5, 4), {}),
        ("1", (5, 4), {}),
        ("RGBA", (3, 5, 4), {}),
        ("P", (3, 5, 4), {}),
        ("P", (3, 5, 4), {"transparency": bytes(range(20))}),
    ],
)
def test_modes_of_png(tmp_path, mode, shape, options):
    fill(tmp_path / "all" / "test", count=1)
    for name in ("test/cat/0", "test/dog/0", "train/cat/0", "train/dog/0"):
        path = save(tmp_path / "all" / f"{name}.png", pixels(5), mode, **options)
    data = load(tmp_path / "all")
    assert data.shape == shape
    opaque = Image.open(path).convert("L" if len(shape) == 2 else "RGBA")
    wanted = np.asarray(opaque) if len(shape) == 2 else np.asarray(opaque)[:, :, :3].transpose(2, 0, 1)
    np.testing.assert_array_equal(data.x_train[0].reshape(shape), wanted)


@pytest.mark.parametrize("name", ["x.jpg", "x.jpeg", "x.JPG", "x.png"])
def test_jpeg_by_any_name(tmp_path, name):
    fill(tmp_path, count=5)
    smooth = np.full((5, 4, 3), (200, 100, 50), np.uint8)
    save(tmp_path / "dog" / name, smooth, format="JPEG", quality=95)
    data = load(tmp_path)
    np.testing.assert_allclose(data.x_train[-1].reshape(3, 5, 4), smooth.transpose(2, 0, 1), atol=4)


def test_jpeg_in_four_colours_and_with_exif(tmp_path):
    fill(tmp_path, count=5)
    save(tmp_path / "dog" / "5.jpg", pixels(1), "CMYK")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "dog" / "6.jpg", pixels(1), exif=turned)
    assert load(tmp_path).shape == (3, 5, 4)


def test_other_files_hidden_ones_and_deeper_folders_are_left_out(tmp_path):
    fill(tmp_path, count=5)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".cache").mkdir()
    for name in (".hidden.png", "notes.txt", "deeper/0.png"):
        path = tmp_path / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert len(load(tmp_path).x_train) == 8


def test_a_complete_set_of_idx_files_comes_first(tmp_path):
    fill(tmp_path)
    write_folder(tmp_path, small_arrays())
    assert load(tmp_path).shape == (3, 2)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert load(tmp_path).shape == (3, 5, 4)


def test_mixed_sizes_name_two_files_and_their_sizes(tmp_path):
    fill(tmp_path)
    save(tmp_path / "dog" / "3.png", pixels(0, (5, 6, 3)))
    fails(tmp_path, "cat/0.png is 4×5 but dog/3.png is 6×5")


@pytest.mark.parametrize("content", [b"", b"text\n" * 100, b"GIF89a\1\0\1\0\0\0\0;", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images(tmp_path, content):
    fill(tmp_path)
    (tmp_path / "dog" / "4.png").write_bytes(content)
    fails(tmp_path, str(tmp_path / "dog" / "4.png"), "not a PNG, JPEG or WebP image", "remove or replace it")


def test_other_formats_are_not_opened_by_another_name(tmp_path):
    fill(tmp_path)
    save(tmp_path / "dog" / "4.png", pixels(0), format="BMP")
    fails(tmp_path, "dog/4.png: not a PNG, JPEG or WebP image")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_truncated_anywhere(tmp_path, form):
    fill(tmp_path)
    path = tmp_path / "dog" / "4.png"
    save(path, pixels(0), format=form)
    content, whole = path.read_bytes(), load(tmp_path)
    for length in range(0, len(content) - 20, 5):
        path.write_bytes(content[:length])
        fails(tmp_path, str(path))
    # What follows the last pixel (checksums, the end chunk, the end marker) may be missing, the pixels may not.
    for length in range(len(content) - 20, len(content)):
        path.write_bytes(content[:length])
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(load(tmp_path).x_test, whole.x_test)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_flipped_bytes_are_noticed_or_harmless(tmp_path, form):
    fill(tmp_path, count=5)
    path = tmp_path / "dog" / "4.png"
    save(path, pixels(0), format=form)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with contextlib.suppress(DataError):
            assert load(tmp_path).features == 60


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    fill(tmp_path)
    save(tmp_path / "dog" / "4.png", np.full((5, 4), 40_000, np.uint16))
    fails(tmp_path, str(tmp_path / "dog" / "4.png"), "I;16", "8 bits")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12_000, 9_000), (200_000, 200_000)])
def test_a_decompression_bomb(tmp_path, size):
    fill(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(bomb(*size))
    fails(tmp_path, str(tmp_path / "cat" / "0.png"), "more than 89,478,485 pixels")


def test_more_images_than_the_machine_can_hold(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(disk, "physical_memory", lambda: 700)
    fails(tmp_path, "12 images of 4×5", "720 bytes", "700 bytes of memory")


def test_a_folder_of_neither_kind_names_both(tmp_path):
    both = ("IDX files (*train*images*", "class folders of images (CLASS/*.png")
    (tmp_path / "none").mkdir()
    fails(tmp_path / "none", *both, "found no files")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.txt").write_text("no image")
    save(tmp_path / "here.png", pixels(0))
    fails(tmp_path, *both, "found here.png, cat/, none/")


def test_a_class_without_images(tmp_path):
    fill(tmp_path)
    (tmp_path / "emu").mkdir()
    fails(tmp_path, "emu: a class without images", ".png, .jpg, .jpeg")


def test_one_class_only(tmp_path):
    fill(tmp_path / "a", ("cat",))
    fails(tmp_path / "a", "only one class, cat/")
    fill(tmp_path / "b" / "train", ("cat",))
    fill(tmp_path / "b" / "test", ("cat",))
    fails(tmp_path / "b", "only one class, cat/")


def test_too_few_images_for_a_test_set(tmp_path):
    fill(tmp_path, count=4)
    fails(tmp_path, "no test images", "no class has five")


def test_halves_that_do_not_fit(tmp_path):
    fill(tmp_path / "train")
    fails(tmp_path, "train/ has class folders but test/ is missing")
    fill(tmp_path / "test", ("cat", "Dog"))
    fails(tmp_path, "test: Dog not among the classes of train/: cat and dog")
    (tmp_path / "test" / "Dog").rename(tmp_path / "test" / "dog")
    assert load(tmp_path).classes == 2
    for half in ("train", "test"):
        save(tmp_path / "flat" / half / "0.png", pixels(0))
    fails(tmp_path / "flat", "no class folders", "train/CLASS/*.png")


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, ("car", "test", "train"))
    assert load(tmp_path).classes == 3


def test_what_pillow_says_of_metadata_is_no_warning_here(tmp_path):
    fill(tmp_path)
    content = io.BytesIO()
    Image.fromarray(pixels(0)).save(content, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0garbage")
    (tmp_path / "dog" / "4.png").write_bytes(content.getvalue())
    assert load(tmp_path).shape == (3, 5, 4)


# -- of any size ------------------------------------------------------------------------------------------------------


def test_sizes_mixed_name_the_option_that_mends_it(tmp_path):
    fill(tmp_path)
    save(tmp_path / "dog" / "4.png", pixels(0, (9, 7, 3)))
    fails(tmp_path, "images of different sizes", "give resize (--resize 64)")
    data = load(tmp_path, resize=3)
    assert (data.shape, data.x_train.dtype) == ((3, 3, 3), np.uint8)
    assert data.notes[0] == "images are made 3×3: the shorter side, and the middle of the longer one"
    assert load(tmp_path, resize=6).notes[0].endswith("; 11 smaller ones are made larger")


@pytest.mark.parametrize("shape", [(40, 40, 3), (40, 60, 3), (60, 40, 3), (40, 60)])
def test_the_shorter_side_and_the_middle_of_the_longer_one(tmp_path, shape):
    """Of 40 pixels and a factor of 4, means of 4×4 of a picture that varies slowly; ends are cut off."""
    across = np.linspace(0, 1, shape[1]) ** 2
    image = np.rint(200 * np.add.outer(np.linspace(0, 0.25, shape[0]), across)).astype(np.uint8)
    image = np.stack([image, image // 2, 255 - image], axis=2) if len(shape) == 3 else image
    for i in range(10):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", image)
    data = load(tmp_path, resize=10)
    top, left = (shape[0] - 40) // 2, (shape[1] - 40) // 2
    middle = image[top : top + 40, left : left + 40].astype(float)
    means = middle.reshape(10, 4, 10, 4, -1).mean(axis=(1, 3))
    found = data.x_train[0].reshape(data.shape)
    found = found.transpose(1, 2, 0) if len(data.shape) == 3 else found[:, :, None]
    assert np.abs(found - means).max() <= 4


def test_photos_are_turned_as_they_were_taken(tmp_path):
    """EXIF's orientation 6: the first row is the right side."""
    image = np.zeros((20, 20, 3), np.uint8)
    image[:10] = 240
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(10):
        save(tmp_path / "ab"[i % 2] / f"{i}.jpg", image, quality=95, exif=exif.tobytes())
    upright = load(tmp_path, resize=10).x_train[0].reshape(3, 10, 10)[0]
    assert upright[:, 7:].min() > 200 > 40 > upright[:, :3].max()
    as_stored = load(tmp_path).x_train[0].reshape(3, 20, 20)[0]
    assert as_stored[:8].min() > 200 > 40 > as_stored[12:].max()


def test_webp(tmp_path):
    images = fill(tmp_path)
    for i in range(6):
        save(tmp_path / "dog" / f"{i}.webp", images[1][i], lossless=True)
        (tmp_path / "dog" / f"{i}.png").unlink()
    data = load(tmp_path)
    np.testing.assert_array_equal(data.x_train[data.y_train == 1], planes(images[1][[0, 1, 2, 3, 5]]))


@pytest.mark.parametrize("resize", [0, -3, 5000, 2.5, "8", True])
def test_sizes_that_are_none(tmp_path, resize):
    fill(tmp_path)
    with pytest.raises(InputError, match="resize"):
        load(tmp_path, resize=resize)


def test_images_made_larger_than_the_memory(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(disk, "physical_memory", lambda: 10**8)
    with pytest.raises(DataError, match=r"12 images of 2000×2000.*bytes of memory"):
        load(tmp_path, resize=2000)


# -- names of classes -------------------------------------------------------------------------------------------------


def test_folders_name_the_classes(tmp_path):
    fill(tmp_path, ("Café Crème", "$x_1$ <b>", "10", "9"))
    data = load(tmp_path)
    assert data.names == ("$x_1$ <b>", "10", "9", "Café Crème")
    assert data.notes == ("4 of 24 images are the test set, every fifth of each class",)


def test_numbers_that_are_names_are_in_their_order(tmp_path):
    fill(tmp_path, ("10", "9", "1"))
    assert load(tmp_path).names == ("1", "9", "10")


def test_one_name_in_two_forms_of_unicode(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Éclair") for form in ("NFC", "NFD"))
    fill(tmp_path / "one" / "train", (apart, "tarte"))
    fill(tmp_path / "one" / "test", (composed, "tarte"), 2)
    data = load(tmp_path / "one")
    assert (data.names, data.y_test.tolist()) == (("tarte", composed), [0, 0, 1, 1])
    fill(tmp_path / "two", (composed, apart))
    if len(list((tmp_path / "two").iterdir())) == 2:  # on most systems they are two
        fails(tmp_path / "two", "two folders are called", "join them")


def test_names_with_control_characters(tmp_path):
    fill(tmp_path, ("a\x1b[31mb", "c\nd"))
    assert load(tmp_path).names == ("a\\x1b[31mb", "c\\nd")
