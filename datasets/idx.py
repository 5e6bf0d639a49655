"""IDX files, the format of MNIST: big-endian arrays behind a header of a few bytes.

    0, 0, type code, number of dimensions d | d sizes of 4 bytes | the payload, last dimension fastest

See http://yann.lecun.com/exdb/mnist/ ("the IDX file format"). The reader is strict: a file that is not
exactly what its header says is an error, and nothing is allocated because a header asks for it.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gpunet.errors import DataError

from .memory import check_fits
from .packed import BAD_GZIP, MAX_RATIO, is_packed, open_unpacked, wrong_checksum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .entries import RemoteFile

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32
_CHUNK = 1 << 20


def read_idx(path: str | Path, known: RemoteFile | None = None) -> NDArray[Any]:
    """Read an IDX file, packed with gzip or not, as a writable array of its own dtype in native byte order.

    known: what it should be; then content of that size must have that checksum, and other sizes are somebody's own.
    Raises DataError, naming the file, for a wrong magic number, an unknown type code, a payload shorter or
    longer than the header says, a corrupt gzip file, and sizes that the file or the machine cannot hold.
    """
    path = Path(path)
    try:
        packed = is_packed(path)
        with open_unpacked(path) as stream:
            dtype, shape, begin = _read_header(stream, path)
            size = math.prod(shape) * dtype.itemsize
            _check_size(path, packed, len(begin), size, shape)
            payload = _read_payload(stream, path, size)
    except BAD_GZIP as error:
        raise DataError(f"{path}: corrupt gzip file ({error}); fetch or copy it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if known and (wrong := wrong_checksum(known, begin, payload)):
        raise DataError(
            f"{path}: damaged, or another data set's: {wrong}; fetch it again, or give its folder as a path"
        )
    try:
        array = np.frombuffer(payload, dtype).reshape(shape)
    except ValueError:  # 0 samples of a shape that no array can have
        raise DataError(f"{path}: the IDX header says {_times(shape)}, beyond any array; it is damaged") from None
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], bytes]:
    """Dtype and shape, and the header itself."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: {len(magic)} bytes long; an IDX file begins with a header of at least 8")
    if magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: not an IDX file: it begins with {magic.hex(' ')}, expected 00 00, then the type "
            "code and the number of dimensions"
        )
    code, dimensions = magic[2], magic[3]
    if code not in DTYPES:
        known = ", ".join(f"0x{known:02x}" for known in DTYPES)
        raise DataError(
            f"{path}: unknown IDX type code 0x{code:02x} in the magic number {magic.hex(' ')}; expected one of {known}"
        )
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise DataError(f"{path}: the IDX header says {dimensions} dimensions; expected 1 to {_MAX_DIMENSIONS}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(
            f"{path}: truncated within the IDX header: {4 + len(sizes)} bytes, expected "
            f"{4 + 4 * dimensions} for {dimensions} dimensions"
        )
    return np.dtype(DTYPES[code]), struct.unpack(f">{dimensions}I", sizes), magic + sizes


def _check_size(path: Path, packed: bool, header: int, size: int, shape: tuple[int, ...]) -> None:
    """Hold the header's claim against the file's size before anything of that size is allocated."""
    on_disk = path.stat().st_size
    if packed and header + size > on_disk * MAX_RATIO:
        raise DataError(
            f"{path}: the IDX header says {_times(shape)}, {size:,} bytes, more than a gzip file of "
            f"{on_disk:,} bytes can hold; the header is damaged"
        )
    if not packed and header + size != on_disk:
        kind = "truncated" if on_disk < header + size else "too long"
        raise _wrong_length(path, kind, f"{on_disk - header:,}", size)
    check_fits(size, f"{path}: the IDX header says {_times(shape)}, which", on_disk if packed else None)


def _read_payload(stream: BinaryIO, path: Path, size: int) -> bytearray:
    payload = bytearray()
    while len(payload) < size:
        chunk = stream.read(min(_CHUNK, size - len(payload)))
        if not chunk:
            raise _wrong_length(path, "truncated", f"{len(payload):,}", size)
        payload += chunk
    if stream.read(1):  # reading to the end is also what makes gzip check its checksum
        raise _wrong_length(path, "too long", f"more than {size:,}", size)
    return payload


def _wrong_length(path: Path, kind: str, found: str, size: int) -> DataError:
    return DataError(f"{path}: {kind}: {found} bytes after the IDX header, expected {size:,}; fetch or copy it again")


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
