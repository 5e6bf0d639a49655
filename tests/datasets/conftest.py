from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from gpunet.datasets import REGISTRY, Entry, RemoteFile

from .mirror import Mirror


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    """No proxy between us and loopback, and nobody's real data folder."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))


@pytest.fixture
def serve():
    """Start mirrors, and close them all at the end."""
    mirrors = []

    def start(*args, **kwargs) -> Mirror:
        mirrors.append(Mirror(*args, **kwargs))
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        mirror.close()


class Tiny:
    """A registered data set of two small files: their content, packed and not, and where they will lie."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.Generator(np.random.Philox(1))
        # Random bytes do not compress, so the packed file is long enough to be interrupted.
        self.plain = {"a-images.gz": rng.bytes(200_000), "b-labels.gz": rng.bytes(300)}
        self.packed = {name: gzip.compress(content, 1, mtime=0) for name, content in self.plain.items()}
        self.folder = folder
        self.a, self.b = folder / "a-images.gz", folder / "b-labels.gz"

    def there(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []

    def entry(self) -> Entry:
        files = tuple(
            RemoteFile(name, len(text), hashlib.sha256(text).hexdigest()) for name, text in self.plain.items()
        )
        return Entry("tiny", "for tests", files)


@pytest.fixture
def tiny(monkeypatch, tmp_path) -> Tiny:
    made = Tiny(tmp_path / "data" / "tiny")
    monkeypatch.setitem(REGISTRY, "tiny", made.entry())
    return made
