"""The cache of compiled kernels: whatever happens to its files, the kernels are there and compute the same."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings

import pytest

from gpunet.backend import why_no_numba

if reason := why_no_numba():
    pytest.skip(reason, allow_module_level=True)

from gpunet.backend import numba_cache
from gpunet.backend.numba_cache import cached

SOURCE = "def twice(x):\n    return {} * x\n\ndef thrice(x):\n    return 3 * x\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where numba is told to keep its cache; nobody has been warned yet."""
    from numba.core import config

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(numba_cache, "_warned", [])
    return tmp_path / "cache"


@pytest.fixture
def fresh(tmp_path, folder, monkeypatch):
    """A kernel of a module that has just been imported, as in a new process."""
    import numba

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # by which a change within a second would not be seen

    def make(name="twice", factor="2"):
        path = tmp_path / "module.py"
        if not path.exists() or path.read_text() != SOURCE.format(factor):
            path.write_text(SOURCE.format(factor))
        spec = importlib.util.spec_from_file_location("module", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return cached(numba.njit(getattr(module, name)))

    return make


def hits(kernel) -> int:
    return sum(kernel.stats.cache_hits.values())


def kernels(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_each_signature_is_one_file(fresh, folder):
    first = fresh()
    assert (first(4), first(0.5)) == (8, 1.0)
    assert [path.suffix for path in kernels(folder)] == [".kernel", ".kernel"]
    second = fresh()
    assert (second(4), second(0.5), hits(second)) == (8, 1.0, 2)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "short": lambda content: content[:10],
    "garbage": lambda content: b"\x80\x04" + bytes(range(256)) * 40,
    "a bit": lambda content: content[:-600] + bytes([content[-600] ^ 1]) + content[-599:],
    "longer": lambda content: content + b"\0",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_compiled_again(fresh, folder, kind):
    fresh()(4)
    (path,) = kernels(folder)
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    again = fresh()
    assert (again(4), hits(again)) == (8, 0)
    mended = fresh()
    assert (mended(4), hits(mended)) == (8, 1)
    assert kernels(folder) == [path]


def test_another_kernels_file_and_an_older_codes_are_not_taken(fresh, folder):
    fresh()(4)
    (path,) = kernels(folder)
    old = path.read_bytes()
    changed = fresh(factor="5")
    assert (changed(4), hits(changed)) == (20, 0)
    assert kernels(folder) == [path]  # overwritten
    path.write_bytes(old)
    assert fresh(factor="5")(4) == 20
    other = fresh("thrice", "5")
    other(4)
    (third,) = set(kernels(folder)) - {path}
    third.write_bytes(path.read_bytes())
    again = fresh("thrice", "5")
    assert (again(4), hits(again)) == (12, 0)


@pytest.mark.parametrize("kind", ["full", "folder in its place", "no folder", "vanished"])
def test_a_cache_that_cannot_be_written_is_one_warning(fresh, folder, tmp_path, monkeypatch, kind):
    from numba.core import caching

    if kind == "full":
        monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    elif kind == "folder in its place":
        fresh()(4)
        (path,) = kernels(folder)
        path.unlink()
        path.mkdir()
    elif kind == "no folder":
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    twice, thrice = fresh(), fresh("thrice")
    if kind == "vanished":  # and cannot be made again
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
        folder.write_text("")
    with pytest.warns(RuntimeWarning, match=r"kernels cannot be cached: .*NUMBA_CACHE_DIR") as said:
        assert twice(4) == 8
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (twice(0.5), thrice(4)) == (1.0, 12)
    assert not list(tmp_path.rglob("*.part"))


def test_without_compiling_there_is_no_cache():
    def plain(x):
        return x

    assert cached(plain) is plain


def test_all_kernels_are_forgotten_when_asked(fresh, folder):
    kernel = fresh()
    kernel(4)
    kernel.recompile()
    assert (kernel(4), len(kernels(folder))) == (8, 1)
