"""The CUDA kernels as functions on NumPy arrays: compiled by g++ behind host/shim.h, called as CuPy calls them.

    HostModule(code=source()).get_function("tick")((1,), (32,), (scalars,))

An argument that does not have exactly the type of the kernel's parameter is refused: CUDA would read its bytes as
something else. `running("shuffled", seed)` lets blocks and threads take turns in another order; with `edges` every
array is moved so that it ends where memory ends, and a read beyond it is an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HOST = Path(__file__).with_name("host")
CACHE = Path(__file__).parents[2] / ".pytest_cache" / "host-kernels"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-U_FORTIFY_SOURCE", "-Wl,-Bsymbolic")  # libc has an `advance`
KEPT = 8  # compiled sources
ORDERS = ("forward", "reversed", "shuffled")
NULL = np.uint64(0)
libc = ctypes.CDLL(None)
MARK = "struct kernels_begin_here;"

_order: list[tuple[int, int]] = [(0, 0)]
_edges: list[bool] = [False]


class HostKernelError(Exception):
    """A launch that CUDA would refuse or that would hang there."""


def why_not() -> str | None:
    """Why kernels cannot be compiled for the host, or None."""
    return None if shutil.which(COMPILER) else f"no C++ compiler: {COMPILER} is not on the path"


@contextlib.contextmanager
def running(order: str, seed: int = 0, edges: bool = False) -> Iterator[None]:
    """Let blocks and threads start and go on "forward", "reversed" or "shuffled" by `seed`; see above for `edges`."""
    _order.append((ORDERS.index(order), seed))
    _edges.append(edges)
    try:
        yield
    finally:
        _order.pop()
        _edges.pop()


class Edge:
    """A copy of an array whose last byte is the last before a page that nobody may touch."""

    def __init__(self, array: np.ndarray) -> None:
        self.original = array
        room = -(-max(1, array.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, room + mmap.PAGESIZE)
        whole = np.frombuffer(self.memory, np.uint8)
        self.bytes = whole[room - array.nbytes : room]
        self.bytes[:] = array.reshape(-1).view(np.uint8)
        self.protected = ctypes.c_void_p(whole.ctypes.data + room)
        libc.mprotect(self.protected, ctypes.c_size_t(mmap.PAGESIZE), 0)

    def end(self) -> None:
        """Copy what the kernel made of it back."""
        libc.mprotect(self.protected, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE)
        if self.original.flags.writeable:
            self.original.reshape(-1).view(np.uint8)[:] = self.bytes


@cache
def library(code: str) -> tuple[ctypes.PyDLL, frozenset[str]]:
    """`code` compiled, and the names of its kernels; kept on disk under the hash of everything that goes into it."""
    shim = "".join(path.read_text() for path in sorted(HOST.glob("*.h")))
    digest = hashlib.sha256("\0".join((*FLAGS, COMPILER, shim, code)).encode()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    built, listed = CACHE / f"{digest}.so", CACHE / f"{digest}.names"
    if not (built.exists() and listed.exists()):
        _build(code, built, listed)
        for old in sorted(CACHE.glob("*.so"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
            old.with_suffix(".names").unlink(missing_ok=True)
    return ctypes.PyDLL(str(built)), frozenset(listed.read_text().split())


def _build(code: str, built: Path, listed: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        source, made, names_file = (Path(folder) / name for name in ("kernels.cpp", "kernels.so", "names"))
        # Without a name for others to link with, all of shared memory may lie in one section.
        source.write_text(f'#include "runtime.h"\n{MARK}\nnamespace {{\n{code}\n}}\n')
        expanded = _compile("-E", "-P", str(source))
        names = re.findall(r'extern "C"\s+void\s+(\w+)\s*\(', expanded.partition(MARK)[2])
        with source.open("a") as text:
            text.writelines(f"ENTRY({name})\n" for name in names)
        _compile(str(source), "-o", str(made))
        names_file.write_text("\n".join(names))
        os.replace(made, built)
        os.replace(names_file, listed)


def _compile(*arguments: str) -> str:
    command = [COMPILER, *FLAGS, f"-I{HOST}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostKernelError(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout


class HostModule:
    """As cupy.RawModule, on NumPy arrays."""

    def __init__(self, code: str) -> None:
        self._library, self.names = library(code)

    def get_function(self, name: str) -> HostKernel:
        if name not in self.names:
            raise HostKernelError(f"there is no kernel {name!r}: named symbol not found")
        return HostKernel(name, self._library)


class HostKernel:
    """As cupy.RawKernel."""

    def __init__(self, name: str, compiled: ctypes.PyDLL) -> None:
        self.name = name
        signature, self._launch = compiled[f"signature_{name}"], compiled[f"launch_{name}"]
        signature.restype = self._launch.restype = ctypes.c_char_p
        self._launch.argtypes = (*[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_uint64)
        self.parameters = signature().decode().split()

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared_mem: int = 0
    ) -> None:
        sizes = [(ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
        if min(*grid, *block) < 1 or np.prod(block) > 1024 or max(grid[1:], default=1) > 65535:
            raise HostKernelError(f"{self.name}: CUDA refuses a grid of {grid} blocks of {block}")
        if len(args) != len(self.parameters):
            raise HostKernelError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        bits = [self._bits(i, code, arg) for i, (code, arg) in enumerate(zip(self.parameters, args, strict=True))]
        moved = {}
        if _edges[-1]:
            moved = {arg.ctypes.data: Edge(arg) for arg in args if isinstance(arg, np.ndarray)}
            bits = [
                ctypes.c_uint64(moved[arg.ctypes.data].bytes.ctypes.data) if isinstance(arg, np.ndarray) else own
                for arg, own in zip(args, bits, strict=True)
            ]
        places = (ctypes.c_void_p * len(bits))(*(ctypes.addressof(each) for each in bits))
        error = self._launch(places, *sizes, *_order[-1])
        for edge in moved.values():
            edge.end()
        if error:
            raise HostKernelError(f"{self.name}: {error.decode()}")

    def _bits(self, place: int, code: str, arg: Any) -> Any:
        """The argument's bytes: an address or a number."""
        if code.startswith("*") and isinstance(arg, np.ndarray):
            read_only = code.endswith("c")
            if not arg.flags.c_contiguous:
                raise HostKernelError(f"{self.name}: argument {place} has strides {arg.strides}, which kernels ignore")
            if not read_only and not arg.flags.writeable:
                raise HostKernelError(f"{self.name}: argument {place} is read-only")
            self._check(place, code.strip("*c"), arg.dtype)
            return ctypes.c_uint64(arg.ctypes.data)
        if not isinstance(arg, np.generic):
            raise HostKernelError(f"{self.name}: argument {place} is a {type(arg).__name__}, expected {code}")
        if not (code.startswith("*") and arg.dtype == np.uint64 and arg == 0):
            self._check(place, code, arg.dtype)
        return (ctypes.c_char * arg.dtype.itemsize).from_buffer_copy(arg.tobytes())

    def _check(self, place: int, code: str, dtype: np.dtype[Any]) -> None:
        given = f"{'u' if dtype.kind == 'b' else dtype.kind}{dtype.itemsize}"
        if given != code:
            raise HostKernelError(f"{self.name}: argument {place} is {dtype}, the kernel takes {code}")
