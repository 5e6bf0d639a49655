"""The wanted files out of a .tar.gz, and nothing else of it."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, BinaryIO

from gpunet.errors import FetchError
from gpunet.files import put_in_place, remove_abandoned, temporary

from .entries import RemoteFile
from .packed import damage
from .progress import Quiet

Part = tuple[str, BinaryIO]  # name and file
_CHUNK = 1 << 20
# What tarfile and gzip have been seen to raise on damaged archives; reading one that is sound raises none of them.
_BAD_ARCHIVE = (tarfile.TarError, zlib.error, EOFError, ValueError)


def unpack(archive: Path, files: Sequence[RemoteFile], folder: Path, report: Quiet) -> list[Path]:
    """Take `files` out of the archive into `folder`, and return their paths in the order of `files`.

    They get their names when all of them are there. What the archive says of a place, an owner or a mode is not
    followed: a member is looked for by its name and written to the file's own path. Raises FetchError where a member
    is missing, no plain file, or not of the size or checksum that the file has.
    """
    paths = [folder / file.path for file in files]
    try:
        with ExitStack() as open_files:
            parts: dict[RemoteFile, Part] = {}
            for file, path in zip(files, paths, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                remove_abandoned(f"{path}.part")  # as an older version left them
                parts[file] = open_files.enter_context(temporary(path))
            _extract(archive, parts)
            for file, path in zip(files, paths, strict=True):
                put_in_place(*parts[file], path)
    finally:
        for path in paths:
            with suppress(OSError):
                path.parent.rmdir()  # only if it is empty
    report.say(f"{archive.name.removesuffix('.part')}: {len(parts)} files unpacked")
    return paths


def _extract(archive: Path, parts: dict[RemoteFile, Part]) -> None:
    wanted = {file.path: file for file in parts}
    try:
        with tarfile.open(archive, "r|gz") as stream:
            for member in stream:
                file = wanted.get(member.name.removeprefix("./"))
                if file is None:
                    continue
                del wanted[file.path]  # of members of one name the first counts
                source = stream.extractfile(member) if member.isreg() else None
                if source is None or member.size != file.size:
                    raise _wrong(archive, f"{file.path} is not a file of {file.size:,} bytes")
                name, target = parts[file]
                _copy(source, target)
                if wrong := damage(Path(name), file.size, file.sha256):
                    raise _wrong(archive, f"{file.path}: {wrong}")
                if not wanted:
                    return
    except _BAD_ARCHIVE as error:
        raise _wrong(archive, f"cannot be unpacked: {error}") from None
    raise _wrong(archive, f"{', '.join(wanted)} missing")


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while chunk := source.read(_CHUNK):
        target.write(chunk)
    target.flush()


def _wrong(archive: Path, what: str) -> FetchError:
    return FetchError(f"{archive}: not the archive that was expected: {what}; delete it and fetch again")
