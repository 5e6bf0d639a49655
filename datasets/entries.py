"""What the registry says of a data set: its files, the archive they come in, where to get them, how to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.errors import DataError

from .location import VARIABLE

if TYPE_CHECKING:
    from .base import Dataset


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    path: where it lies in the data set's folder, and in its archive where it comes in one; size: bytes unpacked;
    sha256 and md5: of the unpacked content, None where nobody we can rely on tells them.
    """

    path: str
    size: int
    sha256: str | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's name on a mirror."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def variants(self) -> tuple[str, ...]:
        """The paths at which the file may lie, packed and unpacked, the preferred one first."""
        return (self.path, self.path.removesuffix(".gz")) if self.path.endswith(".gz") else (self.path,)

    def locate(self, folder: Path) -> Path | None:
        """The file in the data set's folder, packed or unpacked; None where it is missing."""
        candidates = (folder / variant for variant in self.variants)
        return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class Archive:
    """A .tar.gz that holds all files of a data set; size, sha256 and md5 are those of the archive as it is sent."""

    name: str
    size: int
    sha256: str
    md5: str


@dataclass(frozen=True)
class Entry:
    """A data set with a name.

    files: empty for data that is embedded in a package; mirrors: base addresses, each of which has every
    file, or the archive; load: reads the data set from its own folder.
    """

    name: str
    description: str
    load: Callable[[Path], Dataset]
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    archive: Archive | None = None

    @property
    def embedded(self) -> bool:
        """Whether the data comes with a package, so that there is nothing to fetch."""
        return not self.files

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(file.size for file in self.files)

    @property
    def checkable(self) -> bool:
        """Whether the checksum of every file is known."""
        return all(file.sha256 for file in self.files)

    def located(self, folder: Path) -> list[Path]:
        """All files in the data set's folder, in the order of `files`; DataError where some are missing."""
        found = {file.path: file.locate(folder) for file in self.files}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise self.not_there(folder, missing)
        return [path for path in found.values() if path]

    def not_there(self, folder: Path, missing: Iterable[str]) -> DataError:
        """The error for files that are missing from the data set's folder; it says how to get them."""
        return DataError(
            f"{self.name}: not in {folder}: {', '.join(missing)}; run `gpunet data fetch {self.name}`, set {VARIABLE} "
            f"to the folder that has {self.name}/, or use `--dataset digits`, which is always there"
        )
