"""Files that may be packed with gzip or not, told apart by their first bytes and not by their names."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from .entries import RemoteFile

# Deflate cannot do better than about 1032 to 1 (zlib's technical details), which bounds what a file may
# unpack to.
MAX_RATIO = 1032
BAD_GZIP = (gzip.BadGzipFile, zlib.error, EOFError)
_CHUNK = 1 << 20


def is_packed(path: Path) -> bool:
    """Whether the file begins as a gzip file does."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


@contextmanager
def open_unpacked(path: Path) -> Iterator[BinaryIO]:
    """The unpacked content as a stream; reading may raise one of BAD_GZIP."""
    if is_packed(path):
        with gzip.open(path, "rb") as packed:
            yield cast(BinaryIO, packed)
    else:
        with path.open("rb") as plain:
            yield plain


def damage(path: Path, size: int, sha256: str | None, *, unpack: bool = True) -> str | None:
    """What is wrong with a file that should unpack to `size` bytes of this SHA-256; None if nothing.

    sha256 None: only the size is known; unpack False: size and SHA-256 are those of the file as it lies there. Never
    reads more than one chunk beyond `size`.
    """
    digest = hashlib.sha256(usedforsecurity=False)
    count = 0
    try:
        packed = unpack and is_packed(path)
        with open_unpacked(path) if packed else path.open("rb") as stream:
            while count <= size and (chunk := stream.read(_CHUNK)):
                if sha256:
                    digest.update(chunk)
                count += len(chunk)
    except EOFError:
        return f"truncated: unpacks to {count:,} bytes or little more, expected {size:,}"
    except BAD_GZIP as error:
        return f"not a sound gzip file: {error}"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if count != size:
        more = "more than " if count > size else ""
        return f"{'unpacks to' if packed else 'has'} {more}{min(count, size):,} bytes, expected {size:,}"
    return _differs(digest.hexdigest(), sha256)


def wrong_checksum(known: RemoteFile, *content: bytes | bytearray) -> str | None:
    """What is wrong with unpacked content that has the size of a known file; None where it has another one."""
    if known.sha256 is None or sum(map(len, content)) != known.size:
        return None
    digest = hashlib.sha256(usedforsecurity=False)
    for part in content:
        digest.update(part)
    return _differs(digest.hexdigest(), known.sha256)


def _differs(found: str, sha256: str | None) -> str | None:
    if sha256 is None or found == sha256:
        return None
    return f"SHA-256 is {found[:12]}…, expected {sha256[:12]}…"
