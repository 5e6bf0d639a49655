from __future__ import annotations

import contextlib
import gzip
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpunet.datasets import disk
from gpunet.datasets.idx import read_idx
from gpunet.errors import DataError

from .idx_writer import CODES, idx_bytes, write_idx

SAMPLE = np.arange(6, dtype=np.int16).reshape(2, 3) - 3


def one_line(error: pytest.ExceptionInfo[DataError], path: Path, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    for word in words:
        assert word in text


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(CODES)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4))
    ),
    st.sampled_from(["x", "x.gz"]),
)
def test_round_trip_of_every_dtype(array, name):
    with tempfile.TemporaryDirectory() as folder:
        read = read_idx(write_idx(Path(folder) / name, array))
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


def test_packing_is_told_by_content_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(idx_bytes(SAMPLE))
    (tmp_path / "packed").write_bytes(gzip.compress(idx_bytes(SAMPLE)))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_idx(path), SAMPLE)


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_anywhere(tmp_path, packed):
    content = idx_bytes(SAMPLE)
    content = gzip.compress(content) if packed else content
    path = tmp_path / "images"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError) as error:
            read_idx(path)
        one_line(error, path)


@pytest.mark.parametrize("kept", [4, 8, 12, 13, 23])
def test_truncated_content_in_a_sound_gzip_file(tmp_path, kept):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(SAMPLE)[:kept]))
    with pytest.raises(DataError, match="truncated") as error:
        read_idx(path)
    one_line(error, path, "expected")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("extra", [b"\0", b"x", b"\0" * 5000])
def test_trailing_bytes(tmp_path, packed, extra):
    content = idx_bytes(SAMPLE) + extra
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match="too long") as error:
        read_idx(path)
    one_line(error, path, "expected 12")


def test_garbage_after_the_gzip_member(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(SAMPLE)) + b"garbage")
    with pytest.raises(DataError, match="corrupt gzip") as error:
        read_idx(path)
    one_line(error, path)


def test_every_flipped_byte_of_a_gzip_file_is_noticed_or_harmless(tmp_path):
    content = gzip.compress(idx_bytes(SAMPLE), mtime=0)
    path = tmp_path / "images.gz"
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(read_idx(path), SAMPLE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("0 bytes",)),
        (b"\0\0\x08", ("3 bytes",)),
        (b"\x89PNG\r\n\x1a\n", ("89 50 4e 47", "expected 00 00")),
        (b"\0\x01\x08\x01\0\0\0\x01a", ("00 01 08 01",)),
        (b"\0\0\x0a\x01\0\0\0\x01a", ("0x0a", "0x08", "0x0e")),
        (b"\0\0\x08\0", ("0 dimensions", "expected 1")),
        (b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"a", ("255 dimensions",)),
        (b"\0\0\x08\x02\0\0\0\x01", ("within the IDX header", "8 bytes", "expected 12")),
    ],
)
def test_wrong_headers(tmp_path, content, words):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_idx(path)
    one_line(error, path, *words)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_an_array_of_that_size_or_a_data_error(content, dressed):
    content = b"\0\0" + content if dressed else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            array = read_idx(path)
            assert array.nbytes + 4 + 4 * array.ndim == len(content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", [(2**32 - 1,) * 3, (60000, 28, 28), (1000,)])
def test_absurd_sizes_are_not_allocated(tmp_path, packed, sizes):
    content = struct.pack(f">HBB{len(sizes)}I", 0, 0x0E, len(sizes), *sizes) + b"few"
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    one_line(error, path)


def test_a_gzip_bomb_is_not_unpacked_beyond_what_its_header_says(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10) + bytes(50_000_000), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="too long"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_the_machine(tmp_path, monkeypatch):
    path = write_idx(tmp_path / "images", np.zeros(1000, np.uint8))
    monkeypatch.setattr(disk, "physical_memory", lambda: 999)
    with pytest.raises(DataError, match="999 bytes of memory") as error:
        read_idx(path)
    one_line(error, path, "1,000 bytes")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(path)


def test_reading_takes_little_more_than_the_array(tmp_path):
    path = write_idx(tmp_path / "images.gz", np.zeros((5000, 1000), np.uint8))
    tracemalloc.start()
    try:
        read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000 * 1.2 + 2_500_000
    finally:
        tracemalloc.stop()
