from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpunet.datasets import disk, load
from gpunet.errors import DataError

from .idx_writer import small_arrays


def write(path: Path, **changes) -> Path:
    arrays = {**small_arrays(), **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def fails(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text
    for word in (str(path), *words):
        assert word in text, text


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_sound_file(tmp_path, save):
    arrays = small_arrays(shape=(4, 4, 3))
    save(tmp_path / "mine.npz", note=np.array("ignored"), **arrays)
    data = load(str(tmp_path / "mine.npz"))
    assert (data.name, data.shape, data.classes) == ("mine", (4, 4, 3), 4)
    assert data.source == str(tmp_path / "mine.npz")
    np.testing.assert_array_equal(data.x_train, arrays["x_train"].reshape(20, 48))
    np.testing.assert_array_equal(data.y_test, arrays["y_test"])


def test_floats_fortran_order_and_byte_order(tmp_path):
    x = np.asfortranarray(np.arange(120.0).reshape(20, 6)).astype(">f8")
    data = load(write(tmp_path / "a.npz", x_train=x, x_test=x[:8]))
    assert data.x_train.dtype == np.float32
    np.testing.assert_array_equal(data.x_train, np.arange(120.0).reshape(20, 6))


def test_missing_keys_name_both_sides(tmp_path):
    path = write(tmp_path / "a.npz", x_test=None, y_test=None, extra=np.zeros(3))
    fails(path, "missing x_test, y_test;", "found x_train, y_train, extra", "numpy.savez")


def test_object_arrays_and_pickles_are_refused(tmp_path):
    ragged = np.empty(20, object)
    ragged[:] = [np.zeros(i) for i in range(20)]
    fails(write(tmp_path / "a.npz", x_train=ragged), "x_train holds Python objects")
    bomb = tmp_path / "b.npz"
    bomb.write_bytes(b"\x80\x04\x95cos\nsystem\n(S'false'\ntR.")
    fails(bomb, "not a sound .npz")


def test_not_an_npz(tmp_path):
    single = tmp_path / "one.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    single.write_bytes(buffer.getvalue())
    fails(single, "not a sound .npz")
    empty = tmp_path / "empty.npz"
    empty.write_bytes(b"")
    fails(empty, "not a sound .npz")
    text = tmp_path / "text.npz"
    with zipfile.ZipFile(text, "w") as archive:
        for key in small_arrays():
            archive.writestr(f"{key}.npy", "1, 2, 3")
    fails(text, "not a sound .npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_anywhere(tmp_path, save):
    save(tmp_path / "whole.npz", **small_arrays())
    content = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        fails(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
def test_flipped_bytes_are_noticed_or_harmless(tmp_path, save):
    arrays = small_arrays()
    save(tmp_path / "whole.npz", **arrays)
    content = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "flipped.npz"
    for place in range(0, len(content), 5):
        for flip in (0x01, 0x80) if place % 2 else (0x40,):
            path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            with contextlib.suppress(DataError):
                data = load(path)
                np.testing.assert_array_equal(data.x_train, arrays["x_train"].reshape(20, 6))
                np.testing.assert_array_equal(data.y_test, arrays["y_test"])


def member(shape: str, payload: bytes, descr: str = "'|u1'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload


@pytest.mark.parametrize(
    "content",
    [
        member("(1000000000000, 6)", b"few"),
        member("(50000000, 6)", b"few"),
        member("(20, 7)", bytes(120)),
        member("(20, 5)", bytes(120)),
        member("(-20, -6)", bytes(120)),
        member("(20, 6), 'x'", bytes(120)),
        member("__import__('os').getpid()", bytes(120)),
        member("(20, 6)", bytes(120), descr="'|u99999999999'"),
        member("(20, 6)", bytes(120), descr="'nonsense'"),
        b"\x93NUMPY\x03\x00" + member("(20, 6)", bytes(120))[8:],
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_a_member_whose_header_lies(tmp_path, content):
    path = write(tmp_path / "a.npz", x_train=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", content)
    tracemalloc.start()
    try:
        fails(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_the_machine(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz")
    monkeypatch.setattr(disk, "physical_memory", lambda: 99)
    fails(path, "99 bytes of memory")
