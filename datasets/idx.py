"""IDX files, the format of MNIST: big-endian arrays behind a header of a few bytes. MNIST, and folders in its layout.

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

from .arrays import Dataset, from_arrays
from .catalog import REGISTRY, RemoteFile
from .disk import BAD_GZIP, MAX_RATIO, check_fits, is_packed, open_unpacked, unreadable, wrong_checksum

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32
_CHUNK = 1 << 20
# Which part of the data set a file is, told by its name.
PARTS = {
    "x_train": "*train*images*",
    "y_train": "*train*labels*",
    "x_test": "*t10k*images* or *test*images*",
    "y_test": "*t10k*labels* or *test*labels*",
}


def load_mnist(folder: Path) -> Dataset:
    """Load MNIST: x (60000 and 10000, 784) uint8, shape (28, 28); DataError where files are missing."""
    entry = REGISTRY["mnist"]
    found = zip(entry.files, entry.located(folder), strict=True)
    arrays: dict[str, Any] = {part: read_idx(path, file) for file, path in found if (part := _part_of(path.name))}
    return from_arrays("mnist", **arrays, source=str(folder), numbered=True)


def load_idx(folder: Path) -> Dataset:
    """Load a folder with four IDX files, packed with gzip or not; their names say which is which, as PARTS has it.

    Samples may have any shape, and labels are numbered as `labels.distinct` does. Raises DataError, which lists
    what is missing and what was found.
    """
    found = by_part(folder)
    missing = [PARTS[part] for part, paths in found.items() if not paths]
    if missing:
        below = sorted(folder.iterdir())
        names = [path.name for path in below if _is_candidate(path)] + [
            f"{path.name}/" for path in below if path.is_dir()
        ]
        here = (", ".join(names[:8]) + (", …" if len(names) > 8 else "")) or "no files"
        if len(missing) < len(PARTS):
            raise DataError(f"{folder}: not a complete set of IDX files: missing {', '.join(missing)}; found {here}")
        raise DataError(
            f"{folder}: not a complete set of IDX files ({', '.join(missing)}), nor class folders of images "
            "(CLASS/*.png, *.jpg or *.webp, or the same in train/ and test/), nor train.csv and test.csv, nor .npy "
            f"files (X.npy and y.npy); found {here}"
        )
    arrays: dict[str, Any] = {part: read_idx(_only(part, paths, folder)) for part, paths in found.items()}
    return from_arrays(folder.resolve().name, **arrays, source=str(folder))


def by_part(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that could be each of PARTS, by their names. Raises OSError."""
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for path in sorted(folder.iterdir()):
        if (part := _part_of(path.name)) and _is_candidate(path):
            found[part].append(path)
    return found


def _part_of(name: str) -> str | None:
    name = name.lower()
    kind = "x" if "images" in name else "y" if "labels" in name else None
    split = "train" if "train" in name else "test" if "t10k" in name or "test" in name else None
    return f"{kind}_{split}" if kind and split else None


def _is_candidate(path: Path) -> bool:
    return not path.name.startswith(".") and not path.name.endswith(".part") and path.is_file()


def _only(part: str, paths: list[Path], folder: Path) -> Path:
    """The only file of a part. Packed and unpacked, it counts as one, and the packed file is taken."""
    if len({path.name.removesuffix(".gz") for path in paths}) > 1:
        raise DataError(
            f"{folder}: several files could be {PARTS[part]}: {', '.join(path.name for path in paths)}; "
            "give a folder with one data set"
        )
    return max(paths, key=lambda path: path.suffix == ".gz")


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
        raise unreadable(path, error) from None
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
